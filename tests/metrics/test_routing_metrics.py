"""Routing metrics on hand-computed matrices: ties, missing outcomes, one candidate, one instruction."""

from __future__ import annotations

import math

import pytest
import torch

from satlight.metrics import functional as M

# Three candidates; "?" marks what was never measured and must not count, whatever stands there.
OUTCOME = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, float("nan")], [0.0, 0.0, 1.0], [float("nan")] * 3])
KNOWN = torch.tensor([[True, True, True], [True, True, False], [True, True, True], [False, False, False]])


def test_ties_in_score_go_to_the_lowest_column():
    score = torch.tensor([[1.0, 1.0, 0.0], [0.0, 5.0, 5.0], [3.0, 3.0, 3.0]])
    assert M.choose(score).tolist() == [0, 1, 0]


def test_routed_accuracy_leaves_out_unknown_outcomes():
    score = torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 9.0], [9.0, 0.0, 0.0], [9.0, 0.0, 0.0]])
    outcome, known = M.outcomes_of(M.choose(score), OUTCOME, KNOWN)
    assert outcome.tolist() == [0.5, 0.0, 0.0, 0.0]
    assert known.tolist() == [True, False, True, False]
    assert M.routed_accuracy(score, OUTCOME, KNOWN).item() == pytest.approx(0.25)


def test_routed_accuracy_without_any_known_outcome_is_nan():
    assert math.isnan(M.routed_accuracy(torch.zeros(1, 3), OUTCOME[3:], KNOWN[3:]).item())


def test_no_choice_has_no_outcome():
    assert M.outcomes_of(torch.tensor([-1]), torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool))[1].tolist() == [
        False
    ]


def test_random_is_the_mean_over_known_candidates():
    # (0.5 + 0.5 + 1/3) / 3; the last instruction has no record at all.
    assert M.masked_mean(*M.random_outcomes(OUTCOME, KNOWN)).item() == pytest.approx((0.5 + 0.5 + 1 / 3) / 3)


def test_oracle_takes_the_best_known_outcome():
    assert M.oracle(OUTCOME, KNOWN).tolist() == [0, 1, 2, -1]
    assert M.masked_mean(*M.outcomes_of(M.oracle(OUTCOME, KNOWN), OUTCOME, KNOWN)).item() == 1.0
    all_wrong = torch.zeros(1, 2)
    assert M.oracle(all_wrong, torch.tensor([[False, True]])).tolist() == [1]


def test_group_means_mask_and_mark_the_unmeasured():
    means = M.group_means(OUTCOME, KNOWN, torch.tensor([0, 0, 1, 2]), 3)
    torch.testing.assert_close(means[0], torch.tensor([0.5, 0.5, 0.5], dtype=torch.double))
    assert means[1].tolist() == [0.0, 0.0, 1.0]
    assert means[2].isnan().all()


def test_best_single_is_macro_over_groups():
    # Column 0 wins the large group by little, column 1 the small one by much.
    outcome = torch.tensor([[1.0, 0.0]] * 2 + [[1.0, 1.0]] * 8 + [[0.0, 1.0]])
    known = torch.ones(11, 2, dtype=torch.bool)
    assert M.best_single(outcome, known) == 0
    assert M.best_single(outcome, known, torch.tensor([0] * 10 + [1])) == 1


def test_best_single_needs_outcomes_in_as_many_groups_as_the_others():
    outcome = torch.tensor([[1.0, 0.6], [0.0, 0.2]])
    known = torch.tensor([[True, True], [False, True]])
    assert M.best_single(outcome, known, torch.tensor([0, 1])) == 1


def test_best_single_ties_and_emptiness():
    assert M.best_single(torch.ones(2, 3), torch.ones(2, 3, dtype=torch.bool)) == 0
    assert M.best_single(torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool)) == -1
    assert M.best_single(torch.ones(0, 3), torch.zeros(0, 3, dtype=torch.bool)) == -1


def test_group_best_is_chosen_on_train_and_group_oracle_on_test():
    train, test = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    known = torch.ones(3, 2, dtype=torch.bool)
    groups = torch.tensor([0, 1, 2])
    assert M.group_best(train, known[:2], torch.tensor([0, 1]), groups).tolist() == [0, 1, -1]
    assert M.group_best(test, known, groups, groups).tolist() == [1, 1, 0]


def test_one_candidate_makes_every_control_equal():
    outcome, known = torch.tensor([[1.0], [0.0], [0.5]]), torch.ones(3, 1, dtype=torch.bool)
    group = torch.zeros(3, dtype=torch.long)
    routed = M.routed_accuracy(torch.randn(3, 1), outcome, known)
    assert routed == M.masked_mean(*M.random_outcomes(outcome, known)) == 0.5
    assert M.oracle(outcome, known).tolist() == [0, 0, 0]
    assert M.group_best(outcome, known, group, group).tolist() == [0, 0, 0]
    assert math.isnan(M.gap_closed(0.5, 0.5, 0.5))


def test_one_instruction():
    outcome, known = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
    assert M.routed_accuracy(torch.tensor([[0.0, 1.0]]), outcome, known).item() == 1.0
    assert M.masked_mean(*M.random_outcomes(outcome, known)).item() == 0.5
    assert M.best_single(outcome, known) == 1


def test_gap_closed_is_negative_below_the_best_single():
    assert M.gap_closed(routed=50, best_single=60, oracle=80) == -0.5


def test_selection_share_counts_choices_made():
    assert M.selection_share(torch.tensor([1, 1, 0, -1, 1]), 4).tolist() == [0.25, 0.75, 0.0, 0.0]
    assert M.selection_share(torch.tensor([-1]), 2).isnan().all()
