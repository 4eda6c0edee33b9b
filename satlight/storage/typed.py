"""JSON as values of annotated types."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def typed(kind: Any, value: Any, name: str) -> Any:
    """Check JSON against a type; objects become dataclasses, and lists tuples where the type says so.

    Args:
        kind: A dataclass, a JSON scalar type, ``tuple[X, ...]``, ``list[X]``, ``dict[str, X]``,
            ``Literal``, ``Any``, or an optional one of these.
        value: JSON.
        name: Name of the value, for messages.

    Raises:
        TypeError: Another type, a number that is not finite, or a key that is missing or unknown.

    Example:
        >>> typed(tuple[int, ...], [1, 2], "shots")
        (1, 2)
    """
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in options:
            return None
        (kind,) = (option for option in options if option is not NoneType)
        return typed(kind, value, name)
    if origin is tuple and isinstance(value, list):
        return tuple(typed(options[0], item, f"{name}[{i}]") for i, item in enumerate(value))
    if kind is Any:
        return value
    if origin is list and isinstance(value, list):
        return [typed(options[0], item, f"{name}[{i}]") for i, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {key: typed(options[1], item, f"{name}.{key}") for key, item in value.items()}
    if is_dataclass(kind) and isinstance(value, dict):
        return _dataclass(kind, value, name)
    good = {
        Literal: lambda: value in options,
        bool: lambda: isinstance(value, bool),
        str: lambda: isinstance(value, str),
        int: lambda: isinstance(value, int) and not isinstance(value, bool),
        float: lambda: isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e300,
    }.get(origin or kind)
    if good is None or not good():
        raise TypeError(f"{name} is {value!r:.80}; allowed: {getattr(kind, '__name__', kind)} {options or ''}")
    return value


def _dataclass(kind: Any, value: dict[str, Any], name: str) -> Any:
    hints = get_type_hints(kind)
    allowed = {field.name: field for field in fields(kind)}
    needed = {k for k, f in allowed.items() if f.default is MISSING and f.default_factory is MISSING}
    if wrong := sorted(set(value) - set(allowed)) or sorted(needed - set(value)):
        raise TypeError(f"{name} has unknown or lacks needed keys: {', '.join(wrong)}")
    return kind(**{key: typed(hints[key], item, f"{name}.{key}") for key, item in value.items()})
