"""Graded answers that ``satlight serve --feedback DIR`` wrote: a folder of ``feedback-*.jsonl`` files.

Each line is one outcome in the columns of :mod:`satlight.records.sources.csv`. A killed server can leave half a line at
the end of a file; it is skipped and counted in a note.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from satlight.errors import SatlightError
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.sources import csv
from satlight.records.tables import RecordTables


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
    unfinished = 0
    with tempfile.TemporaryDirectory() as temporary:
        whole = Path(temporary) / f"{folder.resolve().name}.jsonl"
        with whole.open("wb") as out:
            for file in files:
                lines, _, rest = file.read_bytes().rpartition(b"\n")
                out.write(lines + b"\n")
                unfinished += bool(rest)
        content = csv.tables(whole, models)
    content.file = str(folder)
    if unfinished:
        content.notes = (*content.notes, f"{unfinished} unfinished lines of killed servers were skipped.")
    return content
