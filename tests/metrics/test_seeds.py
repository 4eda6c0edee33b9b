"""Intervals over seeds against scipy."""

from __future__ import annotations

import math

import pytest
from scipy import stats

from satlight.metrics.seeds import seed_interval


@pytest.mark.parametrize("values", [[56.1, 57.3], [1.0, 2.0, 4.0], list(range(12))])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_interval_equals_scipy(values, level):
    low, high = stats.t.interval(level, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
    interval = seed_interval(values, level)
    assert interval.mean - interval.half_width == pytest.approx(low)
    assert interval.mean + interval.half_width == pytest.approx(high)


def test_one_seed_has_no_interval_and_equal_seeds_a_narrow_one():
    assert seed_interval([3.0]).mean == 3.0
    assert math.isnan(seed_interval([3.0]).half_width)
    assert seed_interval([3.0, 3.0, 3.0]).half_width == 0
