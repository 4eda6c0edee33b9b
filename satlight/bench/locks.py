"""Claims on cells, so that two benches at once share the work instead of doing it twice."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from satlight.files import locked

_SIGNED_SECONDS = 10.0
"""A lock file without its content is older than this only if its process died in between."""


@contextmanager
def claim(path: Path) -> Iterator[bool]:
    """Claim what the lock file ``path`` stands for; the file is removed at the end.

    The file is created only where there is none, and says who holds it: process, its start and host. One
    whose process is dead is taken over; one of another host is believed.

    Args:
        path: The lock file.

    Yields:
        Whether the claim was granted; False while another process holds it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.lock"
        >>> with claim(path) as first, claim(path) as second:
        ...     print(first, second)
        True False
        >>> path.exists()
        False
    """
    granted = _create(path) or (is_stale(path) and _take_over(path))
    try:
        yield granted
    finally:
        if granted:
            path.unlink(missing_ok=True)


def holder(path: Path) -> str:
    """Who holds the lock, in words; empty if nobody does."""
    owner = _owner(path)
    return f"process {owner['pid']} on {owner['host']}" if owner else ""


def is_stale(path: Path) -> bool:
    """Whether the lock's process lived on this host and lives no more, or died before it signed."""
    owner = _owner(path)
    if owner is None:
        return False
    if not owner:
        with suppress(FileNotFoundError):  # released meanwhile
            return time.time() - path.stat().st_mtime > _SIGNED_SECONDS
        return False
    if owner["host"] != socket.gethostname():
        return False
    pid = int(owner["pid"])
    # A process id is used again sooner or later, above all in containers; its start is not.
    return not _alive(pid) or owner["start"] != _start(pid)


def _create(path: Path) -> bool:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(file, "w", encoding="utf-8") as stream:
        json.dump({"pid": os.getpid(), "start": _start(os.getpid()), "host": socket.gethostname()}, stream)
    return True


def _take_over(path: Path) -> bool:
    # One at a time: otherwise the second to see a dead lock could remove the first one's new one.
    with locked(path.with_suffix(".takeover")):
        if not is_stale(path):
            return False
        path.unlink(missing_ok=True)
        return _create(path)


def _owner(path: Path) -> dict[str, Any] | None:
    """What the lock file says; empty if it is not signed yet, None if it is gone."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError:
        return {}


def _alive(pid: int) -> bool:
    with suppress(PermissionError):  # it lives, and is someone else's
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def _start(pid: int) -> str:
    """When a process was started, in ticks since boot; empty where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
