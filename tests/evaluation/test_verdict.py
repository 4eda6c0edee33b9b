"""The comparison of a fixed policy with the best single candidate and the blind mixture."""

import numpy as np
import polars as pl
import pytest

from satlight.evaluation.verdict import QUALITY, SAVING, Judge, sign_flip_p
from satlight.records import PerformanceRecords
from satlight.types import Candidate


def records(outcomes, costs=None, known=None) -> PerformanceRecords:
    count, size = outcomes.shape
    rows = pl.DataFrame(
        {
            "instruction_id": [str(i) for i in range(count)],
            "dataset": ["log"] * count,
            "task": ["log"] * count,
            "split": ["test"] * count,
            "instruction": [f"question {i}" for i in range(count)],
        }
    )
    known = np.ones(outcomes.shape, dtype=bool) if known is None else known
    zoo = tuple(Candidate(f"m{i}") for i in range(size))
    return PerformanceRecords(rows, zoo, outcomes.astype(np.float32), known, costs=costs)


@pytest.fixture
def split_zoo():
    """Two kinds of 200 rows; m0 is right on the first, m1 on the second, and m1 on a tenth of the first as well."""
    outcomes = np.zeros((400, 2))
    outcomes[:200, 0] = outcomes[200:, 1] = outcomes[:20, 1] = 1
    return outcomes


def test_gain_interval_and_p(split_zoo):
    held = records(split_zoo)
    judge = Judge(held, held)
    assert held.model_ids[judge.single] == "m1"
    found = judge.compare(QUALITY, "best", (np.arange(400) >= 200).astype(np.int64))
    assert found.quality == 1.0
    assert found.single_quality == pytest.approx(0.55)
    assert found.gain.mean == pytest.approx(0.45)
    assert found.gain.low > 0.39
    assert found.gain_p < 0.001
    assert found.pays
    assert found.cost is None


def test_the_best_single_candidate_itself_does_not_pay(split_zoo):
    held = records(split_zoo)
    judge = Judge(held, held)
    found = judge.compare(QUALITY, "best", np.ones(400, dtype=np.int64))
    assert (found.gain.mean, found.gain_p, found.pays) == (0, 1, False)
    assert judge.needed(np.ones(400, dtype=np.int64)) is None


def test_four_lucky_rows_are_not_evidence(split_zoo):
    outcomes = np.tile([0.0, 1.0], (400, 1))
    outcomes[:4] = [1, 0]
    held = records(outcomes)
    found = Judge(held, held).compare(QUALITY, "best", (np.arange(400) >= 4).astype(np.int64))
    assert found.gain.low > 0  # the bootstrap alone would be convinced
    assert not found.pays


def test_costs_against_single_and_mixture(split_zoo):
    costs = np.tile(np.array([0.001, 0.002], dtype=np.float32), (400, 1))
    held = records(split_zoo, costs)
    judge = Judge(held, held, policies=2)
    found = judge.compare(SAVING, "cheapest@0.55", (np.arange(400) >= 200).astype(np.int64))
    assert found.cost == pytest.approx(0.0015)
    assert found.single_cost == pytest.approx(0.002)
    assert found.cost_change.mean == pytest.approx(-0.25)
    # Half of each candidate costs as much and is right in 0.5 / 2 + 0.55 / 2 of the cases.
    assert found.mixture_gain.mean == pytest.approx(1 - 0.525, abs=1e-6)
    # The mixture never reaches a quality of 1, so its cost is at least that of its best corner.
    assert found.mixture_cost_change.mean == pytest.approx(-0.25)
    assert found.pays


def test_choosing_the_cheaper_of_equals_at_random_does_not_beat_the_mixture():
    rng = np.random.default_rng(0)
    outcomes = (rng.random((2000, 2)) < [0.5, 0.6]).astype(float)
    costs = np.tile(np.array([0.001, 0.01], dtype=np.float32), (2000, 1))
    held = records(outcomes, costs)
    found = Judge(held, held, policies=2).compare(SAVING, "x", rng.integers(0, 2, 2000))
    assert found.cost_change.high < 0
    assert abs(found.mixture_gain.mean) < 0.03
    assert not found.pays


def test_rows_without_an_outcome_are_left_out(split_zoo):
    known = np.ones((400, 2), dtype=bool)
    known[:100, 0] = False
    held = records(np.where(known, split_zoo, 0), known=known)
    found = Judge(held, held).compare(QUALITY, "best", (np.arange(400) >= 200).astype(np.int64))
    assert (found.rows, found.share) == (300, 0.75)


def test_kinds_and_rows_needed(split_zoo):
    held = records(split_zoo)
    judge = Judge(held, held)
    choice = (np.arange(400) >= 200).astype(np.int64)
    kinds = judge.kinds(choice, np.where(np.arange(400) < 200, "first", "second"))
    assert [(one.name, one.rows, round(one.gain.mean, 2), one.chosen) for one in kinds] == [
        ("first", 200, 0.9, "m0"),
        ("second", 200, 0.0, "m1"),
    ]
    # n = variance * ((1.96 + 0.84) / 0.01)^2, with variance 0.45 * 0.55.
    assert judge.needed(choice) == pytest.approx(0.45 * 0.55 * 280.16**2, rel=0.001)


def test_sign_flips_are_exact_on_few_differences():
    # With n equal differences, both tails are 2 of 2^n sign patterns.
    for count in (3, 5, 7):
        p = sign_flip_p(np.array([1.0] * count + [0.0] * 9))
        assert p == pytest.approx(2 / 2**count, rel=0.15)
