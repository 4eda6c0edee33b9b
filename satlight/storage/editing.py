"""Change the JSON files of a router folder, all of them or none; weights stay as they are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import atomic_path, unwritable, write_text
from satlight.storage import card
from satlight.storage import folder as files
from satlight.types import Candidate


def editable(folder: Path) -> dict[str, Any]:
    """Return config.json of a router folder that can be changed in place.

    Raises:
        SatlightError: No router folder, or one of format 1.
    """
    config = files.read_config(folder)
    if config["format"] != files.FORMAT:
        raise SatlightError(
            f"{folder / files.CONFIG}: format is {config['format']!r}, which cannot be changed in place; write the "
            f"folder again first: Router.from_pretrained({str(folder)!r}).save(DIR)"
        )
    return files.upgraded(folder, config)


def rewrite(
    folder: Path, config: Mapping[str, Any] | None = None, candidates: Sequence[Candidate] | None = None
) -> None:
    """Replace config.json, zoo.json, or both, and the model card; the folder changes as a whole or not at all.

    Args:
        folder: A router folder.
        config: Content of config.json; None = as it is.
        candidates: The candidates with new facts, in the same order and under the same names; None = as they are.

    Raises:
        SatlightError: It cannot be written.
    """
    config = editable(folder) if config is None else config
    candidates = files.read_zoo(folder) if candidates is None else candidates
    try:
        with atomic_path(folder) as temporary:
            shutil.copytree(folder, temporary, copy_function=_link)
            # write_text puts a new file in place, so that the linked one is not written to.
            write_text(temporary / files.CONFIG, files.json_text(config))
            write_text(temporary / files.ZOO, files.json_text([asdict(candidate) for candidate in candidates]))
            write_text(temporary / files.CARD, card.text(config, candidates))
    except OSError as error:
        raise unwritable(folder, error) from error


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where the file system has no links."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copy2(source, target)
