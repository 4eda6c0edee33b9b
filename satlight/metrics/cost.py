"""Costs of routing, and the trade-off between quality and cost.

Shape legend: N instructions and M candidates of a matrix, P points (policies) of a quality-cost curve.

Costs are US dollars of one call. They belong to records, so a cell without a record needs none. A record
without a cost is always an error: counted as $0, an unknown price would favor its candidate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from satlight.errors import SatlightError
from satlight.metrics.functional import NONE, masked_mean, outcomes_of
from satlight.rules import BestQuality, Utility

Curve = tuple[Tensor, Tensor]
"""Mean costs and mean outcomes of P policies, float64 (P,) each."""


def checked_costs(cost_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Return costs as float64, 0 where there is no record, after checking that every record has one.

    Args:
        cost_NM: US dollars (N, M); NaN = unknown.
        known_NM: bool (N, M).

    Returns:
        float64 (N, M).

    Raises:
        SatlightError: The cost of a record is NaN, infinite or negative.

    Example:
        >>> checked_costs(torch.tensor([[0.5, float("nan")]]), torch.tensor([[True, False]])).tolist()
        [[0.5, 0.0]]
    """
    wrong_NM = known_NM & ~(cost_NM.isfinite() & (cost_NM >= 0))
    if len(bad := wrong_NM.nonzero()):
        row, column = bad[0].tolist()
        raise SatlightError(
            f"{len(bad)} of {int(known_NM.sum())} records have no usable cost, the first in row {row} and "
            f"column {column} (counting from 0): {cost_NM[row, column]}. A cost is a finite number of US "
            "dollars, 0 or more, for every record; an unknown price is not $0. Fill in cost_usd, or leave "
            "out the candidates without prices."
        )
    return torch.where(known_NM, cost_NM.double(), 0.0)


def mean_cost(choice_N: Tensor, cost_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Compute the mean cost of the chosen candidates, over instructions where the chosen one has a record.

    Args:
        choice_N: int64 (N,), columns; -1 = none.
        cost_NM: US dollars (N, M).
        known_NM: bool (N, M).

    Returns:
        Scalar, US dollars per instruction; NaN when no chosen candidate has a record.

    Raises:
        SatlightError: A record has no cost.

    Example:
        >>> cost, known = torch.tensor([[1.0, 3.0], [1.0, 3.0]]), torch.ones(2, 2, dtype=torch.bool)
        >>> mean_cost(torch.tensor([0, 1]), cost, known).item()
        2.0
    """
    return masked_mean(*outcomes_of(choice_N, checked_costs(cost_NM, known_NM), known_NM))


def single_points(outcome_NM: Tensor, known_NM: Tensor, cost_NM: Tensor) -> Curve:
    """Compute the mean cost and mean outcome of each candidate on its own.

    Returns:
        Two float64 (M,), NaN for a candidate without records.

    Raises:
        SatlightError: A record has no cost.

    Example:
        >>> outcome, cost = torch.tensor([[1.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 3.0], [1.0, 5.0]])
        >>> [x.tolist() for x in single_points(outcome, torch.ones(2, 2, dtype=torch.bool), cost)]
        [[1.0, 4.0], [0.5, 1.0]]
    """
    cost_NM, count_M = checked_costs(cost_NM, known_NM), known_NM.sum(0)
    return cost_NM.sum(0) / count_M, torch.where(known_NM, outcome_NM.double(), 0.0).sum(0) / count_M


# -- trading quality for cost ------------------------------------------------------------------------------


def trade_off_weights(price: Tensor, steps: int = 49) -> list[float]:
    """Return weights from "quality alone" to "price alone", independent of the unit of the prices.

    Args:
        price: Expected costs, (M,) or (N, M).
        steps: Number of weights between the two ends, evenly spaced on a logarithmic scale.

    Returns:
        0, then ``steps`` weights at which the range of prices is worth a probability of 0.001 to 1,000, then
        infinity; only 0 when all prices are equal.

    Example:
        >>> trade_off_weights(torch.tensor([1.0, 3.0]), steps=3)
        [0.0, 0.0005, 0.5, 500.0, inf]
        >>> trade_off_weights(torch.tensor([2.0, 2.0]))
        [0.0]
    """
    spread = float(price.max() - price.min())
    if spread == 0:
        return [0.0]
    exponents = [6 * step / (steps - 1) - 3 if steps > 1 else 0.0 for step in range(steps)]
    return [0.0, *(10**exponent / spread for exponent in exponents), float("inf")]


def trade_off_curve(
    probability_NM: Tensor, price: Tensor, outcome_NM: Tensor, known_NM: Tensor, cost_NM: Tensor
) -> Curve:
    """Measure quality and cost as a router trades one for the other, from quality alone to price alone.

    Prices are known in advance, such as mean costs on *train*; costs are those of the recorded calls.

    Args:
        probability_NM: Predicted Pr(correct) (N, M).
        price: Expected costs, (M,) or (N, M), in US dollars.
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        cost_NM: US dollars (N, M).

    Returns:
        One point per weight of :func:`trade_off_weights`, in that order.

    Raises:
        SatlightError: A record has no cost, or a price is not finite.

    Example:
        >>> outcome, cost = torch.tensor([[0.0, 1.0], [1.0, 1.0]]), torch.tensor([[1.0, 3.0], [1.0, 3.0]])
        >>> known = torch.ones(2, 2, dtype=torch.bool)
        >>> curve = trade_off_curve(torch.tensor([[0.2, 0.9], [0.8, 0.9]]), cost[0], outcome, known, cost)
        >>> [(x.tolist()[0], x.tolist()[-1]) for x in curve]
        [(3.0, 1.0), (1.0, 0.5)]
    """
    if not price.isfinite().all():
        raise SatlightError(
            f"{int((~price.isfinite()).sum())} of {price.numel()} prices are not finite numbers; every "
            "candidate needs a price in US dollars, e.g. its mean cost on train"
        )
    cost_NM = checked_costs(cost_NM, known_NM)
    probability, cost = probability_NM.cpu().numpy(), price.cpu().numpy()
    points = []
    for weight in trade_off_weights(price):
        # At weight 0 ties go to the first candidate, so that the curve starts at the router's own choices.
        choice_N = Utility(weight).choose(probability, cost) if weight else BestQuality().choose(probability)
        points.append(policy_point(torch.from_numpy(choice_N).to(known_NM.device), outcome_NM, known_NM, cost_NM))
    costs, qualities = zip(*points, strict=True)
    return torch.stack(costs), torch.stack(qualities)


def router_curve(score_NM: Tensor, price_M: Tensor, outcome_NM: Tensor, known_NM: Tensor, cost_NM: Tensor) -> Curve:
    """Compute the trade-off curve of a router, plus the policy that always uses the cheapest candidate.

    With that policy the curves of all routers start at the same cost, so their AIQ has the same bounds.

    Args:
        score_NM: Log-odds (N, M).
        price_M: Expected costs (M,) in US dollars, e.g. mean costs on train.
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        cost_NM: US dollars (N, M).

    Returns:
        The points of :func:`trade_off_curve`, then that policy.

    Raises:
        SatlightError: A record has no cost, or a price is not finite.
    """
    trade_off = trade_off_curve(score_NM.double().sigmoid(), price_M, outcome_NM, known_NM, cost_NM)
    single = single_points(outcome_NM, known_NM, cost_NM)
    cheapest = int(single[0].nan_to_num(float("inf")).argmin())
    return with_point(trade_off, (single[0][cheapest], single[1][cheapest]))


def with_point(curve: Curve, point: tuple[Tensor, Tensor]) -> Curve:
    """Append a policy to a curve."""
    return torch.cat([curve[0], point[0][None]]), torch.cat([curve[1], point[1][None]])


def policy_point(choice_N: Tensor, outcome_NM: Tensor, known_NM: Tensor, cost_NM: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean cost and outcome of a choice, over instructions where the chosen one has a record.

    Example:
        >>> outcome, cost = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 3.0]])
        >>> point = policy_point(torch.tensor([1]), outcome, torch.ones(1, 2, dtype=torch.bool), cost)
        >>> [x.item() for x in point]
        [3.0, 1.0]
    """
    outcome_N, known_N = outcomes_of(choice_N, outcome_NM, known_NM)
    cost_N, _ = outcomes_of(choice_N, cost_NM, known_NM)
    return masked_mean(cost_N.double(), known_N), masked_mean(outcome_N.double(), known_N)


def cheapest_choices(cost_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Return, per instruction, the candidate with the cheapest recorded call; -1 where there is none.

    ORBIT's quality-cost curves of all routers start at this policy.

    Example:
        >>> cost, known = torch.tensor([[2.0, 1.0], [5.0, 0.0]]), torch.tensor([[True, True], [True, False]])
        >>> cheapest_choices(cost, known).tolist()
        [1, 0]
    """
    choice_N = torch.where(known_NM, cost_NM, float("inf")).argmin(1)
    return torch.where(known_NM.any(1), choice_N, NONE)


def cost_bounds(cost_NM: Tensor, known_NM: Tensor) -> tuple[float, float]:
    """Compute the mean over instructions of the lowest and of the highest recorded cost.

    They bound the cost of every router, and ORBIT's nAUC is measured between them.

    Raises:
        SatlightError: A record has no cost.

    Example:
        >>> cost_bounds(torch.tensor([[1.0, 3.0], [2.0, 8.0]]), torch.ones(2, 2, dtype=torch.bool))
        (1.5, 5.5)
    """
    cost_NM, some_N = checked_costs(cost_NM, known_NM), known_NM.any(1)
    low_N = torch.where(known_NM, cost_NM, float("inf")).amin(1)
    high_N = torch.where(known_NM, cost_NM, 0.0).amax(1)
    return masked_mean(low_N, some_N).item(), masked_mean(high_N, some_N).item()
