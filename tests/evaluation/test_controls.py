"""Controls on a hand-made zoo, and on the published RouterDC split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from satlight.evaluation import evaluate, measure_controls
from satlight.evaluation.text_controls import TEXT_CONTROLS
from satlight.records import PerformanceRecords, open_records
from satlight.types import Candidate

ROUTERDC = Path(__file__).parents[3] / "shared" / "data" / "routerdc"
IN_DOMAIN = ["mmlu", "gsm8k", "cmmlu", "arc_challenge", "humaneval"]
OUT_OF_DOMAIN = ["math_prealgebra", "mbpp", "ceval"]
COLUMNS = [*IN_DOMAIN, "in_domain", *OUT_OF_DOMAIN, "out_of_domain"]
PUBLISHED = {
    "random": [60.54, 50.05, 45.76, 50.08, 31.92, 47.67, 28.56, 38.81, 46.69, 38.02],
    "best_single": [59.46, 69.81, 44.72, 49.43, 49.39, 54.56, 39.72, 47.34, 44.80, 43.95],
    "dataset_best": [64.59, 69.63, 51.77, 57.95, 49.39, 58.67, None, None, None, None],
    "dataset_oracle": [64.59, 69.81, 51.77, 57.95, 49.39, 58.70, 39.72, 47.34, 52.01, 46.36],
    "oracle": [85.26, 83.32, 79.63, 72.44, 66.94, 77.52, 67.05, 62.40, 81.58, 70.34],
}


def records(outcomes, datasets, tasks=None, candidates="abc", expected=None) -> PerformanceRecords:
    """Records from rows of outcomes; None = unknown."""
    outcomes = np.array(outcomes, dtype=np.float32)
    n = len(outcomes)
    table = pl.DataFrame(
        {
            "instruction_id": [f"i{i}" for i in range(n)],
            "dataset": list(datasets),
            "task": list(tasks or datasets),
            "split": ["test"] * n,
            "instruction": ["?"] * n,
        }
    )
    known = ~np.isnan(outcomes)
    zoo = tuple(Candidate(name) for name in candidates[: outcomes.shape[1]])
    return PerformanceRecords(
        table, zoo, np.nan_to_num(outcomes), known, expected=expected, simulated=expected is not None
    )


# Dataset x: b is best on train, c on test. Dataset y: a is best on both. z has no train rows.
TRAIN = records([[0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], "xxyy", ["p", "q", "p", "p"])
TEST = records([[0, 0, 1], [0, 1, 1], [1, 0, None], [None, 1, 0], [1, 0, 1]], "xxyyz", ["p", "r", "p", "p", "p"])


def choices(test=TEST, train=TRAIN):
    return {name: c.choices.tolist() for name, c in measure_controls(test, train).items() if c.choices is not None}


def test_choices_of_every_control():
    assert choices() == {
        "best_single": [1, 1, 1, 1, 1],  # macro: a 0.5, b 0.75, c 0
        "dataset_best": [1, 1, 0, 0, -1],
        "task_best": [1, 1, 0, 0, -1],  # (x, r) has no train rows, so dataset x decides
        **dict.fromkeys(TEXT_CONTROLS, [1] * 5),  # every text is the same, so the best over all wins
        "dataset_oracle": [2, 2, 0, 0, 0],
        "oracle": [2, 1, 0, 1, 0],
    }


def test_equal_task_names_of_two_datasets_are_two_tasks():
    train = records([[1, 0], [0, 1]], "xy", ["algebra", "algebra"])
    assert choices(train, train)["task_best"] == [0, 1]


def test_unknown_outcomes_are_marked_not_zero():
    controls = measure_controls(TEST, TRAIN)
    assert controls["dataset_best"].known.tolist() == [True, True, True, False, False]
    assert controls["random"].outcomes.tolist() == pytest.approx([1 / 3, 2 / 3, 0.5, 0.5, 2 / 3])


def test_train_candidates_are_matched_by_name():
    shuffled = TRAIN.filter(candidates=["a", "b"])
    shuffled = records(shuffled.outcomes[:, ::-1], "xxyy", ["p", "q", "p", "p"], candidates="ba")
    assert choices(train=shuffled)["dataset_best"] == [1, 1, 0, 0, -1]


def test_candidates_without_train_records_are_never_chosen():
    only_c = TRAIN.filter(candidates="c")
    chosen = choices(train=only_c)
    assert all(chosen[control] == [2] * 5 for control in ("best_single", *TEXT_CONTROLS))


def test_without_train_nothing_is_chosen_on_train():
    chosen = choices(train=None)
    for control in ("best_single", "dataset_best", "task_best", *TEXT_CONTROLS):
        assert chosen[control] == [-1] * 5
    assert chosen["oracle"] == [2, 1, 0, 1, 0]


def test_bayes_optimal_only_where_the_truth_is_known():
    assert "bayes_optimal" not in measure_controls(TEST, TRAIN)
    expected = np.array([[0.3, 0.6], [0.7, 0.7]], dtype=np.float32)
    test = records([[1, 0], [0, 0]], "xx", expected=expected)
    control = measure_controls(test, test)["bayes_optimal"]
    assert control.choices.tolist() == [1, 0]
    assert control.outcomes.tolist() == pytest.approx([0.6, 0.7])


@pytest.mark.skipif(not ROUTERDC.is_dir(), reason="the RouterDC records are not beside this checkout")
def test_published_rows_of_routerdc_come_out():
    everything = open_records(ROUTERDC, score_column="correct")
    test = everything.filter(splits="test", datasets=IN_DOMAIN + OUT_OF_DOMAIN)
    train = everything.filter(splits="train", datasets=IN_DOMAIN)
    groups = {"in_domain": IN_DOMAIN, "out_of_domain": OUT_OF_DOMAIN}
    results = evaluate(np.zeros(test.shape), test, train, groups, resamples=10)
    entries = results.datasets | results.groups
    for control, row in PUBLISHED.items():
        for name, published in zip(COLUMNS, row, strict=True):
            got = entries[name].controls[control].accuracy
            assert (got is None) == (published is None), (control, name)
            assert published is None or got == pytest.approx(published, abs=0.01), (control, name)
    best = "cognitivecomputations/dolphin-2.9-llama3-8b"
    assert results.groups["in_domain"].best_single_candidate == best
    assert results.groups["in_domain"].single[best] == pytest.approx(54.56, abs=0.01)
