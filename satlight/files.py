"""Files that are whole or absent, locks between processes, and the one reader of text and JSON files."""

from __future__ import annotations

import ctypes
import errno
import json
import math
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from satlight.errors import SatlightError

if TYPE_CHECKING:
    import polars as pl

_LOCK, _OLD = ".lock", "replaced"
_TEMPORARY = re.compile(rf"\.(.+)\.[0-9a-f]{{8}}({re.escape(_LOCK)})?")

MAX_DEPTH = 100
"""Nested lists and objects that JSON input may have."""


def lazy(package: str, **names: str) -> tuple[Callable[[str], Any], list[str]]:
    """Return ``__getattr__`` and ``__all__`` of a package whose names are imported on first use.

    Args:
        package: Its ``__name__``.
        names: Submodule → the names it offers, separated by spaces.

    Example:
        >>> load, names = lazy("os", path="join split")
        >>> load("join")("a", "b"), names
        ('a/b', ['join', 'split'])
    """
    homes = {name: f"{package}.{module}" for module, line in names.items() for name in line.split()}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return load, sorted(homes)


def cache_dir() -> Path:
    """Return the folder for weights, vectors and matrices: ``$SATLIGHT_CACHE``, or the user cache."""
    if configured := os.environ.get("SATLIGHT_CACHE"):
        return Path(configured).expanduser()
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("satlight"))


# -- reading -----------------------------------------------------------------------------------------------


def read_text(path: Path | str, advice: str) -> str:
    """Read a text file: UTF-8 with or without byte-order mark, any line ends (returned as ``\\n``).

    Args:
        path: The file.
        advice: What to do if it cannot be read, for the message.

    Raises:
        SatlightError: Missing, a folder, not UTF-8, or with NUL bytes.
    """
    path = Path(path).expanduser()
    return decoded(read_bytes(path, advice), str(path), advice)


def read_bytes(path: Path, advice: str) -> bytes:
    """Read a file; one that cannot be read is a SatlightError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise SatlightError(f"{path} cannot be read ({error.strerror or error}); {advice}") from error


def decoded(content: bytes, where: str, advice: str) -> str:
    """Decode bytes as :func:`read_text` does."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SatlightError(
            f"{where}, line {line}: byte {content[error.start]:#04x} is not UTF-8. Save the file as UTF-8 "
            f"(`iconv -t utf-8`); {advice}"
        ) from error
    if (nul := text.find("\0")) >= 0:
        line = text.count("\n", 0, nul) + 1
        raise SatlightError(f"{where}, line {line}: a NUL byte, so this is no text; {advice}")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str, where: str, advice: str, *, nonfinite_as_null: bool = False) -> Any:
    """Parse JSON from outside: no NaN, no infinity, no lone surrogates, at most :data:`MAX_DEPTH` levels.

    Args:
        text: One JSON value.
        where: File and line, for the message.
        advice: What to do, for the message.
        nonfinite_as_null: Read NaN and infinities, which are not JSON, as null.

    Raises:
        SatlightError: Not JSON of this kind.
    """

    def constant(name: str) -> None:
        if not nonfinite_as_null:
            raise ValueError(f"{name} is not a JSON number")

    def number(digits: str) -> float:
        if math.isinf(value := float(digits)):
            raise ValueError(f"{digits} is too large for a number")
        return value

    try:
        if _depth(text) > MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
        value = json.loads(text, parse_constant=constant, parse_float=number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise SatlightError(
            f"{where}: a lone surrogate {error.object[error.start]!r}, half of a character; {advice}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise SatlightError(f"{where}: not valid JSON ({error}); {advice}") from error
    return value


def read_json(path: Path | str, advice: str) -> Any:
    """Read a JSON file.

    Args:
        path: The file.
        advice: What to do if it cannot be read, for the message.

    Raises:
        SatlightError: As :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(path, advice), str(path), advice)


def parse_yaml(text: str, where: str, advice: str, *, nonfinite: bool = False) -> Any:
    """Parse YAML from outside, with plain values only.

    Args:
        text: One YAML document.
        where: File, for the message.
        advice: What to do, for the message.
        nonfinite: Allow NaN and infinities.

    Raises:
        SatlightError: Not YAML of this kind.
    """
    import yaml

    try:
        value = yaml.safe_load(text)
        # A lone surrogate cannot be encoded.
        json.dumps(value, ensure_ascii=False, default=str, skipkeys=True, allow_nan=nonfinite).encode()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise SatlightError(f"{where}: not valid YAML ({error}); {advice}") from error
    return value


def read_jsonl(path: Path | str, advice: str, *, nonfinite_as_null: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield the line number (from 1) and value of every line of a JSONL file; blank lines are skipped.

    Raises:
        SatlightError: As :func:`read_text` and :func:`parse_json`, with the line.
    """
    yield from parse_jsonl(read_text(path, advice), path, advice, nonfinite_as_null=nonfinite_as_null)


def parse_jsonl(
    text: str, where: Path | str, advice: str, *, nonfinite_as_null: bool = False
) -> Iterator[tuple[int, Any]]:
    """Yield the lines of a text as :func:`read_jsonl` does."""
    # Not splitlines(): JSON may hold U+2028 and other separators within a line.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, parse_json(line, f"{where}, line {number}", advice, nonfinite_as_null=nonfinite_as_null)


_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _depth(text: str) -> int:
    """Return how deep brackets are nested outside of strings, without recursion."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    deepest = level = 0
    for sign in re.findall(r"[\[\]{}]", _STRINGS.sub("", text)):
        level += 1 if sign in "[{" else -1
        deepest = max(deepest, level)
    return deepest


# -- writing -----------------------------------------------------------------------------------------------


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to ``path``; it takes the place of ``path`` on success.

    Works for files and for folders (the body creates either one). What was there stays as it was until the
    new one is complete and on disk. A link is followed. What a killed process left behind is removed, or put
    back if the kill came between the two renames of a system that cannot exchange folders.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "a.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text()
        'whole'
    """
    path = Path(os.path.realpath(Path(path).expanduser()))
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    holder = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with _claimed(holder):
        holder.mkdir()
        temporary = holder / path.name
        try:
            yield temporary
            sync(temporary)
            _put(temporary, path, holder)
            sync(path.parent, deep=False)
        finally:
            shutil.rmtree(holder, ignore_errors=True)


@contextmanager
def _claimed(holder: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock that tells a temporary folder at work from one that a killed process left.

    Raises:
        Timeout: Another process has it, and ``wait`` is False.
    """
    from filelock import FileLock

    lock = FileLock(f"{holder}{_LOCK}", timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except (OSError, NotImplementedError) as error:  # a file system without locks
        if not wait:
            raise Timeout(str(holder)) from error
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()


def _put(temporary: Path, path: Path, holder: Path) -> None:
    """Rename the new file or folder to its place."""
    try:
        if not (temporary.is_dir() and path.is_dir()):
            os.replace(temporary, path)
            return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # else another process put its folder there meanwhile
            raise
    if not _exchange(temporary, path):
        os.rename(path, holder / _OLD)  # a kill here is what recover() repairs
        os.rename(temporary, path)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, so that one is always in place; False where that is not possible."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):  # not Linux
        return False
    current, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return renameat2(current, os.fsencode(one), current, os.fsencode(other), exchange) == 0


def recover(path: Path) -> None:
    """Undo what killed processes left next to ``path``: put a folder back, remove temporary files."""
    left = {one.with_suffix("") if one.suffix == _LOCK else one for one in _temporaries(path)}
    for holder in left:
        with suppress(Timeout, OSError), _claimed(holder, wait=False):  # else another process is at work
            if (holder / _OLD).exists() and not path.exists():
                os.rename(holder / _OLD, path)
            shutil.rmtree(holder, ignore_errors=True)


def clean(*folders: Path) -> None:
    """Undo what killed processes left in these folders, whatever they were writing; see :func:`recover`."""
    for folder in folders:
        with suppress(OSError):  # missing, or a folder that may not be read
            names = {found[1] for one in folder.iterdir() if (found := _TEMPORARY.fullmatch(one.name))}
            for name in names:
                recover(folder / name)


def _temporaries(path: Path) -> list[Path]:
    matches = ((one, _TEMPORARY.fullmatch(one.name)) for one in path.parent.iterdir())
    return [one for one, found in matches if found and found[1] == path.name]


def sync(path: Path, deep: bool = True) -> None:
    """Wait until a file, or a folder with what is in it, is on disk.

    Raises:
        OSError: It could not be written, e.g. a full disk that a buffered write did not report.
    """
    for one in [path, *(path.rglob("*") if deep and path.is_dir() else [])]:
        if one.is_symlink():
            continue
        try:
            descriptor = os.open(one, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            unsupported = error.errno in (errno.EINVAL, errno.ENOTSUP)  # by some file systems
            if not unsupported and not (error.errno == errno.EACCES and one.is_dir()):  # a folder without read rights
                raise


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` to ``path`` as UTF-8, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_table(frame: pl.DataFrame, path: Path | str) -> None:
    """Write a Parquet file; a full disk is an OSError, as for other files, which polars hides in its own error.

    Raises:
        OSError: It cannot be written.
    """
    from polars.exceptions import ComputeError

    try:
        frame.write_parquet(path)
    except ComputeError as error:
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise


def unwritable(path: Path | str, error: OSError) -> SatlightError:
    """Return the error of a file that could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room there" if full else "check the rights"
    return SatlightError(
        f"cannot write {path}: {error.strerror or error}. Nothing half-written was kept; {remedy}, or choose "
        "another folder"
    )


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
    from filelock import FileLock

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
