"""The choice on validation rows, and the masked means."""

import numpy as np
import pytest

from satlight.baselines.tuning import TunedBaseline, macro_accuracy, probe_rows, weighted_means
from satlight.errors import SatlightError


class Stub(TunedBaseline):
    """Prefers candidate ``column`` everywhere, and remembers what it was given to learn."""

    needs_embeddings = False
    GRID = {"column": (2, 0, 1), "unused": ("a", "b")}  # noqa: RUF012

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def learn(self, records, vectors_ND, **chosen):
        self.seen.append((records.texts, records.model_ids, chosen))
        self._row = np.eye(records.shape[1])[chosen["column"] % records.shape[1]]

    def expected(self, texts, vectors_ND):
        return np.tile(self._row, (len(texts), 1))


def test_the_best_on_validation_is_chosen_and_all_rows_are_learnt_then(make_records):
    records = make_records(
        ["a", "b", "c", "d"],
        [[0, 0, 1], [0, 0, 1], [1, 0, 0], [1, 0, 0]],  # column 2 is best on train, column 0 on validation
        split=["train", "train", "validation", "validation"],
        candidates=["x", "y", "z"],
    )
    stub = Stub().fit(records)
    assert stub.chosen == {"column": 0, "unused": "a"}  # the first among equals
    assert [texts for texts, _, _ in stub.seen] == [["a", "b"]] * 6 + [["a", "b", "c", "d"]]
    assert stub.predict(["new"], ["y", "x"]).tolist() == [[0, 1]]


def test_datasets_count_alike_in_the_choice(make_records):
    """x solves three rows of one dataset, y the only row of each of two others."""
    records = make_records(
        list("abcdef"),
        [[0, 0]] + [[1, 0]] * 3 + [[0, 1]] * 2,
        split=["train"] + ["validation"] * 5,
        candidates=["x", "y"],
        datasets=["p", "p", "p", "p", "q", "r"],
    )
    assert Stub(fixed={"unused": "a"}).fit(records).chosen["column"] == 1
    held = records.filter(splits="validation")
    assert macro_accuracy(np.tile([1.0, 0.0], (5, 1)), held) == pytest.approx(1 / 3)
    assert macro_accuracy(np.tile([0.0, 1.0], (5, 1)), held) == pytest.approx(2 / 3)


def test_a_hard_row_cannot_be_sent_to_who_was_not_measured(make_records):
    records = make_records(
        ["a", "b"],
        [[1, 1], [0, 0]],
        split=["validation"] * 2,
        candidates=["x", "y"],
        known=np.array([[True, True], [True, False]]),
    )
    assert macro_accuracy(np.tile([0.0, 1.0], (2, 1)), records) == 0.5


def test_a_candidate_of_validation_rows_alone_takes_no_part_in_the_choice(make_records):
    records = make_records(
        ["a", "b"],
        [[1, 0], [1, 1]],
        split=["train", "validation"],
        candidates=["x", "late"],
        known=np.array([[True, False], [True, True]]),
    )
    stub = Stub().fit(records)
    assert {tuple(names) for _, names, _ in stub.seen[:-1]} == {("x",)}
    assert stub.seen[-1][1] == ["x", "late"]


def test_without_validation_rows_everything_must_be_fixed(make_records):
    records = make_records(["a"], [[1, 0]], split=["train"], candidates=["x", "y"])
    with pytest.raises(SatlightError, match=r"6 combinations of 'column', 'unused' .* no validation rows"):
        Stub().fit(records)
    assert Stub(fixed={"column": 1, "unused": "b"}).fit(records).chosen == {"column": 1, "unused": "b"}
    with pytest.raises(SatlightError, match="fixed names 'k'; its hyper-parameters are 'column', 'unused'"):
        Stub(fixed={"k": 3})


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (["train", ""], "1 rows without a split"),
        (["validation", "dropped"], "no train rows of 'records', only 'dropped', 'validation'"),
    ],
)
def test_rows_it_cannot_learn_from(make_records, split, message):
    records = make_records(["a", "b"], [[1], [0]], split=split, candidates=["x"])
    with pytest.raises(SatlightError, match=message):
        Stub().fit(records)


def test_a_candidate_without_outcomes_is_refused(make_records):
    records = make_records(["a"], [[1, 0]], split=["train"], candidates=["x", "y"], known=np.array([[True, False]]))
    with pytest.raises(SatlightError, match="'y' of 'records' have no outcome"):
        Stub().fit(records)


@pytest.mark.parametrize("vectors", [np.full((1, 2), np.nan), np.zeros((2, 2)), np.zeros(1)])
def test_a_bad_embedder_is_found_out(make_records, vectors):
    records = make_records(["a"], [[1]], split=["train"], candidates=["x"])
    with pytest.raises(SatlightError, match="Stub: the embedder gave"):
        Stub(fixed={"column": 0, "unused": "a"}).fit(records, lambda texts: vectors)


def test_scores_that_are_not_finite_are_an_error(make_records):
    records = make_records(["a"], [[1]], split=["train"], candidates=["x"])
    stub = Stub(fixed={"column": 0, "unused": "a"}).fit(records)
    stub._row = np.array([np.nan])
    with pytest.raises(SatlightError, match="Stub gave scores that are not finite"):
        stub.predict(["new"], ["x"])


def test_weighted_means_by_hand():
    outcome = np.array([[1.0, 1.0], [0.0, 9.0], [1.0, 0.0]])
    known = np.array([[True, True], [True, False], [True, True]])
    got = weighted_means(np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.0]]), outcome, known, prior=2.0)
    # overall means 2/3 and 1/2
    want = [[(2 + 2 * 2 / 3) / 5, (2 + 2 * 0.5) / 4], [(0 + 2 * 2 / 3) / 3, 0.5]]
    assert got == pytest.approx(np.array(want))


def test_probe_rows_are_those_of_the_least_measured():
    known = np.array([[True, True, True], [True, False, True], [True, True, False], [True, False, True]])
    assert probe_rows(known).tolist() == [0, 2]
