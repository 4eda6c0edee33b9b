"""Bootstrap over instructions: resampled means, their macro means, intervals and paired differences.

Shape legend: E entries (routers, controls or differences of them) measured on the same N instructions,
P parts (datasets) of the instructions, R resamples.

Every comparison follows the same steps: :func:`part_draws` resamples the instructions of each dataset, the
same ones for all entries; ``draws[members].mean(0)`` is the macro mean of a group in each resample;
:func:`percentile_interval` and :meth:`Difference.of` turn resampled means into results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Resamples are drawn in chunks of about this many indices (32 MB), so that memory does not grow with N · R.
_CHUNK = 4_000_000


def bootstrap_means(
    value_EN: Tensor, known_EN: Tensor | None = None, *, resamples: int = 2000, seed: int = 0
) -> Tensor:
    """Compute masked means of several entries over resampled instructions, the same resamples for each.

    Args:
        value_EN: Values (E, N).
        known_EN: bool (E, N), False where a value is unknown and must not count; None = NaN is unknown.
        resamples: R, how many times N instructions are drawn with replacement.
        seed: Seed of the draws; equal arguments give equal results on every device.

    Returns:
        float32 (E, R) means on the CPU; NaN where a resample has no known value.

    Example:
        >>> value = torch.tensor([[0.0, 1.0], [0.0, 2.0]])
        >>> means = bootstrap_means(value)
        >>> means.shape, bool((means[1] == 2 * means[0]).all())
        (torch.Size([2, 2000]), True)
    """
    num = value_EN.shape[1]
    value_EN = value_EN.detach().cpu()
    known_EN = ~value_EN.isnan() if known_EN is None else known_EN.cpu()
    value_EN = torch.where(known_EN, value_EN, 0.0).float()
    if num == 0:
        return torch.full((len(value_EN), resamples), float("nan"))
    mask_EN = known_EN.float()
    generator = torch.Generator().manual_seed(seed)
    chunk = max(1, _CHUNK // num)
    means = []
    for start in range(0, resamples, chunk):
        size = (min(chunk, resamples - start), num)
        index_RN = torch.randint(num, size, generator=generator, dtype=torch.int32)
        # Count how often each instruction is drawn; the means of all entries are then two matrix products.
        times_RN = torch.zeros(size).scatter_add_(1, index_RN.long(), torch.ones(1).expand(size))
        means.append((value_EN @ times_RN.T) / (mask_EN @ times_RN.T))
    return torch.cat(means, dim=1)


def part_draws(
    value_EN: Tensor,
    known_EN: Tensor | None = None,
    *,
    parts: Sequence[Tensor],
    seeds: Sequence[int],
    resamples: int = 2000,
) -> Tensor:
    """Resample the instructions within each part, independently of the other parts.

    Args:
        value_EN: Values (E, N).
        known_EN: bool (E, N), False where a value is unknown; None = NaN is unknown.
        parts: For each part its rows, int64 indices or a bool mask (N,).
        seeds: Seed of each part's draws.
        resamples: R.

    Returns:
        float32 (P, E, R) means within the parts. ``draws[members].mean(0)`` is the macro mean over some of
        them in each resample.

    Example:
        >>> value, parts = torch.tensor([[0.0, 0.0, 1.0]]), [torch.tensor([0, 1]), torch.tensor([2])]
        >>> draws = part_draws(value, parts=parts, seeds=[0, 1], resamples=4)
        >>> draws.shape, draws.mean(0).tolist()
        (torch.Size([2, 1, 4]), [[0.5, 0.5, 0.5, 0.5]])
    """
    known_EN = ~value_EN.isnan() if known_EN is None else known_EN
    draws = [
        bootstrap_means(value_EN[:, rows], known_EN[:, rows], resamples=resamples, seed=seed)
        for rows, seed in zip(parts, seeds, strict=True)
    ]
    return torch.stack(draws)


def percentile_interval(mean_R: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Return the central interval that holds a share ``level`` of the resampled means; NaN is ignored.

    Example:
        >>> percentile_interval(torch.arange(101.0), level=0.5)
        (25.0, 75.0)
    """
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.double)
    low, high = torch.nanquantile(mean_R.double(), tails).tolist()
    return low, high


class Difference(NamedTuple):
    """Difference between two routers on the same instructions.

    Args:
        mean: Mean difference, in the unit of the values.
        low: Lower bound of the interval.
        high: Upper bound of the interval.
        p: Two-sided bootstrap p-value, in (0, 1].
        excludes_zero: Whether the interval lies on one side of 0.
    """

    mean: float
    low: float
    high: float
    p: float
    excludes_zero: bool

    @classmethod
    def of(cls, mean: float, difference_R: Tensor, level: float = 0.95) -> Difference:
        """Summarize a difference and its resamples.

        p is twice the smaller share of resamples on either side of 0 (those at 0 count on both sides), with
        one resample added to each side, because R resamples cannot resolve less than about 2 / R.

        Args:
            mean: Difference on all instructions.
            difference_R: Difference in each resample (R,), e.g. ``draw_ER[0] - draw_ER[1]``.
            level: Share of resamples inside the interval, in (0, 1).

        Returns:
            The difference; NaN with p = 1 when nothing is known.

        Example:
            >>> Difference.of(0.5, torch.full((99,), 0.5))
            Difference(mean=0.5, low=0.5, high=0.5, p=0.02, excludes_zero=True)
        """
        low, high = percentile_interval(difference_R, level)
        tail = min(int((difference_R <= 0).sum()), int((difference_R >= 0).sum()))
        unknown = bool(difference_R.isnan().all())
        p = 1.0 if unknown else min(1.0, 2 * (tail + 1) / (len(difference_R) + 1))
        return cls(mean, low, high, p, low > 0 or high < 0)


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

    With groups, instructions are resampled within each group, and the quantity is the macro mean: the mean
    over groups of the means within them.

    Args:
        value_N: Outcomes (N,) of the first router.
        baseline_N: Outcomes (N,) of the second router, subtracted instruction by instruction.
        known_N: bool (N,), False where either is unknown; None = all known.
        group_N: int64 (N,), group of each instruction; None = one group.
        resamples: Number of resamples.
        level: Share of resamples inside the interval, in (0, 1).
        seed: Seed of the draws; group number i uses ``seed + i``.

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
    value_N = value_N - baseline_N
    known_N = torch.ones(len(value_N), dtype=torch.bool) if known_N is None else known_N
    group_N = torch.zeros(len(value_N), dtype=torch.long) if group_N is None else group_N
    parts = [group_N == group for group in group_N.unique()]
    seeds = range(seed, seed + len(parts))
    draw_R = part_draws(value_N[None], known_N[None], parts=parts, seeds=seeds, resamples=resamples)[:, 0].mean(0)
    known = torch.where(known_N, value_N, 0.0).double()
    means = torch.stack([known[rows].sum() / known_N[rows].sum() for rows in parts])
    return Difference.of(means.mean().item(), draw_R, level)
