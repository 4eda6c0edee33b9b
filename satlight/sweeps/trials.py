"""Trials of a sweep: one folder each, with what became of it."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import read_json, read_text, write_text
from satlight.storage.typed import typed

COMPLETE, FAILED, PRUNED = "complete", "failed", "pruned"
_RESULT = "trial.json"
LOG = "log.txt"


@dataclass
class Trial:
    """One point of a sweep and its result.

    Args:
        key: Hash of all resolved options of the run, and the name of the trial's folder.
        point: Option → value.
        state: ``complete``, ``failed`` or ``pruned``.
        value: Best value of the sweep's metric; None if it failed before a validation.
        epoch: Epoch of that value, from 0.
        metrics: All validation metrics of that epoch.
        seconds: Wall-clock seconds.
        error: Last line of the log of a failed trial.
        run: Folder of the run, relative to that of the sweep.
    """

    key: str
    point: dict[str, Any]
    state: str
    value: float | None = None
    epoch: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    error: str | None = None
    run: str | None = None

    @classmethod
    def read(cls, folder: Path, key: str) -> Trial | None:
        """Return the finished trial of that key; None if there is none."""
        path = folder / key / _RESULT
        if not path.is_file():
            return None
        advice = "delete this file to run the trial again"
        try:
            return typed(cls, read_json(path, advice), str(path))
        except TypeError as error:
            raise SatlightError(f"{error}; {advice}") from error

    def save(self, folder: Path) -> None:
        """Write it into its folder below that of the sweep."""
        write_text(folder / self.key / _RESULT, json.dumps(asdict(self), indent=2))


def epochs(run: Path) -> list[tuple[int, dict[str, float]]]:
    """Return the validation metrics of every epoch that a run has logged so far, in order.

    Also reads the curves of interrupted parts of the run, and a file that is being written.

    Args:
        run: Run folder.
    """
    found: dict[int, dict[str, float]] = {}
    parts = sorted(run.glob("metrics.*.csv"), key=lambda path: int(path.suffixes[0][1:]))
    for path in [*parts, run / "metrics.csv"]:
        try:
            text = read_text(path, "")
        except SatlightError:  # not yet
            continue
        for row in csv.DictReader(StringIO(text[: text.rfind("\n") + 1])):
            given = {key: float(row[key]) for key in row if key and _is_total(key) and row[key]}
            numbers = {key: value for key, value in given.items() if math.isfinite(value)}
            if numbers and row.get("epoch"):
                found.setdefault(int(row["epoch"]), {}).update(numbers)
    return sorted(found.items())


def _is_total(name: str) -> bool:
    """Return True for validation metrics that are not those of one dataset or candidate."""
    return name.startswith("val") and "/" not in name


def best(history: list[tuple[int, dict[str, float]]], metric: str, maximize: bool) -> tuple[int, float] | None:
    """Return epoch and value of the best finite value of a metric, the first among equals.

    Example:
        >>> best([(0, {"val_loss": 0.7}), (1, {"val_loss": 0.6}), (2, {"val_loss": 0.6})], "val_loss", False)
        (1, 0.6)
    """
    found = [(epoch, row[metric]) for epoch, row in history if math.isfinite(row.get(metric, math.nan))]
    if not found:
        return None
    return max(found, key=lambda pair: pair[1] if maximize else -pair[1])
