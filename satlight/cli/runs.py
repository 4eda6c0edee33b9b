"""Run folders ``runs/NAME/1``, ``runs/NAME/2``, ...: each holds one training run and its results."""

from __future__ import annotations

from pathlib import Path

from satlight.errors import SatlightError


def existing(root: Path | str, name: str) -> list[Path]:
    """Return the run folders of ``name``, oldest first."""
    folder = Path(root) / name
    numbered = [path for path in folder.glob("*") if path.name.isdigit()] if folder.is_dir() else []
    return sorted(numbered, key=lambda path: int(path.name))


def create(root: Path | str, name: str) -> Path:
    """Create the next run folder; concurrent processes get different folders.

    Example:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> [create(root, "demo").name for _ in range(2)]
        ['1', '2']
    """
    number = max((int(path.name) for path in existing(root, name)), default=0) + 1
    while True:
        folder = Path(root) / name / str(number)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            number += 1
        else:
            return folder


def checkpoint(root: Path | str, name: str, which: str) -> Path:
    """Return the ``best`` or ``last`` checkpoint of the newest run of ``name`` that has one.

    Raises:
        SatlightError: No run of that name has one.
    """
    for run in reversed(existing(root, name)):
        path = run / "checkpoints" / f"{which}.ckpt"
        if path.is_file():
            return path
    raise SatlightError(
        f"No run under {Path(root) / name} has a checkpoint {which}.ckpt. Train one with `lightning fit -c "
        "CONFIG` (same --name), or name a checkpoint file with --ckpt_path."
    )


def folder_of(checkpoint_path: Path | str) -> Path:
    """Return the run folder that a checkpoint file belongs to."""
    path = Path(checkpoint_path).resolve()
    return path.parent.parent if path.parent.name == "checkpoints" else path.parent
