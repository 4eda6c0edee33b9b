"""Where records come from: one file per format, each with ``tables(path, …)`` and ``read(path, …)``.

To add a format, write the file, add its line to :data:`SOURCES`, add a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.records.matrix import PerformanceRecords

SOURCES = {
    "csv": "satlight.records.sources.csv",
    "lm-eval": "satlight.records.sources.lm_eval",
    "mmlu-pro": "satlight.records.sources.mmlu_pro",
    "routerdc": "satlight.records.sources.routerdc",
}
"""Format name → module."""


def source(name: str) -> ModuleType:
    """The module that reads the format ``name``; a SatlightError if there is none."""
    if name not in SOURCES:
        raise SatlightError(f"Unknown format '{name}' of records. Available: {', '.join(SOURCES)}.")
    return import_module(SOURCES[name])


def open_records(
    source: str | Path,
    *,
    score_column: str = "score",
    candidates: str | Sequence[str] | None = None,
    datasets: str | Sequence[str] | None = None,
) -> PerformanceRecords:
    """Open records from anywhere: what ``--data.records`` accepts.

    Args:
        source: A records folder, a ``.csv`` or ``.jsonl`` file with instruction, candidate and score, or the
            word ``"simulated"`` for the embedded simulated zoo.
        score_column: Which numeric column of the records is the outcome.
        candidates: Names or patterns of the candidates to keep; None = all.
        datasets: Names or patterns of the datasets to keep; None = all.

    Returns:
        Records, N × M, in which every candidate has at least one outcome.

    Raises:
        SatlightError: The source is missing or wrong, or the choice leaves nothing.

    Example:
        >>> import pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "log.csv"
        >>> _ = file.write_text("instruction,candidate,score\\n1+1?,tiny,0\\n1+1?,large,1\\n")
        >>> open_records(file, candidates="lar*").model_ids
        ['large']
    """
    from satlight.records.dense import require_records

    records = _open_whole(source, score_column)
    if candidates is not None or datasets is not None:
        records = records.filter(candidates=candidates, datasets=datasets)
        require_records(records, f"The choice from '{records.name}' (datasets={datasets})")
    return records


def _open_whole(source: str | Path, score_column: str) -> PerformanceRecords:
    from satlight.records.matrix import PerformanceRecords

    if source == "simulated":
        from satlight.records.simulated import SimulatedZoo

        if score_column != "score":
            raise SatlightError(
                f"The simulated zoo has no score column '{score_column}'. Available: 'score'."
            )
        return SimulatedZoo().generate()
    path = Path(source).expanduser()
    if not path.exists():
        raise SatlightError(
            f"The records '{source}' do not exist. Give a records folder, a .csv or .jsonl file, "
            "or the word 'simulated'."
        )
    if path.is_dir():
        return PerformanceRecords.open(path, score_column)
    if path.suffix.lower() in (".csv", ".jsonl", ".ndjson"):
        from satlight.records.sources import csv

        return csv.read(path, score_column)
    raise SatlightError(
        f"Cannot tell how to read {path}. Give a records folder, a .csv or .jsonl file; other formats "
        f"({', '.join(SOURCES)}) go through `satlight data import --from FORMAT PATH --to DIR`."
    )
