"""Intervals over seeds: what repeating the training adds to what resampling the instructions tells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import NamedTuple


class SeedInterval(NamedTuple):
    """Mean of independent runs, with half the width of its interval (NaN for a single run)."""

    mean: float
    half_width: float


def seed_interval(values: Sequence[float], level: float = 0.95) -> SeedInterval:
    """Student's t interval of the mean of independent runs.

    Args:
        values: One figure per seed, at least one.
        level: Confidence, in (0, 1).

    Returns:
        Mean and half width, in the unit of the values; the half width of a single run is NaN.

    Example:
        >>> interval = seed_interval([57.0, 58.0, 59.0])
        >>> interval.mean, round(interval.half_width, 3)
        (58.0, 2.484)

    Reference:
        Student's t with as many degrees of freedom as seeds less one.
    """
    if len(values) < 2:
        return SeedInterval(mean(values), math.nan)
    from scipy.special import stdtrit  # the rest of the metrics need no scipy

    quantile = float(stdtrit(len(values) - 1, (1 + level) / 2))
    return SeedInterval(mean(values), quantile * stdev(values) / math.sqrt(len(values)))
