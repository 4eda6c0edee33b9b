"""Files that are whole or absent, locks between processes, and the one reader of JSON files."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError


def cache_dir() -> Path:
    """Return the folder of cached weights and matrices: ``$SATLIGHT_CACHE``, or the platform's user cache."""
    if configured := os.environ.get("SATLIGHT_CACHE"):
        return Path(configured).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("satlight"))


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; rename it to ``path`` on success, remove it on failure.

    Works for files and for folders (the body creates either one). An existing file is replaced;
    an existing folder is replaced too, and stays as it was until the new one is complete.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    temporary = holder / path.name
    try:
        yield temporary
        if temporary.is_dir() and path.exists():
            os.rename(path, holder / "replaced")
        os.replace(temporary, path)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str, advice: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        advice: What to do if it cannot be read, for the message.

    Raises:
        SatlightError: Missing, not UTF-8, or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise SatlightError(f"{path} cannot be read ({error}); {advice}") from error


@contextmanager
def locked(path: Path | str) -> Iterator[None]:
    """Hold the lock file ``path``; other processes wait until it is released.

    The operating system releases the lock when the process ends, also if it is killed.

    Args:
        path: Lock file; created if missing.

    Example:
        >>> import tempfile
        >>> with locked(Path(tempfile.mkdtemp()) / "a.lock"):
        ...     pass
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"Waiting for another process that holds {path}.", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
