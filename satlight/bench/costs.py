"""The quality-cost plot of a method, where the records have costs; the figures are in its results.

Shape legend: N test instructions and M candidates of the problem.

Costs are US dollars per instruction, qualities percent; both are macro means over the datasets of the primary
group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satlight.evaluation.controls import matrices
from satlight.evaluation.cost_sweep import cost_sweep
from satlight.evaluation.protocols import Setting
from satlight.metrics.cost import checked_costs, policy_point, single_points
from satlight.metrics.curves import non_decreasing_hull

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


def cost_facts(
    scores: np.ndarray, train: PerformanceRecords, test: PerformanceRecords, datasets: list[str]
) -> dict[str, Any]:
    """The quality-cost curve of a router beside the single candidates, the zero router and the oracle.

    Args:
        scores: Log-odds (N, M).
        train: What prices may be learned from.
        test: Test rows, N × M, with costs.
        datasets: Of the primary group.

    Returns:
        ``curve`` (costs, qualities; the first point minds quality alone), ``singles`` (candidate → cost and
        quality), ``zero_router`` (costs and qualities of the corners of their hull) and ``oracle``.

    Raises:
        SatlightError: An outcome without a cost.
    """
    inside = np.isin(test.datasets, datasets)
    test, scores = test.rows(inside), scores[inside]
    probability = 1 / (1 + np.exp(-scores.astype(np.float64)))
    points = cost_sweep(probability, Setting("cost", train, test, None, {}))
    cost_M, quality_M = _singles(test)
    return {
        "curve": [[point.cost for point in points], [100 * point.quality for point in points]],
        "singles": {
            name: [float(cost), float(quality)]
            for name, cost, quality in zip(test.model_ids, cost_M, quality_M, strict=True)
            if cost == cost
        },
        "zero_router": [side.tolist() for side in non_decreasing_hull(cost_M, quality_M)],
        "oracle": _oracle(test),
    }


def _parts(test: PerformanceRecords) -> list[np.ndarray]:
    return [np.flatnonzero(test.datasets == name) for name in np.unique(test.datasets)]


def _singles(test: PerformanceRecords) -> tuple[Tensor, Tensor]:
    outcome_NM, known_NM = matrices(test)
    cost_NM = torch.from_numpy(np.array(test.costs))
    pairs = [single_points(outcome_NM[rows], known_NM[rows], cost_NM[rows]) for rows in _parts(test)]
    costs, qualities = (torch.stack(side).nanmean(0) for side in zip(*pairs, strict=True))
    return costs, 100 * qualities


def _oracle(test: PerformanceRecords) -> list[float]:
    """Cost and quality of the best outcome at the lowest cost, instruction by instruction."""
    outcome_NM, known_NM = matrices(test)
    cost_NM = checked_costs(torch.from_numpy(np.array(test.costs)), known_NM)
    masked_NM = torch.where(known_NM, outcome_NM, -1.0)
    best_NM = known_NM & (masked_NM == masked_NM.amax(1, keepdim=True))
    choice_N = torch.where(best_NM, cost_NM, torch.inf).argmin(1)
    pairs = [
        policy_point(choice_N[rows], outcome_NM[rows], known_NM[rows], cost_NM[rows]) for rows in _parts(test)
    ]
    cost, quality = (float(torch.stack(side).nanmean()) for side in zip(*pairs, strict=True))
    return [cost, 100 * quality]
