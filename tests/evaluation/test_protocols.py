"""Protocols: who is known where, who is chosen between, and that no outcome of the test rows gets out."""

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.evaluation import evaluate
from satlight.evaluation.protocols import (
    PROTOCOLS,
    domains,
    incremental_release,
    probe_rows,
    unseen_candidates,
    unseen_tasks,
)
from satlight.records import PerformanceRecords
from satlight.routing.scores import StoredScores
from satlight.types import Candidate


def make_records(
    outcomes: np.ndarray,
    splits: list[str],
    datasets: list[str] | None = None,
    tasks: list[str] | None = None,
    dates: list[str | None] | None = None,
) -> PerformanceRecords:
    """Candidates m0, m1, …; everything known, costs 0.01, 0.11, 0.21, …"""
    n, m = outcomes.shape
    rows = pl.DataFrame(
        {
            "instruction_id": [f"i{i}" for i in range(n)],
            "dataset": datasets or ["d"] * n,
            "task": tasks or ["t"] * n,
            "split": splits,
            "instruction": [f"text {i}" for i in range(n)],
        }
    )
    zoo = tuple(Candidate(f"m{c}", release_date=dates[c] if dates else None) for c in range(m))
    return PerformanceRecords(
        rows,
        zoo,
        outcomes.astype(np.float32),
        np.ones((n, m), dtype=bool),
        costs=np.arange(n * m, dtype=np.float32).reshape(n, m) / 10 + 0.01,
        expected=outcomes.astype(np.float32),
    )


SPLITS = ["train"] * 6 + ["validation"] * 2 + ["test"] * 3 + ["dropped"]
DATASETS = ["a", "a", "a", "a", "b", "b", "a", "b", "a", "b", "c", "a"]


@pytest.fixture
def records() -> PerformanceRecords:
    """Twelve rows in datasets a, b and (test only) c; six candidates."""
    return make_records(np.random.default_rng(0).random((12, 6)).round(2), SPLITS, DATASETS)


def ids(records: PerformanceRecords) -> list[str]:
    return records.instructions["instruction_id"].to_list()


def same(first: PerformanceRecords, second: PerformanceRecords) -> bool:
    return (
        first.instructions.equals(second.instructions)
        and first.candidates == second.candidates
        and np.array_equal(first.outcomes, second.outcomes)
        and np.array_equal(first.known, second.known)
        and np.array_equal(first.costs, second.costs, equal_nan=True)
    )


# -- domains -----------------------------------------------------------------------------------------------


def test_domains(records):
    groups = {"in_domain": ["a", "a"], "out_of_domain": ["b", "c"]}
    (setting,) = domains(records, groups, train_datasets=["a"])
    assert ids(setting.train) == ["i0", "i1", "i2", "i3", "i6"]
    assert ids(setting.test) == ["i8", "i9", "i10"]
    assert setting.groups == {"in_domain": ["a"], "out_of_domain": ["b", "c"]}
    assert setting.train.expected is None
    assert np.array_equal(setting.train.outcomes, records.outcomes[[0, 1, 2, 3, 6]])


def test_domains_without_a_choice(records):
    (setting,) = domains(records)
    assert ids(setting.train) == [f"i{i}" for i in range(8)]
    assert setting.groups is None


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_rows_of_the_wrong_split_are_refused(protocol, records):
    for splits in (["train"] * 12, ["test"] * 12, [""] * 12, ["validation"] * 9 + ["test"] * 3):
        column = pl.Series("split", splits)
        with pytest.raises(SatlightError, match="needs train and test rows; 'records' has the splits"):
            next(protocol(replace(records, instructions=records.instructions.with_columns(column))))


def test_unknown_datasets(records):
    with pytest.raises(SatlightError, match="train_datasets names 'z'; 'records' has 'a', 'b', 'c'"):
        next(domains(records, train_datasets=["z"]))
    with pytest.raises(SatlightError, match=r"The group 'in' names \['z'\]"):
        next(domains(records, {"in": ["z"]}))
    with pytest.raises(SatlightError, match=r"needs train and test rows.* trains on 'c'"):
        next(domains(records, train_datasets=["c"]))


# -- unseen candidates -------------------------------------------------------------------------------------


def test_every_candidate_is_unseen_once_and_known_on_the_probes_alone(records):
    settings = list(unseen_candidates(records, folds=3, probes=2, seed=1))
    assert sorted(name for s in settings for name in s.about["unseen"]) == records.model_ids
    probes = probe_rows(settings[0].train, 2, seed=1).tolist()
    for setting in settings:
        unseen = setting.about["unseen"]
        assert len(unseen) == 2
        assert setting.test.model_ids == unseen
        for column, name in enumerate(records.model_ids):
            known = np.flatnonzero(setting.train.known[:, column]).tolist()
            assert known == (probes if name in unseen else list(range(8)))
            rows = np.array(known)
            assert np.array_equal(setting.train.outcomes[rows, column], records.outcomes[rows, column])
            assert np.array_equal(setting.train.costs[rows, column], records.costs[rows, column])
        hidden = ~setting.train.known
        assert hidden.sum() == 2 * 6
        assert not setting.train.outcomes[hidden].any()
        assert np.isnan(setting.train.costs[hidden]).all()
        assert ids(setting.test) == ["i8", "i9", "i10"]
        assert setting.test.known.all()


def test_unknown_stays_unknown(records):
    records.known[:] = np.random.default_rng(3).random(records.known.shape) < 0.9
    for setting in unseen_candidates(records, folds=2, probes=5, seed=0):
        assert not (setting.train.known & ~records.known[:8]).any()


def test_hidden_outcomes_change_nothing(records):
    """Neither test outcomes nor those that are hidden from the router are in what it learns from."""
    settings = list(unseen_candidates(records, folds=3, probes=2, seed=1))
    for setting in settings:
        changed = replace(records, outcomes=records.outcomes.copy(), costs=records.costs.copy())
        secret = np.ones(records.shape, dtype=bool)
        secret[:8] = ~setting.train.known
        changed.outcomes[secret] = 1 - changed.outcomes[secret]
        changed.costs[secret] += 1
        again = list(unseen_candidates(changed, folds=3, probes=2, seed=1))[setting.about["fold"] - 1]
        assert same(again.train, setting.train)
        assert again.about == setting.about
        assert not same(again.test, setting.test)


def test_all_are_chosen_between(records):
    for setting in unseen_candidates(records, folds=6, probes=2, zoo="all", groups={"mine": ["c"]}):
        assert len(setting.about["unseen"]) == 1
        assert setting.test.model_ids == records.model_ids
        assert setting.groups == {"mine": ["c"]}


def test_the_seed_divides():
    records = make_records(np.zeros((80, 6)), ["train"] * 70 + ["test"] * 10)
    assert len({tuple(next(unseen_candidates(records, seed=s)).about["unseen"]) for s in range(8)}) > 3
    first, again = (list(unseen_candidates(records, seed=3)) for _ in range(2))
    assert all(same(a.train, b.train) and a.about == b.about for a, b in zip(first, again, strict=True))


def test_probes_are_train_rows_spread_over_datasets(records):
    train = next(domains(records)).train
    for seed in range(5):
        chains = [set(probe_rows(train, count, seed).tolist()) for count in range(1, 7)]
        assert all(small < large for small, large in itertools.pairwise(chains))
        assert chains[-1] == set(range(6))  # no validation row
        for count, chosen in enumerate(chains, 1):
            per_dataset = [sum(train.datasets[row] == name for row in chosen) for name in "ab"]
            assert abs(per_dataset[0] - per_dataset[1]) <= 1 or per_dataset[1] == 2, (count, per_dataset)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 7}, "Got probes=7 for 6 train rows; allowed: 1 to 6"),
        ({"probes": 0}, "Got probes=0"),
        ({"probes": 2, "folds": 4}, "Got folds=4 for 6 candidates, zoo: unseen; allowed: 2 to 3"),
        ({"probes": 2, "folds": 7, "zoo": "all"}, "allowed: 2 to 6"),
        ({"probes": 2, "folds": 1}, "Got folds=1"),
    ],
)
def test_folds_and_probes_that_cannot_be(records, options, message):
    with pytest.raises(SatlightError, match=message):
        list(unseen_candidates(records, **options))


def test_a_candidate_without_a_probe_is_named(records):
    records.known[:6, 4] = False
    with pytest.raises(SatlightError, match="None of the 3 probes has an outcome of 'm4'"):
        list(unseen_candidates(records, folds=2, probes=3))


# -- unseen tasks ------------------------------------------------------------------------------------------

TASKS = ["x", "x", "y", "y", "x", "z", "y", "x", "x", "x", "w", "y"]
"""Of DATASETS: a/x, a/x, a/y, a/y, b/x, b/z | a/y, b/x | a/x, b/x, c/w | a/y."""


def test_every_task_with_test_rows_is_unseen_once(records):
    records = replace(records, instructions=records.instructions.with_columns(task=pl.Series(TASKS)))
    settings = list(unseen_tasks(records, folds=3, seed=0))
    assert sorted(task for s in settings for task in s.about["tasks"]) == ["a/x", "b/x", "c/w"]
    train = {  # two datasets have an "x", which are different tasks
        "a/x": ["i2", "i3", "i4", "i5", "i6", "i7"],
        "b/x": ["i0", "i1", "i2", "i3", "i5", "i6"],
        "c/w": [f"i{i}" for i in range(8)],
    }
    test = {"a/x": ["i8"], "b/x": ["i9"], "c/w": ["i10"]}
    for setting in settings:
        (task,) = setting.about["tasks"]
        assert (ids(setting.train), ids(setting.test)) == (train[task], test[task])
        assert setting.train.known.all()


def test_unseen_datasets(records):
    settings = {s.about["tasks"][0]: s for s in unseen_tasks(records, folds=3, level="dataset")}
    assert ids(settings["a"].train) == ["i4", "i5", "i7"]
    assert ids(settings["b"].train) == ["i0", "i1", "i2", "i3", "i6"]
    assert ids(settings["b"].test) == ["i9"]


def test_folds_that_leave_nothing(records):
    with pytest.raises(SatlightError, match="Got folds=4 for 3 datasets with test rows; allowed: 2 to 3"):
        next(unseen_tasks(records, folds=4, level="dataset"))
    alone = records.filter(datasets=["a", "c"])
    with pytest.raises(SatlightError, match=r"Without the datasets of fold ., 'a', 'records' has no train rows"):
        list(unseen_tasks(alone, folds=2, level="dataset"))


# -- incremental release -----------------------------------------------------------------------------------

DATES = ["2023-05", "2023-01", "2023-02", "2023-06", "2023-02"]
# On four train rows m1, released first, has mean 0.5; then m2 0.75, m4 0.25, m0 1.0, m3 0.
TRAIN = [[1, 1, 1, 0, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0]]
TEST = [[0, 0, 0, 1, 1]] * 2  # the other way round: would show if anybody looked


def releases() -> PerformanceRecords:
    return make_records(np.array(TRAIN + TEST), ["train"] * 4 + ["test"] * 2, dates=DATES)


def test_the_zoo_after_each_release():
    settings = list(incremental_release(releases(), best=2))
    assert [(s.about["released"], s.about["newest"], s.about["best"]) for s in settings] == [
        ("2023-02", "m2", ["m1"]),
        ("2023-02", "m4", ["m2", "m1"]),
        ("2023-05", "m0", ["m2", "m1"]),
        ("2023-06", "m3", ["m0", "m2"]),
    ]
    assert [s.test.model_ids for s in settings] == [
        ["m1", "m2"],
        ["m1", "m2", "m4"],
        ["m0", "m1", "m2"],
        ["m0", "m2", "m3"],
    ]
    assert [s.about["release"] for s in settings] == [2, 3, 4, 5]
    assert len({id(s.train) for s in settings}) == 1
    assert settings[0].train.known.all()


def test_the_whole_history_stays_where_there_is_room():
    *_, last = incremental_release(releases(), best=5)
    assert last.about["best"] == ["m0", "m2", "m1", "m4"]


def test_no_test_outcome_decides():
    changed = releases()
    changed.outcomes[4:] = 1 - changed.outcomes[4:]
    pairs = zip(incremental_release(releases(), best=2), incremental_release(changed, best=2), strict=True)
    assert all(a.about == b.about and same(a.train, b.train) for a, b in pairs)


def test_equals_stay_in_order_of_release():
    records = make_records(
        np.ones((5, 4)), ["train"] * 4 + ["test"], dates=["2024-04", "2024-03", "2024-02", "2024-01"]
    )
    *_, last = incremental_release(records, best=2)
    assert (last.about["best"], last.about["newest"]) == (["m3", "m2"], "m0")


def test_standing_is_a_mean_over_datasets_among_those_measured_everywhere():
    # m0: 1 on a, 0 on b: 0.5 by dataset (0.75 by row). m1: 2/3 and 1: 0.83. m2: right, but only on a.
    outcomes = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]])
    records = make_records(
        outcomes, ["train"] * 4 + ["test"], ["a", "a", "a", "b", "a"], dates=[f"2024-0{i}" for i in range(1, 5)]
    )
    records.known[3, 2] = False
    *_, last = incremental_release(records, best=3)
    assert last.about["best"] == ["m1", "m0", "m2"]


def test_founders_are_known_and_later_ones_on_probes_alone():
    records = releases()
    settings = list(incremental_release(records, best=2, founders=2, probes=2, seed=0))
    assert [s.about["newest"] for s in settings] == ["m4", "m0", "m3"]
    train = settings[0].train
    rows = probe_rows(train, 2, seed=0)
    assert np.flatnonzero(train.known.all(1)).tolist() == rows.tolist()
    assert train.known[:, [1, 2]].all()  # m1 and m2 were released first
    assert train.known[:, [0, 3, 4]].sum() == 3 * 2
    # Everyone's standing is that on the probes, also the founders'.
    means = {name: records.outcomes[rows, column].mean() for column, name in enumerate(records.model_ids)}
    released = ["m1", "m2", "m4", "m0", "m3"]
    for setting in settings:
        earlier = released[: released.index(setting.about["newest"])]
        assert setting.about["best"] == sorted(earlier, key=lambda name: -means[name])[:2]
    changed = replace(records, outcomes=records.outcomes.copy())
    changed.outcomes[:4][~train.known] = 1 - changed.outcomes[:4][~train.known]
    assert same(next(incremental_release(changed, founders=2, probes=2, seed=0)).train, train)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best": 0}, "Got best=0"),
        ({"founders": 5}, "Got founders=5 for 5 candidates; allowed: 1 to 4"),
        ({"founders": 2, "probes": 5}, "Got probes=5 for 4 train rows"),
    ],
)
def test_releases_that_cannot_be(options, message):
    with pytest.raises(SatlightError, match=message):
        list(incremental_release(releases(), **options))


def test_an_undated_candidate_is_named():
    records = make_records(np.zeros((2, 2)), ["train", "test"], dates=["2024-01", None])
    with pytest.raises(SatlightError, match="needs the release_date of every candidate; missing for 'm1'"):
        next(incremental_release(records))
    alone = records.filter(candidates="m0")
    with pytest.raises(SatlightError, match="at least 2"):
        next(incremental_release(alone))


# -- routers through protocols -----------------------------------------------------------------------------


class Means:
    """The plainest router: a candidate's mean over what is known of it."""

    def fit(self, records: PerformanceRecords) -> "Means":
        right, count = records.outcomes.sum(0), records.known.sum(0)
        self.means = dict(zip(records.model_ids, right / np.maximum(count, 1), strict=True))
        return self

    def predict(self, instructions: list[str], candidates: list[str]) -> np.ndarray:
        return np.tile([self.means[name] for name in candidates], (len(instructions), 1))


@pytest.mark.parametrize(
    "settings",
    [
        lambda records: domains(records),
        lambda records: unseen_candidates(records, folds=2, probes=3),
        lambda records: unseen_tasks(records, folds=2, level="dataset"),
        lambda records: incremental_release(records, best=2),
        lambda records: incremental_release(records, best=2, founders=2, probes=3),
    ],
    ids=["domains", "candidates", "tasks", "releases", "founders"],
)
def test_a_router_goes_through(settings, records):
    dated = tuple(replace(one, release_date=f"2024-{m + 1:02d}") for m, one in enumerate(records.candidates))
    for setting in settings(replace(records, candidates=dated)):
        router = Means().fit(setting.train)
        scores = router.predict(setting.test.texts, setting.test.model_ids)
        results = evaluate(scores, setting.test, setting.train, setting.groups, resamples=10)
        choice = int(np.argmax(scores[0]))
        expected = 100 * np.mean(
            [
                setting.test.outcomes[setting.test.datasets == name, choice].mean()
                for name in np.unique(setting.test.datasets)
            ]
        )
        (group,) = results.groups.values()
        assert group.routed == pytest.approx(expected, abs=1e-4)


def test_scores_given_once_serve_every_release():
    records = releases()
    test = records.filter(splits="test")
    scores = StoredScores(ids(test)[::-1], test.model_ids, np.array([[5, 4, 3, 2, 1], [1, 2, 3, 4, 5]]))
    given = [scores.of(setting.test).tolist() for setting in incremental_release(records, best=2)]
    assert given == [
        [[2, 3], [4, 3]],  # m1, m2 on i4 and i5
        [[2, 3, 5], [4, 3, 1]],
        [[1, 2, 3], [5, 4, 3]],
        [[1, 3, 4], [5, 3, 2]],
    ]
