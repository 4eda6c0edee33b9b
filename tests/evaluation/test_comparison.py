"""With missing outcomes, all policies of a table are judged on the same instructions, and none is above the oracle."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from satlight.evaluation import RoutingResults, evaluate, measure_controls, print_table
from satlight.evaluation.comparison import comparable, judged_rows
from satlight.evaluation.controls import Control, matrices
from satlight.evaluation.leaderboard import Means, release_curves
from satlight.evaluation.outcomes import CONTROL, METHOD, UPPER_BOUND, UPPER_BOUNDS, OutcomeTable
from satlight.metrics.functional import choose
from satlight.records import PerformanceRecords
from satlight.types import Candidate

BY_TRUTH = {"bayes_optimal", "routed_expected", "best_single_expected"}


def make_records(outcomes, known, datasets, costs=None) -> PerformanceRecords:
    n, m = outcomes.shape
    texts = [f"question {i} about {name}" for i, name in enumerate(datasets)]
    names = list(map(str, datasets))
    columns = {"instruction_id": [f"i{i}" for i in range(n)], "dataset": names, "task": names}
    table = pl.DataFrame(columns | {"split": ["test"] * n, "instruction": texts})
    zoo = tuple(Candidate(f"lab/sim-{i}") for i in range(m))
    outcomes = np.where(known, outcomes, 0).astype(np.float32)
    return PerformanceRecords(table, zoo, outcomes, known, costs=costs)


@st.composite
def cases(draw):
    """Records of three datasets with random masks, some of them by blocks, and random scores."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(2, 24)), draw(st.integers(1, 4))
    outcomes = rng.random((n, m)).round(draw(st.integers(0, 2)))
    if draw(st.booleans()):
        known = rng.random((n, m)) < draw(st.floats(0.1, 1))
    else:  # every candidate answered other instructions
        known = rng.integers(0, m, n)[:, None] == np.arange(m)
    datasets = rng.choice(["math", "code", "law"], n)
    costs = rng.random((n, m)).astype(np.float32) if draw(st.booleans()) else None
    records = make_records(outcomes, known, datasets, costs)
    train = make_records(rng.random((n, m)), rng.random((n, m)) < 0.8, rng.choice(["math", "code"], n), costs)
    return rng.normal(size=(n, m)), records, train


@settings(max_examples=50, deadline=None, derandomize=True)
@given(cases())
def test_no_policy_is_above_the_oracle(case):
    score_NM, test, train = case
    results = evaluate(score_NM, test, train, resamples=5)
    for entry in [*results.datasets.values(), *results.groups.values()]:
        oracle = entry.controls["oracle"].accuracy
        accuracies = {name: control.accuracy for name, control in entry.controls.items() if name not in BY_TRUTH}
        for accuracy in (entry.routed, *accuracies.values()):
            assert accuracy is None or accuracy <= oracle + 1e-4
        assert entry.gap_closed is None or entry.gap_closed <= 1 + 1e-4
        assert (entry.n_compared == 0) == (entry.routed is None) or entry.n > entry.n_compared
    assert RoutingResults.from_dict(results.to_dict()).to_dict() == results.to_dict()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(cases())
def test_no_entry_of_a_leaderboard_is_above_the_oracle(case):
    score_NM, test, train = case
    frames, controls = [], measure_controls(test, train)
    for seed in range(2):
        table = OutcomeTable(test, {"data": "d", "setting": "all", "seed": seed}, train=train)
        for name, control in controls.items():
            table.add(UPPER_BOUND if name in UPPER_BOUNDS else CONTROL, name, control)
        for k, sign in enumerate((1, -1)):
            choice_N = choose(torch.from_numpy(sign * score_NM + seed))
            table.add(METHOD, f"router {k}", Control.of(choice_N, *matrices(test)))
        frames.append(table.frame())
    table = pl.concat(frames)
    names = sorted(set(test.datasets.tolist()))
    means = Means(table, {"all": names}, resamples=5)
    for part in means.parts:
        figures = means.figures(part)
        oracle = figures[UPPER_BOUND, "oracle"].routed
        known = [figure.routed for figure in figures.values() if figure.routed is not None]
        assert all(accuracy <= oracle + 1e-4 for accuracy in known)
    curves = release_curves(table, names)
    for seeds in (*curves[METHOD].values(), *curves[CONTROL].values()):
        for mine, best in zip(seeds, curves[UPPER_BOUND]["oracle"], strict=True):
            assert all(np.isnan(a) or a <= b + 1e-4 for a, b in zip(mine, best, strict=True))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 30))
def test_compared_policies_are_known_on_all_judged_rows(seed, policies, rows):
    rng = np.random.default_rng(seed)
    known = torch.from_numpy(rng.random((policies, rows)) < rng.random((policies, 1)))
    row_N, policy_E = judged_rows(known, [0])
    assert known[policy_E][:, row_N].all()
    assert int(row_N.sum()) >= known[0].sum() / 2
    assert policy_E[0]
    complete, every = judged_rows(torch.ones_like(known), [0])
    assert complete.all()
    assert every.all()


def halves() -> tuple[PerformanceRecords, PerformanceRecords, np.ndarray]:
    """Return 40 easy and 60 hard questions, of which sim-0 answered only the easy ones; it is the best on train."""
    known = np.ones((100, 3), dtype=bool)
    known[40:, 0] = False
    outcomes = np.zeros((100, 3))
    outcomes[:40] = 1
    outcomes[40:70, 1] = outcomes[60:90, 2] = 1
    test = make_records(outcomes, known, ["math"] * 100)
    train = make_records(np.tile([1.0, 0.0, 0.0], (20, 1)), np.ones((20, 3), dtype=bool), ["math"] * 20)
    score = np.tile([0.0, 1.0, 0.5], (100, 1))
    return test, train, score


def test_a_best_single_that_answered_too_few_is_not_comparable():
    test, train, score = halves()
    results = evaluate(score, test, train)
    entry = results.groups["all"]
    assert entry.best_single_candidate == "lab/sim-0"
    assert entry.controls["best_single"].accuracy is entry.gap_closed is None
    assert entry.controls["best_single"].versus == (None, None)
    assert (entry.routed, entry.controls["oracle"].accuracy, entry.n_compared) == (70, 90, 100)
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_table(results, console)
    said = console.export_text()
    assert "best single, lab/sim-0, answered 40 % of the test instructions of math; not comparable" in said


def test_with_few_gaps_everything_is_compared_on_what_all_answered():
    test, train, score = halves()
    known = np.array(test.known)
    known[:, 0] = np.arange(100) % 10 > 0
    results = evaluate(score, make_records(np.array(test.outcomes), known, ["math"] * 100), train)
    entry = results.datasets["math"]
    kept = known[:, 0]
    assert entry.n_compared == 90
    assert entry.coverage["best_single"] == 0.9
    assert entry.routed == pytest.approx(100 * np.array(test.outcomes)[kept, 1].mean())
    assert entry.controls["oracle"].accuracy == pytest.approx(100 * np.array(test.outcomes)[kept].max(1).mean())


def test_candidates_that_answered_different_instructions():
    known = np.arange(90)[:, None] % 3 == np.arange(3)
    rng = np.random.default_rng(0)
    records = make_records((rng.random((90, 3)) < (0.4, 0.6, 0.8)).astype(float), known, ["log"] * 90)
    entry = evaluate(rng.normal(size=(90, 3)), records, records, resamples=10).groups["all"]
    assert entry.controls["oracle"].accuracy >= entry.routed
    assert entry.controls["random"].accuracy == entry.controls["oracle"].accuracy  # one answer each
    assert entry.coverage["best_single"] == pytest.approx(1 / 3)
    assert entry.controls["best_single"].accuracy is entry.gap_closed is None


def test_a_complete_table_is_returned_as_it_is():
    test, _, _ = halves()
    table = OutcomeTable(test, {"data": "d", "setting": "all", "seed": 0})
    table.add(UPPER_BOUND, "oracle", Control.of(torch.ones(100, dtype=torch.long), *matrices(test)))
    whole = table.frame()
    found = comparable(whole)
    assert found.table is whole
    assert (found.compared, found.left_out) == ({"math": 1.0}, {})
    table.add(CONTROL, "best_single", Control.of(torch.zeros(100, dtype=torch.long), *matrices(test)))
    assert comparable(table.frame()).left_out == {"best single": {"math": 0.4}}
