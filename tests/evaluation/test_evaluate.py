"""From scores to results: hand-computed entries, macro means, intervals, bad input."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch

from satlight.errors import SatlightError
from satlight.evaluation import check_groups, evaluate, measure_controls
from satlight.metrics.calibration import Temperature
from satlight.records import PerformanceRecords
from satlight.types import Candidate


def records(outcomes, known=None, datasets=None, expected=None) -> PerformanceRecords:
    outcomes = np.asarray(outcomes, dtype=np.float32)
    n, m = outcomes.shape
    names = list(datasets or ["math"] * n)
    table = pl.DataFrame(
        {
            "instruction_id": [f"i{i}" for i in range(n)],
            "dataset": names,
            "task": names,
            "split": ["test"] * n,
            "instruction": ["?"] * n,
        }
    )
    known = np.ones((n, m), dtype=bool) if known is None else np.asarray(known)
    zoo = tuple(Candidate(f"lab/c{i}") for i in range(m))
    return PerformanceRecords(
        table, zoo, outcomes, known, expected=expected, name="toy", simulated=expected is not None
    )


def logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


def random_case(n=300, m=4, seed=0, datasets=None):
    rng = np.random.default_rng(seed)
    outcomes = (rng.random((n, m)) < np.linspace(0.3, 0.6, m)).astype(np.float32)
    return rng.normal(size=(n, m)) + outcomes, records(outcomes, datasets=datasets)


def test_every_figure_of_a_small_case():
    outcomes = [[1, 0], [0, 1], [1, 0], [0, 0]]
    known = [[True, True], [True, True], [True, True], [False, True]]
    train = records([[1, 0], [1, 1]])
    score = np.array([[logit(0.8), logit(0.2)], [0.0, 0.0], [logit(0.2), logit(0.8)], [logit(0.8), -9.0]])
    entry = evaluate(score, records(outcomes, known), train).to_dict()["datasets"]["math"]
    assert entry["n"] == 4
    assert entry["n_unknown"] == 1  # the last one is routed to c0, which has no record there
    assert entry["routed"] == pytest.approx(100 / 3)
    assert entry["best_single"] == pytest.approx(200 / 3)
    assert entry["best_single_candidate"] == entry["dataset_best_candidate"] == "lab/c0"
    assert entry["n_compared"] == 3  # all accuracies are over the first three
    assert entry["random"] == pytest.approx(50)
    assert entry["dataset_oracle"] == pytest.approx(200 / 3)
    assert entry["oracle"] == pytest.approx(100)
    assert entry["gap_closed"] == pytest.approx(-1)
    assert entry["share"] == {"lab/c0": 0.75, "lab/c1": 0.25}
    assert entry["single"] == {"lab/c0": pytest.approx(200 / 3), "lab/c1": pytest.approx(100 / 3)}
    brier = (2 * 0.2**2 + 2 * 0.5**2 + 2 * 0.8**2) / 7
    assert entry["brier"] == pytest.approx(brier, rel=1e-3)
    assert entry["gain_random"] == pytest.approx((100 / 3) / 50 - 1, rel=1e-4)
    assert entry["gain_best_single"] == pytest.approx(-0.5)
    assert entry["gap_oracle"] == pytest.approx(2 / 3)
    assert entry["v_b"] == pytest.approx(0.5)
    assert entry["selection_entropy"] == pytest.approx(-0.75 * np.log2(0.75) - 0.25 * np.log2(0.25), abs=1e-5)
    assert entry["rare_solver_recall"] == pytest.approx(1 / 3, abs=1e-5)  # the fourth choice has no record
    # Right cells score logit(0.8), 0 and logit(0.2), wrong ones logit(0.2), 0, logit(0.8) and -9.
    assert entry["auroc"] == pytest.approx((3.5 + 2.5 + 1.5) / 12)
    assert entry["forecast_accuracy"] == pytest.approx((2 + 1 + 0 + 1) / 7, abs=1e-5)
    assert entry["log_loss"] == pytest.approx(-(2 * np.log(0.8) + 2 * np.log(0.5) + 2 * np.log(0.2)) / 7, abs=1e-3)
    assert not {"bayes_optimal", "zero_router", "cost_routed", "aiq"} & set(entry)


def test_groups_are_macro_means_with_the_gap_of_the_means():
    score, test = random_case(datasets=["a"] * 250 + ["b"] * 50)
    results = evaluate(score, test, test)
    a, b, both = (
        results.to_dict()["datasets"]["a"],
        results.to_dict()["datasets"]["b"],
        results.to_dict()["groups"]["all"],
    )
    for key in ("routed", "random", "oracle", "ece", "brier"):
        assert both[key] == pytest.approx((a[key] + b[key]) / 2, abs=1e-5)
    gap = (both["routed"] - both["best_single"]) / (both["oracle"] - both["best_single"])
    assert both["gap_closed"] == pytest.approx(gap, abs=1e-5)
    assert both["n"] == 300
    assert sum(both["share"].values()) == pytest.approx(1, abs=1e-5)
    assert both["interval"][1] - both["interval"][0] < b["interval"][1] - b["interval"][0]
    assert both["interval"][0] < both["routed"] < both["interval"][1]


def test_a_dataset_without_train_data_has_no_dataset_best_nor_has_its_group():
    score, test = random_case(datasets=["a"] * 150 + ["b"] * 150)
    results = evaluate(score, test, test.filter(datasets="a"), {"a": ["a"], "both": ["a", "b"]})
    assert results.to_dict()["datasets"]["b"]["dataset_best"] is None
    assert results.to_dict()["datasets"]["b"]["dataset_best_candidate"] is None
    assert results.to_dict()["datasets"]["b"]["best_single"] is not None
    assert results.to_dict()["groups"]["both"]["dataset_best"] is None
    assert results.to_dict()["groups"]["a"]["dataset_best"] == results.to_dict()["datasets"]["a"]["dataset_best"]


def test_without_train_records_what_needs_them_is_missing():
    score, test = random_case()
    entry = evaluate(score, test, None).to_dict()["groups"]["all"]
    assert entry["best_single"] is entry["gap_closed"] is entry["best_single_candidate"] is None
    assert entry["versus_best_single"] == entry["versus_tfidf_knn"] == [None, None]
    assert entry["tfidf_knn"] is entry["aptitude_knn"] is entry["inferred_dataset"] is None
    assert entry["routed"] is not None


def test_every_control_that_never_saw_a_test_row_is_compared_with():
    score, test = random_case()
    entry = evaluate(score, test, test).to_dict()["datasets"]["math"]
    for control in ("best_single", "dataset_best", "task_best", "tfidf_knn", "aptitude_knn", "inferred_dataset"):
        low, high = entry[f"versus_{control}"]
        assert low <= entry["routed"] - entry[control] <= high
        assert low < high
    assert "versus_oracle" not in entry


def test_choosing_the_best_single_everywhere_differs_by_nothing():
    _, test = random_case()
    score = np.zeros(test.shape)
    score[:, 3] = 1
    entry = evaluate(score, test, test).to_dict()["datasets"]["math"]
    assert entry["best_single_candidate"] == "lab/c3"
    assert entry["versus_best_single"] == [0.0, 0.0]
    assert entry["gap_closed"] == 0


def test_intervals_depend_on_the_seed_and_on_their_own_dataset_alone():
    score, test = random_case(datasets=["a"] * 150 + ["b"] * 150)
    whole = evaluate(score, test, test, resamples=200).to_dict()["datasets"]["b"]
    alone = evaluate(score[150:], test.filter(datasets="b"), test, resamples=200).to_dict()["datasets"]["b"]
    other = evaluate(score, test, test, resamples=200, seed=1).to_dict()["datasets"]["b"]
    assert whole == alone
    assert whole["interval"] != other["interval"]


def test_reachable_gap_is_by_true_probabilities():
    expected = np.array([[0.9, 0.1], [0.4, 0.6]], dtype=np.float32)
    test = records([[0, 0], [1, 0]], expected=expected)
    train = records([[1, 0]])
    entry = evaluate(np.array([[1.0, 0.0], [0.0, 1.0]]), test, train).to_dict()["groups"]["all"]
    assert entry["bayes_optimal"] == entry["routed_expected"] == pytest.approx(75)
    assert entry["best_single_expected"] == pytest.approx(65)
    assert entry["reachable_gap_closed"] == 1.0
    worst = evaluate(np.array([[0.0, 1.0], [0.0, 1.0]]), test, train).to_dict()["groups"]["all"]
    assert worst["reachable_gap_closed"] == pytest.approx((35 - 65) / (75 - 65))


@pytest.mark.parametrize(("best_single", "reach"), [(0.701, None), (0.69, 0.0)])
def test_a_reachable_gap_below_two_points_has_no_share(best_single, reach):
    # Per row, Bayes-optimal chooses c0 (72 %) and c1 (72 %) or the same; the best single candidate is c0.
    other = 2 * best_single - 0.72
    test = records([[1, 0], [0, 1]], expected=np.array([[0.72, 0.1], [other, 0.72]], dtype=np.float32))
    score = np.array([[1.0, 0.0], [1.0, 0.0]])
    results = evaluate(score, test, records([[1, 0]]), resamples=10)
    for kind in ("datasets", "groups"):
        (entry,) = results.to_dict()[kind].values()
        assert entry["bayes_optimal"] == pytest.approx(72)
        assert entry["best_single_expected"] == pytest.approx(100 * best_single, abs=1e-4)
        assert entry["reachable_gap_closed"] == reach
        assert entry["gap_closed"] == 0  # by outcomes, the gap is 50 points


@pytest.mark.parametrize(("solved", "gap"), [(99, None), (97, 0.0)])
def test_a_gap_to_the_oracle_below_two_points_has_no_share(solved, gap):
    outcomes = np.zeros((100, 2))
    outcomes[:solved, 0], outcomes[solved:, 1] = 1, 1
    test = records(outcomes)
    entry = evaluate(np.tile([1.0, 0.0], (100, 1)), test, test, resamples=10).to_dict()["groups"]["all"]
    assert (entry["best_single"], entry["oracle"]) == (solved, 100)
    assert entry["gap_closed"] == gap


def test_tensors_and_arrays_give_the_same():
    score, test = random_case(n=40)
    tensor = torch.tensor(score, requires_grad=True)
    assert evaluate(tensor, test, test, resamples=50) == evaluate(score, test, test, resamples=50)


def test_one_instruction_one_candidate():
    test = records([[1.0]])
    entry = evaluate(np.zeros((1, 1)), test, test).to_dict()["groups"]["all"]
    assert entry["routed"] == entry["oracle"] == 100
    assert entry["gap_closed"] is None  # there is no gap to close


def test_read_only_memory_map_is_accepted(tmp_path):
    score, test = random_case(n=20)
    np.save(tmp_path / "m.npy", test.outcomes)
    mapped = np.load(tmp_path / "m.npy", mmap_mode="r")
    test.outcomes = mapped
    assert evaluate(score, test, test, resamples=10).to_dict()["datasets"]["math"]["n"] == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s[:, :3], r"scores have shape \(300, 3\), but the records 'toy' are 300 instructions x 4"),
        (lambda s: np.where(s == s[7, 2], np.nan, s), r"1 scores are not finite.*'i7' and candidate 'lab/c2'"),
        (lambda s: np.where(s == s[0, 0], np.inf, s), r"'i0' and candidate 'lab/c0' \(inf\)"),
    ],
)
def test_bad_scores_are_named(change, message):
    score, test = random_case()
    with pytest.raises(SatlightError, match=message):
        evaluate(change(score), test, test)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"ood": ["maths"]}, r"group 'ood' names \['maths'\].*datasets \['math'\]"),
        ({"ood": []}, "group 'ood' is empty"),
    ],
)
def test_bad_groups_are_named(groups, message):
    with pytest.raises(SatlightError, match=message):
        check_groups(groups, ["math"])


def test_a_dataset_named_twice_counts_once():
    assert check_groups({"g": ["b", "a", "b"]}, ["a", "b"]) == {"g": ["b", "a"]}


def test_thirteen_thousand_instructions_take_less_than_three_seconds():
    score, test = random_case(n=13_000, m=7, datasets=["a"] * 6_000 + ["b"] * 7_000)
    controls = measure_controls(test, test.rows(np.arange(0, 13_000, 100)))
    start = time.process_time()
    evaluate(score, test, test, resamples=2000, controls=controls)
    assert time.process_time() - start < 3


def test_evaluation_needs_neither_lightning_nor_transformers():
    code = (
        "import sys, satlight.evaluation; "
        "print({'lightning', 'torchmetrics', 'transformers', 'satlight.modules'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_temperature_adds_the_calibrated_error_and_changes_nothing_else():
    # 80 % sure and half of them right; a temperature that makes every score 0 says 50 %.
    outcomes = [[1, 0], [0, 1]]
    score = np.array([[logit(0.8), logit(0.8) - 1e-6]] * 2)
    plain = evaluate(score, records(outcomes), None)
    scaled = evaluate(score, records(outcomes), None, calibration=Temperature(1e6))
    assert plain.calibration is None
    assert scaled.calibration == Temperature(1e6)
    entry, before = scaled.to_dict()["groups"]["all"], plain.to_dict()["groups"]["all"]
    assert entry.pop("ece_calibrated") == pytest.approx(0, abs=1e-5)
    assert entry["ece"] == pytest.approx(0.3, abs=1e-5)
    assert entry == before
