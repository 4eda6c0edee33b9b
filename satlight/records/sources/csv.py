"""Plain CSV or JSON lines: one row per outcome, with instruction, candidate and score.

Every cell is read as text; the name of a column, never its values, tells whether it is a number:

- ``instruction``, ``candidate`` (or ``model_id``) and ``score`` are required, ``cost_usd`` is optional.
- ``instruction_id``, ``dataset``, ``task``, ``split``, ``image`` (or ``images``), ``choices`` and ``rotation_of``
  belong to the instruction and must agree within it.
- Columns named by ``score_columns`` are further scores.
- All others are text. They belong to the instruction if they agree within every instruction (e.g. a group), else
  to the answers (e.g. a response or a time).
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl

from satlight.errors import SatlightError
from satlight.escaping import ESCAPED
from satlight.files import parse_json, read_jsonl, read_text
from satlight.records.chat import last_user_turn
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import (
    RecordTables,
    check_instructions,
    named_candidates,
    readable,
    require_columns,
    require_first,
    with_images,
)

log = logging.getLogger(__name__)

Repeats = Literal["mean", "first", "error"]

OF_INSTRUCTION = (
    "instruction_id",
    "instruction",
    "dataset",
    "task",
    "split",
    "image",
    "images",
    "choices",
    "rotation_of",
)
"""Columns that must agree within an instruction."""

ADVICE = "give a .csv or .jsonl file with instruction, candidate and score"


def read(
    path: Path | str,
    score_column: str = "score",
    models: Path | str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    repeats: Repeats = "mean",
) -> PerformanceRecords:
    """Read a CSV or JSON-lines file as a matrix.

    Args:
        path: ``.csv``, ``.jsonl`` or ``.ndjson`` file, one row per outcome.
        score_column: Column to use as the outcome, in [0, 1].
        models: JSON file with details of the candidates, in the format of ``models.json``.
        columns: Standard name → name in the file, e.g. ``{"dataset": "team", "cost_usd": "cost"}``.
        repeats: How to treat several rows of one instruction and candidate: average their numbers, keep the first
            row, or raise an error.

    Returns:
        Records; ``dataset`` defaults to the file's name, ``task`` to the dataset, the id of an instruction
        to a hash of dataset and text.

    Raises:
        SatlightError: The first mistake, with file, row and column.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "log.jsonl"
        >>> _ = file.write_text('{"instruction": "1+1?", "candidate": "tiny", "score": 0.5}')
        >>> read(file).outcomes.tolist()
        [[0.5]]
    """
    extra = () if score_column == "score" else (score_column,)
    content = tables(path, models, columns=columns, score_columns=extra, repeats=repeats)
    for note in content.notes:
        log.info("%s: %s", path, note)
    return build_records(content, score_column)


def tables(
    path: Path | str,
    models: Path | str | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    score_columns: Sequence[str] = (),
    repeats: Repeats = "mean",
) -> RecordTables:
    """Read a CSV or JSON-lines file as tables; arguments and errors as for :func:`read`.

    Args:
        path: As for :func:`read`, like ``models``, ``columns`` and ``repeats``.
        models: See there.
        columns: See there.
        score_columns: Further columns of scores. Without a column ``score``, the first of them is copied to it.
        repeats: See there.
    """
    path = Path(path).expanduser()
    notes: list[str] = []
    frame = _read_file(path, columns or {}, notes)
    return from_cells(frame, path, models, notes, columns=columns, score_columns=score_columns, repeats=repeats)


def from_cells(
    frame: pl.DataFrame,
    path: Path,
    models: Path | str | None,
    notes: list[str],
    *,
    columns: Mapping[str, str] | None = None,
    score_columns: Sequence[str] = (),
    repeats: Repeats = "mean",
) -> RecordTables:
    """Convert a table of texts to tables; other arguments and errors as for :func:`tables`.

    Args:
        frame: One row per outcome; all columns are text.
        path: File or folder of the rows, for messages and defaults.
        models: See :func:`tables`.
        notes: Remarks so far, to which others are added.
        columns: See :func:`tables`.
        score_columns: See :func:`tables`.
        repeats: See :func:`tables`.
    """
    file = str(path)
    frame = _named(frame, columns or {}, file, notes)
    if score_columns and "score" not in frame.columns:
        require_columns(frame, score_columns, file)
        frame = frame.with_columns(pl.col(score_columns[0]).alias("score"))
        notes.append(f"score is the column '{score_columns[0]}'.")
    require_columns(frame, ("instruction", "model_id", "score", *score_columns), file)
    if not frame.height:
        raise SatlightError(f"{file} has no rows; one row per outcome is required.")
    optional = [name for name in OF_INSTRUCTION[2:] if name in frame.columns]
    frame = frame.with_columns(pl.col("model_id").str.strip_chars(), pl.col(optional).replace({"": None}))
    empty = (frame["model_id"] == "").fill_null(True)
    require_first(empty, frame, "model_id", file, "Every row needs the name of its candidate.")
    frame = _numbers(frame, score_columns, file).with_columns(_dataset(frame, path.stem))
    if "instruction_id" not in frame.columns:
        # Include the dataset: the same question may have different options in two datasets.
        key = pl.concat_str("dataset", pl.col("instruction").fill_null(""), separator="\0")
        frame = frame.with_columns(_hashed(frame.select(key.alias("key"))["key"]).alias("instruction_id"))
    of_instruction = _instruction_columns(frame, score_columns, file, notes)
    first = frame["instruction_id"].is_first_distinct()
    instructions = frame.filter(first).select(of_instruction)
    instructions = check_instructions(instructions, file, row_numbers=first.arg_true())
    names = frame["model_id"].unique(maintain_order=True).to_list()
    of_answer = [name for name in frame.columns if name not in of_instruction]
    return RecordTables(
        instructions=with_images(_with_lists(instructions, path), path.parent, file),
        candidates=named_candidates(names, models),
        records=_without_repeats(frame.select("instruction_id", *of_answer), repeats, notes).lazy(),
        name=path.stem,
        file=file,
        notes=tuple(notes),
    )


def _read_file(path: Path, columns: Mapping[str, str], notes: list[str]) -> pl.DataFrame:
    """Read all columns as text."""
    if not path.is_file():
        raise SatlightError(f"{path} does not exist or is not a file. Give a .csv or .jsonl file.")
    if path.suffix.lower() != ".csv":
        return read_lines(read_jsonl(path, ADVICE), path, columns.get("instruction", "instruction"), notes)
    text = read_text(path, ADVICE)
    try:
        header = [name.strip() for name in next(csv.reader(io.StringIO(text)), [])]
    except csv.Error as error:
        raise SatlightError(f"{path} cannot be read: {error} in its first line; {ADVICE}.") from error
    _require_different(header, str(path))
    remedy = "Every row needs as many cells as the first line; a cell with a quote is quoted, and its quotes doubled."
    with readable(path, " as CSV", remedy):
        frame = pl.read_csv(io.BytesIO(text.encode()), infer_schema=False)
    if len(header) != frame.width:
        raise SatlightError(f"{path} cannot be read: its first line must name every column; {ADVICE}.")
    frame.columns = header
    escaped = frame.select(pl.sum_horizontal(pl.all().str.contains(ESCAPED).fill_null(False))).to_series().sum()
    if escaped:
        notes.append(
            f"{escaped} cells start with an apostrophe before =, +, -, @, a tab or a line end, as satlight writes them "
            "for spreadsheets; they were read as they are."
        )
    return frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines


def _require_different(names: list[str], file: str) -> None:
    if twice := list(dict.fromkeys(name for name in names if names.count(name) > 1)):
        raise SatlightError(f"{file} has two columns of the name {listed(twice)}; rename or remove one of them.")


def read_lines(lines: Iterable[tuple[int, Any]], path: Path, instruction: str, notes: list[str]) -> pl.DataFrame:
    """Return the values of JSON lines as a table of texts.

    Args:
        lines: Line number and value.
        path: Their file, for messages.
        instruction: Column that may hold a conversation instead of a text.
        notes: Remarks, to which others are added.

    Raises:
        SatlightError: A line that is no object, or an instruction that is neither text nor conversation.
    """
    rows: list[dict[str, Any]] = []
    for number, row in lines:
        if not isinstance(row, dict):
            raise SatlightError(f"{path}, line {number}: got a {type(row).__name__}; an object is required.")
        rows.append(row)
        _require_different([name.strip() for name in row], f"{path}, line {number},")
    names = list(dict.fromkeys(name for row in rows for name in row))
    chats = 0
    for number, row in enumerate(rows):
        value = row.get(instruction)
        if isinstance(value, list | dict):
            if (text := last_user_turn(value)) is None:
                raise SatlightError(
                    f"{path}, row {number} (counting from 0), column '{instruction}': got a {type(value).__name__}. "
                    "A text is required, or a list of messages with 'role' and 'content'."
                )
            row[instruction] = text
            chats += 1
    if chats:
        notes.append(f"{chats} instructions are conversations, of which the last user turn was read.")
    cells = {name.strip(): pl.Series([_cell(row.get(name)) for row in rows], dtype=pl.String) for name in names}
    return pl.DataFrame(cells)


def _cell(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _named(frame: pl.DataFrame, columns: Mapping[str, str], file: str, notes: list[str]) -> pl.DataFrame:
    """Rename columns to their standard names."""
    require_columns(frame, list(columns.values()), file)
    _require_different(list(columns.values()), f"{file}: --columns")
    replaced = [name for name in columns if name in frame.columns and name not in columns.values()]
    if replaced:
        frame = frame.drop(replaced)
        notes.append(f"Columns replaced by --columns: {listed(replaced)}.")
    frame = frame.rename({old: new for new, old in columns.items()})
    if "candidate" in frame.columns:
        if "model_id" in frame.columns:
            frame = frame.drop("model_id")
            notes.append("The candidate is the column 'candidate'; 'model_id' was dropped.")
        frame = frame.rename({"candidate": "model_id"})
    elif "model_id" not in frame.columns:
        require_columns(frame, ("instruction", "candidate", "score"), file)
    return frame


def _numbers(frame: pl.DataFrame, score_columns: Sequence[str], file: str) -> pl.DataFrame:
    """Convert scores and costs to numbers; empty cells become null."""
    for column in dict.fromkeys((*score_columns, "score", "cost_usd")):
        if column not in frame.columns:
            continue
        text = frame[column].str.strip_chars().str.to_lowercase()
        text = text.set(text == "", None)
        number = text.replace({"true": "1", "false": "0"}).cast(pl.Float64, strict=False)
        wrong = text.is_not_null() & ~number.is_finite().fill_null(False)
        require_first(wrong, frame, column, file, "A number is required.")
        if column == "cost_usd":
            problem = "A cost in US dollars is at least 0."
            require_first((number < 0).fill_null(False), frame, column, file, problem)
        else:
            outside = ((number < 0) | (number > 1)).fill_null(False)
            problem = "A score lies in [0, 1]; rescale the column (percentages: divide by 100)."
            require_first(outside, frame, column, file, problem)
        if column == "score":
            problem = "Every record needs a score; remove the row if the pair was not measured."
            require_first(number.is_null(), frame, column, file, problem)
        frame = frame.with_columns(number.alias(column))
    return frame


def _dataset(frame: pl.DataFrame, default: str) -> pl.Expr:
    return (pl.col("dataset") if "dataset" in frame.columns else pl.lit(default)).alias("dataset")


def _hashed(texts: pl.Series) -> pl.Series:
    unique = texts.unique(maintain_order=True).to_list()
    ids = [hashlib.sha256((text or "").encode()).hexdigest()[:16] for text in unique]
    return texts.replace_strict(unique, ids, return_dtype=pl.String)


def _instruction_columns(frame: pl.DataFrame, scores: Sequence[str], file: str, notes: list[str]) -> list[str]:
    """Return the columns that belong to the instruction.

    Raises:
        SatlightError: Rows of one instruction differ in a column that always belongs to it.
    """
    columns, differing = [], []
    for column in frame.columns:
        if column in ("model_id", "score", "cost_usd", *scores):
            continue
        first = pl.col(column).first().over("instruction_id")
        differs = frame.select(pl.col(column).ne_missing(first))[column]
        if column in OF_INSTRUCTION:
            problem = "An earlier row of the same instruction_id has another value; they must agree."
            require_first(differs, frame, column, file, problem)
        if differs.any():
            differing.append(column)
        else:
            columns.append(column)
    if differing:
        notes.append(
            f"Columns that differ between the answers to one instruction belong to the records: {listed(differing)}."
        )
    return columns


def _with_lists(instructions: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Convert the choices of a JSON-lines file from JSON to lists of texts."""
    if path.suffix.lower() == ".csv" or "choices" not in instructions.columns:
        return instructions
    lists: list[list[str] | None] = []
    for number, text in enumerate(instructions["choices"]):
        where = f"{path}, instruction {number} (counting from 0), choices"
        value = None if text is None else parse_json(text, where, ADVICE) if text.startswith("[") else text
        if value is not None and not isinstance(value, list):
            raise SatlightError(
                f"{path}, instruction {number} (counting from 0): got choices {text!r}; a list is required."
            )
        lists.append(None if value is None else [_cell(one) or "" for one in value])
    return instructions.with_columns(pl.Series("choices", lists, dtype=pl.List(pl.String)))


def _without_repeats(records: pl.DataFrame, repeats: Repeats, notes: list[str]) -> pl.DataFrame:
    """Keep one row of each instruction and candidate."""
    pair = ["instruction_id", "model_id"]
    again = records.height - records.select(pair).n_unique()
    if not again or repeats == "error":
        return records
    grouped = records.group_by(pair, maintain_order=True)
    if repeats == "first":
        notes.append(f"{again} rows that repeat an instruction and candidate were dropped.")
        return grouped.first()
    notes.append(
        f"{again} rows repeat an instruction and candidate; scores and costs are the means of each pair, and other "
        "columns are those of its first row."
    )
    numbers = [name for name, kind in records.schema.items() if kind == pl.Float64]
    return grouped.agg(pl.col(numbers).mean(), pl.exclude(*pair, *numbers).first()).select(records.columns)
