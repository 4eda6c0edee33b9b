"""The router folder: written whole or not at all, read with a clear error for whatever is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from satlight.errors import SatlightError
from satlight.files import atomic_path, read_json
from satlight.storage.typed import typed
from satlight.types import Candidate

FORMAT, FORMAT_1 = "satlight-router/2", "satlight-router/1"
CONFIG, ZOO, APTITUDE, WEIGHTS, CARD = ("config.json", "zoo.json", "aptitude.json", "router.safetensors", "README.md")
PICKLES = {".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz"}
"""Suffixes of files that may hold a pickle; a router folder with one is refused."""

AGAIN = "Export the router again, or copy its folder again"
ADVICE = "--router takes a folder that `fit`, `satlight export` or Router.save wrote"
UNSOUND = (
    *(LookupError, TypeError, ValueError, ArithmeticError, AttributeError),
    *(RuntimeError, OSError, SafetensorError),
)


@contextmanager
def writing(folder: Path | str) -> Iterator[Path]:
    """Yield a new folder that takes the place of ``folder`` when it is complete.

    Raises:
        SatlightError: It cannot be written; an existing folder is then as it was.
    """
    try:
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            yield temporary
    except (OSError, SafetensorError) as error:
        raise SatlightError(
            f"cannot write {folder}: {error}. Nothing half-written was kept; make room there, or choose another folder"
        ) from error


@contextmanager
def sound(path: Path) -> Iterator[None]:
    """Name the file that is missing or damaged, or does not fit the others."""
    try:
        yield
    except SatlightError as error:
        if str(path.parent) in str(error):
            raise
        raise SatlightError(f"{path}: {error}. {AGAIN}") from error
    except UNSOUND as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else error
        raise SatlightError(
            f"{path} is missing, damaged, or does not fit the rest of its folder ({what}). {AGAIN}"
        ) from error


def read_config(folder: Path) -> dict[str, Any]:
    """Read config.json after a look at the folder: it must exist and hold no pickle.

    Raises:
        SatlightError: No router folder, or a file in it that may hold a pickle.
    """
    if not folder.is_dir():
        raise SatlightError(f"{folder} does not exist or is no folder; {ADVICE}")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICKLES:
            raise SatlightError(
                f"{path} may hold a pickle, which could run code; a router folder has JSON, safetensors and "
                "tokenizer files only. Remove it if it does not belong there"
            )
    config = read_json(folder / CONFIG, ADVICE)
    if not isinstance(config, dict) or not isinstance(config.get("format"), str):
        raise SatlightError(f"{folder / CONFIG} is no configuration of a router; {ADVICE}")
    return config


def write_json(path: Path, content: Any) -> None:
    """Write JSON into a folder that is being written."""
    path.write_text(json_text(content), encoding="utf-8")


def json_text(content: Any) -> str:
    """Return JSON as the files of a router folder hold it."""
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def save_arrays(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays as router.safetensors."""
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / WEIGHTS)


def load_arrays(folder: Path) -> dict[str, np.ndarray]:
    """Read router.safetensors.

    Raises:
        SatlightError: Missing or damaged, or values that are not finite.
    """
    with sound(folder / WEIGHTS):
        arrays = load_file(folder / WEIGHTS)
    for name, array in arrays.items():
        check_finite(array, name, folder / WEIGHTS)
    return arrays


def check_finite(array: np.ndarray, name: str, path: Path) -> None:
    """Refuse NaN and infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise SatlightError(
            f"{path}: {name} has values that are not finite (NaN or infinity); the router diverged in "
            "training or the file is damaged. Export another checkpoint"
        )


def read_zoo(folder: Path) -> tuple[Candidate, ...]:
    """Read the candidates from zoo.json.

    Raises:
        SatlightError: Missing or damaged, no candidate, or a name twice.
    """
    content = read_json(folder / ZOO, ADVICE)
    with sound(folder / ZOO):
        if not isinstance(content, list) or not content:
            raise SatlightError(f"{folder / ZOO} must be a list of at least one candidate. {AGAIN}")
        # Format 1 kept the capability of each candidate here.
        entries = [entry.get("candidate", entry) for entry in content]
        candidates = tuple(typed(Candidate, entry, f"candidate {i}") for i, entry in enumerate(entries))
    names = [candidate.model_id for candidate in candidates]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SatlightError(f"{folder / ZOO} names {twice} more than once. {AGAIN}")
    return candidates


def upgraded(folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return config.json with the keys of this format; ``format`` stays as it is.

    Raises:
        SatlightError: A format that this version does not read.
    """
    where = folder / CONFIG
    if config["format"] == FORMAT_1:
        with sound(where):
            return _from_format_1(config)
    if config["format"] != FORMAT:
        raise SatlightError(f"{where}: format is {config['format']!r}; this version reads {FORMAT!r} and {FORMAT_1!r}")
    for key, kind in {"class_path": str, "init_args": dict, "calibration": dict, "about": dict}.items():
        if not isinstance(config.get(key), kind):
            raise SatlightError(f"{where}: {key} is {config.get(key)!r:.80}, not a {kind.__name__}. {AGAIN}")
    return config


def _from_format_1(config: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the closed format of satlight 0.1, which listed the arguments of three classes."""

    def part(name: str, path: str, args: Mapping[str, Any]) -> dict[str, Any]:
        return {"class_path": path, "init_args": {"backbone": {"path": name}, **args}}

    encoder = config["encoder"] and part("encoder", "satlight.modules.CapabilityEncoder", config["encoder"])
    llm = config["router_llm"] and part("router_llm", "satlight.modules.RouterLLM", config["router_llm"])
    module = llm or encoder
    if config.get("module") == "ModelSAT":
        options = ("perturbations", "task_attention", "two_towers", "instruction_vector")
        projector = {"class_path": "satlight.modules.Projector", "init_args": config["projector"]}
        args = {"router_llm": llm, "encoder": encoder, "projector": projector if encoder else None}
        args |= {name: config[name] for name in options if name in config}
        module = {"class_path": "satlight.modules.ModelSAT", "init_args": args}
    return {
        "format": FORMAT_1,
        "class_path": "satlight.routing.CapabilityRouter",
        "init_args": {"module": module},
        "calibration": {"temperature": 1.0, "bias": 0.0} | config.get("calibration", {}),
        "about": config.get("about") or {},
    }
