"""Run folders ``runs/NAME/1``, ``runs/NAME/2``, ...: each holds one training run and its results."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import parse_yaml, read_text, unwritable

CONFIG, TRAINED_ON = "config.yaml", "trained_on.parquet"


def existing(root: Path | str, name: str) -> list[Path]:
    """Return the run folders of ``name``, oldest first."""
    folder = Path(root) / name
    numbered = [path for path in folder.glob("*") if path.name.isdigit()] if folder.is_dir() else []
    return sorted(numbered, key=lambda path: int(path.name))


def create(root: Path | str, name: str) -> Path:
    """Create the next run folder; concurrent processes get different folders.

    Raises:
        SatlightError: The folder of runs cannot be written.

    Example:
        >>> import tempfile
        >>> root = tempfile.mkdtemp()
        >>> [create(root, "demo").name for _ in range(2)]
        ['1', '2']
    """
    number = max((int(path.name) for path in existing(root, name)), default=0) + 1
    parent = Path(root) / name
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            folder = parent / str(number)
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
            else:
                return folder
    except OSError as error:
        raise unwritable(parent, error) from error


def remove_empty(folder: Path, root: Path | str) -> None:
    """Remove ``folder`` and the folders above it, up to ``root``, as far as they are empty."""
    with suppress(OSError):
        while folder != folder.parent:
            folder.rmdir()
            if folder == Path(root):
                return
            folder = folder.parent


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


def folder_of(checkpoint_path: Path | str) -> Path | None:
    """Return the run folder that a checkpoint file belongs to; None if it lies elsewhere."""
    path = Path(checkpoint_path).resolve()
    run = path.parent.parent
    return run if path.parent.name == "checkpoints" and (run / CONFIG).is_file() else None


def read_config(path: Path) -> dict[str, Any]:
    """Read a YAML file of options.

    Raises:
        SatlightError: It cannot be read or is not a mapping.
    """
    advice = "give a YAML file of options"
    content = parse_yaml(read_text(path, advice), str(path), advice, nonfinite=True)
    if not isinstance(content, dict):
        raise SatlightError(f"{path} holds {type(content).__name__}, not a mapping; {advice}")
    return content


def name_of(config: Path | None) -> str:
    """Return the default name of a run from its first config file.

    Example:
        >>> name_of(Path("configs/full.yaml")), name_of(Path("experiments/routerdc/config.yaml"))
        ('full', 'routerdc')
        >>> name_of(Path("runs/full/3/config.yaml"))
        'full'
    """
    if config is None:
        return "unnamed"
    if config.stem != "config":
        return config.stem
    folder = config.expanduser().absolute().parent
    return folder.parent.name if folder.name.isdigit() else folder.name
