"""Summaries of quality-cost curves: hull, AIQ, zero router, nAUC, QNC.

Shape legend: P points (policies) of a curve, H of them on its hull, M candidates. A point is a policy's mean
cost (US dollars per instruction) and quality (mean outcome). Points with NaN are left out.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from satlight.errors import SatlightError
from satlight.metrics.cost import Curve

# Relative difference between two sums of the same costs in different order.
_TOLERANCE = 1e-9


def pareto_front(cost_P: Tensor, quality_P: Tensor) -> Curve:
    """Return the policies that no other policy beats in both cost and quality, cheapest first.

    Args:
        cost_P: Mean costs (P,).
        quality_P: Mean outcomes (P,).

    Returns:
        Costs and qualities, both strictly increasing; float64.

    Example:
        >>> front = pareto_front(torch.tensor([1.0, 2.0, 3.0, 1.0]), torch.tensor([0.5, 0.4, 0.8, 0.3]))
        >>> [x.tolist() for x in front]
        [[1.0, 3.0], [0.5, 0.8...]]
    """
    cost_P, quality_P = cost_P.double().cpu(), quality_P.double().cpu()
    usable_P = ~(cost_P.isnan() | quality_P.isnan())
    points = sorted(zip(cost_P[usable_P].tolist(), (-quality_P[usable_P]).tolist(), strict=True))
    front: list[tuple[float, float]] = []
    for cost, negative in points:
        if not front or -negative > front[-1][1]:
            front.append((cost, -negative))
    return _curve(front)


def non_decreasing_hull(cost_P: Tensor, quality_P: Tensor) -> Curve:
    """Return the corners of the highest quality that mixtures of the policies reach at each cost.

    A mixture sends a share of the instructions to one policy and the rest to another, so it reaches every
    point on the line between the two. Beyond the best policy the hull is flat.

    Args:
        cost_P: Mean costs (P,).
        quality_P: Mean outcomes (P,).

    Returns:
        Costs and qualities (H,) of the corners, both strictly increasing, the slopes decreasing; float64.

    Example:
        >>> cost, quality = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([0.2, 0.3, 0.8, 0.7])
        >>> [[round(x, 4) for x in side.tolist()] for side in non_decreasing_hull(cost, quality)]
        [[1.0, 3.0], [0.2, 0.8]]

    Reference:
        [Hu et al. 2024, "RouterBench", arXiv 2403.12031], non-decreasing convex hull
    """
    hull: list[tuple[float, float]] = []
    for point in zip(*(side.tolist() for side in pareto_front(cost_P, quality_P)), strict=True):
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) <= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return _curve(hull)


def quality_at(curve: Curve, cost: float) -> float:
    """Interpolate a curve with increasing costs: linear between its points, flat after the last.

    Returns:
        The quality at the cost; NaN below the cheapest point, where there is no policy.

    Example:
        >>> quality_at((torch.tensor([1.0, 3.0]), torch.tensor([0.25, 0.75])), 2.0)
        0.5
    """
    cost_H, quality_H = (side.cpu().numpy() for side in curve)
    return float(np.interp(cost, cost_H, quality_H, left=np.nan)) if len(cost_H) else float("nan")


def aiq(cost_P: Tensor, quality_P: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Compute the average improvement in quality: the mean height of the hull between two costs.

    To compare routers, use the same bounds for all of them, e.g. the costs of the cheapest and of the most
    expensive candidate.

    Args:
        cost_P: Mean costs (P,) of the policies.
        quality_P: Mean outcomes (P,).
        low: c_min; None = the cheapest policy.
        high: c_max; None = the most expensive policy.

    Returns:
        Scalar in the unit of the qualities; the height at the bound when c_min = c_max; NaN without points.

    Raises:
        SatlightError: ``low`` is below the cheapest policy, or above ``high``.

    Example:
        >>> aiq(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.0])).item()
        0.75
        >>> aiq(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.0]), high=5.0).item()
        0.875

    Reference:
        [Hu et al. 2024, "RouterBench", arXiv 2403.12031], AIQ; by the definition in the text,
        which divides by c_max - c_min
    """
    usable_P = ~(cost_P.isnan() | quality_P.isnan())
    if not usable_P.any():
        return torch.tensor(float("nan"), dtype=torch.double)
    low = float(cost_P[usable_P].min()) if low is None else low
    high = float(cost_P[usable_P].max()) if high is None else high
    return _mean_height(non_decreasing_hull(cost_P, quality_P), low, high, "AIQ")


def nauc(cost_P: Tensor, quality_P: Tensor, low: float, high: float) -> Tensor:
    """Compute the normalized area under ORBIT's quality-cost curve: the mean height of the Pareto front.

    Unlike AIQ it connects all policies on the Pareto front, not only those on the hull, and the bounds are
    the same for all routers: the mean cost of the cheapest and of the most expensive call per instruction
    (:func:`satlight.metrics.cost.cost_bounds`). The cheapest call per instruction
    (:func:`satlight.metrics.cost.cheapest_choices`) is one of the policies.

    Args:
        cost_P: Mean costs (P,) of the policies.
        quality_P: Mean outcomes (P,).
        low: Lower bound.
        high: Upper bound.

    Returns:
        Scalar in the unit of the qualities; the best quality at the bound when both are equal; NaN without points.

    Raises:
        SatlightError: ``low`` is below the cheapest policy, or above ``high``.

    Example:
        >>> nauc(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.0, 0.25, 1.0]), 1.0, 3.0).item()
        0.375

    Reference:
        [Lai et al. 2026, "ORBIT", Frontiers of Computer Science, doi 10.1007/s11704-026-61310-5], nAUC
    """
    return _mean_height(pareto_front(cost_P, quality_P), low, high, "nAUC")


def qnc(cost_P: Tensor, quality_P: Tensor, target_quality: float, target_cost: float) -> Tensor:
    """Compute the quality-neutral cost: the lowest cost that reaches a quality, relative to a target cost.

    Args:
        cost_P: Mean costs (P,) of the policies.
        quality_P: Mean outcomes (P,).
        target_quality: Quality of the best single candidate (chosen on train).
        target_cost: Its mean cost.

    Returns:
        Scalar, below 1 = the router is cheaper at that quality; NaN when it never reaches the quality, or
        the target cost is 0.

    Example:
        >>> qnc(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.9]), 0.8, 4.0).item()
        0.5

    Reference:
        [Jitkrittum et al. 2025, "UniRoute", arXiv 2502.08773]; used by ORBIT [Lai et al. 2026]
    """
    reaching_P = (quality_P >= target_quality) & ~cost_P.isnan()
    if not reaching_P.any() or not target_cost > 0:
        return torch.tensor(float("nan"), dtype=torch.double)
    return cost_P[reaching_P].double().min() / target_cost


def zero_router_shares(cost_M: Tensor, quality_M: Tensor, cost: float) -> Tensor:
    """Compute the zero router: the mixture of single candidates with the best expected quality at a cost.

    It ignores the instruction and draws one of at most two adjacent corners of the candidates' hull.

    Args:
        cost_M: Mean cost (M,) of each candidate on train; NaN = unknown, never chosen.
        quality_M: Mean outcome (M,) on train; NaN = unknown.
        cost: Mean cost to spend; NaN = unknown. Below the cheapest candidate, that candidate is chosen; beyond the
            best corner, the mixture spends less than allowed.

    Returns:
        float64 (M,), the share of instructions of each candidate, summing to 1; all NaN when no candidate or the cost
        is not known.

    Example:
        >>> zero_router_shares(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.2, 0.3, 0.8]), 2.5).tolist()
        [0.25, 0.0, 0.75]

    Reference:
        [Hu et al. 2024, "RouterBench", arXiv 2403.12031], zero router
    """
    cost_M, quality_M = cost_M.double().cpu(), quality_M.double().cpu()
    cost_H, quality_H = non_decreasing_hull(cost_M, quality_M)
    share_M = torch.zeros_like(cost_M)
    if not len(cost_H) or math.isnan(cost):
        return share_M.fill_(float("nan"))
    column_H = [int(((cost_M == c) & (quality_M == q)).nonzero()[0]) for c, q in zip(cost_H, quality_H, strict=True)]
    position = float(np.interp(cost, cost_H.numpy(), np.arange(len(cost_H))))
    corner = min(int(position), max(0, len(cost_H) - 2))
    share_M[column_H[corner]] = 1 - (position - corner)
    if len(cost_H) > 1:
        share_M[column_H[corner + 1]] = position - corner
    return share_M


def _mean_height(curve: Curve, low: float, high: float, name: str) -> Tensor:
    """Compute the mean of a piecewise linear curve over [low, high]."""
    cost_H = curve[0]
    if not len(cost_H):
        return torch.tensor(float("nan"), dtype=torch.double)
    cheapest = float(cost_H[0])
    if low > high:
        raise SatlightError(f"{name}: the lower bound {low} is above the upper bound {high}; swap them")
    if low < cheapest * (1 - _TOLERANCE):
        raise SatlightError(
            f"{name}: the lower bound {low} is below the cheapest policy, which costs {cheapest}, so the curve is "
            "undefined there. Add a cheaper policy, such as the cheapest candidate, or raise the lower bound."
        )
    low = max(low, cheapest)
    if high <= low:
        return torch.tensor(quality_at(curve, low), dtype=torch.double)
    inner = [cost for cost in cost_H.tolist() if low < cost < high]
    cost_X = torch.tensor([low, *inner, high], dtype=torch.double)
    height_X = torch.tensor([quality_at(curve, cost) for cost in cost_X.tolist()], dtype=torch.double)
    return torch.trapezoid(height_X, cost_X) / (high - low)


def _slope(left: tuple[float, float], right: tuple[float, float]) -> float:
    return (right[1] - left[1]) / (right[0] - left[0])


def _curve(points: list[tuple[float, float]]) -> Curve:
    sides = torch.tensor(points, dtype=torch.double).reshape(-1, 2)
    return sides[:, 0], sides[:, 1]
