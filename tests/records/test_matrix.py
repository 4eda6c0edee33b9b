"""The matrix in memory: choosing rows and columns, its fingerprint, its description."""

import numpy as np
import pytest

from satlight.errors import SatlightError
from satlight.records import open_records
from satlight.records.names import select_names


@pytest.fixture
def demo(write_folder):
    return open_records(write_folder())


def test_opens_the_folder_format(demo):
    assert demo.shape == (3, 2)
    assert demo.model_ids == ["tiny-1b", "org/large-70b"]
    assert demo.candidates[0].params_b == 1.0
    assert demo.texts == ["1+1?", "2+2?", "Sort a list."]
    assert demo.tasks.tolist() == ["sums", "math", "sorting"]  # a task defaults to its dataset
    np.testing.assert_array_equal(demo.outcomes, np.float32([[0.25, 1], [0, 0], [0.5, 1]]))
    np.testing.assert_array_equal(demo.known, [[True, True], [True, False], [True, True]])
    np.testing.assert_array_equal(demo.costs, np.float32([[0.001, 0.01], [np.nan, np.nan], [np.nan, 0.02]]))
    assert demo.outcomes.dtype == np.float32
    assert demo.expected is None
    assert demo.name == "demo"
    assert "3 instructions × 2 candidates" in repr(demo)


def test_another_score_column_masks_what_it_lacks(write_folder):
    strict = open_records(write_folder(), score_column="strict")
    np.testing.assert_array_equal(strict.outcomes, [[0, 1], [0, 0], [0, 1]])
    np.testing.assert_array_equal(strict.known, [[True, True], [False, False], [True, True]])
    assert strict.score_column == "strict"


def test_filter_keeps_rows_and_columns_in_order(demo):
    kept = demo.filter(datasets="math", candidates=["*-70b"], splits=["train"])
    assert kept.instructions["instruction_id"].to_list() == ["a"]
    assert kept.model_ids == ["org/large-70b"]
    assert kept.outcomes.tolist() == [[1.0]]
    assert kept.costs.tolist() == [[np.float32(0.01)]]
    assert demo.filter(candidates=["org/large-70b", "tiny-1b"]).model_ids == demo.model_ids
    assert demo.filter(tasks="s*").shape == (2, 2)


def test_filter_copies(demo):
    part = demo.filter(datasets="math")
    part.outcomes[:] = 7
    assert demo.outcomes.max() == 1


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"datasets": "maths"}, r"Unknown dataset 'maths'.*Did you mean 'math'\? Available: 'code', 'math'"),
        ({"tasks": ["sums", "x*"]}, r"Unknown task 'x\*'"),
        ({"candidates": "TINY*"}, r"Unknown candidate 'TINY\*'.*Available: 'tiny-1b', 'org/large-70b'"),
        ({"splits": "validation"}, r"Unknown split 'validation'.*Available: 'test', 'train'"),
        ({"datasets": "code", "splits": "test"}, r"No instruction of 'demo' is in datasets=code.*splits=test"),
        ({"candidates": []}, "Got an empty list of candidates"),
    ],
)
def test_filter_says_what_there_is(demo, choice, message):
    with pytest.raises(SatlightError, match=message):
        demo.filter(**choice)


def test_exact_names_go_before_patterns():
    names = ["odd[1]", "odd1", "a*", "ab"]
    assert select_names("odd[1]", names, "candidate") == ["odd[1]"]
    assert select_names("a*", names, "candidate") == ["a*"]
    assert select_names(["?dd1"], names, "candidate") == ["odd1"]


def test_long_lists_of_names_are_cut():
    with pytest.raises(SatlightError, match="and 70 more"):
        select_names("x", [f"m{n}" for n in range(100)], "candidate")


def test_rows_by_mask_and_by_number(demo):
    assert demo.rows(np.array([False, True, True])).texts == ["2+2?", "Sort a list."]
    assert demo.rows([2, 0]).texts == ["Sort a list.", "1+1?"]
    assert demo.rows([2, 0]).outcomes.tolist() == [[0.5, 1.0], [0.25, 1.0]]
    with pytest.raises(SatlightError, match="leaves none of the 3 instructions of 'demo'"):
        demo.rows(np.zeros(3, dtype=bool))


def test_with_splits(demo):
    changed = demo.with_splits(["dropped", "test", "validation"])
    assert changed.splits.tolist() == ["dropped", "test", "validation"]
    assert demo.splits.tolist() == ["train", "test", "train"]
    with pytest.raises(SatlightError, match="Got the split 'dev'; allowed: train, validation, test, dropped"):
        demo.with_splits(["dev", "test", "train"])


def test_repeated_ids_are_refused(make_records):
    with pytest.raises(SatlightError, match="repeat instruction_id 'x' in row 1"):
        make_records(["p", "q"], ids=["x", "x"])
    with pytest.raises(SatlightError, match="name a candidate twice"):
        make_records(["p"], candidates=("one", "one"))


def test_nothing_is_refused(make_records):
    with pytest.raises(SatlightError, match="have 0 instructions and 2 candidates"):
        make_records([])


def test_fingerprint_sees_every_part(make_records):
    base = make_records(["p", "q"], split=["train", "test"])
    assert base.fingerprint == make_records(["p", "q"], split=["train", "test"]).fingerprint
    assert len(base.fingerprint) == 16
    others = [
        make_records(["p", "Q"], split=["train", "test"]),
        make_records(["p", "q"], split=["test", "test"]),
        make_records(["p", "q"], split=["train", "test"], ids=["i0", "j1"]),
        make_records(["p", "q"], split=["train", "test"], candidates=("one", "too")),
        make_records(["pq", ""], split=["train", "test"]),
        make_records(["p", "q"], split=["train", "test"], seed=1),
    ]
    unknown = make_records(["p", "q"], split=["train", "test"])
    unknown.known[0, 0] = False
    prints = {one.fingerprint for one in [base, *others, unknown]}
    assert len(prints) == 8


def test_fingerprint_does_not_depend_on_the_chunks(make_records, monkeypatch):
    texts = [f"q{n}" for n in range(50)]
    assert [one.stop for one in make_records(texts).row_chunks(20)] == [10, 20, 30, 40, 50]
    parts = make_records(texts)
    monkeypatch.setattr(parts, "row_chunks", lambda: [slice(n, n + 7) for n in range(0, 50, 7)])
    assert parts.fingerprint == make_records(texts).fingerprint


def test_describe_by_hand(demo):
    math, code, everything = demo.describe()
    assert (math["dataset"], code["dataset"], everything["dataset"]) == ("math", "code", "all")
    assert (math["instructions"], math["train"], math["test"], math["validation"]) == (2, 1, 1, 0)
    assert math["filled"] == 0.75
    assert math["best_single"] == "org/large-70b"
    assert math["best_single_mean"] == 1.0
    assert math["compared"] == 0.5  # the best single candidate answered one of the two
    assert math["random"] == pytest.approx((0.25 + 1) / 2)
    assert math["oracle"] == 1.0
    assert everything["filled"] == pytest.approx(5 / 6)


def test_describe_without_any_outcome(write_folder):
    strict = open_records(write_folder(), score_column="strict")
    (line,) = strict.rows([1]).describe()
    assert line["best_single"] is None
    assert np.isnan(line["oracle"])
