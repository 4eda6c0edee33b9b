"""Routing between two candidates, a strong and a weak one: RouteLLM's metrics.

Shape legend: N instructions, P thresholds.

The instructions with the highest preference for the strong candidate are sent to it, the others to the weak
one; a threshold decides how many. Instructions with equal preference are sent in random order, and the
metrics are expectations over that order.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from satlight.errors import SatlightError


def gap_recovered(
    preference_N: Tensor, weak_N: Tensor, strong_N: Tensor, known_N: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Compute the performance gap recovered (PGR) over the share of calls to the strong candidate.

    Args:
        preference_N: Preference (N,) for the strong candidate, e.g. the difference of two log-odds.
        weak_N: Outcomes (N,) of the weak candidate.
        strong_N: Outcomes (N,) of the strong candidate.
        known_N: bool (N,), True where both outcomes are known; None = everywhere.

    Returns:
        Shares of strong calls (P,), from 0 to 1, and the PGR (P,) at each, 0 and 1 at the ends and linear
        in between; float64. The PGR is NaN when the strong candidate is no better than the weak one.

    Example:
        >>> preference, weak = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
        >>> [x.tolist() for x in gap_recovered(preference, weak, torch.ones(4))]
        [[0.0, 0.25, 0.5, 0.75, 1.0], [0.0, 0.5, 1.0, 1.0, 1.0]]

    Reference:
        [Ong et al. 2024, "RouteLLM", arXiv 2406.18665], PGR
    """
    known_N = torch.ones(len(weak_N), dtype=torch.bool) if known_N is None else known_N
    preference_N = preference_N[known_N].double()
    gain_N = strong_N[known_N].double() - weak_N[known_N].double()
    _, tie_N, size_T = (-preference_N).unique(return_inverse=True, return_counts=True)
    gain_T = torch.zeros(len(size_T), dtype=torch.double, device=gain_N.device).index_add(0, tie_N, gain_N)
    zero = torch.zeros(1, dtype=torch.double, device=gain_N.device)
    share_P = torch.cat([zero, size_T.cumsum(0).double() / max(1, len(gain_N))])
    gap = gain_N.sum()
    recovered_P = torch.cat([zero, gain_T.cumsum(0)]) / (gap if gap > 0 else float("nan"))
    return share_P, recovered_P


def apgr(preference_N: Tensor, weak_N: Tensor, strong_N: Tensor, known_N: Tensor | None = None) -> Tensor:
    """Compute the average performance gap recovered: the area under PGR over the share of strong calls.

    A random order has 0.5. RouteLLM sums ten evenly spaced shares; this is the exact area.

    Args:
        preference_N: Preference (N,) for the strong candidate.
        weak_N: Outcomes (N,) of the weak candidate.
        strong_N: Outcomes (N,) of the strong candidate.
        known_N: bool (N,), True where both outcomes are known; None = everywhere.

    Returns:
        Scalar; NaN when the strong candidate is no better than the weak one.

    Example:
        >>> preference, weak = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
        >>> apgr(preference, weak, torch.ones(4)).item()
        0.75

    Reference:
        [Ong et al. 2024, "RouteLLM", arXiv 2406.18665], APGR
    """
    share_P, recovered_P = gap_recovered(preference_N, weak_N, strong_N, known_N)
    return torch.trapezoid(recovered_P, share_P) if len(share_P) > 1 else recovered_P[0] * float("nan")


def cpt(
    preference_N: Tensor, weak_N: Tensor, strong_N: Tensor, known_N: Tensor | None = None, *, share: float
) -> Tensor:
    """Compute the call-performance threshold CPT(x): the lowest share of strong calls recovering x.

    Args:
        preference_N: Preference (N,) for the strong candidate.
        weak_N: Outcomes (N,) of the weak candidate.
        strong_N: Outcomes (N,) of the strong candidate.
        known_N: bool (N,), True where both outcomes are known; None = everywhere.
        share: x, in (0, 1].

    Returns:
        Scalar in [0, 1], lower is better; a random order has x. The curve is linear between two thresholds.
        NaN when the strong candidate is no better than the weak one.

    Raises:
        SatlightError: ``share`` out of range.

    Example:
        >>> preference, weak = torch.tensor([3.0, 2.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0, 1.0])
        >>> cpt(preference, weak, torch.ones(4), share=0.8).item()
        0.4

    Reference:
        [Ong et al. 2024, "RouteLLM", arXiv 2406.18665], CPT
    """
    if not 0 < share <= 1:
        raise SatlightError(f"CPT: share is {share}; it must lie in (0, 1], e.g. 0.8 for CPT(80%)")
    share_P, recovered_P = (x.cpu().numpy() for x in gap_recovered(preference_N, weak_N, strong_N, known_N))
    if np.isnan(recovered_P).any() or len(share_P) < 2:
        return torch.tensor(float("nan"), dtype=torch.double)
    # The last point equals 1 up to rounding, and x = 1 must reach it.
    first = int(np.flatnonzero(recovered_P >= min(share, recovered_P.max()))[0])
    below, above = recovered_P[first - 1], recovered_P[first]
    part = (min(share, above) - below) / (above - below)
    return torch.tensor(share_P[first - 1] + part * (share_P[first] - share_P[first - 1]))
