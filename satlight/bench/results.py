"""The result of a cell on disk."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import read_json, write_text
from satlight.storage.typed import typed

log = logging.getLogger(__name__)


@dataclass
class CellResult:
    """The facts of a computed cell; its choices are in ``outcomes.parquet``.

    Args:
        error: Why it failed; None = it did not.
        error_kind: Class name of the exception, ``Timeout``, ``Crash`` or ``NeedsFailed``.
        seconds: Wall-clock time of the cell.
        finished: When it was finished, in seconds since the epoch; tells a result from an earlier one.
        fit_seconds: Time to fit, see :class:`satlight.bench.methods.Prediction`.
        decision_ms: Milliseconds to score the zoo for an instruction.
        embedding_ms: Milliseconds to embed an instruction.
        chosen: Hyperparameters chosen on validation rows.
        routed: Accuracy on the primary group in percent; None = unknown.
        probabilistic: Whether the scores are log-odds.
        reliability: Bins of predicted probability, accuracy and count.
        curve: Costs in US dollars per instruction and accuracies in percent, from quality alone to price
            alone; None = no complete costs, or the scores are not log-odds.
        folds: Facts of the folds of a protocol.
    """

    error: str | None = None
    error_kind: str | None = None
    seconds: float | None = None
    finished: float = 0.0
    fit_seconds: float | None = None
    decision_ms: float | None = None
    embedding_ms: float | None = None
    chosen: dict[str, str] = field(default_factory=dict)
    routed: float | None = None
    probabilistic: bool = False
    reliability: list[list[float]] = field(default_factory=list)
    curve: list[list[float]] | None = None
    folds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """True if the cell failed."""
        return self.error is not None

    @classmethod
    def read(cls, output: Path, key: str) -> CellResult | None:
        """Return the result of the cell ``key`` in the bench's folder ``output``; None = there is none yet.

        A damaged result is none, so that the cell is computed again.
        """
        path = output / "cells" / key / "result.json"
        if not path.is_file():
            return None
        try:
            return typed(cls, read_json(path, "the cell is computed again"), "the result")
        except (SatlightError, TypeError) as error:
            log.warning("%s is damaged (%s) and counts as missing", path, error)
            return None

    def write(self, folder: Path) -> None:
        """Write ``result.json`` into ``folder``, completely or not at all, with the present time."""
        content = asdict(self) | {"finished": time.time()}
        write_text(folder / "result.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")
