"""Checkpoints: read without running what is in them, written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from satlight.errors import SatlightError
from satlight.files import atomic_path, unwritable


def read_checkpoint(path: Path | str, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint that ``fit`` wrote: tensors and plain values only, no pickled code.

    No option and no environment variable turns this restriction off.

    Args:
        path: The file.
        map_location: Where to put the tensors, as for ``torch.load``.

    Raises:
        SatlightError: The file cannot be read, is damaged, holds anything else than tensors and plain values, or
            weights that are not finite.
    """
    path = Path(path).expanduser()
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except OSError as error:
        raise SatlightError(f"{path} cannot be read ({error.strerror or error}); give a checkpoint file") from error
    except Exception as error:  # what a damaged or hostile pickle raises is arbitrary
        raise _refused(path) from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    sections = [content.get(key, {}) for key in ("callbacks", "loops")] if isinstance(content, dict) else []
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise _refused(path)
    if not all(isinstance(section, dict) for section in sections):
        raise _refused(path)
    for name, value in state.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not value.isfinite().all():
            raise SatlightError(
                f"{path}: {name} has values that are not finite (NaN or infinity); the training diverged or the file "
                "is damaged. Give another checkpoint, or train with a smaller learning rate"
            )
    return content


def _refused(path: Path) -> SatlightError:
    return SatlightError(
        f"{path} is damaged, or is not a checkpoint that `fit` of satlight wrote; nothing in it was run. Give "
        "another one, e.g. runs/full/1/checkpoints/best.ckpt"
    )


def write_checkpoint(content: dict[str, Any], path: Path | str) -> None:
    """Write a checkpoint next to ``path``, wait until it is on disk, then rename it.

    Raises:
        SatlightError: The disk is full or the folder is not writable; an existing checkpoint is as it was.
    """
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)
    except OSError as error:
        raise unwritable(path, error) from error
    except RuntimeError as error:  # the writer of torch hides the error of the system
        if isinstance(cause := error.__context__, OSError):
            raise unwritable(path, cause) from error
        raise


def relocate(content: dict[str, Any], folder: Path) -> None:
    """Adapt what the callbacks of a checkpoint remember to a run folder that was moved, in place.

    Without this, ModelCheckpoint forgets the best score after a move, and a worse checkpoint replaces the best.
    If the best file is gone, its score is forgotten as well.

    Args:
        content: A checkpoint.
        folder: The folder that the checkpoint is read from.
    """
    for state in content.get("callbacks", {}).values():
        if not isinstance(state, dict) or "best_model_path" not in state or not state.get("dirpath"):
            continue
        if Path(state["dirpath"]).name != folder.name:  # a folder of the user's own choice
            continue
        moved = {path: str(folder / Path(path).name) for path in _paths(state)}
        state["dirpath"] = str(folder)
        for key in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[key] = moved.get(str(state.get(key)), "")
        state["best_k_models"] = {
            moved[path]: score for path, score in state.get("best_k_models", {}).items() if Path(moved[path]).is_file()
        }
        if state.get("monitor") and not Path(state["best_model_path"] or "/").is_file():
            state |= {"best_model_path": "", "best_model_score": None, "best_k_models": {}, "kth_best_model_path": ""}


def _paths(state: dict[str, Any]) -> list[str]:
    single = [state.get(key) for key in ("best_model_path", "kth_best_model_path", "last_model_path")]
    return [path for path in (*single, *state.get("best_k_models", {})) if path]
