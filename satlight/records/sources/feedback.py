"""Graded answers that ``satlight serve --feedback DIR`` wrote: a folder of ``feedback-*.jsonl`` files.

Each line is one outcome in the columns of :mod:`satlight.records.sources.csv`. A killed server can leave half a line at
the end of a file; it is skipped and counted in a note.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from satlight.errors import SatlightError
from satlight.files import decoded, parse_jsonl, read_bytes
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.sources import csv
from satlight.records.tables import RecordTables

ADVICE = "delete the damaged line, or the file"


def read(path: Path | str, score_column: str = "score", models: Path | str | None = None) -> PerformanceRecords:
    """Read a folder of feedback as a matrix; see :func:`tables`."""
    return build_records(tables(path, models), score_column)


def tables(path: Path | str, models: Path | str | None = None) -> RecordTables:
    """Read a folder of feedback as tables.

    Args:
        path: Folder of ``feedback-*.jsonl`` files.
        models: JSON file with details of the candidates, in the format of ``models.json``.

    Raises:
        SatlightError: No such files, or a line that is no record; records without text cannot be imported.
    """
    folder = Path(path).expanduser()
    files = sorted(folder.glob("feedback-*.jsonl"))
    if not files:
        raise SatlightError(f"{folder} holds no feedback-*.jsonl; give the folder of `satlight serve --feedback`.")
    notes: list[str] = []
    unfinished, frames = 0, []
    for file in files:
        lines, _, rest = read_bytes(file, ADVICE).rpartition(b"\n")
        unfinished += bool(rest)
        values = parse_jsonl(decoded(lines, str(file), ADVICE), file, ADVICE)
        frames.append(csv.read_lines(values, file, "instruction", notes))
    if unfinished:
        notes.append(f"{unfinished} unfinished lines of killed servers were skipped.")
    return csv.from_cells(pl.concat(frames, how="diagonal"), folder, models, notes)
