"""Convert record tables to a dense matrix: vectorized, in batches, memory-mapped if large.

No Python object is created per record; 200 million records are processed in batches.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from satlight.errors import SatlightError
from satlight.files import atomic_path, cache_dir
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import RecordTables, as_text, readable, require_columns

log = logging.getLogger(__name__)

LARGE_CELLS = 4_000_000
"""Minimum number of cells for which matrices are memory-mapped files in the cache."""

MATRICES = ("outcomes", "known", "costs", "expected")

Allocate = Callable[[str, type], np.ndarray]


def build_records(tables: RecordTables, score_column: str = "score") -> PerformanceRecords:
    """Check the records and convert them to an N × M matrix.

    Args:
        tables: Checked instructions and candidates, unchecked records.
        score_column: Numeric column to use as the outcome.

    Returns:
        The records; memory-mapped if they have at least :data:`LARGE_CELLS` cells and an identity.

    Raises:
        SatlightError: Unknown column or id, a score that is NaN, null or outside [0, 1], a repeated pair, a
            candidate without records, or a full disk.
    """
    require_columns(tables.records, ("instruction_id", "model_id"), tables.file)
    choices = tables.score_columns()
    if score_column not in choices:
        raise SatlightError(
            f"{tables.file} has no numeric column '{score_column}' to use as the score. "
            f"Available: {listed(choices) or 'none'}."
        )
    cells = tables.instructions.height * len(tables.candidates)
    if cells >= LARGE_CELLS and tables.identity is not None:
        matrices = _mapped(tables, score_column, cells)
    else:
        matrices = _fill(tables, score_column, lambda _, kind: np.zeros(_shape(tables), dtype=kind))
    records = PerformanceRecords(
        instructions=tables.instructions,
        candidates=tables.candidates,
        name=tables.name,
        score_column=score_column,
        simulated=tables.simulated,
        outcomes=matrices["outcomes"],
        known=matrices["known"],
        costs=matrices.get("costs"),
        expected=matrices.get("expected"),
    )
    require_records(records, tables.file)
    return records


def require_records(records: PerformanceRecords, where: str) -> None:
    """Raise a SatlightError if a candidate has no records."""
    count = np.zeros(records.shape[1], dtype=np.int64)
    for rows in records.row_chunks():
        count += records.known[rows].sum(0)
    silent = [model_id for model_id, n in zip(records.model_ids, count, strict=True) if n == 0]
    if silent:
        raise SatlightError(
            f"{where} has no record for the candidate {listed(silent)}, which cannot be evaluated. "
            "Add its records, or leave it out (candidates: a list of the others)."
        )


def _shape(tables: RecordTables) -> tuple[int, int]:
    return tables.instructions.height, len(tables.candidates)


def _fill(tables: RecordTables, score_column: str, allocate: Allocate) -> dict[str, np.ndarray]:
    matrices = {"outcomes": allocate("outcomes", np.float32), "known": allocate("known", np.bool_)}
    extra: dict[str, str] = {}  # matrix → column
    schema = tables.records.collect_schema()
    if "cost_usd" in schema:
        with readable(tables.file):
            priced = tables.records.select(pl.col("cost_usd").count()).collect().item()
        if priced:
            extra["costs"] = "cost_usd"
    if tables.simulated and "expected" in schema:
        extra["expected"] = "expected"
    for matrix in extra:
        matrices[matrix] = allocate(matrix, np.float32)
        matrices[matrix].fill(np.nan)
    columns = list(dict.fromkeys(["instruction_id", "model_id", score_column, *extra.values()]))
    total = 0
    for start, batch in tables.batches(columns):
        cells = _cells(tables, batch, start)
        scores = _scores(tables, batch, score_column, start)
        given = scores.is_not_null()
        at = cells.filter(given).to_numpy()
        matrices["outcomes"].reshape(-1)[at] = scores.filter(given).to_numpy()
        matrices["known"].reshape(-1)[at] = True
        for matrix, column in extra.items():
            values = _floats(tables, batch, column)
            if matrix == "costs":
                wrong = ((values < 0) | values.is_nan() | values.is_infinite()).fill_null(False)
                problem = "A cost in US dollars is a finite number of at least 0, null = unknown."
                _require(tables, batch, column, start, wrong, problem)
            matrices[matrix].reshape(-1)[cells.to_numpy()] = values.fill_null(float("nan")).to_numpy()
        total += len(at)
    if int(np.count_nonzero(matrices["known"])) != total:
        _raise_duplicate(tables, score_column)
    return matrices


def _cells(tables: RecordTables, batch: pl.DataFrame, start: int) -> pl.Series:
    """Return the flat matrix index (row · M + column) of each record of a batch."""
    ids, models = (as_text(batch[name], tables.file) for name in ("instruction_id", "model_id"))
    row = _codes(ids, tables.instructions["instruction_id"])
    problem = "No instruction has this id; add the instruction or remove the record."
    _require(tables, batch, "instruction_id", start, row.is_null(), problem)
    names = pl.Series([candidate.model_id for candidate in tables.candidates], dtype=pl.String)
    column = _codes(models, names)
    if column.null_count():
        column = _codes(models.str.strip_chars(), names)
    problem = f"No candidate has this id; add it or remove the record. Known: {listed(names.to_list())}."
    _require(tables, batch, "model_id", start, column.is_null(), problem)
    return row * len(names) + column


def _codes(values: pl.Series, names: pl.Series) -> pl.Series:
    """Return the index of each value in ``names``, null if missing."""
    table = pl.DataFrame({"name": names, "code": pl.arange(0, len(names), eager=True)})
    asked = pl.DataFrame({"name": values})
    return asked.join(table, on="name", how="left", maintain_order="left")["code"]


def _scores(tables: RecordTables, batch: pl.DataFrame, column: str, start: int) -> pl.Series:
    scores = _floats(tables, batch, column)
    if column == "score":  # other score columns may be null
        problem = "Every record needs a score; remove the row if the pair was not measured."
        _require(tables, batch, column, start, scores.is_null(), problem)
    problem = "A score is a number from 0 to 1; remove the row if the pair was not measured."
    _require(tables, batch, column, start, scores.is_nan().fill_null(False), problem)
    outside = ((scores < 0) | (scores > 1)).fill_null(False)
    problem = "A score lies in [0, 1]; rescale the column (percentages: divide by 100)."
    _require(tables, batch, column, start, outside, problem)
    return scores


def _floats(tables: RecordTables, batch: pl.DataFrame, column: str) -> pl.Series:
    kind = batch[column].dtype
    if not kind.is_numeric() and kind not in (pl.Boolean, pl.Null):
        raise SatlightError(f"{tables.file}, column '{column}': is {kind}; it must be a number.")
    return batch[column].cast(pl.Float32)


def _require(
    tables: RecordTables, batch: pl.DataFrame, column: str, start: int, offends: pl.Series, problem: str
) -> None:
    rows = offends.arg_true()
    if not len(rows):
        return
    row = rows[0]
    pair = f"instruction_id '{batch['instruction_id'][row]}', model_id '{batch['model_id'][row]}'"
    raise SatlightError(
        f"{tables.file}, row {start + row} (counting from 0; {pair}), column '{column}': "
        f"got {batch[column][row]!r}. {problem}"
    )


def _raise_duplicate(tables: RecordTables, score_column: str) -> None:
    seen = np.zeros(tables.instructions.height * len(tables.candidates), dtype=bool)
    for start, batch in tables.batches(["instruction_id", "model_id", score_column]):
        batch = batch.filter(pl.col(score_column).is_not_null()) if score_column != "score" else batch
        cells = _cells(tables, batch, start)
        again = pl.Series(seen[cells.to_numpy()]) | cells.is_first_distinct().not_()
        problem = "An earlier row has the same pair; keep one of them (or their mean)."
        _require(tables, batch, "model_id", start, again, problem)
        seen[cells.to_numpy()] = True


def _mapped(tables: RecordTables, score_column: str, cells: int) -> dict[str, np.ndarray]:
    assert tables.identity is not None
    place = hashlib.sha256(f"{tables.file}\0{score_column}".encode()).hexdigest()[:16]
    state = hashlib.sha256(tables.identity.encode()).hexdigest()[:16]
    folder = cache_dir() / "matrices" / f"{place}-{state}"
    try:
        return _load(folder, _shape(tables))
    except FileNotFoundError:
        pass
    except (OSError, ValueError, EOFError) as error:
        log.warning("The cached score matrix %s is damaged (%s) and is built again.", folder, error)
    try:
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            matrices = _fill(tables, score_column, lambda name, kind: _map(temporary, name, kind, _shape(tables)))
            for matrix in matrices.values():
                assert isinstance(matrix, np.memmap)
                matrix.flush()
    except OSError as error:
        raise SatlightError(
            f"Cannot cache the score matrix of {tables.file} ({cells * 5 / 1e9:.2f} GB or more) in "
            f"{folder.parent}: {error}. Free some space, or set SATLIGHT_CACHE to another folder."
        ) from error
    for older in folder.parent.glob(f"{place}-*"):  # earlier states of the same file
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)
    return _load(folder, _shape(tables))


def _map(folder: Path, name: str, kind: type, shape: tuple[int, int]) -> np.ndarray:
    path = folder / f"{name}.npy"
    matrix = np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
    if hasattr(os, "posix_fallocate"):
        # Mapped files are sparse; running out of disk space while writing would kill the process (SIGBUS).
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return matrix


def _load(folder: Path, shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """Map the matrices of a cache folder.

    Raises:
        FileNotFoundError: There are none.
        ValueError: They are damaged.
    """
    matrices = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r")
        for name in MATRICES
        if name in ("outcomes", "known") or (folder / f"{name}.npy").exists()
    }
    for name, matrix in matrices.items():
        kind = np.bool_ if name == "known" else np.float32
        if matrix.shape != shape or matrix.dtype != kind:
            raise ValueError(f"{name}.npy holds {matrix.dtype} {matrix.shape}, not {np.dtype(kind)} {shape}")
    return matrices
