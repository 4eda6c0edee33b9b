"""RouterDC's published outcomes: the JSON files of ``datasets/split2_model7`` in its repository.

Each file is a list of ``{"question": …, "scores": {candidate: number}, "cluster_id": …}``. Files named
``…_train`` or ``…-train`` are for training, all others for testing.

Reference: Chen et al. 2024, "RouterDC: Query-Based Router by Dual Contrastive Learning", NeurIPS.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import polars as pl

from satlight.errors import SatlightError
from satlight.files import read_json
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import RecordTables, check_instructions, named_candidates

ADVICE = "give the folder datasets/split2_model7 of RouterDC"

SAMPLED = frozenset({"gsm8k", "humaneval", "javascript", "mbpp"})
"""Datasets whose score is the fraction of correct samples.

For others it is the probability of the correct option, and 0 if another option was preferred; there any score
above 0 counts as correct, as in RouterDC's own evaluation."""


def read(path: Path | str, score_column: str = "correct", models: Path | str | None = None) -> PerformanceRecords:
    """Read RouterDC's files as a matrix.

    Args:
        path: Folder with the JSON files, or one of them.
        score_column: ``"correct"`` (accuracy as RouterDC counts it) or ``"score"`` (the raw value).
        models: JSON file with details of the candidates, in the format of ``models.json``.

    Returns:
        Records with the columns ``cluster_id`` (null if missing) and ``source_file``.

    Raises:
        SatlightError: No such file, or a file with other content.
    """
    return build_records(tables(path, models), score_column)


def tables(path: Path | str, models: Path | str | None = None) -> RecordTables:
    """Read RouterDC's files as tables; arguments and errors as for :func:`read`."""
    path = Path(path).expanduser()
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise SatlightError(f"{path} holds no .json file. Give the folder datasets/split2_model7 of RouterDC.")
    instructions, records = [], []
    names: list[str] = []
    for file in files:
        rows = _rows(file)
        dataset, split = dataset_and_split(file.stem)
        ids = [f"routerdc-{file.stem}-{number:05d}" for number in range(len(rows))]
        instructions.append(
            pl.DataFrame(
                {
                    "instruction_id": ids,
                    "dataset": [dataset] * len(rows),
                    "split": [split] * len(rows),
                    "instruction": [row["question"] for row in rows],
                    "cluster_id": pl.Series([row.get("cluster_id") for row in rows], dtype=pl.Int64),
                    "source_file": [file.name] * len(rows),
                }
            )
        )
        frame = _scores(ids, rows)
        correct = pl.col("score") if dataset in SAMPLED else (pl.col("score") > 0).cast(pl.Float64)
        records.append(frame.with_columns(correct.alias("correct")))
        names.extend(frame["model_id"].unique(maintain_order=True).to_list())
    return RecordTables(
        instructions=check_instructions(pl.concat(instructions), str(path)),
        candidates=named_candidates(list(dict.fromkeys(names)), models),
        records=pl.concat(records).lazy(),
        name="routerdc",
        file=str(path),
        notes=("The column 'correct' is the accuracy that RouterDC reports; 'score' is its raw value.",),
    )


def dataset_and_split(stem: str) -> tuple[str, str]:
    """Parse dataset and split from a file name.

    Example:
        >>> dataset_and_split("gsm8k-train"), dataset_and_split("MATH_prealgebra")
        (('gsm8k', 'train'), ('math_prealgebra', 'test'))
    """
    match = re.fullmatch(r"(.+?)[-_](train|test)", stem)
    return (match[1].lower(), match[2]) if match else (stem.lower(), "test")


def _rows(file: Path) -> list[dict[str, Any]]:
    rows = read_json(file, ADVICE)
    if not isinstance(rows, list) or not rows:
        raise SatlightError(f"{file} must be a non-empty list of objects with 'question' and 'scores'.")
    for number, row in enumerate(rows):
        where = f"{file}, entry {number} (counting from 0)"
        if not isinstance(row, dict) or not {"question", "scores"} <= row.keys():
            found = listed(list(row)) if isinstance(row, dict) else repr(row)
            raise SatlightError(
                f"{where}: got {found}; an object with 'question' and 'scores' (candidate → number) is required."
            )
        if not isinstance(row["question"], str):
            raise SatlightError(f"{where}: got question {row['question']!r}; text is required.")
        if not isinstance(row["scores"], dict) or not row["scores"]:
            raise SatlightError(f"{where}: got scores {row['scores']!r}; an object (candidate → number) is required.")
        cluster = row.get("cluster_id")
        if cluster is not None and (type(cluster) is not int or not -(2**63) <= cluster < 2**63):
            raise SatlightError(f"{where}: got cluster_id {cluster!r}; an integer or null is required.")
        for name, score in row["scores"].items():
            if type(score) not in (int, float) or not 0 <= score <= 1:
                raise SatlightError(
                    f"{where}: got the score {score!r} of '{name}'; a number from 0 to 1 is required. Leave the "
                    "candidate out where it was not measured."
                )
    return rows


def _scores(ids: list[str], rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "instruction_id": [one for one, row in zip(ids, rows, strict=True) for _ in row["scores"]],
            "model_id": [name.strip() for row in rows for name in row["scores"]],
            "score": pl.Series([float(score) for row in rows for score in row["scores"].values()]),
        }
    )
