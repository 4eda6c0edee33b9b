"""Performance records as tables, and the checks that apply to every source.

A source (records folder, CSV, benchmark files) is read into :class:`RecordTables`; ``dense.py`` converts the
tables to a matrix. Row numbers in messages count from 0, without a header line.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from satlight.errors import SatlightError
from satlight.files import read_json
from satlight.records.names import listed
from satlight.types import SPLITS, Candidate

log = logging.getLogger(__name__)

BATCH_ROWS = 1 << 22
"""Number of records to read at once."""

KEY_COLUMNS = ("instruction_id", "model_id", "cost_usd", "tokens_out", "expected")
"""Columns of the records that are not scores."""


@dataclass
class RecordTables:
    """Content of a source before conversion to a matrix.

    Args:
        instructions: N rows, as :func:`check_instructions` returns them.
        candidates: M candidates.
        records: One row per outcome: ``instruction_id``, ``model_id``, ``score``, optionally ``cost_usd``,
            further score columns, and text columns that are only kept. Lazy, because it may exceed memory.
        name: Short name for tables and logs.
        file: Source of the records, for messages.
        simulated: True if the outcomes were drawn from a model.
        notes: One sentence on each thing that the importer dropped or decided.
        identity: Text that changes with the content; None = do not cache the matrix.
    """

    instructions: pl.DataFrame
    candidates: tuple[Candidate, ...]
    records: pl.LazyFrame
    name: str
    file: str
    simulated: bool = False
    notes: tuple[str, ...] = ()
    identity: str | None = None

    def score_columns(self) -> list[str]:
        """Return the columns of the records that can be used as the score: those whose type is numeric."""
        schema = self.records.collect_schema()
        return [
            name
            for name, kind in schema.items()
            if name not in KEY_COLUMNS and (kind.is_numeric() or kind == pl.Boolean)
        ]

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Yield the records in batches: (index of the first row, rows of ``columns``)."""
        with readable(self.file):
            rows = self.records.select(pl.len()).collect().item()
        for start in range(0, rows, BATCH_ROWS):
            with readable(self.file):
                batch = self.records.select(columns).slice(start, BATCH_ROWS).collect()
            yield start, batch


@contextmanager
def readable(file: Path | str, kind: str = "", remedy: str = "Download or write it again.") -> Iterator[None]:
    """Turn what polars raises on a damaged file into a SatlightError.

    Args:
        file: The file that is read.
        kind: Format to name in the message, e.g. ``" as parquet"``.
        remedy: What to do, for the message.
    """
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError) as error:
        if isinstance(error, SatlightError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SatlightError(f"{file} cannot be read{kind}: {reason}. {remedy}") from error


def require_columns(frame: pl.DataFrame | pl.LazyFrame, columns: Sequence[str], file: str) -> None:
    """Raise a SatlightError unless ``frame`` has all ``columns``."""
    present = frame.collect_schema().names()
    missing = [column for column in columns if column not in present]
    if missing:
        raise SatlightError(
            f"{file} lacks the column {listed(missing)}. It has {listed(present)}; needed are "
            f"{listed(columns)}. See docs/data_format.md."
        )


def require_first(
    offends: pl.Series, frame: pl.DataFrame, column: str, file: str, problem: str, row_numbers: pl.Series | None = None
) -> None:
    """Raise a SatlightError showing the first row where ``offends`` is true.

    Args:
        offends: bool, one per row of ``frame``.
        frame: The rows.
        column: Column of the value to show.
        file: Source of the rows.
        problem: Allowed values and remedy.
        row_numbers: Index of each row in the file; None = its index in ``frame``.
    """
    rows = offends.arg_true()
    if len(rows):
        value = frame[column][rows[0]]
        number = rows[0] if row_numbers is None else row_numbers[rows[0]]
        more = f" ({len(rows)} such rows)" if len(rows) > 1 else ""
        raise SatlightError(
            f"{file}, row {number} (counting from 0), column '{column}': got {value!r}{more}. {problem}"
        )


def check_instructions(frame: pl.DataFrame, file: str, row_numbers: pl.Series | None = None) -> pl.DataFrame:
    """Check the instructions of a source and put the standard columns first.

    Args:
        frame: N rows with at least ``instruction_id``, ``dataset`` and ``instruction``; ``task`` defaults to
            the dataset, ``split`` to null (then :func:`satlight.records.split_records` draws one).
        file: Source, for messages.
        row_numbers: Index of each row in that file; None = its index in ``frame``.

    Returns:
        N rows: instruction_id, dataset, task, split, instruction (all strings) and the other columns.

    Raises:
        SatlightError: A missing column, a null or repeated id, an empty instruction, an unknown split.
    """
    require_columns(frame, ("instruction_id", "dataset", "instruction"), file)
    if not frame.height:
        raise SatlightError(f"{file} has no rows; at least one instruction is needed.")
    if "task" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias("task"))
    if "split" not in frame.columns:
        frame = frame.with_columns(pl.lit(None, pl.String).alias("split"))
    first = ["instruction_id", "dataset", "task", "split", "instruction"]
    for column in first:
        frame = frame.with_columns(as_text(frame[column], file))
    if "rotation_of" in frame.columns:
        frame = frame.with_columns(as_text(frame["rotation_of"], file))

    def require(offends: pl.Series, column: str, problem: str) -> None:
        require_first(offends, frame, column, file, problem, row_numbers)

    for column in ("instruction_id", "dataset", "instruction"):
        empty = (frame[column].str.strip_chars() == "").fill_null(True)
        require(empty, column, "Every row needs a text here; fill it in or remove the row.")
    repeated = frame["instruction_id"].is_first_distinct().not_()
    require(repeated, "instruction_id", "An earlier row has this id; ids must be unique.")
    require_split(frame, "split", file, row_numbers)
    return frame.select(*first, pl.exclude(first)).with_columns(pl.col("task").fill_null(pl.col("dataset")))


def require_split(frame: pl.DataFrame, column: str, file: str, row_numbers: pl.Series | None = None) -> None:
    """Raise a SatlightError unless the texts of ``column`` are splits, in every row or in none."""
    unknown = frame[column].is_in(SPLITS).not_().fill_null(False)
    require_first(unknown, frame, column, file, f"Allowed: {', '.join(SPLITS)}, or null everywhere.", row_numbers)
    if 0 < frame[column].null_count() < frame.height:
        problem = "Give the split of every row, or of none (then it is drawn)."
        require_first(frame[column].is_null(), frame, column, file, problem, row_numbers)


def as_text(column: pl.Series, file: str) -> pl.Series:
    """Return a column of ids or names as text; integers, which pandas turns into floats next to nulls, are allowed.

    Raises:
        SatlightError: Another type.

    Example:
        >>> as_text(pl.Series("rotation_of", [7.0, None]), "instructions.parquet").to_list()
        ['7', None]
    """
    kind = column.dtype
    if kind.is_float() and column.name in ("instruction_id", "rotation_of", "model_id"):
        given = column.drop_nulls()
        if ((given == given.round()) & (given.abs() < 2**53)).all():
            column, kind = column.cast(pl.Int64), pl.Int64()
    if kind not in (pl.String, pl.Null, pl.Categorical, pl.Enum) and not kind.is_integer():
        raise SatlightError(f"{file}, column '{column.name}': is {kind}; it must be text.")
    return column.cast(pl.String)


def with_images(instructions: pl.DataFrame, folder: Path, file: str) -> pl.DataFrame:
    """Turn a column ``image`` or ``images`` into a column ``images`` of absolute paths; refuse paths out of the folder.

    Args:
        instructions: N rows, without images, with a column ``image`` (a path or null), or with a column ``images``
            (a list of paths, or several paths in one text, separated by ``;``).
        folder: Folder that the paths are relative to.
        file: Source, for messages.

    Returns:
        N rows; without images at all, neither column.

    Raises:
        SatlightError: Both columns, a path that is not text, or one that leads out of the folder.

    Example:
        >>> frame = pl.DataFrame({"image": ["a.png", None]})
        >>> with_images(frame, Path("/data"), "log.csv")["images"].to_list()
        [['/data/a.png'], None]
    """
    names = [name for name in ("image", "images") if name in instructions.columns]
    if len(names) == 2:
        raise SatlightError(f"{file} has the columns 'image' and 'images'; keep one of them.")
    if not names or instructions[names[0]].null_count() == instructions.height:
        return instructions.drop(names)
    column = names[0]
    given = instructions[column]
    if given.dtype == pl.String:
        given = (
            given.str.split(";").list.eval(pl.element().str.strip_chars())
            if column == "images"
            else given.reshape((-1, 1)).cast(pl.List(pl.String))
        )
    if given.dtype != pl.List(pl.String):
        raise SatlightError(f"{file}, column '{column}': is {instructions[column].dtype}; it must be a path, as text.")
    base = os.path.realpath(folder)
    unique = given.explode().drop_nulls().unique(maintain_order=True)
    full = [os.path.normpath(os.path.join(base, path)) for path in unique]
    absolute = {
        one: path for one, path in zip(unique, full, strict=True) if path.startswith(base.rstrip(os.sep) + os.sep)
    }
    rows = [[one for one in images or [] if one is not None] for images in given.to_list()]
    leaves = pl.Series([any(one not in absolute for one in images) for images in rows])
    problem = f"An image must lie in {base}; copy it there and write its path relative to that folder."
    require_first(leaves, instructions, column, file, problem)
    images = pl.Series("images", [[absolute[one] for one in own] or None for own in rows], dtype=pl.List(pl.String))
    return instructions.drop(column).with_columns(images)


def check_candidates(entries: Any, file: str) -> tuple[Candidate, ...]:
    """Convert the content of ``models.json`` to candidates.

    Args:
        entries: A list of objects with ``model_id`` and optionally the other fields of
            :class:`~satlight.types.Candidate`; further keys are ignored. White space around a name is removed.
        file: Source, for messages.

    Raises:
        SatlightError: Not such a list, a missing or repeated ``model_id``, or a field of another type or range.

    Example:
        >>> check_candidates([{"model_id": "tiny-7b", "params_b": 7}], "models.json")[0].params_b
        7.0
    """
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise SatlightError(f'{file} must be a list of objects such as [{{"model_id": "tiny-7b"}}].')
    candidates: list[Candidate] = []
    seen: set[str] = set()
    for number, entry in enumerate(entries):
        where = f"{file}, entry {number} (counting from 0)"
        model_id = entry.get("model_id")
        if not isinstance(model_id, str) or not (model_id := model_id.strip()):
            raise SatlightError(f"{where}: got model_id {entry.get('model_id')!r}; text is required.")
        if model_id in seen:
            raise SatlightError(f"{where}: model_id '{model_id}' appears twice; ids must be unique.")
        seen.add(model_id)
        candidates.append(_candidate({**entry, "model_id": model_id}, where))
    return tuple(candidates)


def _candidate(entry: dict[str, Any], where: str) -> Candidate:
    values = {field.name: entry[field.name] for field in fields(Candidate) if entry.get(field.name) is not None}
    for key in ("params_b", "price_in", "price_out", "tokens_out", "cost_usd"):
        value = values.get(key)
        if value is None:
            continue
        least = "above 0" if key == "params_b" else "0 (free) or more"
        number = float("nan") if isinstance(value, bool) or not isinstance(value, int | float) else _float(value)
        if not math.isfinite(number) or number < 0 or (key == "params_b" and number == 0):
            raise SatlightError(f"{where}: got {key} {value!r}; it must be a number {least}, null = unknown.")
        values[key] = number
    date = values.get("release_date")
    if date is not None and not (isinstance(date, str) and re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])(-\d{2})?", date)):
        raise SatlightError(f"{where}: got release_date {date!r}; write YYYY-MM, null = unknown.")
    if not isinstance(values.get("institute", ""), str):
        raise SatlightError(f"{where}: got institute {values['institute']!r}; text, or null = unknown.")
    if not isinstance(values.get("open_weights", True), bool):
        raise SatlightError(f"{where}: got open_weights {values['open_weights']!r}; true, false or null.")
    notes = values.get("notes", ())
    if not isinstance(notes, list | tuple) or not all(isinstance(note, str) for note in notes):
        raise SatlightError(f"{where}: got notes {notes!r}; a list of sentences is required.")
    values["notes"] = tuple(notes)
    return Candidate(**values)


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of more than 308 digits
        return math.inf


def named_candidates(model_ids: Sequence[str], models: Path | str | None) -> tuple[Candidate, ...]:
    """Return candidates with these names, with details from the file ``models``.

    Names in ``models`` that match no candidate are logged as a warning, since their prices would be lost.
    """
    details: dict[str, Candidate] = {}
    if models is not None:
        entries = read_json(models, "give a list of candidates in the format of models.json")
        details = {one.model_id: one for one in check_candidates(entries, str(models))}
        if unused := [name for name in details if name not in model_ids]:
            without = [name for name in model_ids if name not in details]
            log.warning(
                "%s names %s, which match no candidate. Candidates without details: %s",
                models,
                listed(unused),
                listed(without) or "none",
            )
    return tuple(details.get(model_id, Candidate(model_id)) for model_id in model_ids)
