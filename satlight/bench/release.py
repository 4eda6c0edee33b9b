"""The release curve of a method: one training, then a zoo that changes with every release.

Shape legend: N test instructions and M candidates of the problem.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from satlight.bench.cells import Cell
from satlight.bench.methods import predict
from satlight.evaluation.controls import matrices
from satlight.evaluation.protocols import incremental_release
from satlight.metrics import functional

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


def run_release(cell: Cell, records: PerformanceRecords, output: Path) -> dict[str, Any]:
    """Train on the first releases, then choose between the best so far and the newest after each later one.

    Args:
        cell: A cell whose spec has ``release``: ``founders``, and perhaps ``best`` and ``probes``.
        records: The problem's records.
        output: Folder of the bench.

    Returns:
        ``release``: per release ``released``, ``newest``, and in percent, macro means over the primary
        group: ``routed``, ``random``, ``best_single`` (the historically best) and ``oracle``.

    Raises:
        SatlightError: Candidates without a release date, or too few of them.
    """
    problem = cell.problem
    settings = list(
        incremental_release(
            records, seed=problem.seed, train_datasets=problem.train_datasets, **cell.spec["release"]
        )
    )
    train = settings[0].train
    test = records.rows(records.splits == "test")
    later = [setting.about["newest"] for setting in settings]
    prediction = predict(cell, train, test, output, unseen=later)
    column = {name: m for m, name in enumerate(test.model_ids)}
    primary = next(iter(problem.groups.values()))
    lines = []
    for setting in settings:
        columns = [column[name] for name in setting.test.model_ids]
        line = _accuracies(prediction.scores[:, columns], setting.test, setting.about["best"][0], primary)
        lines.append({"released": setting.about["released"], "newest": setting.about["newest"], **line})
    return {"release": lines, "fit_seconds": prediction.fit_seconds}


def _accuracies(
    score_NM: np.ndarray, test: PerformanceRecords, best: str, datasets: list[str]
) -> dict[str, float]:
    outcome_NM, known_NM = matrices(test)
    single_N = torch.full((test.shape[0],), test.model_ids.index(best))
    means: dict[str, list[float]] = {}
    for name in datasets:
        rows = torch.from_numpy(np.flatnonzero(test.datasets == name))
        part = outcome_NM[rows], known_NM[rows]
        for key, values in (
            ("routed", functional.outcomes_of(functional.choose(torch.from_numpy(score_NM)[rows]), *part)),
            ("random", functional.random_outcomes(*part)),
            ("best_single", functional.outcomes_of(single_N[rows], *part)),
            ("oracle", functional.outcomes_of(functional.oracle(*part), *part)),
        ):
            means.setdefault(key, []).append(100 * functional.masked_mean(*values).item())
    return {key: float(np.mean(values)) for key, values in means.items()}
