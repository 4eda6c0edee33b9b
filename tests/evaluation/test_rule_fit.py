"""Thresholds by hand, and held-out figures that meet the target, on simulated and on RouterBench's records."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from satlight.baselines import build
from satlight.costs import expected_costs
from satlight.errors import SatlightError
from satlight.evaluation.rule_fit import RuleRows, UnreachableError, cross_fit, fit_rule
from satlight.records import open_records, split_records
from satlight.records.usage import with_log_costs
from satlight.rules import BestQuality, CheapestAtLeast, Utility, WithinBudget
from satlight.types import Temperature

ROUTERBENCH = Path(__file__).parents[3] / "shared" / "data" / "routerbench"


def drawn(seed: int, size: int = 600, bias: float = 0.0) -> RuleRows:
    """Outcomes drawn from the predicted probabilities; dearer candidates are better. ``bias`` shifts the scores."""
    rng = np.random.default_rng(seed)
    score = (rng.normal(0, 1.5, (size, 1)) + np.array([-0.5, 0.5, 1.5]) + rng.normal(0, 1, (size, 3))).astype(
        np.float32
    )
    outcome = (rng.random(score.shape) < 1 / (1 + np.exp(-score))).astype(np.float32)
    cost = np.broadcast_to([0.001, 0.003, 0.010], score.shape)
    return RuleRows(score + bias, cost, outcome, np.ones_like(outcome, dtype=bool), cost, Temperature())


def means(rule, rows: RuleRows) -> tuple[float, float]:
    outcome, cost = rows.realized(rule.choose(rows.probability(rows.calibration), rows.expected_NM))
    return float(np.nanmean(outcome)), float(np.nanmean(cost))


def test_a_case_by_hand():
    # Cheap is right where its probability is 0.6 or more, dear always; one request in four has no record of cheap.
    probability = np.array([[0.9, 0.95], [0.6, 0.95], [0.4, 0.95], [0.9, 0.95]])
    score = np.log(probability / (1 - probability)).astype(np.float32)
    cost = np.broadcast_to([1.0, 3.0], (4, 2))
    outcome = np.array([[1, 1], [1, 1], [0, 1], [0, 1]], dtype=np.float32)
    known = np.array([[True, True], [True, True], [True, True], [False, True]])
    rows = RuleRows(score, cost, outcome, known, cost, Temperature())
    fitted = fit_rule(CheapestAtLeast(1.0), rows)
    assert fitted.choose(rows.probability(Temperature()), cost).tolist() == [0, 0, 1, 0]
    assert means(fitted, rows) == (1.0, pytest.approx(5 / 3))
    assert fit_rule(CheapestAtLeast(0.6), rows).choose(rows.probability(Temperature()), cost).tolist() == [0, 0, 0, 0]
    # The choice of dear pays in the order of its gain: the third request first, then the second.
    assert fit_rule(WithinBudget(1.8), rows).choose(rows.probability(Temperature()), cost).tolist() == [0, 0, 1, 0]
    assert fit_rule(WithinBudget(2.4), rows).choose(rows.probability(Temperature()), cost).tolist() == [0, 1, 1, 0]
    assert fit_rule(Utility(2.0), rows).usd_weight == 2.0


def test_targets_and_budgets_hold_on_held_out_rows_and_on_new_ones():
    held = [0, 0]
    for seed in range(4):
        rows, new = drawn(seed, bias=1.0), drawn(1000 + seed, 5000, bias=1.0)  # overconfident: 0.8 is not 0.8
        for rule, place in ((CheapestAtLeast(0.7), 0), (WithinBudget(0.004), 1)):
            found = cross_fit(rule, rows, list("abc"), np.arange(600), seed=seed)
            mean, low, high = (found.quality, found.cost)[place]
            goal = rule.target if place == 0 else rule.usd
            held[place] += low <= goal <= high
            assert mean == pytest.approx(goal, rel=0.1)
            assert means(found.rule, new)[place] == pytest.approx(goal, rel=0.1)
    assert min(held) >= 3
    assert means(CheapestAtLeast(0.7), drawn(0, 5000, bias=1.0))[0] < 0.67  # not fitted


def test_the_budget_rule_is_better_than_the_threshold_at_equal_quality():
    rows = drawn(3, 5000)
    quality, cost = means(fit_rule(CheapestAtLeast(0.75), rows), rows)
    assert means(fit_rule(WithinBudget(cost), rows), rows)[0] > quality


def test_out_of_reach_is_an_error_with_the_closest_rule():
    rows = drawn(0)
    with pytest.raises(UnreachableError, match=r"target 0.99 cannot be reached on the 600 validation rows") as caught:
        fit_rule(CheapestAtLeast(0.99), rows)
    assert means(caught.value.rule, rows)[0] >= means(BestQuality(), rows)[0]
    with pytest.raises(UnreachableError, match=r"the least that this zoo can cost is 0.001") as caught:
        cross_fit(WithinBudget(0.0005), rows, list("abc"), np.arange(600))
    assert means(caught.value.rule, rows)[1] == pytest.approx(0.001)
    with pytest.raises(SatlightError, match="got 5 folds"):
        cross_fit(BestQuality(), rows, list("abc"), np.zeros(600))


def test_rows_of_one_group_stay_in_one_fold_and_the_temperature_is_fitted_within():
    rows = replace(drawn(0, 300), temperature=None)
    twice = rows.at(np.repeat(np.arange(300), 2))
    found = cross_fit(CheapestAtLeast(0.7), twice, list("abc"), np.repeat(np.arange(300), 2))
    assert found.rows == 600
    assert found.calibration.temperature != 1
    assert found.facts()["quality"] == list(found.quality)
    assert sum(found.shares.values()) == pytest.approx(1)


@pytest.mark.skipif(not ROUTERBENCH.is_dir(), reason="the RouterBench records are not next to this checkout")
def test_routerbench_targets_are_met_within_the_interval():
    """experiments/decision_rules has more targets and five seeds."""
    records = open_records(ROUTERBENCH)
    records = replace(records, instructions=records.instructions.with_columns(instruction="question"))
    split = split_records(records, test_fraction=0.3, validation_fraction=0.4)
    train, held = (records.with_splits(split).filter(splits=[name]) for name in ("train", "validation"))
    router = build("tfidf_knn", fixed={"k": 50}).fit(train)
    cost = expected_costs(with_log_costs(router.candidates, train), held.requests())
    score = router.score(held.requests()).log_odds_BC
    rows = RuleRows(score, cost, held.outcomes, held.known, held.costs.astype(np.float64), None)
    for target in (0.7, 0.8, 0.85):
        _, low, high = cross_fit(CheapestAtLeast(target), rows, held.model_ids, np.array(held.texts)).quality
        assert low <= target <= high
    for usd in (0.0005, 0.002):
        _, low, high = cross_fit(WithinBudget(usd), rows, held.model_ids, np.array(held.texts)).cost
        assert low <= usd <= high


def test_the_best_is_chosen_by_score_whatever_the_calibration():
    score = np.array([[2.0, 1.0], [1.0, 2.0]], dtype=np.float32)
    ones, cost = np.ones((2, 2), dtype=bool), np.array([[1.0, 2.0], [1.0, 2.0]])
    turning = Temperature(1.0, 0.0, {"b": Temperature(1.0, 5.0)})
    rows = RuleRows(score, cost, np.eye(2), ones, cost, turning, ("a", "b"))
    assert rows.choices(BestQuality(), turning).tolist() == [0, 1]
    assert rows.choices(Utility(0.0), turning).tolist() == [1, 1]
