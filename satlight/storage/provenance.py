"""Versions of the software that a router was made with."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RUN_FACTS = "environment.json"
"""File in a run folder: its command, commit, versions and the fingerprint of its data."""

PACKAGES = ("satlight", "torch", "transformers", "lightning", "scikit-learn", "numpy")


def provenance() -> dict[str, Any]:
    """Return the versions of the packages that decide scores, and the commit of a satlight checkout.

    Example:
        >>> sorted(provenance())
        ['commit', 'versions']
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"versions": versions, "commit": _commit(Path(__file__).parents[2])}


def _commit(folder: Path) -> str | None:
    """Return the commit of a checkout; None for an installed package or without git."""
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
