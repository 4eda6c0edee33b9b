"""Relative gains, entropy, collapse and rare solvers on hand-computed cases."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy

from satlight.errors import SatlightError
from satlight.metrics import selection as S

NAN = float("nan")


def known(outcome):
    return ~outcome.isnan()


# Two datasets. Routed to column 0 everywhere: 0.5 in the first, 1 in the second.
OUTCOME = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0], [1.0, NAN]])
GROUP = torch.tensor([0, 0, 1, 1])
SCORE = torch.tensor([[1.0, 0.0]] * 4)


def test_gains_are_means_over_datasets_of_ratios():
    # random: 0.25 and 1; the other column: 0 and 1; oracle: 0.5 and 1
    assert S.gain_at_r(SCORE, OUTCOME, known(OUTCOME), GROUP).item() == pytest.approx(((0.5 / 0.25 - 1) + 0) / 2)
    assert S.gain_at_b(SCORE, OUTCOME, known(OUTCOME), 0, GROUP).item() == 0
    assert S.gap_at_o(SCORE, OUTCOME, known(OUTCOME), GROUP).item() == 0
    flipped = -SCORE
    assert S.gain_at_b(flipped, OUTCOME, known(OUTCOME), 0, GROUP).item() == pytest.approx((-1 + 0) / 2)
    assert S.gap_at_o(flipped, OUTCOME, known(OUTCOME), GROUP).item() == pytest.approx((1 + 0) / 2)


def test_without_datasets_there_is_one():
    routed, random = 0.75, (0.5 + 0 + 1 + 1) / 4
    assert S.gain_at_r(SCORE, OUTCOME, known(OUTCOME)).item() == pytest.approx(routed / random - 1)


def test_no_ratio_to_nothing():
    assert math.isnan(S.gain_at_b(SCORE, OUTCOME, known(OUTCOME), 1, GROUP))  # column 1 is 0 in the first dataset
    assert math.isnan(S.accuracy_ratio(0.5, 0.0))
    assert math.isnan(S.accuracy_ratio(0.0, 0.0))
    assert S.accuracy_ratio(0.6, 0.4) == pytest.approx(1.5)


def test_one_candidate_gains_nothing():
    outcome, one = torch.tensor([[1.0], [0.0]]), torch.ones(2, 1, dtype=torch.bool)
    assert S.gain_at_r(torch.zeros(2, 1), outcome, one).item() == 0
    assert S.gap_at_o(torch.zeros(2, 1), outcome, one).item() == 0
    assert S.selection_entropy(torch.zeros(2, dtype=torch.long), 1).item() == 0


def test_entropy_equals_scipy():
    choice = torch.tensor([0, 1, 1, 3, 3, 3, -1])
    assert S.selection_entropy(choice, 5).item() == pytest.approx(entropy([1, 2, 0, 3, 0], base=2))
    assert S.selection_entropy(torch.arange(8), 8).item() == pytest.approx(3)
    assert math.isnan(S.selection_entropy(torch.tensor([-1]), 3))


# Column 2 is the dearest on average, though not on the last instruction.
RCI_OUTCOME = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]])
RCI_COST = torch.tensor([[1.0, 2.0, 9.0]] * 3 + [[30.0, 2.0, 9.0]])


def rci(*choice, outcome=RCI_OUTCOME, cost=RCI_COST):
    return S.routing_collapse(torch.tensor(choice), outcome, known(outcome), cost).item()


def test_collapse_counts_bad_and_needless_choices():
    cost = torch.tensor([[1.0, 2.0, 9.0]] * 4)
    assert rci(0, 2, 0, 0, cost=cost) == 0  # a best candidate each time, the dearest only where nobody else can
    assert rci(2, 2, 2, 2, cost=cost) == 0.75  # needed in the second alone
    assert rci(1, 1, 1, 1, cost=cost) == 0.5  # wrong in the second and the last


def test_the_dearest_is_so_on_average():
    assert RCI_COST.mean(0).tolist() == [8.25, 2, 9]
    assert rci(0, 2, 0, 0, cost=RCI_COST) == 0


def test_where_all_cost_the_same_no_choice_is_needless():
    assert rci(2, 2, 2, 2, cost=torch.zeros(4, 3)) == 0


def test_collapse_masks_what_is_unknown():
    outcome = RCI_OUTCOME.clone()
    outcome[0, :2] = NAN  # nobody else is known to do it, so the dearest is sound
    outcome[3, 2] = NAN  # the choice has no record
    cost = torch.tensor([[1.0, 2.0, 9.0]] * 4).masked_fill(outcome.isnan(), NAN)
    assert rci(2, 2, 2, 2, outcome=outcome, cost=cost) == pytest.approx(1 / 3)
    assert math.isnan(rci(2, outcome=outcome[3:], cost=cost[3:]))
    assert math.isnan(rci(-1, outcome=outcome[:1], cost=cost[:1]))
    nothing = torch.full((1, 3), NAN)
    assert math.isnan(rci(0, outcome=nothing, cost=nothing))


def test_collapse_needs_prices():
    with pytest.raises(SatlightError, match="1 of 12 records have no usable cost"):
        rci(0, 0, 0, 0, cost=RCI_COST.clone().index_put_((torch.tensor(1), torch.tensor(1)), torch.tensor(NAN)))


def test_rare_solvers_are_few_known_ones():
    outcome = torch.tensor(
        [[1.0, 0.0, 0.0, 0.0], [0.6, 0.5, 0.4, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0] * 4, [1.0, NAN, NAN, 0.0]]
    )
    first, last = torch.zeros(5, dtype=torch.long), torch.full((5,), 3)
    assert S.rare_solver_recall(first, outcome, known(outcome), at_most=2).item() == 1
    assert S.rare_solver_recall(last, outcome, known(outcome), at_most=2).item() == 0
    mixed = torch.tensor([0, 2, 0, 0, 1])  # the last choice has no record, so two of three remain rare
    assert S.rare_solver_recall(mixed, outcome, known(outcome), at_most=2).item() == 0.5
    assert S.rare_solver_recall(mixed, outcome, known(outcome)).item() == pytest.approx(2 / 3)
    assert math.isnan(S.rare_solver_recall(first[:1], torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)))
