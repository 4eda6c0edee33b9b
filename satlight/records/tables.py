"""Performance records as tables, and the checks that every source passes through.

A source (records folder, CSV, benchmark files) is read into :class:`RecordTables`; ``dense.py`` turns the
tables into the matrix. Row numbers in messages count from 0 and leave out a header line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from satlight.errors import SatlightError
from satlight.records.names import listed
from satlight.types import SPLITS, Candidate

BATCH_ROWS = 1 << 22
"""Records that are in memory at once while a source is walked."""

KEY_COLUMNS = ("instruction_id", "model_id", "cost_usd", "expected")
"""Columns of the records that are no scores."""


@dataclass
class RecordTables:
    """What a source holds, before it becomes a matrix.

    Args:
        instructions: N rows, as :func:`check_instructions` returns them.
        candidates: M candidates.
        records: One row per outcome: ``instruction_id``, ``model_id``, ``score``, optionally ``cost_usd``
            and further score columns. Lazy, so that it may be larger than memory.
        name: Short name for tables and logs.
        file: Where the records come from, for messages.
        simulated: Whether the outcomes were drawn from a model.
        notes: What the importer left out or decided, one sentence each.
        identity: Changes whenever the content does; None = not worth a cached matrix.
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
        """Numeric columns of the records that can be chosen as the score."""
        schema = self.records.collect_schema()
        return [
            name
            for name, kind in schema.items()
            if name not in KEY_COLUMNS and (kind.is_numeric() or kind == pl.Boolean)
        ]

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """Walk the records: (number of the first row, that many rows of ``columns``)."""
        try:
            rows = self.records.select(pl.len()).collect().item()
            for start in range(0, rows, BATCH_ROWS):
                yield start, self.records.select(columns).slice(start, BATCH_ROWS).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise SatlightError(f"{self.file} cannot be read: {reason}. Fetch or write it again.") from error


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
    offends: pl.Series,
    frame: pl.DataFrame,
    column: str,
    file: str,
    problem: str,
    row_numbers: pl.Series | None = None,
) -> None:
    """Raise a SatlightError that shows the first row where ``offends`` is true.

    Args:
        offends: bool, one per row of ``frame``.
        frame: The rows.
        column: Which value to show.
        file: Where the rows come from.
        problem: What is allowed and what to do.
        row_numbers: Number of each row in the file; None = its place in ``frame``.
    """
    rows = offends.arg_true()
    if len(rows):
        value = frame[column][rows[0]]
        number = rows[0] if row_numbers is None else row_numbers[rows[0]]
        more = f" ({len(rows)} rows in all)" if len(rows) > 1 else ""
        raise SatlightError(
            f"{file}, row {number} (counting from 0), column '{column}': got {value!r}{more}. {problem}"
        )


def check_instructions(frame: pl.DataFrame, file: str, row_numbers: pl.Series | None = None) -> pl.DataFrame:
    """Check the instructions of a source and give them the standard columns first.

    Args:
        frame: N rows with at least ``instruction_id``, ``dataset`` and ``instruction``; ``task`` defaults to
            the dataset, ``split`` to null (then :func:`satlight.records.split_records` draws one).
        file: Where it comes from, for messages.
        row_numbers: Number of each row in that file; None = its place in ``frame``.

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
        kind = frame[column].dtype
        if kind not in (pl.String, pl.Null, pl.Categorical, pl.Enum) and not kind.is_integer():
            raise SatlightError(f"{file}, column '{column}': is {kind}; it must be text.")
    frame = frame.with_columns(pl.col(first).cast(pl.String))

    def require(offends: pl.Series, column: str, problem: str) -> None:
        require_first(offends, frame, column, file, problem, row_numbers)

    for column in ("instruction_id", "dataset", "instruction"):
        empty = (frame[column].str.strip_chars() == "").fill_null(True)
        require(empty, column, "Every row needs a text here; fill it in or drop the row.")
    repeated = frame["instruction_id"].is_first_distinct().not_()
    require(repeated, "instruction_id", "An earlier row has this id; ids must be unique.")
    unknown = frame["split"].is_in(SPLITS).not_().fill_null(False)
    require(unknown, "split", f"Allowed: {', '.join(SPLITS)}, or null everywhere.")
    if 0 < frame["split"].null_count() < frame.height:
        require(
            frame["split"].is_null(), "split", "Give the split of every row, or of none (it is drawn then)."
        )
    return frame.select(*first, pl.exclude(first)).with_columns(pl.col("task").fill_null(pl.col("dataset")))


def with_absolute_images(instructions: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """Image paths relative to the folder become absolute, so that they survive filtering and saving."""
    if "image" not in instructions.columns or instructions["image"].null_count() == instructions.height:
        return instructions
    base = str(folder.resolve())
    relative = pl.col("image").str.starts_with("/").not_()
    joined = pl.concat_str([pl.lit(base + "/"), pl.col("image")])
    return instructions.with_columns(pl.when(relative).then(joined).otherwise(pl.col("image")).alias("image"))


def check_candidates(entries: Any, file: str) -> tuple[Candidate, ...]:
    """Turn the content of ``models.json`` into candidates.

    Args:
        entries: A list of objects with ``model_id`` and optionally the other fields of
            :class:`~satlight.types.Candidate`; further keys are left aside.
        file: Where it comes from, for messages.

    Raises:
        SatlightError: Not such a list, a missing or repeated ``model_id``, a size, price or date that
            cannot be.

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
        if not isinstance(model_id, str) or not model_id.strip():
            raise SatlightError(f"{where}: got model_id {model_id!r}; a text is needed.")
        if model_id in seen:
            raise SatlightError(f"{where}: model_id '{model_id}' appears twice; ids must be unique.")
        seen.add(model_id)
        candidates.append(_candidate(entry, where))
    return tuple(candidates)


def _candidate(entry: dict[str, Any], where: str) -> Candidate:
    values = {
        field.name: entry[field.name] for field in fields(Candidate) if entry.get(field.name) is not None
    }
    for key in ("params_b", "price_in", "price_out"):
        value = values.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise SatlightError(f"{where}: got {key} {value!r}; a number above 0 is needed, null = unknown.")
        values[key] = float(value)
    date = values.get("release_date")
    if date is not None and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])(-\d{2})?", str(date)):
        raise SatlightError(f"{where}: got release_date {date!r}; write YYYY-MM, null = unknown.")
    if not isinstance(values.get("open_weights", True), bool):
        raise SatlightError(f"{where}: got open_weights {values['open_weights']!r}; true, false or null.")
    notes = values.get("notes", ())
    if isinstance(notes, str) or not all(isinstance(note, str) for note in notes):
        raise SatlightError(f"{where}: got notes {notes!r}; a list of sentences is needed.")
    values["notes"] = tuple(notes)
    return Candidate(**values)


def named_candidates(model_ids: Sequence[str], models: Path | str | None) -> tuple[Candidate, ...]:
    """Candidates for these names, with the details that the file ``models`` knows about them."""
    details: dict[str, Candidate] = {}
    if models is not None:
        details = {one.model_id: one for one in check_candidates(read_json(Path(models)), str(models))}
    return tuple(details.get(model_id, Candidate(model_id)) for model_id in model_ids)


def read_json(path: Path) -> Any:
    """The content of a JSON file; a SatlightError if it is absent or broken."""
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SatlightError(f"{path} does not exist. Check the path.") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise SatlightError(f"{path} is no valid JSON: {error}. Repair it or fetch it again.") from None
