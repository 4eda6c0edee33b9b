"""Training data and fitted kNN and MLP in the file formats of vLLM Semantic Router.

Its selectors read a feature vector: the embedding of the query by its own embedding model, and 14 values that mark the
category of the query. The vectors must therefore come from that model.

Reference: vllm-project/semantic-router, ``src/training/model_selection/ml_model_selection`` (``data_loader.py``: lines
    and categories) and ``src/semantic-router/pkg/modelselection`` (``knn.go``, ``mlp.go``: what is read).

Shape legend: N instructions, M candidates, D features, E dimensions of an embedding.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from satlight.baselines.knn import KNN
from satlight.baselines.mlp import MLP
from satlight.errors import SatlightError
from satlight.files import write_text
from satlight.records import PerformanceRecords
from satlight.records.names import listed

CATEGORIES = (
    "math", "physics", "chemistry", "biology", "computer science", "history", "economics", "business", "law", "health",
    "psychology", "philosophy", "other", "unknown",
)  # fmt: skip
"""Categories, in the order of the one-hot part of the features."""

TRAINING_DATA = "training_data.jsonl"
DIGITS = 7
"""Significant digits of the numbers in a model file."""

ADVICE = "give .npy with a row per instruction of the records, or .parquet with the columns instruction_id and vector"


def categories(records: PerformanceRecords, column: str) -> list[str]:
    """Return the category of each instruction, "other" where the column has none of :data:`CATEGORIES`.

    Raises:
        SatlightError: No such column.
    """
    if column not in records.instructions.columns:
        raise SatlightError(
            f"--category-column {column}: the instructions of '{records.name}' have the columns "
            f"{listed(records.instructions.columns)}; name one of them"
        )
    values = (str(value).strip().lower().replace("_", " ") for value in records.instructions[column].to_list())
    return [value if value in CATEGORIES else "other" for value in values]


def write_training_data(records: PerformanceRecords, category_N: Sequence[str], folder: Path) -> Path:
    """Write a line per known outcome: query, category, model_name, performance.

    ``response_time`` is left out: records hold no latencies, and the reader takes 0.
    """
    lines = [
        json.dumps(
            {
                "query": text,
                "category": category_N[row],
                "model_name": name,
                "performance": round(float(records.outcomes[row, column]), 6),
            },
            ensure_ascii=False,
        )
        for row, text in enumerate(records.texts)
        for column, name in enumerate(records.model_ids)
        if records.known[row, column]
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TRAINING_DATA, "".join(f"{line}\n" for line in lines))
    return folder / TRAINING_DATA


def read_vectors(path: Path, records: PerformanceRecords, all_records: PerformanceRecords) -> np.ndarray:
    """Read the embeddings of instructions.

    Args:
        path: ``.npy`` (rows of ``all_records``, E), or ``.parquet`` with ``instruction_id`` and ``vector``.
        records: N instructions, some of ``all_records``.
        all_records: The records as they are on disk, whose order the rows of ``.npy`` have.

    Returns:
        float32 (N, E).

    Raises:
        SatlightError: Another file, another number of rows, missing instructions, or values that are not finite.
    """
    try:
        if path.suffix == ".npy":
            vectors, ids = np.load(path, allow_pickle=False), list(all_records.ids)
        else:
            frame = pl.read_parquet(path, columns=["instruction_id", "vector"])
            vectors, ids = np.array(frame["vector"].to_list(), dtype=np.float32), frame["instruction_id"].to_list()
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise SatlightError(f"--vectors {path} cannot be read ({error!s:.200}); {ADVICE}") from error
    if vectors.ndim != 2 or len(vectors) != len(ids) or not np.isfinite(vectors).all():
        raise SatlightError(
            f"--vectors {path} has the shape {vectors.shape} for {len(ids)} instructions, or values that are not "
            f"finite; {ADVICE}"
        )
    row_of = {str(name): row for row, name in enumerate(ids)}
    if missing := [name for name in records.ids if name not in row_of]:
        raise SatlightError(
            f"--vectors {path} lacks {len(missing)} of {len(records.ids)} instructions, e.g. {listed(missing[:3])}; "
            f"{ADVICE}"
        )
    return vectors[[row_of[name] for name in records.ids]].astype(np.float32)


def features(vectors_NE: np.ndarray, category_N: Sequence[str]) -> np.ndarray:
    """Return embeddings with the one-hot category, float32 (N, E + 14).

    Example:
        >>> features(np.zeros((1, 2), dtype=np.float32), ["physics"])[0, :5].tolist()
        [0.0, 0.0, 0.0, 1.0, 0.0]
    """
    one_hot = np.eye(len(CATEGORIES), dtype=np.float32)[[CATEGORIES.index(name) for name in category_N]]
    return np.concatenate([vectors_NE, one_hot], axis=1)


class _Known:
    """An embedder that looks up the features of the instructions that a baseline is fitted on."""

    def __init__(self, texts: Sequence[str], features_ND: np.ndarray) -> None:
        self._row = {text: row for row, text in enumerate(texts)}
        self._features_ND = features_ND

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        return self._features_ND[[self._row[text] for text in texts]]


def write_models(
    records: PerformanceRecords,
    vectors_NE: np.ndarray,
    category_N: Sequence[str],
    folder: Path,
    models: Sequence[str] = ("knn", "mlp"),
    seed: int = 0,
) -> list[Path]:
    """Fit baselines on given vectors and write them as ``knn_model.json`` and ``mlp_model.json``.

    The kNN selector compares features of length 1, the MLP reads them as they are.

    Args:
        records: N train and validation rows; hyper-parameters are chosen on validation rows.
        vectors_NE: Embeddings of the instructions by the embedding model of the gateway.
        category_N: From :func:`categories`.
        folder: Folder to write to.
        models: Which of ``knn`` and ``mlp``.
        seed: Seed of the MLP.
    """
    raw_ND = features(vectors_NE, category_N)
    folder.mkdir(parents=True, exist_ok=True)
    contents: dict[str, dict[str, Any]] = {}
    if "knn" in models:
        unit_ND = raw_ND / np.linalg.norm(raw_ND, axis=1, keepdims=True)
        contents["knn"] = knn_content(KNN(seed).fit(records, _Known(records.texts, unit_ND)), records, raw_ND)
    if "mlp" in models:
        contents["mlp"] = mlp_content(MLP(seed).fit(records, _Known(records.texts, raw_ND)))
    paths = []
    for name, content in contents.items():
        paths.append(folder / f"{name}_model.json")
        write_text(paths[-1], json.dumps(content, allow_nan=False))
    return paths


def knn_content(baseline: KNN, records: PerformanceRecords, features_ND: np.ndarray) -> dict[str, Any]:
    """Return a fitted kNN as the selector reads it: a sample per known outcome.

    The selector takes the k nearest samples and adds up 0.9 · quality + 0.1 · speed for each candidate. The samples of
    an instruction are equally near, so that its k is ours times M. Where all candidates have answered all
    instructions, and latencies are 0, the choice is the candidate with the highest mean outcome on our k instructions;
    ties go to the first name. Where outcomes are missing, the neighborhood is larger than k instructions.
    """
    rows, columns = np.nonzero(records.known)
    vectors = [_rounded(row) for row in features_ND]
    return {
        "algorithm": "knn",
        "format_version": 2,
        "trained": True,
        "k": min(int(baseline.chosen["k"]) * records.shape[1], len(rows)),
        "embeddings": [vectors[row] for row in rows],
        "labels": [records.model_ids[column] for column in columns],
        "qualities": _rounded(records.outcomes[rows, columns]),
        "latencies": [0] * len(rows),
        "model_names": sorted(records.model_ids),
        "num_samples": len(rows),
        "feature_dim": int(features_ND.shape[1]),
    }


def mlp_content(baseline: MLP) -> dict[str, Any]:
    """Return a fitted MLP as the selector reads it: two linear layers, whose largest output is the choice.

    Candidates that were fitted apart, since they answered other instructions, get hidden units of their own.
    """
    hidden, hidden_bias, width = [], [], sum(one.coefs_[0].shape[1] for _, one in baseline.parts)
    output = np.zeros((len(baseline.model_ids), width))
    output_bias = np.array(baseline.means, dtype=np.float64)
    start = 0
    for columns, regressor in baseline.parts:
        (first, second), (first_bias, second_bias) = regressor.coefs_, regressor.intercepts_
        hidden.append(first.T)
        hidden_bias.append(first_bias)
        output[columns, start : start + first.shape[1]] = second.T
        output_bias[columns] += second_bias
        start += first.shape[1]
    layers = [(np.concatenate(hidden), np.concatenate(hidden_bias)), (output, output_bias)]
    written = [
        {
            "type": "linear",
            "in_features": weight.shape[1],
            "out_features": weight.shape[0],
            "weight": [_rounded(row) for row in weight],
            "bias": _rounded(bias),
        }
        for weight, bias in layers
    ]
    return {
        "algorithm": "mlp",
        "trained": True,
        "model_names": list(baseline.model_ids),
        "feature_dim": written[0]["in_features"],
        "n_classes": len(baseline.model_ids),
        "hidden_sizes": [width],
        "dropout": 0.0,
        "layers": [written[0], {"type": "relu"}, written[1]],
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
