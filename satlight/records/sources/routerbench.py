"""RouterBench's outcomes as CSV: one row per prompt, with score and cost of every candidate in columns.

Columns: ``sample_id``, ``prompt`` (a Python list of texts), ``eval_name``, for each candidate ``NAME`` (score) and
``NAME|total_cost`` (US dollars), and others that are not used. The original release is a pickle, which would run code
when it is read; it is refused.

Reference: Hu et al. 2024, "RouterBench: A Benchmark for Multi-LLM Routing System", arXiv 2403.12031.
"""

from __future__ import annotations

import ast
import io
import re
from pathlib import Path

import polars as pl

from satlight.errors import SatlightError
from satlight.files import read_text
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.tables import (
    RecordTables,
    check_instructions,
    named_candidates,
    readable,
    require_columns,
    require_first,
)

ADVICE = "give a .csv file of RouterBench, or the folder datasets/routerbench_zs of RouterDC"
COST = "|total_cost"


def read(path: Path | str, score_column: str = "score", models: Path | str | None = None) -> PerformanceRecords:
    """Read RouterBench's files as a matrix.

    Args:
        path: A ``.csv`` file, or a folder of them.
        score_column: ``"score"``.
        models: JSON file with details of the candidates, in the format of ``models.json``.

    Returns:
        Records with costs, and the column ``question``: the prompt without the worked examples that all prompts of a
        dataset start with.

    Raises:
        SatlightError: No such file, or a file with other content.
    """
    return build_records(tables(path, models), score_column)


def tables(path: Path | str, models: Path | str | None = None) -> RecordTables:
    """Read RouterBench's files as tables; arguments and errors as for :func:`read`.

    Files named ``…_train`` and ``…_test`` give the split; others have none.
    """
    path = Path(path).expanduser()
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if not files or path.suffix.lower() in (".pkl", ".pickle"):
        raise SatlightError(
            f"{path} is a pickle or holds no .csv file. A pickle runs code when it is read; convert it where that is "
            "safe, with pandas.read_pickle(FILE).to_csv(...), or use the .csv files in RouterDC's repository."
        )
    frames, notes = [_frame(file) for file in files], []
    names = list(dict.fromkeys(name for frame in frames for name in _candidates(frame)))
    whole = pl.concat(frames, how="diagonal")
    scored = whole.filter(pl.all_horizontal(pl.col(names).is_not_null()))
    if dropped := whole.height - scored.height:
        notes.append(f"{dropped} rows without a score of every candidate were dropped, as in RouterDC's own loader.")
    rows = scored.unique("instruction_id", keep="first", maintain_order=True)
    if repeated := scored.height - rows.height:
        notes.append(f"{repeated} rows that repeat a sample_id were dropped.")
    rows = rows.with_columns(_questions(rows))
    columns = ["instruction_id", "dataset", "task", "split", "instruction", "question"]
    instructions = rows.select(name for name in columns if rows[name].null_count() < rows.height)
    costs = [f"{name}{COST}" for name in names]
    long = [
        rows.select("instruction_id", model_id=pl.lit(name), score=name, cost_usd=cost)
        for name, cost in zip(names, costs, strict=True)
    ]
    return RecordTables(
        instructions=check_instructions(instructions, str(path)),
        candidates=named_candidates(names, models),
        records=pl.concat(long).lazy(),
        name="routerbench",
        file=str(path),
        notes=tuple(notes),
    )


def _frame(file: Path) -> pl.DataFrame:
    """Read one file: the columns of the instruction, and score and cost of each candidate as numbers."""
    text = read_text(file, ADVICE)
    with readable(file, " as CSV", ADVICE):
        frame = pl.read_csv(io.BytesIO(text.encode()), infer_schema=False)
    require_columns(frame, ("sample_id", "prompt", "eval_name"), str(file))
    names = _candidates(frame)
    if not names or not frame.height:
        raise SatlightError(f"{file} has no rows, or no column NAME with its NAME{COST}; {ADVICE}.")
    for column in (*names, *(f"{name}{COST}" for name in names)):
        number = frame[column].str.strip_chars().replace({"": None}).cast(pl.Float64, strict=False)
        given = frame[column].is_not_null() & (frame[column] != "")
        is_cost = column.endswith(COST)
        inside = number.is_finite() & (number >= 0) & (is_cost | (number <= 1))
        problem = "A cost in US dollars is at least 0." if is_cost else "A score lies in [0, 1]."
        require_first(given & ~inside.fill_null(False), frame, column, str(file), problem)
        frame = frame.with_columns(number.alias(column))
    prompts = [_prompt(value, file, row) for row, value in enumerate(frame["prompt"].to_list())]
    split = re.search(r"[-_](train|test)$", file.stem)
    return frame.select(
        instruction_id="routerbench-" + pl.col("sample_id"),
        dataset=pl.col("eval_name").str.replace("^mmlu-.*$", "mmlu").str.replace_all("-", "_"),
        task=pl.col("eval_name").str.strip_prefix("mmlu-").str.replace_all("-", "_"),
        split=pl.lit(split[1] if split else None, pl.String),
        instruction=pl.Series(prompts, dtype=pl.String),
        **{name: pl.col(name) for name in (*names, *(f"{name}{COST}" for name in names))},
    )


def _candidates(frame: pl.DataFrame) -> list[str]:
    return [name for name in frame.columns if f"{name}{COST}" in frame.columns]


def _prompt(value: str | None, file: Path, row: int) -> str:
    """Return the text of a cell that holds a Python list of texts, or a text."""
    if value is None or not value.startswith("["):
        return value or ""
    try:
        texts = ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value  # a text that starts with a bracket
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise SatlightError(f"{file}, row {row} (counting from 0), column 'prompt': a list of texts is required.")
    return "\n".join(texts)


def _questions(rows: pl.DataFrame) -> pl.Series:
    """Return the prompts without the paragraphs that all prompts of their dataset start with."""
    datasets, prompts = rows["dataset"].to_list(), rows["instruction"].to_list()
    start = {}
    for dataset in dict.fromkeys(datasets):
        own = [prompt for prompt, name in zip(prompts, datasets, strict=True) if name == dataset]
        first, last = min(own), max(own)  # what these two share, all share
        shared = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
        start[dataset] = first.rfind("\n\n", 0, shared) + 2 if "\n\n" in first[:shared] else 0
    questions = [prompt[start[name] :] for prompt, name in zip(prompts, datasets, strict=True)]
    return pl.Series("question", questions, dtype=pl.String)
