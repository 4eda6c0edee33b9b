"""Bootstrap intervals over instructions.

Shape legend: K quantities measured on the same N instructions, R resamples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# Resamples are drawn in pieces of about this many indices (32 MB), so that memory does not grow with N · R.
_PIECE = 4_000_000


def bootstrap_means(value_KN: Tensor, known_KN: Tensor, *, resamples: int = 2000, seed: int = 0) -> Tensor:
    """Masked means of several quantities over resampled instructions, the same resamples for each.

    Args:
        value_KN: Values (K, N).
        known_KN: bool (K, N), False where a value is unknown; such values never count.
        resamples: R, how many times N instructions are drawn with replacement.
        seed: Of the draws; equal arguments give equal results.

    Returns:
        float32 (K, R) means; NaN where a resample has no known value.

    Example:
        >>> value = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
        >>> means = bootstrap_means(value, torch.ones(2, 2, dtype=torch.bool))
        >>> means.shape, bool((means[1] == 2 * means[0]).all())
        (torch.Size([2, 2000]), True)
    """
    num = value_KN.shape[1]
    value_KN, known_KN = value_KN.detach().cpu(), known_KN.cpu()  # one generator, so the same draws anywhere
    value_KN = torch.where(known_KN, value_KN, 0.0).float()
    if num == 0:
        return torch.full((len(value_KN), resamples), float("nan"))
    mask_KN = known_KN.float()
    generator = torch.Generator().manual_seed(seed)
    piece = max(1, _PIECE // num)
    means = []
    for start in range(0, resamples, piece):
        size = (min(piece, resamples - start), num)
        index_RN = torch.randint(num, size, generator=generator, dtype=torch.int32)
        # How often each instruction is drawn: then all K quantities are two products of matrices.
        times_RN = torch.zeros(size).scatter_add_(1, index_RN.long(), torch.ones(1).expand(size))
        means.append((value_KN @ times_RN.T) / (mask_KN @ times_RN.T))
    return torch.cat(means, dim=1)


def percentile_interval(mean_R: Tensor, level: float = 0.95) -> tuple[float, float]:
    """The central interval that holds a share ``level`` of the resampled means.

    Example:
        >>> percentile_interval(torch.arange(101.0), level=0.5)
        (25.0, 75.0)
    """
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)
    low, high = torch.nanquantile(mean_R.double(), tails).tolist()
    return low, high


def paired_bootstrap_interval(
    value_N: Tensor,
    baseline_N: Tensor | None = None,
    known_N: Tensor | None = None,
    group_N: Tensor | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean, or of a paired mean difference to a baseline.

    With groups, instructions are resampled within each group, and the quantity is the mean over groups of
    the means within them, as in a table's macro mean.

    Args:
        value_N: Values (N,), e.g. outcomes of the routed candidates.
        baseline_N: Values (N,) to subtract, instruction by instruction; None = nothing.
        known_N: bool (N,), False where either value is unknown; None = all known.
        group_N: int64 (N,); None = one group.
        resamples: Number of resamples.
        level: Share of resamples inside the interval, in (0, 1).
        seed: Of the draws.

    Returns:
        Lower and upper bound, in the unit of the values.

    Example:
        >>> right = torch.tensor([1.0] * 60 + [0.0] * 40)
        >>> low, high = paired_bootstrap_interval(right)
        >>> 0.48 < low < 0.53 and 0.67 < high < 0.72
        True
        >>> paired_bootstrap_interval(right, right)
        (0.0, 0.0)

    Reference:
        [Efron & Tibshirani 1993, "An Introduction to the Bootstrap", §13.3]
    """
    difference_N = value_N if baseline_N is None else value_N - baseline_N
    return percentile_interval(_macro_draws(difference_N, known_N, group_N, resamples, seed)[1], level)


class Difference(NamedTuple):
    """How far one router is above another on the same instructions.

    Args:
        mean: Mean difference, in the unit of the values.
        low: Lower bound of the interval.
        high: Upper bound.
        p: Two-sided bootstrap probability of a difference this far from 0 by luck, in (0, 1].
        excludes_zero: Whether the interval lies on one side of 0.
    """

    mean: float
    low: float
    high: float
    p: float
    excludes_zero: bool


def paired_bootstrap_difference(
    value_N: Tensor,
    baseline_N: Tensor,
    known_N: Tensor | None = None,
    group_N: Tensor | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two routers by their outcomes on the same instructions.

    The interval is that of :func:`paired_bootstrap_interval`. p is twice the smaller share of resamples on
    either side of 0 (those at 0 count on both), each with one resample added, because R resamples cannot
    tell less than about 2 / R.

    Args:
        value_N: Outcomes (N,) under the one router.
        baseline_N: Outcomes (N,) under the other.
        known_N: bool (N,), False where either is unknown; None = all known.
        group_N: int64 (N,), for a mean over groups; None = one group.
        resamples: Number of resamples.
        level: Share of resamples inside the interval, in (0, 1).
        seed: Of the draws.

    Returns:
        The difference; NaN with p = 1 when nothing is known.

    Example:
        >>> one, other = torch.tensor([1.0] * 30 + [0.0] * 20), torch.tensor([1.0] * 10 + [0.0] * 40)
        >>> difference = paired_bootstrap_difference(one, other)
        >>> round(difference.mean, 2), difference.excludes_zero, difference.p < 0.01
        (0.4, True, True)
        >>> paired_bootstrap_difference(one, one)
        Difference(mean=0.0, low=0.0, high=0.0, p=1.0, excludes_zero=False)

    Reference:
        [Efron & Tibshirani 1993, "An Introduction to the Bootstrap", §13.3]
    """
    mean, draw_R = _macro_draws(value_N - baseline_N, known_N, group_N, resamples, seed)
    low, high = percentile_interval(draw_R, level)
    tail = min(int((draw_R <= 0).sum()), int((draw_R >= 0).sum()))
    unknown = bool(draw_R.isnan().all())
    p = 1.0 if unknown else min(1.0, 2 * (tail + 1) / (resamples + 1))
    return Difference(mean, low, high, p, low > 0 or high < 0)


def _macro_draws(
    value_N: Tensor, known_N: Tensor | None, group_N: Tensor | None, resamples: int, seed: int
) -> tuple[float, Tensor]:
    """Mean over groups of the means within them, and the same for each resample (R,)."""
    known_N = torch.ones(len(value_N), dtype=torch.bool) if known_N is None else known_N
    group_N = torch.zeros(len(value_N), dtype=torch.long) if group_N is None else group_N
    means, draws = [], []
    for i, group in enumerate(group_N.unique()):
        value_n, known_n = value_N[group_N == group], known_N[group_N == group]
        means.append(torch.where(known_n, value_n, 0.0).double().sum() / known_n.sum())
        draws.append(bootstrap_means(value_n[None], known_n[None], resamples=resamples, seed=seed + i)[0])
    return torch.stack(means).mean().item(), torch.stack(draws).mean(0)
