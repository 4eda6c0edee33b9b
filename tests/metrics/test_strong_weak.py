"""APGR and CPT: hand-computed, against a loop over thresholds, with ties and missing outcomes."""

from __future__ import annotations

import math

import pytest
import torch

from satlight.errors import SatlightError
from satlight.metrics.strong_weak import apgr, cpt, gap_recovered


def pair(n=50, seed=0):
    g = torch.Generator().manual_seed(seed)
    weak, strong = (torch.rand(n, generator=g) < 0.4).float(), (torch.rand(n, generator=g) < 0.8).float()
    return torch.randn(n, generator=g) + strong - weak, weak, strong


def test_curve_equals_a_loop_over_thresholds():
    preference, weak, strong = pair()
    share, recovered = gap_recovered(preference, weak, strong)
    order = preference.argsort(descending=True)
    for k in range(51):
        routed = weak.clone()
        routed[order[:k]] = strong[order[:k]]
        expected = (routed.mean() - weak.mean()) / (strong.mean() - weak.mean())
        assert share[k].item() == pytest.approx(k / 50)
        assert recovered[k].item() == pytest.approx(expected.item(), abs=1e-5)


def test_perfect_reversed_and_undecided_preferences():
    weak, strong = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([1.0, 1.0, 1.0, 1.0])
    assert apgr(torch.tensor([4.0, 3.0, 2.0, 1.0]), weak, strong).item() == 0.75
    assert apgr(torch.tensor([1.0, 2.0, 3.0, 4.0]), weak, strong).item() == 0.25
    assert apgr(torch.zeros(4), weak, strong).item() == 0.5  # all tie: a random order
    assert apgr(torch.tensor([1.0, 0.0, 1.0, 0.0]), weak, strong).item() == 0.5


def test_cpt_finds_the_share_of_calls():
    preference, weak, strong = (torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.ones(4))
    assert cpt(preference, weak, strong, share=0.5).item() == 0.25
    assert cpt(preference, weak, strong, share=1.0).item() == 0.5
    assert cpt(torch.zeros(4), weak, strong, share=0.8).item() == pytest.approx(0.8)


def test_cpt_takes_the_first_crossing():
    # The gap is recovered by half, lost again, and recovered in full.
    preference = torch.tensor([4.0, 3.0, 2.0, 1.0])
    weak, strong = torch.tensor([0.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    assert gap_recovered(preference, weak, strong)[1].tolist() == [0, 0.5, 0, 0.5, 1]
    assert cpt(preference, weak, strong, share=0.5).item() == 0.25


def test_missing_outcomes_are_as_if_absent():
    preference, weak, strong = pair()
    known = torch.arange(50) % 3 != 0
    spoiled = torch.where(known, strong, float("nan"))
    for metric in (apgr, lambda *a: cpt(*a, share=0.7)):
        assert metric(preference, weak, spoiled, known) == metric(preference[known], weak[known], strong[known])


def test_without_a_gap_nothing_can_be_recovered():
    same = torch.tensor([1.0, 0.0])
    assert math.isnan(apgr(torch.tensor([1.0, 0.0]), same, same))
    assert math.isnan(cpt(torch.tensor([1.0, 0.0]), same, same, share=0.5))
    nothing = torch.zeros(0)
    assert math.isnan(apgr(nothing, nothing, nothing))
    assert math.isnan(cpt(nothing, nothing, nothing, share=0.5))


def test_one_instruction():
    one = torch.ones(1)
    assert apgr(one, torch.zeros(1), one).item() == 0.5
    assert cpt(one, torch.zeros(1), one, share=1.0).item() == 1.0


@pytest.mark.parametrize("share", [0.0, 1.1])
def test_share_out_of_range(share):
    with pytest.raises(SatlightError, match=r"it must lie in \(0, 1\]"):
        cpt(*pair(), share=share)
