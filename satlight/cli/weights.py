"""``satlight weights``: fetch, list and verify backbone weights ahead of time."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from satlight.backbones import weights
from satlight.backbones.store import CONVERTED, Manifest, say
from satlight.errors import SatlightError


def add_parser(subparsers: Any) -> None:
    """Add ``weights`` with its three actions to the subparsers of ``satlight``.

    Args:
        subparsers: What ``argparse.ArgumentParser.add_subparsers`` returned.
    """
    parser = subparsers.add_parser(
        "weights",
        help="fetch, list and verify backbone weights",
        description="Bring backbone weights into the cache ahead of time, e.g. for one without network.",
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    action = actions.add_parser("fetch", help="fetch backbones and prepare them for loading")
    action.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of: {weights.NAME_FORMS}; none = the embedded ones ({', '.join(_without_terms())})",
    )
    action.add_argument(
        "--accept-terms", action="store_true", help="accept the license of backbones that have one to accept"
    )
    action.set_defaults(run=fetch)
    action = actions.add_parser("list", help="show which backbones are in the cache")
    action.set_defaults(run=show)
    action = actions.add_parser("verify", help="hash every cached file again")
    action.set_defaults(run=verify)


def fetch(args: argparse.Namespace) -> None:
    """Resolve every named backbone; GGUF, .pth and .bin files are also converted."""
    for name in args.names or _without_terms():
        path = weights.resolve(name, args.accept_terms)
        if path.suffix in CONVERTED:
            # Conversion needs torch and transformers; the other actions do not.
            from satlight.backbones.loading import safetensors_folder

            path = safetensors_folder(name)
        say(f"{name}: ready in {path}")


def show(args: argparse.Namespace) -> None:
    """Print one row per embedded backbone and per other cached one."""
    from rich.console import Console
    from rich.table import Column, Table

    where = Column("where", overflow="fold")  # fold, so that the path can be copied
    table = Table("name", "status", "size", where, title=f"Weights in {weights.store()}")
    aliases = {weights.WheelSource.parse(e.name).folder: alias for alias, e in weights.EMBEDDED.items()}
    found = weights.manifests()
    for folder, alias in aliases.items():
        if folder not in found:
            embedded = weights.EMBEDDED[alias]
            table.add_row(alias, "not fetched", f"{embedded.megabytes} MB to fetch", embedded.name)
    for folder, manifest in found.items():
        if folder.parent not in found:  # a converted file counts with the file it was made from
            status = "cached" if Manifest.is_intact(folder) else "damaged"
            table.add_row(aliases.get(folder, manifest.name), status, _size(folder), str(folder))
    Console().print(table)


def verify(args: argparse.Namespace) -> None:
    """Hash every cached file again and compare with what was fetched.

    Raises:
        SatlightError: A file is missing or has another content.
    """
    problems: list[str] = []
    folders = weights.manifests()
    for folder, manifest in folders.items():
        found = manifest.damaged(folder)
        problems += found
        say(f"{manifest.name}: {len(manifest.files)} files, {'damaged' if found else 'intact'} ({folder})")
    if problems:
        raise SatlightError(
            "cached weights are damaged:\n  "
            + "\n  ".join(problems)
            + "\nDelete the folders named above, then run `satlight weights fetch NAME`."
        )
    say(f"{len(folders)} cached folders in {weights.store()}, all intact.")


def _without_terms() -> list[str]:
    return [name for name, one in weights.EMBEDDED.items() if not one.terms]


def _size(folder: Path) -> str:
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{total / 1e6:.0f} MB"
