"""Evaluate controls and predictions: the outcome table and the facts of a cell.

Shape legend: N test instructions and M candidates of the problem.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from satlight.bench.cells import Cell
from satlight.bench.methods import Prediction, clock
from satlight.bench.results import CellResult
from satlight.evaluation import Control, evaluate, measure_controls
from satlight.evaluation.controls import matrices
from satlight.evaluation.cost_sweep import cost_sweep
from satlight.evaluation.outcomes import (
    CANDIDATE,
    CONTROL,
    METHOD,
    UPPER_BOUND,
    UPPER_BOUNDS,
    ZERO_ROUTER,
    OutcomeTable,
    controls_of,
)
from satlight.evaluation.protocols import Setting
from satlight.evaluation.spending import cost_state
from satlight.files import write_table
from satlight.metrics.forecast import reliability_bins
from satlight.metrics.functional import choose

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


def measure(cell: Cell, train: PerformanceRecords, test: PerformanceRecords, folder: Path) -> CellResult:
    """Measure the controls of a problem, and with costs also each candidate alone.

    Args:
        cell: The cell.
        train: Training and validation rows.
        test: Test rows.
        folder: The cell's folder, which gets ``outcomes.parquet``.
    """
    start = clock()
    table = OutcomeTable(test, cell.place)
    for name, control in measure_controls(test, train, seed=cell.problem.seed).items():
        table.add(UPPER_BOUND if name in UPPER_BOUNDS else CONTROL, name, control)
    if table.spending is not None:
        for column, name in enumerate(test.model_ids):
            table.add(CANDIDATE, name, Control.of(torch.full((test.shape[0],), column), *matrices(test)))
    write_table(table.frame(), folder / "outcomes.parquet")
    return CellResult(fit_seconds=clock() - start)


def judge(
    cell: Cell,
    prediction: Prediction,
    train: PerformanceRecords,
    test: PerformanceRecords,
    folder: Path,
    controls: Path,
) -> CellResult:
    """Evaluate a prediction together with all controls.

    Args:
        cell: The cell.
        prediction: Scores (N, M) of a method.
        train: Training and validation rows.
        test: Test rows.
        folder: The cell's folder, which gets ``outcomes.parquet``, ``scores.parquet`` and the files of
            :meth:`satlight.evaluation.RoutingResults.save`.
        controls: Folder of the cell that measured the controls.

    Raises:
        SatlightError: Scores are not finite.
    """
    score_NM = prediction.scores.astype(np.float32)
    ids = test.instructions.select(pl.col("instruction_id").cast(pl.String))
    write_table(ids.hstack(pl.DataFrame(score_NM, schema=test.model_ids)), folder / "scores.parquet")
    results = evaluate(
        prediction.scores,
        test,
        train,
        cell.problem.groups,
        seed=cell.problem.seed,
        resamples=cell.spec["resamples"],
        controls=controls_of(pl.read_parquet(controls / "outcomes.parquet"), test.model_ids),
    )
    results.save(folder)
    table = OutcomeTable(test, cell.place, train=train)
    choice_N = choose(torch.from_numpy(score_NM))
    table.add(METHOD, cell.method, Control.of(choice_N, *matrices(test)), score_NM)
    if table.spending is not None:
        table.add(ZERO_ROUTER, cell.method, table.spending.zero_router(choice_N))
    write_table(table.frame(), folder / "outcomes.parquet")
    calibrated = prediction.probabilistic
    bins = reliability_bins(torch.from_numpy(score_NM), *matrices(test)) if calibrated else []
    priced = calibrated and cost_state(test) == cost_state(train) == "complete"
    return CellResult(
        fit_seconds=prediction.fit_seconds,
        decision_ms=prediction.decision_ms,
        chosen={key: str(value) for key, value in prediction.chosen.items()},
        routed=next(iter(results.groups.values())).routed,
        probabilistic=calibrated,
        reliability=[[b.confidence, b.accuracy, b.count] for b in bins if b.count],
        curve=_curve(prediction.scores, train, test, next(iter(cell.problem.groups.values()))) if priced else None,
    )


def _curve(
    score_NM: np.ndarray, train: PerformanceRecords, test: PerformanceRecords, datasets: list[str]
) -> list[list[float]]:
    inside = np.isin(test.datasets, datasets)
    probability = 1 / (1 + np.exp(-score_NM[inside].astype(np.float64)))
    points = cost_sweep(probability, Setting("cost", train, test.rows(inside), None, {}))
    return [[point.cost for point in points], [100 * point.quality for point in points]]
