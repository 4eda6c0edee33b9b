"""Intervals over seeds: the variation between training runs, which resampling instructions does not show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple


class SeedInterval(NamedTuple):
    """Mean of independent runs and half the width of its interval (NaN for a single run)."""

    mean: float
    half_width: float


def seed_interval(values: Sequence[float], level: float = 0.95) -> SeedInterval:
    """Compute Student's t interval of the mean of independent runs.

    Args:
        values: One value per seed, at least one.
        level: Confidence level, in (0, 1).

    Returns:
        Mean and half width, in the unit of the values; the half width of a single run is NaN.

    Example:
        >>> interval = seed_interval([57.0, 58.0, 59.0])
        >>> interval.mean, round(interval.half_width, 3)
        (58.0, 2.484)

    Reference:
        Student's t with one degree of freedom less than there are seeds.
    """
    if len(values) < 2:
        return SeedInterval(mean(values), math.nan)
    from scipy.special import stdtrit  # imported here because no other metric needs scipy

    quantile = float(stdtrit(len(values) - 1, (1 + level) / 2))
    return SeedInterval(mean(values), quantile * stdev(values) / math.sqrt(len(values)))
