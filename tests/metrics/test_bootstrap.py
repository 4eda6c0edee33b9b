"""Intervals: against the normal approximation, paired, masked, in groups, deterministic."""

from __future__ import annotations

import math

import pytest
import torch

from satlight.metrics import bootstrap
from satlight.metrics.bootstrap import Difference, bootstrap_means, part_draws, percentile_interval


def coin(n: int, p: float = 0.5, seed: int = 0) -> torch.Tensor:
    return (torch.rand(n, generator=torch.Generator().manual_seed(seed)) < p).float()


def compare(value, baseline, known_N=None, group_N=None, resamples=2000):
    """Compare macro means over groups, in the steps that the module describes."""
    value = value - baseline
    known = torch.ones(len(value), dtype=torch.bool) if known_N is None else known_N
    group = torch.zeros(len(value), dtype=torch.long) if group_N is None else group_N
    parts = [group == one for one in group.unique()]
    draws = part_draws(value[None], known[None], parts=parts, seeds=range(len(parts)), resamples=resamples)
    means = [(value[rows & known].double().sum() / (rows & known).sum()).item() for rows in parts]
    return Difference.of(sum(means) / len(means), draws[:, 0].mean(0))


def interval(value, baseline=None, **options):
    baseline = torch.zeros_like(value) if baseline is None else baseline
    difference = compare(value, baseline, **options)
    return difference.low, difference.high


def test_interval_agrees_with_the_normal_approximation():
    value = coin(2000, 0.3)
    low, high = interval(value, resamples=4000)
    half = 1.96 * value.std().item() / math.sqrt(2000)
    assert low == pytest.approx(value.mean().item() - half, abs=0.002)
    assert high == pytest.approx(value.mean().item() + half, abs=0.002)


def test_pairing_removes_what_both_share():
    a = coin(1000)
    b = a.clone()
    b[:20] = 0
    low, high = interval(a, b)
    assert 0 < low < (a - b).mean().item() < high < 0.03


def test_unknown_values_are_as_if_absent():
    value = coin(400)
    spoiled, known = torch.cat([value, torch.full((400,), 1.0)]), torch.arange(800) < 400
    low, high = interval(spoiled, known_N=known, resamples=4000)
    expected = interval(value, resamples=4000)
    assert low == pytest.approx(expected[0], abs=0.01)
    assert high == pytest.approx(expected[1], abs=0.01)


def test_groups_are_macro_averaged():
    value, group = torch.cat([torch.zeros(900), torch.ones(10)]), torch.tensor([0] * 900 + [1] * 10)
    assert interval(value, group_N=group) == (0.5, 0.5)


def test_parts_are_resampled_one_by_one_and_nan_is_unknown():
    value, parts = torch.stack([coin(60), coin(60, seed=1)]), [torch.arange(40), torch.arange(60) >= 40]
    value[0, 3] = float("nan")
    draws = part_draws(value, parts=parts, seeds=[7, 8], resamples=50)
    known = ~value.isnan()
    for rows, seed, draw in zip(parts, [7, 8], draws, strict=True):
        assert torch.equal(draw, bootstrap_means(value[:, rows], known[:, rows], resamples=50, seed=seed))


def test_memory_chunks_cover_all_resamples(monkeypatch):
    value, known = coin(50)[None], torch.ones(1, 50, dtype=torch.bool)
    whole = bootstrap_means(value, known, resamples=101)
    monkeypatch.setattr(bootstrap, "_CHUNK", 500)
    chunks = bootstrap_means(value, known, resamples=101)
    assert whole.shape == chunks.shape == (1, 101)
    assert chunks.mean().item() == pytest.approx(value.mean().item(), abs=0.03)


def test_seed_decides():
    value, known = coin(300)[None], torch.ones(1, 300, dtype=torch.bool)
    assert torch.equal(bootstrap_means(value, known, seed=1), bootstrap_means(value, known, seed=1))
    assert not torch.equal(bootstrap_means(value, known, seed=1), bootstrap_means(value, known, seed=2))


def test_nothing_known_or_no_instruction_is_nan():
    assert bootstrap_means(torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.bool)).isnan().all()
    assert bootstrap_means(torch.ones(2, 0), torch.ones(2, 0, dtype=torch.bool)).isnan().all()
    low, high = percentile_interval(torch.full((5,), float("nan")))
    assert math.isnan(low)
    assert math.isnan(high)


def test_one_instruction_has_no_spread():
    assert interval(torch.tensor([1.0])) == (1.0, 1.0)


def test_difference_says_whether_it_could_be_luck():
    a = coin(400, 0.7)
    b = a.clone()
    b[:40] = 0
    clear = compare(a, b)
    assert clear.mean == pytest.approx((a - b).mean().item(), abs=1e-6)
    assert (clear.low, clear.high) == interval(a, b)
    assert clear.excludes_zero
    assert clear.p == pytest.approx(2 / 2001)  # no resample on the other side
    reverse = compare(b, a)
    assert (reverse.mean, reverse.p, reverse.excludes_zero) == (-clear.mean, clear.p, True)


def test_p_agrees_with_the_normal_approximation():
    a, b = coin(1000, 0.5, seed=1), coin(1000, 0.47, seed=2)
    difference = compare(a, b, resamples=8000)
    z = (a - b).mean() / ((a - b).std() / math.sqrt(1000))
    assert difference.p == pytest.approx(math.erfc(abs(z.item()) / math.sqrt(2)), abs=0.02)
    assert difference.excludes_zero == (difference.p < 0.05)


def test_difference_masks_and_averages_groups():
    value, baseline = torch.tensor([1.0] * 90 + [0.0] * 10 + [1.0]), torch.zeros(101)
    known, group = torch.arange(101) < 100, torch.tensor([0] * 90 + [1] * 11)
    difference = compare(value, baseline, known, group)
    assert difference == (0.5, 0.5, 0.5, pytest.approx(2 / 2001), True)
    nothing = compare(value, baseline, torch.zeros(101, dtype=torch.bool))
    assert math.isnan(nothing.mean)
    assert (nothing.p, nothing.excludes_zero) == (1.0, False)
