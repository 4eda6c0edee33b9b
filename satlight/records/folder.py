"""The records folder: instructions.parquet, models.json, records.parquet (docs/data_format.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from satlight.errors import SatlightError
from satlight.files import atomic_path
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import (
    KEY_COLUMNS,
    RecordTables,
    check_candidates,
    check_instructions,
    read_json,
    require_columns,
    with_absolute_images,
)
from satlight.types import Candidate

INSTRUCTIONS, MODELS, RECORDS, ABOUT = "instructions.parquet", "models.json", "records.parquet", "about.json"


def open_folder(path: Path | str, score_column: str = "score") -> PerformanceRecords:
    """Read and check a records folder (docs/data_format.md).

    Args:
        path: Folder with ``instructions.parquet``, ``models.json`` and ``records.parquet``.
        score_column: Numeric column of ``records.parquet`` to take outcomes from, in [0, 1].

    Returns:
        The records, N × M; memory-mapped from the cache where N·M is large.

    Raises:
        SatlightError: The first mistake found, with file, row, column and what is allowed.
    """
    return build_records(read_tables(path), score_column)


def read_tables(path: Path | str) -> RecordTables:
    """Read the tables of a records folder; check instructions, candidates and the columns of the records.

    Args:
        path: The folder.

    Raises:
        SatlightError: A file or column is missing or corrupt, or an instruction or candidate is invalid.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise SatlightError(
            f"The records folder {folder} {found}. Give a folder with {INSTRUCTIONS}, {MODELS} and {RECORDS}."
        )
    missing = [name for name in (INSTRUCTIONS, MODELS, RECORDS) if not (folder / name).is_file()]
    if missing:
        raise SatlightError(
            f"The records folder {folder} lacks {listed(missing)}. Convert files of another format "
            "with `satlight data import --from FORMAT PATH --to DIR`; see docs/data_format.md."
        )
    with _readable(folder / INSTRUCTIONS):
        instructions = pl.read_parquet(folder / INSTRUCTIONS)
    instructions = check_instructions(instructions, str(folder / INSTRUCTIONS))
    records = pl.scan_parquet(folder / RECORDS)
    with _readable(folder / RECORDS):
        records.collect_schema()
    require_columns(records, ("instruction_id", "model_id", "score"), str(folder / RECORDS))
    about = read_json(folder / ABOUT) if (folder / ABOUT).is_file() else {}
    return RecordTables(
        instructions=with_absolute_images(instructions, folder),
        candidates=check_candidates(read_json(folder / MODELS), str(folder / MODELS)),
        records=records,
        name=about.get("name") or folder.resolve().name,
        file=str(folder / RECORDS),
        simulated=bool(about.get("simulated")),
        notes=tuple(about.get("notes", ())),
        identity=_identity(folder),
    )


def save_records(records: PerformanceRecords, path: Path | str) -> None:
    """Write records as a folder that :func:`open_folder` reads; an interrupted write leaves no folder.

    The outcomes become the column ``score``; costs and expected outcomes are kept if known.

    Args:
        records: N × M.
        path: Folder to create; an existing records folder is replaced.

    Raises:
        SatlightError: ``path`` contains other files, or cannot be written.
    """
    about = {"name": records.name, "simulated": records.simulated, "notes": []}
    if records.score_column != "score":
        about["notes"] = [f"score is the column '{records.score_column}' of the source."]
    _write(path, records.instructions, records.candidates, _frames_of_matrix(records), about)


def save_tables(tables: RecordTables, path: Path | str) -> None:
    """Write tables as a folder with all score columns; an interrupted write leaves no folder.

    Args:
        tables: Content of a source; check it first with :func:`~satlight.records.dense.build_records`.
        path: Folder to create; an existing records folder is replaced.

    Raises:
        SatlightError: ``path`` contains other files, or cannot be written.
    """
    about = {"name": tables.name, "simulated": tables.simulated, "notes": list(tables.notes)}
    columns = ["instruction_id", "model_id", *tables.score_columns()]
    columns += [name for name in KEY_COLUMNS[2:] if name in tables.records.collect_schema()]
    frames = (batch for _, batch in tables.batches(columns))
    _write(path, tables.instructions, tables.candidates, frames, about)


def _write(
    path: Path | str,
    instructions: pl.DataFrame,
    candidates: tuple[Candidate, ...],
    frames: Iterator[pl.DataFrame],
    about: dict[str, Any],
) -> None:
    target = Path(path).expanduser()
    _refuse_foreign(target)
    models = [{**asdict(candidate), "notes": list(candidate.notes)} for candidate in candidates]
    try:
        with atomic_path(target) as folder:
            folder.mkdir()
            instructions.write_parquet(folder / INSTRUCTIONS)
            (folder / MODELS).write_text(json.dumps(models, indent=1, ensure_ascii=False) + "\n", "utf-8")
            (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
            write_frames(frames, folder / RECORDS)
    except OSError as error:
        raise SatlightError(
            f"Cannot write the records to {target}: {error}. No partial data remains; free some space or "
            "choose another folder."
        ) from error


def write_frames(frames: Iterator[pl.DataFrame], path: Path) -> None:
    """Write frames of one schema to a Parquet file one by one, to limit memory."""
    import pyarrow.parquet

    writer = None
    try:
        for frame in frames:
            scores = [name for name in frame.columns if name not in ("instruction_id", "model_id")]
            if "cost_usd" not in scores:
                frame = frame.with_columns(pl.lit(None, pl.Float32).alias("cost_usd"))
            table = frame.with_columns(pl.col(scores).cast(pl.Float32)).to_arrow()
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _frames_of_matrix(records: PerformanceRecords) -> Iterator[pl.DataFrame]:
    ids = records.instructions["instruction_id"]
    models = pl.Series(records.model_ids, dtype=pl.String)
    extra = {"cost_usd": records.costs, "expected": records.expected}
    for rows in records.row_chunks(1 << 21):
        row, column = np.nonzero(records.known[rows])
        frame = pl.DataFrame(
            {
                "instruction_id": ids[rows].gather(row),
                "model_id": models.gather(column),
                "score": records.outcomes[rows][row, column],
            }
        )
        for name, matrix in extra.items():
            if matrix is not None:
                frame = frame.with_columns(pl.Series(name, matrix[rows][row, column]).fill_nan(None))
        yield frame


def _refuse_foreign(target: Path) -> None:
    """Raise a SatlightError if replacing the folder would delete other files."""
    if not target.exists():
        return
    ours = {INSTRUCTIONS, MODELS, RECORDS, ABOUT}
    foreign = [target.name] if not target.is_dir() else sorted(p.name for p in target.iterdir() if p.name not in ours)
    if foreign:
        raise SatlightError(
            f"Cannot save records at {target}: it holds {listed(foreign, 5)}, which saving would delete. "
            "Choose a new or empty folder."
        )


def _identity(folder: Path) -> str:
    stats = [(folder / name).stat() for name in (INSTRUCTIONS, MODELS, RECORDS)]
    return repr([(stat.st_size, stat.st_mtime_ns) for stat in stats])


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SatlightError(f"{path} cannot be read as parquet: {reason}. Download or write it again.") from error
