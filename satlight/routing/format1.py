"""Router folders of format 1, which kept capability representations as sentences in zoo.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satlight.capability.text import GRADES
from satlight.files import read_json
from satlight.storage import folder as files
from satlight.storage.typed import typed
from satlight.types import Capability, Result

_STATEMENT = re.compile(r"The model achieves accuracy (\d+(?:\.\d+)?)%(?: \(([a-z ]+)\))? on the task of")


def read_capabilities(folder: Path, names: Sequence[str]) -> list[Capability]:
    """Read the capability representations of candidates from zoo.json.

    Args:
        folder: A router folder of format 1.
        names: Candidates, in the wanted order.

    Raises:
        SatlightError: A file that is missing or damaged.
    """
    path = folder / files.ZOO
    content = read_json(path, files.ADVICE)
    with files.sound(path):
        written = {entry["candidate"]["model_id"]: entry["capability"] for entry in content}
        return [_capability(written[name]) for name in names]


def _capability(statements: Sequence[str | Mapping[str, Any]]) -> Capability:
    """Notes are plain texts; results are tables with text, keywords and strength."""
    results, notes, graded = [], [], False
    for statement in statements:
        if isinstance(statement, str):
            notes.append(statement)
            continue
        found = _STATEMENT.match(statement["text"])
        if found is None:
            raise ValueError(f"{statement['text']!r} is no result on a core task")
        graded = graded or found[2] in {words for _, words in GRADES}
        keywords, strength = statement["about"], statement["strength"]
        content = {"task": keywords, "keywords": keywords, "accuracy": float(found[1]) / 100}
        results.append(typed(Result, {**content, "strength": strength}, "result"))
    return Capability(tuple(results), tuple(notes), "graded" if graded else "plain")
