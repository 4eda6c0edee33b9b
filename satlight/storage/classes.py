"""Class paths that a router folder may name, and objects as ``class_path`` and ``init_args``."""

from __future__ import annotations

import inspect
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError

ENTRY_POINT_GROUP, BASELINE_GROUP = "satlight.components", "satlight.baselines"
"""Installed packages name their modules here, so that router folders may use the classes in them."""


class Configured:
    """Remember the arguments that an object is built with, so that it can be described and built again.

    A subclass needs a constructor with named parameters; their values must be JSON scalars, lists,
    dictionaries, dataclasses, or other ``Configured`` objects.

    Example:
        >>> class Box(Configured):
        ...     def __init__(self, size: int, name: str = "box") -> None: ...
        >>> Box(3).init_args
        {'size': 3, 'name': 'box'}
    """

    init_args: dict[str, Any]
    not_stored: tuple[str, ...] = ()
    """Arguments that a stored object does without, e.g. those for training only."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        self = super().__new__(cls)
        try:
            bound = inspect.signature(cls.__init__).bind(self, *args, **kwargs)
        except TypeError:  # a copy, or a call that __init__ is about to refuse
            return self
        bound.apply_defaults()
        named = dict(list(bound.arguments.items())[1:])
        for parameter in inspect.signature(cls.__init__).parameters.values():
            if parameter.kind is parameter.VAR_KEYWORD:
                named |= named.pop(parameter.name, {})
        self.__dict__["init_args"] = named
        return self

    def stored_args(self, folder: Path, name: str) -> dict[str, Any]:
        """Write what belongs to this object into files, and return the arguments that then replace its own.

        Args:
            folder: The router folder being written.
            name: Name for a file or subfolder of this object's.

        Returns:
            Arguments by name; a :class:`Path` below ``folder`` is stored relative to it.
        """
        return {}


def class_path(cls: type) -> str:
    """Return the import path of a class, by the package that exports it if there is one.

    Raises:
        SatlightError: A class that cannot be imported again, e.g. one defined inside a function.
    """
    if "." in cls.__qualname__ or cls.__module__ == "__main__":
        raise SatlightError(
            f"{cls.__qualname__} cannot be stored in a router folder: it is defined in a function, class "
            "or script. Move it to the top level of a module that can be imported"
        )
    packages = cls.__module__.split(".")
    for length in range(1, len(packages)):  # files move, public names stay
        public = ".".join(packages[:length])
        if getattr(sys.modules.get(public), cls.__name__, None) is cls:
            return f"{public}.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def import_class(path: Any, allow: Sequence[str], where: str) -> type:
    """Import a class that a router folder names, if it is allowed to.

    Args:
        path: Import path, e.g. ``satlight.modules.model_sat.ModelSAT``.
        allow: Modules that are allowed besides satlight and those of entry points.
        where: File, for messages.

    Raises:
        SatlightError: A path that is not allowed, or no class there.
    """
    groups = (ENTRY_POINT_GROUP, BASELINE_GROUP)
    registered = [point.value.partition(":")[0] for group in groups for point in entry_points(group=group)]
    allowed = ["satlight", *registered, *allow]
    module, _, name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    known = any(module == prefix or module.startswith(f"{prefix}.") for prefix in allowed)
    if not known or "__main__" in module.split("."):
        raise SatlightError(
            f"{where}: class_path is {path!r}; allowed are classes of {', '.join(allowed)}. If you trust it, pass its "
            f"module with allow=[...] (--allow), or register it under the entry point group '{ENTRY_POINT_GROUP}'"
        )
    try:
        cls = getattr(import_module(module), name)
    except Exception as error:  # whatever a module of the user's raises
        raise SatlightError(
            f"{where}: class_path {path!r} cannot be imported: {error}. Install its package in the version "
            "that exported the router, or put it on PYTHONPATH"
        ) from error
    if not isinstance(cls, type) or not (issubclass(cls, Configured) or is_dataclass(cls)):
        raise SatlightError(
            f"{where}: {path!r} is no class that a router folder can hold; allowed are routers, modules and dataclasses"
        )
    return cls


def describe(value: Any, folder: Path, name: str = "") -> Any:
    """Return a value as JSON; objects become ``{"class_path": …, "init_args": …}``.

    Args:
        value: What to describe.
        folder: The router folder being written.
        name: Name of the value, for messages and for files of its own.

    Raises:
        SatlightError: A value that has no such description.
    """
    args = None
    if isinstance(value, Configured):
        args = {key: arg for key, arg in value.init_args.items() if key not in value.not_stored}
        args |= _stored_args(value, folder, name or "module")
    elif is_dataclass(value) and not isinstance(value, type):
        args = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
    if args is not None:
        return {
            "class_path": class_path(type(value)),
            "init_args": {key: describe(arg, folder, key) for key, arg in args.items()},
        }
    if isinstance(value, Path):
        return {"path": value.relative_to(folder).as_posix()}
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, list | tuple):
        return [describe(item, folder, name) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: describe(item, folder, key) for key, item in value.items()}
    raise SatlightError(
        f"The argument {name!r} is a {type(value).__name__} ({value!r:.80}), which a router folder cannot "
        "hold; allowed are numbers, texts, lists, dictionaries, dataclasses and satlight's own parts"
    )


def _stored_args(value: Configured, folder: Path, name: str) -> dict[str, Any]:
    """Store the files of an object, and return those of the arguments for them that its constructor takes."""
    names = (name if i == 1 else f"{name}_{i}" for i in itertools.count(1))
    stored = value.stored_args(folder, next(free for free in names if not (folder / free).exists()))
    parameters = inspect.signature(type(value)).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return stored
    for key, arg in stored.items():
        if key not in parameters and isinstance(arg, Path):
            raise SatlightError(
                f"{type(value).__name__} cannot be stored in a router folder: its constructor takes "
                f"{', '.join(parameters) or 'nothing'}, but not {key!r}, the folder of its weights. Add it"
            )
    return {key: arg for key, arg in stored.items() if key in parameters}


def build(content: Any, folder: Path, allow: Sequence[str], where: str) -> Any:
    """Build what :func:`describe` described.

    Args:
        content: JSON.
        folder: The router folder.
        allow: See :func:`import_class`.
        where: File, for messages.

    Raises:
        SatlightError: A class that is not allowed, arguments that it does not take, a path that leaves the folder.
    """
    if isinstance(content, list):
        return [build(item, folder, allow, where) for item in content]
    if not isinstance(content, dict):
        return content
    if set(content) == {"path"}:
        return str(inside(folder, content["path"], where))
    if "class_path" not in content:
        return {key: build(item, folder, allow, where) for key, item in content.items()}
    cls = import_class(content["class_path"], allow, where)
    args = content.get("init_args")
    if not isinstance(args, dict):
        raise SatlightError(
            f"{where}: init_args of {content['class_path']} is {args!r:.80}; allowed is an object with the "
            "arguments by name"
        )
    for name in getattr(cls, "stored_folders", ()):
        if not (isinstance(args.get(name), dict) and set(args[name]) == {"path"}):
            raise SatlightError(
                f"{where}: {name} of {content['class_path']} is {args.get(name)!r:.80}; allowed is a folder "
                'below this one, {"path": ...}'
            )
    return call(cls, {key: build(arg, folder, allow, where) for key, arg in args.items()}, where)


def call(make: Callable[..., Any], args: Mapping[str, Any], where: str) -> Any:
    """Call a class with named arguments; those that it does not take are named with the file."""
    name = getattr(make, "__name__", str(make))
    try:
        inspect.signature(make).bind(**args)
    except TypeError as error:
        allowed = ", ".join(inspect.signature(make).parameters)
        raise SatlightError(f"{where}: {name}: {error}; it takes {allowed}") from error
    try:
        return make(**args)
    except Exception as error:  # whatever a class of the user's raises
        raise SatlightError(
            f"{where}: {name} cannot be built as described there: {error}. Export the router again"
        ) from error


def inside(folder: Path, path: Any, where: str) -> Path:
    """Return a path below ``folder``; one that leaves it is refused."""
    root = folder.resolve()
    target = (root / path).resolve() if isinstance(path, str) else root
    if target == root or not target.is_relative_to(root):
        raise SatlightError(f"{where}: the path {path!r} leaves the router folder; allowed are paths below it")
    if not target.exists():
        raise SatlightError(f"{where} names {folder / path}, which does not exist. Export the router again")
    return folder / path
