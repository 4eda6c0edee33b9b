"""Learned attributes as a JSON tree plus named arrays; reading them back runs no code of the folder.

Every JSON object in the tree has a key ``"@"`` that names its kind, e.g.
``{"@": "array", "name": "_mean_GM"}``; scalars and lists stand for themselves.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satlight.errors import SatlightError
from satlight.storage import estimators
from satlight.storage.classes import Configured, build, class_path, describe, import_class

ADVICE = (
    "A router folder holds numbers, texts, lists, tuples, dictionaries, dataclasses, numpy arrays, sparse "
    "matrices, torch tensors, the scikit-learn estimators of satlight.storage.estimators, and objects or "
    "torch modules of a class that inherits satlight.storage.classes.Configured. Keep what was learned as "
    "one of these, or override `learned` (what is kept) or `write` and `restore` (how)"
)

KINDS = (
    *("float", "number", "dtype", "tuple", "dict", "pairs", "texts", "array", "tensor", "csr", "tree"),
    *("estimator", "dataclass", "configured", "module"),
)
"""Kinds of values in a tree."""


@dataclass
class Packer:
    """Turn learned attributes into a JSON tree; see :meth:`pack`.

    Args:
        folder: The router folder being written, for files of Configured objects such as embedders.
        owner: Name of the object whose attributes these are, for messages.
        arrays: Arrays by name, filled by :meth:`pack`.

    Example:
        >>> packer = Packer(Path("."), "Mean")
        >>> packer.pack({"mean": np.array([0.5]), "k": 3}, "")
        {'@': 'dict', 'items': {'mean': {'@': 'array', 'name': 'mean'}, 'k': 3}}
        >>> Unpacker(packer.arrays, Path("."), (), "state.json").unpack(packer.pack((1, "a"), ""))
        (1, 'a')
    """

    folder: Path
    owner: str
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def pack(self, value: Any, name: str) -> Any:
        """Return ``value`` as JSON and put its arrays into :attr:`arrays`.

        Args:
            value: A learned attribute, or a dictionary of them.
            name: Its path below the owner, e.g. ``"_parts.0"``; names arrays and files.

        Raises:
            SatlightError: A value that cannot be stored; names the attribute and its type.
        """
        if value is None or type(value) in (bool, int, str):
            return value
        if type(value) is float:
            return value if math.isfinite(value) else {"@": "float", "value": str(value)}
        if isinstance(value, np.str_):
            return str(value)
        if isinstance(value, np.bool_ | np.integer | np.floating):
            return {"@": "number", "dtype": value.dtype.name, "value": self.pack(value.item(), name)}
        if isinstance(value, type) and issubclass(value, np.number | np.bool_):
            return {"@": "dtype", "name": np.dtype(value).name}
        if isinstance(value, list | tuple) and type(value) in (list, tuple):
            items = [self.pack(item, _join(name, str(place))) for place, item in enumerate(value)]
            return items if isinstance(value, list) else {"@": "tuple", "items": items}
        if type(value) is dict:
            return self._dict(value, name)
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        return self._object(value, name)

    def _dict(self, value: dict[Any, Any], name: str) -> dict[str, Any]:
        if all(type(key) is str for key in value):
            items = {key: self.pack(item, _join(name, key)) for key, item in value.items()}
            return {"@": "dict", "items": items}
        pairs = [
            [self.pack(key, _join(name, str(place))), self.pack(item, _join(name, str(place), "value"))]
            for place, (key, item) in enumerate(value.items())
        ]
        return {"@": "pairs", "items": pairs}

    def _array(self, value: np.ndarray, name: str) -> dict[str, Any]:
        if value.dtype.kind == "U":
            return {"@": "texts", "dtype": value.dtype.str, "items": value.tolist()}
        if value.dtype.kind not in "biuf" or value.dtype.itemsize > 8:
            raise self._cannot(value, name, f"an array of {value.dtype}")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise self._cannot(value, name, "an array with values that are not finite (NaN or infinity)")
        # Products of matrices may differ in the last bit when the order in memory does.
        by_column = value.flags.f_contiguous and not value.flags.c_contiguous
        self.arrays[name] = np.ascontiguousarray(value.T if by_column else value)  # of at least one dimension
        content = {"@": "array", "name": name}
        if value.ndim == 0:
            return content | {"kind": "scalar"}
        return content | {"kind": "by column"} if by_column else content

    def _object(self, value: Any, name: str) -> dict[str, Any]:
        if _is_torch(value, "Tensor"):
            if value.dtype.is_complex or str(value.dtype) == "torch.bfloat16":
                raise self._cannot(value, name, f"a tensor of {value.dtype}")
            return {"@": "tensor", "array": self._array(value.detach().cpu().numpy(), name)}
        if type(value).__module__.startswith("scipy.sparse") and value.format == "csr":
            parts = {key: self._array(getattr(value, key), _join(name, key)) for key in ("data", "indices", "indptr")}
            return {"@": "csr", "shape": list(value.shape), **parts}
        if estimators.is_tree(value):
            return {**self._dict(estimators.tree_parts(value), name), "@": "tree"}
        if path := estimators.path_of(value):
            params, fitted = estimators.parts(value)
            return {
                "@": "estimator",
                "class_path": path,
                "params": self.pack(params, _join(name, "params")),
                "fitted": self.pack(fitted, name),
            }
        if isinstance(value, Configured):
            has_files = type(value).stored_args is not Configured.stored_args
            by_tensors = _is_torch(value, "Module") and not has_files
            return self._module(value, name) if by_tensors else self._configured(value, name)
        if is_dataclass(value) and not isinstance(value, type):
            items = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
            return {"@": "dataclass", "class_path": class_path(type(value)), "fields": self.pack(items, name)}
        raise self._cannot(value, name, f"a {type(value).__name__}")

    def _configured(self, value: Configured, name: str) -> dict[str, Any]:
        """Describe by class and arguments, and by what its method ``learned`` returns, if it has one."""
        content = {"@": "configured", **describe(value, self.folder, name.strip("_") or "part")}
        learned = getattr(value, "learned", None)
        return content | ({"state": self.pack(learned(), name)} if callable(learned) else {})

    def _module(self, value: Any, name: str, *, whole: bool = True) -> dict[str, Any]:
        """Describe by class and arguments, and the outermost module by its tensors too."""
        args = {
            key: self._module(arg, _join(name, key), whole=False)
            if _is_torch(arg, "Module") and isinstance(arg, Configured)
            else self.pack(arg, _join(name, key))
            for key, arg in value.init_args.items()
            if key not in value.not_stored
        }
        content = {"@": "module", "class_path": class_path(type(value)), "args": args}
        if whole:
            state = value.state_dict()
            content["state"] = {key: self.pack(tensor, _join(name, key)) for key, tensor in state.items()}
        return content

    def _cannot(self, value: Any, name: str, what: str) -> SatlightError:
        shown = "" if isinstance(value, np.ndarray) else f" ({value!r:.80})"
        return SatlightError(f"{self.owner} cannot be stored: its attribute '{name}' is {what}{shown}. {ADVICE}")


@dataclass
class Unpacker:
    """Rebuild what :class:`Packer` packed; only allowed classes are imported.

    Args:
        arrays: Arrays by name, checked to be finite by :func:`satlight.storage.folder.load_arrays`.
        folder: The router folder.
        allow: See :func:`satlight.storage.classes.import_class`.
        where: File of the tree, for messages.
    """

    arrays: Mapping[str, np.ndarray]
    folder: Path
    allow: Sequence[str]
    where: str

    def unpack(self, content: Any) -> Any:
        """Return the value.

        Raises:
            SatlightError: An unknown kind, a class that is not allowed.
            KeyError, TypeError, ValueError: Content that is damaged.
        """
        if isinstance(content, list):
            return [self.unpack(item) for item in content]
        if not isinstance(content, dict):
            return content
        match content["@"]:
            case "float":
                return float(content["value"])
            case "number":
                return np.dtype(content["dtype"]).type(self.unpack(content["value"]))
            case "dtype":
                return np.dtype(content["name"]).type
            case "tuple":
                return tuple(map(self.unpack, content["items"]))
            case "pairs":
                return {self.unpack(key): self.unpack(item) for key, item in content["items"]}
            case "texts":
                return np.array(content["items"], dtype=content["dtype"])
            case "tree":
                return estimators.build_tree(self._dict(content))
            case kind if kind in KINDS:
                return getattr(self, f"_{kind}")(content)
            case kind:
                raise SatlightError(f"{self.where}: the kind {kind!r} is unknown; allowed are {', '.join(KINDS)}")

    def _dict(self, content: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self.unpack(item) for key, item in content["items"].items()}

    def _array(self, content: Mapping[str, Any]) -> np.ndarray:
        array = np.array(self.arrays[content["name"]])  # a copy that may be written to
        kind = content.get("kind")
        return array.T if kind == "by column" else array.reshape(()) if kind == "scalar" else array

    def _tensor(self, content: Mapping[str, Any]) -> Any:
        import torch

        return torch.from_numpy(np.asarray(self.unpack(content["array"])))

    def _csr(self, content: Mapping[str, Any]) -> Any:
        from scipy.sparse import csr_matrix

        parts = [self.unpack(content[key]) for key in ("data", "indices", "indptr")]
        matrix = csr_matrix(tuple(parts), shape=tuple(content["shape"]))
        matrix.check_format(full_check=True)  # indices outside of the shape would be read from elsewhere
        return matrix

    def _estimator(self, content: Mapping[str, Any]) -> Any:
        params, fitted = self.unpack(content["params"]), self.unpack(content["fitted"])
        return estimators.build(content["class_path"], params, fitted, self.where)

    def _dataclass(self, content: Mapping[str, Any]) -> Any:
        cls = import_class(content["class_path"], self.allow, self.where)
        return cls(**self.unpack(content["fields"]))

    def _configured(self, content: Mapping[str, Any]) -> Any:
        described = {key: content[key] for key in ("class_path", "init_args")}
        value = build(described, self.folder, self.allow, self.where)
        if "state" in content:
            value.relearn(self.unpack(content["state"]))
        return value

    def _module(self, content: Mapping[str, Any]) -> Any:
        import torch

        cls = import_class(content["class_path"], self.allow, self.where)
        args = {key: self.unpack(arg) for key, arg in content["args"].items()}
        with torch.random.fork_rng(devices=[]):  # building draws weights, which the stored ones replace
            module = cls(**args)
        if "state" in content:
            module.load_state_dict({key: self.unpack(item) for key, item in content["state"].items()})
        return module.eval()


def _join(*names: str) -> str:
    return ".".join(name for name in names if name)


def _is_torch(value: Any, name: str) -> bool:
    """Tell torch objects without importing torch, which what holds none of them can do without."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    return isinstance(value, torch.Tensor if name == "Tensor" else torch.nn.Module)
