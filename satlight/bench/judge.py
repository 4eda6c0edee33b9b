"""From a method's scores to the figures of its cell; the only judge is satlight.evaluation.

Shape legend: N test instructions and M candidates of the problem.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from satlight.bench.cells import Cell
from satlight.bench.costs import cost_facts
from satlight.bench.methods import Prediction
from satlight.evaluation import Control, evaluate
from satlight.evaluation.controls import matrices
from satlight.evaluation.spending import cost_state
from satlight.metrics import functional
from satlight.metrics.forecast import reliability_bins

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


def judge(
    cell: Cell,
    prediction: Prediction,
    train: PerformanceRecords,
    test: PerformanceRecords,
    controls: dict[str, Control],
) -> dict[str, Any]:
    """Evaluate a prediction beside all controls.

    Args:
        cell: The cell; its problem has the groups and the seed.
        prediction: Scores (N, M).
        train: Train and validation rows.
        test: Test rows.
        controls: Measured on the same rows by :func:`satlight.evaluation.measure_controls`.

    Returns:
        ``results`` (:class:`satlight.evaluation.RoutingResults` as a dictionary), ``reliability`` (bins,
        empty where the scores are no log-odds), ``cost`` (:func:`satlight.bench.costs.cost_facts`; None
        unless the costs are complete and the scores log-odds) and ``outcomes``, float32 (N,) of the routed
        candidates, NaN where unknown.

    Raises:
        SatlightError: Scores that are not finite.
    """
    results = evaluate(
        prediction.scores,
        test,
        train,
        cell.problem.groups,
        seed=cell.problem.seed,
        resamples=cell.spec["resamples"],
        controls=controls,
    )
    score_NM = torch.from_numpy(prediction.scores).float()
    outcome_NM, known_NM = matrices(test)
    outcome_N, known_N = functional.outcomes_of(functional.choose(score_NM), outcome_NM, known_NM)
    bins = reliability_bins(score_NM, outcome_NM, known_NM) if prediction.probabilistic else []
    priced = cost_state(test) == cost_state(train) == "complete" and prediction.probabilistic
    primary = next(iter(cell.problem.groups.values()))
    return {
        "cost": cost_facts(prediction.scores, train, test, primary) if priced else None,
        "results": results.to_dict(),
        "reliability": [[b.confidence, b.accuracy, b.count] for b in bins if b.count],
        "probabilistic": prediction.probabilistic,
        "outcomes": np.where(known_N.numpy(), outcome_N.numpy(), np.nan).astype(np.float32),
    }
