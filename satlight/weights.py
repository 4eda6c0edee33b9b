"""Where the numbers of a backbone come from: names, cache, fetching, checking."""

from __future__ import annotations

from pathlib import Path

from satlight.errors import SatlightError


def resolve(name: str) -> Path:
    """The local folder (or ``.gguf`` file) of the backbone ``name``, fetched first when needed."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    raise SatlightError(f"backbone {name!r}: no such folder")
