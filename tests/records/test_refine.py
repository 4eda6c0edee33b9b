"""Refined training rows, against outcomes worked out by hand."""

import logging

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.records.duplicates import repeats, similar_pairs
from satlight.records.refine import Refinement, cap_per_dataset, circle_test
from satlight.types import Candidate

# -- the circle test ---------------------------------------------------------------------------------------

IDS = ["q", "q1", "q2", "easy", "easy1", "alone"]
ROTATION_OF = [None, "q", "q", None, "easy", None]
X = np.nan  # no record


def circle(outcome, *, ids=IDS, rotation_of=ROTATION_OF, **columns) -> PerformanceRecords:
    outcome = np.array(outcome, dtype=np.float32)
    table = {
        "instruction_id": ids,
        "dataset": ["d"] * len(ids),
        "task": ["t"] * len(ids),
        "split": ["dropped" if name else "train" for name in rotation_of],
        "instruction": [f"text {name}" for name in ids],
        "rotation_of": pl.Series(rotation_of, dtype=pl.String),
        **columns,
    }
    return PerformanceRecords(
        pl.DataFrame(table),
        tuple(Candidate(f"m{number}") for number in range(outcome.shape[1])),
        np.nan_to_num(outcome),
        ~np.isnan(outcome),
    )


@pytest.fixture
def records() -> PerformanceRecords:
    # survives, fails one, fails one and lacks one, lacks one, not tested again, wrong, unknown
    return circle(
        [
            [1, 1, 1, 1, 1, 0, X],
            [1, 0, 0, 1, X, 1, 1],
            [1, 1, X, X, X, 1, 1],
            [1, 1, 1, 1, 1, 1, 1],
            [0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0],
        ]
    )


def test_a_success_stands_if_it_survives_every_rotation(records):
    refined = circle_test(records, records.splits == "train", hard_share=0.9)
    assert refined.known[0].tolist() == [True, True, True, False, True, True, False]
    assert refined.outcomes[0].tolist() == [1, 0, 0, 0, 1, 0, 0]
    # everybody solves "easy", "alone" has no rotations, and rotations themselves stay
    np.testing.assert_array_equal(refined.outcomes[1:], records.outcomes[1:])
    np.testing.assert_array_equal(refined.known[1:], records.known[1:])
    assert records.outcomes[0].sum() == 5  # the given records are not touched


def test_the_log_counts_what_happened(records, caplog):
    with caplog.at_level(logging.INFO, logger="satlight"):
        circle_test(records, records.splits == "train", hard_share=0.9)
    assert (
        "of 5 successes on 1 hard instructions of records, 2 do not survive, 1 are unknown now "
        "(a rotation has no outcome), 1 were not tested again" in caplog.text
    )


@pytest.mark.parametrize(("share", "outcome"), [(0.5, 1), (0.83, 1), (0.84, 0), (1.0, 0)])
def test_only_hard_instructions_are_tested(records, share, outcome):
    refined = circle_test(records, records.splits == "train", hard_share=share)
    assert refined.outcomes[0, 1] == outcome  # the mean of the known is 5 / 6


def test_hard_is_what_the_given_candidates_find_hard(records):
    rows = records.splits == "train"
    assert circle_test(records, rows, 0.5, ["m0", "m5"]).outcomes[0, 1] == 0  # 1 of 2
    assert circle_test(records, rows, 0.5, ["m0", "m1", "m5"]).outcomes[0, 1] == 1  # 2 of 3


def test_only_the_given_rows_are_tested(records):
    refined = circle_test(records, np.zeros(6, dtype=bool), hard_share=1.0)
    np.testing.assert_array_equal(refined.outcomes, records.outcomes)
    np.testing.assert_array_equal(refined.known, records.known)


def test_soft_outcomes_become_the_lowest(records):
    soft = circle(
        [[0.8, 0.8, 0.8, 0.8], [0.9, 0.6, 0.0, X], [1.0, 0.3, X, 0.5]],
        ids=["q", "q1", "q2"],
        rotation_of=[None, "q", "q"],
    )
    refined = circle_test(soft, np.array([True, False, False]), hard_share=0.9)
    assert refined.outcomes[0] == pytest.approx([0.8, 0.3, 0.0, 0.0])
    assert refined.known[0].tolist() == [True, True, True, False]


def test_without_rotations_it_says_how_to_get_some():
    for nothing in (
        circle([[1.0]], ids=["q"], rotation_of=[None]),
        PerformanceRecords(
            circle([[1.0]], ids=["q"], rotation_of=[None]).instructions.drop("rotation_of"),
            (Candidate("m"),),
            np.ones((1, 1), dtype=np.float32),
            np.ones((1, 1), dtype=bool),
        ),
    ):
        with pytest.raises(SatlightError, match="'records' has none; make them with `satlight data rotate`"):
            circle_test(nothing, np.array([True]), 0.3)


@pytest.mark.parametrize(
    ("rotation_of", "message"),
    [
        ([None, "gone"], r"'q1' of 'records' is a rotation of 'gone', which is not in the records"),
        ([None, "q1"], r"'q1' of 'records' is a rotation of 'q1', which is a rotation itself"),
    ],
)
def test_a_rotation_that_leads_nowhere_is_named(rotation_of, message):
    with pytest.raises(SatlightError, match=message):
        circle_test(circle([[1.0], [1.0]], ids=["q", "q1"], rotation_of=rotation_of), np.ones(2, dtype=bool), 1.0)


# -- duplicates --------------------------------------------------------------------------------------------


def texts(words, splits=None, images=None) -> PerformanceRecords:
    n = len(words)
    table = pl.DataFrame(
        {
            "instruction_id": [f"i{row}" for row in range(n)],
            "dataset": ["d"] * n,
            "task": ["t"] * n,
            "split": splits or ["train"] * n,
            "instruction": words,
        }
    )
    if images:
        table = table.with_columns(images=pl.Series([image and [image] for image in images], dtype=pl.List(pl.String)))
    ones = np.ones((n, 1), dtype=np.float32)
    return PerformanceRecords(table, (Candidate("m"),), ones, ones > 0)


def left_out(records, similarity) -> list[int]:
    return np.flatnonzero(
        repeats(records, records.splits == "train", np.isin(records.splits, ["validation", "test"]), similarity)
    ).tolist()


LONG = "A train leaves the station at noon and reaches the coast four hours later; how fast is it?"
NEAR = LONG.replace("noon", "nine")


def test_same_texts_and_near_ones():
    records = texts([LONG, "Sort a list.", NEAR, LONG.replace(" ", "\n "), "Sort  a list.", "Name a river."])
    assert left_out(records, 1.0) == [3, 4]
    assert left_out(records, 0.8) == [2, 3, 4]


def test_what_repeats_a_validation_or_test_row_goes_and_that_row_stays():
    records = texts([NEAR, LONG, NEAR, "Sort."], ["train", "test", "validation", "train"])
    assert left_out(records, 0.8) == [0]
    assert left_out(texts([LONG, NEAR], ["train", "test"]), 1.0) == []


def test_a_chain_is_cut_where_it_begins():
    one = "alpha bravo charlie delta echoes foxtrot golfing hotels indigo juliet"
    two = one.replace("alpha", "other")
    three = two.replace("bravo", "again")
    # three repeats two, but two has left, and one is too far away
    pairs = similar_pairs([one, two, three], 0.8)
    assert pairs == [(0, 1), (1, 2)]
    assert left_out(texts([one, two, three]), 0.8) == [1]


def test_images_make_texts_different():
    records = texts([LONG, LONG, LONG, NEAR, LONG], images=["a.png", "b.png", "a.png", "a.png", None])
    assert left_out(records, 1.0) == [2]
    assert left_out(records, 0.5) == [2]


def test_rows_that_are_neither_given_nor_fixed_do_not_matter():
    records = texts([LONG, LONG, "Sort."], ["dropped", "train", "train"])
    assert left_out(records, 0.5) == []


@pytest.mark.parametrize("similarity", [0.3, 0.6, 0.9])
def test_similar_pairs_are_those_of_brute_force(similarity):
    rng = np.random.default_rng(0)
    words = ["river", "mountain", "calculate", "the", "sum", "of", "numbers", "translate", "sentence", "city"]
    sentences = [" ".join(rng.choice(words, rng.integers(3, 12))) for _ in range(120)]

    def pieces(text: str) -> set[str]:
        found = set()
        for word in text.split():
            padded = f" {word} "
            found |= {padded[i : i + 5] for i in range(max(1, len(padded) - 4))}
        return found

    sets = [pieces(text) for text in sentences]
    expected = [
        (i, j)
        for j in range(120)
        for i in range(j)
        if len(sets[i] & sets[j]) >= similarity * len(sets[i] | sets[j]) - 1e-9
    ]
    assert similar_pairs(sentences, similarity) == expected
    assert len(expected) > 10


def test_one_text_has_no_pair():
    assert similar_pairs(["alone"], 0.5) == []


# -- caps --------------------------------------------------------------------------------------------------


def many(n: int = 60) -> PerformanceRecords:
    records = texts([f"text {row}" for row in range(n)])
    records.instructions = records.instructions.with_columns(
        dataset=pl.Series(["a", "b", "b"] * (n // 3), dtype=pl.String)
    )
    return records


def test_a_cap_keeps_so_many_of_every_dataset():
    records = many()
    keep = cap_per_dataset(records, np.ones(60, dtype=bool), 15)
    assert (keep[records.datasets == "a"].sum(), keep[records.datasets == "b"].sum()) == (15, 15)
    assert cap_per_dataset(records, np.ones(60, dtype=bool), 30)[records.datasets == "a"].all()


def test_a_cap_follows_from_ids_alone_and_grows():
    records = many()
    keep = cap_per_dataset(records, np.ones(60, dtype=bool), 10)
    order = np.random.default_rng(0).permutation(60)
    shuffled = records.rows(order)
    assert (cap_per_dataset(shuffled, np.ones(60, dtype=bool), 10) == keep[order]).all()
    assert (keep <= cap_per_dataset(records, np.ones(60, dtype=bool), 14)).all()
    assert (cap_per_dataset(records, np.ones(60, dtype=bool), 10, seed=1) != keep).any()
    assert not cap_per_dataset(records, np.arange(60) < 30, 10)[30:].any()


# -- all of it ---------------------------------------------------------------------------------------------


def test_refinement_changes_the_given_rows_alone(records, caplog):
    refinement = Refinement(circle_share=0.9, near_duplicates=1.0, max_per_dataset=2)
    with caplog.at_level(logging.INFO, logger="satlight"):
        refined, keep = refinement.apply(records, records.splits == "train")
    assert keep.sum() == 2
    assert not keep[[1, 2, 4]].any()
    assert refined.outcomes[0].tolist() == [1, 0, 0, 0, 1, 0, 0]
    assert "duplicates: 0 of 3 training instructions of records are left out" in caplog.text
    assert "max_per_dataset=2: 1 of 3 training instructions of records are left out" in caplog.text


def test_no_refinement_is_the_records_themselves(records):
    rows = records.splits == "train"
    refined, keep = Refinement().apply(records, rows)
    assert refined is records
    assert (keep == rows).all()


def test_the_cap_counts_what_duplicates_left():
    records = texts(["Sort.", "Sort.", "Name a river.", "Name a city."])
    _, keep = Refinement(near_duplicates=1.0, max_per_dataset=3).apply(records, records.splits == "train")
    assert keep.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"circle_share": 0.0}, r"circle_share is 0\.0; it must lie in \(0, 1\]"),
        ({"near_duplicates": 1.2}, r"near_duplicates is 1\.2; it must lie in \(0, 1\]"),
        ({"max_per_dataset": 0}, "max_per_dataset is 0; it must be 1 or more"),
    ],
)
def test_numbers_out_of_range_are_named(options, message):
    with pytest.raises(SatlightError, match=message):
        Refinement(**options)
