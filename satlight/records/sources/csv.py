"""Plain CSV or JSON lines: one row per outcome, with instruction, candidate and score.

Columns: ``instruction``, ``candidate`` (or ``model_id``), ``score``; optionally ``instruction_id``,
``dataset``, ``task``, ``split``, ``cost_usd``. Further text columns belong to the instruction (e.g. a group
or an answer), further numeric columns to the outcome (other scores).
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from satlight.errors import SatlightError
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.tables import (
    RecordTables,
    check_instructions,
    named_candidates,
    require_columns,
    require_first,
    with_absolute_images,
)

TEXT_COLUMNS = ("instruction_id", "instruction", "candidate", "model_id", "dataset", "task", "split", "image")


def read(path: Path | str, score_column: str = "score", models: Path | str | None = None) -> PerformanceRecords:
    """Read a CSV or JSON-lines file as a matrix.

    Args:
        path: ``.csv``, ``.jsonl`` or ``.ndjson`` file, one row per outcome.
        score_column: Numeric column to use as the outcome, in [0, 1].
        models: JSON file with details of the candidates, in the format of ``models.json``.

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
    return build_records(tables(path, models), score_column)


def tables(path: Path | str, models: Path | str | None = None) -> RecordTables:
    """Read a CSV or JSON-lines file as tables; arguments and errors as for :func:`read`."""
    path = Path(path).expanduser()
    file = str(path)
    frame = _read_file(path)
    if "candidate" in frame.columns:
        frame = frame.drop("model_id", strict=False).rename({"candidate": "model_id"})
    elif "model_id" not in frame.columns:
        require_columns(frame, ("instruction", "candidate", "score"), file)
    require_columns(frame, ("instruction", "model_id", "score"), file)
    if not frame.height:
        raise SatlightError(f"{file} has no rows; one row per outcome is required.")
    empty = (frame["model_id"].str.strip_chars() == "").fill_null(True)
    require_first(empty, frame, "model_id", file, "Every row needs the name of its candidate.")
    frame = _numbers(frame, file).with_columns(_dataset(frame, path.stem))
    if "instruction_id" not in frame.columns:
        # Include the dataset: the same question may have different options in two datasets.
        key = pl.concat_str("dataset", pl.col("instruction").fill_null(""), separator="\0")
        frame = frame.with_columns(_hashed(frame.select(key.alias("key"))["key"]).alias("instruction_id"))
    text_columns = [name for name, kind in frame.schema.items() if not kind.is_numeric() and kind != pl.Boolean]
    instruction_columns = [name for name in text_columns if name != "model_id"]
    _require_agreement(frame, instruction_columns, file)
    first = frame["instruction_id"].is_first_distinct()
    instructions = frame.filter(first).select(instruction_columns)
    instructions = check_instructions(instructions, file, row_numbers=first.arg_true())
    names = frame["model_id"].unique(maintain_order=True).to_list()
    record_columns = [name for name in frame.columns if name not in instruction_columns]
    return RecordTables(
        instructions=with_absolute_images(instructions, path.parent),
        candidates=named_candidates(names, models),
        records=frame.select("instruction_id", *record_columns).lazy(),
        name=path.stem,
        file=file,
    )


def _read_file(path: Path) -> pl.DataFrame:
    if not path.is_file():
        raise SatlightError(f"{path} does not exist or is not a file. Give a .csv or .jsonl file.")
    try:
        if path.suffix.lower() == ".csv":
            # Read scores as text first, so that an invalid one can be shown with its row.
            names = pl.read_csv(path, n_rows=0, infer_schema=False).columns
            overrides = {name: pl.String for name in (*TEXT_COLUMNS, "score", "cost_usd") if name in names}
            return pl.read_csv(path, schema_overrides=overrides, infer_schema_length=10_000)
        frame = pl.read_ndjson(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise SatlightError(f"{path} cannot be read: {reason}. Is it a UTF-8 .csv or .jsonl file?") from error
    ids = [name for name in TEXT_COLUMNS if name in frame.columns]
    return frame.with_columns(pl.col(ids).cast(pl.String, strict=False))


def _numbers(frame: pl.DataFrame, file: str) -> pl.DataFrame:
    """Convert score and cost to numbers; empty cells become null."""
    for column in ("score", "cost_usd"):
        if column not in frame.columns or frame[column].dtype.is_numeric() or frame[column].dtype == pl.Boolean:
            continue
        text = frame[column].cast(pl.String)
        text = text.set(text.str.strip_chars() == "", None)
        number = text.str.strip_chars().str.to_lowercase().replace({"true": "1", "false": "0"})
        number = number.cast(pl.Float64, strict=False)
        wrong = number.is_null() & text.is_not_null()
        require_first(wrong, frame, column, file, "A number is required.")
        frame = frame.with_columns(number.alias(column))
    return frame


def _dataset(frame: pl.DataFrame, default: str) -> pl.Expr:
    return (pl.col("dataset") if "dataset" in frame.columns else pl.lit(default)).alias("dataset")


def _hashed(texts: pl.Series) -> pl.Series:
    import hashlib

    unique = texts.unique(maintain_order=True).to_list()
    ids = [hashlib.sha256((text or "").encode("utf-8", "surrogatepass")).hexdigest()[:16] for text in unique]
    return texts.replace_strict(unique, ids, return_dtype=pl.String)


def _require_agreement(frame: pl.DataFrame, columns: list[str], file: str) -> None:
    """Raise a SatlightError if rows of one instruction differ in a column of the instruction."""
    for column in columns:
        if column == "instruction_id":
            continue
        first = pl.col(column).first().over("instruction_id")
        differs = frame.select(pl.col(column).ne_missing(first))[column]
        problem = "An earlier row of the same instruction_id has another value; they must agree."
        require_first(differs, frame, column, file, problem)
