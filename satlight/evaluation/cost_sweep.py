"""The cost-aware protocol: quality and cost of a router at different weights of cost.

Shape legend: N instructions and M candidates of the test records.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from satlight.errors import SatlightError
from satlight.evaluation.controls import matrices
from satlight.evaluation.protocols import Setting
from satlight.metrics.cost import checked_costs, single_points, trade_off_curve, trade_off_weights
from satlight.records import PerformanceRecords
from satlight.records.names import listed


class CostPoint(NamedTuple):
    """Point of the quality-cost curve.

    Args:
        weight: Probability that one dollar is worth; infinity = the lowest price.
        cost: US dollars per instruction, macro mean over datasets.
        quality: Outcome in [0, 1], macro mean over datasets.
    """

    weight: float
    cost: float
    quality: float


def cost_sweep(probability_NM: np.ndarray, setting: Setting) -> list[CostPoint]:
    """Choose by probability - weight · price, for weights from "quality alone" to "price alone".

    The price of a candidate is its mean cost on ``setting.train``; quality and cost of a point are those of
    the recorded calls. Instructions whose chosen candidate has no record are left out of both.

    Args:
        probability_NM: Predicted Pr(correct) (N, M) in the order of ``setting.test``, e.g. the sigmoid of log-odds.
        setting: From any protocol, on records with costs.

    Returns:
        A point per weight, in increasing order.

    Raises:
        SatlightError: The scores are not probabilities, a record has no cost, or a candidate has no known
            cost on train.
    """
    test, train = setting.test, setting.train
    probability_NM = np.asarray(probability_NM)
    if probability_NM.shape != test.shape:
        raise SatlightError(
            f"The scores have shape {probability_NM.shape}, but '{test.name}' has {test.shape[0]} test "
            f"instructions x {test.shape[1]} candidates"
        )
    if not ((probability_NM >= 0) & (probability_NM <= 1)).all():
        raise SatlightError(
            f"The scores go from {probability_NM.min():.3g} to {probability_NM.max():.3g}, but the cost "
            "sweep needs probabilities in [0, 1]. Convert log-odds by 1 / (1 + exp(-score))."
        )
    cells = *matrices(test), checked_costs(_costs(test), matrices(test)[1])
    price_M = _prices(train, test.model_ids)
    probability = torch.from_numpy(probability_NM)
    parts = [torch.from_numpy(np.flatnonzero(test.datasets == name)) for name in np.unique(test.datasets)]
    curves = [trade_off_curve(probability[rows], price_M, *(cell[rows] for cell in cells)) for rows in parts]
    cost_P, quality_P = (torch.stack(side).nanmean(0).tolist() for side in zip(*curves, strict=True))
    return list(map(CostPoint, trade_off_weights(price_M), cost_P, quality_P))


def _prices(train: PerformanceRecords, model_ids: list[str]) -> torch.Tensor:
    """Compute the mean cost on train, float64 (M,)."""
    cost_NM, known_NM = matrices(train, model_ids, _costs(train).numpy())
    price_M = single_points(torch.zeros_like(cost_NM), known_NM, cost_NM)[0]
    if unknown := [name for name, price in zip(model_ids, price_M.tolist(), strict=True) if price != price]:
        raise SatlightError(f"No cost of {listed(unknown)} is known on train; remove them from the zoo.")
    return price_M


def _costs(records: PerformanceRecords) -> torch.Tensor:
    if records.costs is None:
        raise SatlightError(
            f"'{records.name}' has no costs. Use records with a column cost_usd, such as RouterBench's."
        )
    return torch.from_numpy(np.array(records.costs))
