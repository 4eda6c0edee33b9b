"""The records folder: instructions.parquet, models.json, records.parquet (docs/data_format.md)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from satlight.errors import SatlightError
from satlight.files import atomic_path, read_json, write_table
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import (
    RecordTables,
    check_candidates,
    check_instructions,
    readable,
    require_columns,
    with_images,
)
from satlight.types import Candidate

INSTRUCTIONS, MODELS, RECORDS, ABOUT = "instructions.parquet", "models.json", "records.parquet", "about.json"
IMAGES = "images"
ADVICE = "write it as docs/data_format.md describes"


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
    file = str(folder / INSTRUCTIONS)
    with readable(file, " as parquet"):
        instructions = pl.read_parquet(file)
    instructions = with_images(check_instructions(instructions, file), folder, file)
    with readable(folder / RECORDS, " as parquet"):
        records = pl.scan_parquet(folder / RECORDS)
        records.collect_schema()
    require_columns(records, ("instruction_id", "model_id", "score"), str(folder / RECORDS))
    about = _about(folder / ABOUT)
    return RecordTables(
        instructions=instructions,
        candidates=check_candidates(read_json(folder / MODELS, ADVICE), str(folder / MODELS)),
        records=records,
        name=about.get("name") or folder.resolve().name,
        file=str(folder / RECORDS),
        simulated=about.get("simulated") or False,
        notes=tuple(about.get("notes") or ()),
        identity=_identity(folder),
    )


def _about(path: Path) -> dict[str, Any]:
    """Read and check the optional ``about.json``."""
    about = read_json(path, ADVICE) if path.is_file() else {}
    if not isinstance(about, dict):
        raise SatlightError(f"{path} holds a {type(about).__name__}; it must be an object. {ADVICE.capitalize()}.")
    for key, kind, what in (("name", str, "text"), ("simulated", bool, "true or false"), ("notes", list, "a list")):
        value = about.get(key)
        if value is not None and not isinstance(value, kind):
            raise SatlightError(f"{path}: got {key} {value!r}; {what} is required.")
    if not all(isinstance(note, str) for note in about.get("notes") or ()):
        raise SatlightError(f"{path}: got notes {about['notes']!r}; a list of sentences is required.")
    return about


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
    """Write tables as a folder with all columns of the records; an interrupted write leaves no folder.

    Args:
        tables: Content of a source; check it first with :func:`~satlight.records.dense.build_records`.
        path: Folder to create; an existing records folder is replaced.

    Raises:
        SatlightError: ``path`` contains other files, or cannot be written.
    """
    about = {"name": tables.name, "simulated": tables.simulated, "notes": list(tables.notes)}
    columns = ["instruction_id", "model_id", *tables.score_columns()]
    columns += [name for name in tables.records.collect_schema() if name not in columns]
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
            write_table(_with_copied_images(instructions, folder), folder / INSTRUCTIONS)
            (folder / MODELS).write_text(json.dumps(models, indent=1, ensure_ascii=False) + "\n", "utf-8")
            (folder / ABOUT).write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
            write_frames(frames, folder / RECORDS)
    except OSError as error:
        raise SatlightError(
            f"Cannot write the records to {target}: {error}. No partial data remains; free some space or "
            "choose another folder."
        ) from error


def _with_copied_images(instructions: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Copy the images into ``folder`` and make their paths relative to it."""
    if "images" not in instructions.columns:
        return instructions
    (folder / IMAGES).mkdir()
    new = {}
    for number, path in enumerate(map(Path, instructions["images"].explode().drop_nulls().unique(maintain_order=True))):
        if not path.is_file():
            raise SatlightError(
                f"The image {path} of the instructions does not exist; copy it there, or correct the path."
            )
        new[str(path)] = f"{IMAGES}/{number:06d}-{path.name}"
        shutil.copyfile(path, folder / new[str(path)])
    return instructions.with_columns(
        pl.col("images").list.eval(pl.element().replace_strict(new, return_dtype=pl.String))
    )


def write_frames(frames: Iterator[pl.DataFrame], path: Path) -> None:
    """Write frames of one schema to a Parquet file one by one, to limit memory."""
    import pyarrow.parquet

    writer = None
    try:
        for frame in frames:
            if "cost_usd" not in frame.columns:
                frame = frame.with_columns(pl.lit(None, pl.Float32).alias("cost_usd"))
            scores = [
                name
                for name, kind in frame.schema.items()
                if name not in ("instruction_id", "model_id") and (kind.is_numeric() or kind in (pl.Boolean, pl.Null))
            ]
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
    ours = {INSTRUCTIONS, MODELS, RECORDS, ABOUT, IMAGES}
    foreign = [target.name] if not target.is_dir() else sorted(p.name for p in target.iterdir() if p.name not in ours)
    if foreign:
        raise SatlightError(
            f"Cannot save records at {target}: it holds {listed(foreign, 5)}, which saving would delete. "
            "Choose a new or empty folder."
        )


def _identity(folder: Path) -> str:
    stats = [(folder / name).stat() for name in (INSTRUCTIONS, MODELS, RECORDS)]
    return repr([(stat.st_size, stat.st_mtime_ns) for stat in stats])
