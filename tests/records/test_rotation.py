"""Rotated options: found in the text, moved, and traceable."""

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.records import PerformanceRecords, open_records, split_records
from satlight.records.rotation import find_options, is_hard, refers_to_others, rotate_records, rotate_text
from satlight.types import Candidate

TEXT = "Which is a colour?\nA. stone\nB. red\nC. run\nAnswer:"
CHOICES = ["stone", "red", "run"]


def make(texts, choices, answers=None, right=1, candidates=4, **columns) -> PerformanceRecords:
    """Records in which ``right`` candidates get every instruction right."""
    n = len(texts)
    table = {
        "instruction_id": [f"q{row}" for row in range(n)],
        "dataset": ["d"] * n,
        "task": ["t"] * n,
        "split": pl.Series(["train"] * n, dtype=pl.String),
        "instruction": texts,
        "choices": pl.Series(choices, dtype=pl.List(pl.String)),
        **({} if answers is None else {"answer": pl.Series(answers, dtype=pl.String)}),
        **columns,
    }
    outcomes = np.zeros((n, candidates), dtype=np.float32)
    outcomes[:, :right] = 1
    return PerformanceRecords(
        pl.DataFrame(table),
        tuple(Candidate(f"m{number}") for number in range(candidates)),
        outcomes,
        np.ones((n, candidates), dtype=bool),
    )


# -- the text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rotated"),
    [
        ("Q?\nA. stone\nB. red\nC. run", "Q?\nA. run\nB. stone\nC. red"),
        ("Q? (A) stone (B) red (C) run Answer:", "Q? (A) run (B) stone (C) red Answer:"),
        ("Q?\na) stone\nb) red\nc) run", "Q?\na) run\nb) stone\nc) red"),
        ("Q?\n1: stone\n2: red\n3: run", "Q?\n1: run\n2: stone\n3: red"),
        ("题目\nA．stone\nB．red\nC．run", "题目\nA．run\nB．stone\nC．red"),
        # what stands around the options stays, white space too
        ("E.g.\nA. x\n\nQ?\nA.  stone\n B. red\n\nC. run\n", "E.g.\nA. x\n\nQ?\nA.  run\n B. stone\n\nC. red\n"),
    ],
)
def test_options_move_one_place_down(text, rotated):
    assert rotate_text(text, find_options(text, CHOICES), 1) == rotated
    assert rotate_text(text, find_options(text, CHOICES), 3) == text


def test_the_last_of_several_lists_is_the_question():
    text = f"{TEXT} B\n\n{TEXT}"
    rotated = rotate_text(text, find_options(text, CHOICES), 1)
    assert rotated.startswith(TEXT)
    assert rotated.endswith("A. run\nB. stone\nC. red\nAnswer:")


def test_rotations_hold_their_options_under_the_same_labels():
    options = find_options(TEXT, CHOICES)
    for shift, choices in ((1, ["run", "stone", "red"]), (2, ["red", "run", "stone"])):
        assert find_options(rotate_text(TEXT, options, shift), choices).labels == ("A", "B", "C")


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("Is it red? Yes or no?", ["Yes", "No"]),  # no labels
        ("Q?\nA. stone\nB. red\nC. run", ["red", "stone", "run"]),  # another order
        ("Q?\nA. stone\nB. redder\nC. run", CHOICES),  # another word
        ("Q?\nA. stone\nB. red", CHOICES),  # one is missing
        ("Q?\nA. stone\nB.\nC. run", ["stone", "", "run"]),
        ("Q?\nA. stone", ["stone"]),
        ("Q? 1. a 2. b", [str(number) for number in range(30)]),  # more than there are labels
    ],
)
def test_options_that_are_not_there_are_not_found(text, choices):
    assert find_options(text, choices) is None


@pytest.mark.parametrize(
    ("choice", "refers"),
    [
        ("None of the above", True),
        ("all of the below options", True),
        ("Both A and B", True),
        ("B or (C)", True),
        ("A, B and C", True),
        ("neither a nor b", False),  # lower case letters are mostly words or variables
        ("(A)", True),
        ("temperatures above 5 degrees", False),
        ("vitamin A", False),
        ("I and II only", False),
        ("Plan A", False),
    ],
)
def test_options_that_speak_of_others(choice, refers):
    assert refers_to_others(["red", choice], ("A", "B")) is refers


# -- the records -------------------------------------------------------------------------------------------


def test_rotations_follow_their_original_and_can_be_traced():
    records = make([TEXT, "Why?"], [CHOICES, None], ["B", None], level=[7, 8])
    rotated, notes = rotate_records(records)
    table = rotated.instructions
    assert table["instruction_id"].to_list() == ["q0", "q0-rotation-1", "q0-rotation-2", "q1"]
    assert table["rotation_of"].to_list() == [None, "q0", "q0", None]
    assert table["answer"].to_list() == ["B", "C", "A", None]
    assert table["choices"].to_list()[1] == ["run", "stone", "red"]
    assert table["instruction"].to_list()[1] == "Which is a colour?\nA. run\nB. stone\nC. red\nAnswer:"
    assert table["level"].to_list() == [7, 7, 7, 8]
    assert rotated.known.any(axis=1).tolist() == [True, False, False, True]
    assert rotated.outcomes.sum(axis=1).tolist() == [1.0, 0.0, 0.0, 1.0]
    assert notes == [
        "1 hard instructions have 2 rotations, which have no outcomes yet.",
        "1 hard instructions are not rotated: they have no choices.",
    ]


def test_the_answer_stands_under_its_label_in_every_rotation():
    records = make([TEXT] * 3, [CHOICES] * 3, ["A", "C", "red"])
    for row in rotate_records(records)[0].instructions.iter_rows(named=True):
        place = row["choices"].index(row["answer"]) if row["answer"] == "red" else "ABC".index(row["answer"])
        right = {"q0": "stone", "q1": "run", "q2": "red"}[row["rotation_of"] or row["instruction_id"]]
        assert row["choices"][place] == right
        assert f"{'ABC'[place]}. {right}\n" in row["instruction"]


def test_records_without_answers_stay_without():
    rotated, _ = rotate_records(make([TEXT], [CHOICES]))
    assert "answer" not in rotated.instructions.columns
    assert rotated.shape[0] == 3


@pytest.mark.parametrize(("right", "share", "expected"), [(1, 0.3, 2), (2, 0.3, 0), (2, 0.5, 2), (4, 1.0, 2)])
def test_only_instructions_that_some_but_few_get_right_are_rotated(right, share, expected):
    records = make([TEXT], [CHOICES], right=right)
    assert int(is_hard(records, share).sum()) == expected / 2
    if expected:
        assert rotate_records(records, share)[0].shape[0] == 1 + expected
    else:
        with pytest.raises(SatlightError, match=r"0 are training instructions that some candidate, but at most 30%"):
            rotate_records(records, share)


def test_nobodys_and_unknown_successes_do_not_count():
    records = make([TEXT] * 3, [CHOICES] * 3, right=0)
    records.outcomes[1, 0] = records.outcomes[2, 0] = 1
    records.known[1, 2:] = False  # 1 of 2 known
    records.known[2] = False
    assert is_hard(records, 0.4).tolist() == [False, False, False]
    assert is_hard(records, 0.5).tolist() == [False, True, False]
    assert is_hard(records, 0.5, np.array([1, 2, 3])).tolist() == [False, False, False]


def test_test_rows_are_not_rotated():
    records = make([TEXT, TEXT + "!"], [CHOICES] * 2).with_splits(["test", "train"])
    assert rotate_records(records)[0].instructions["rotation_of"].to_list() == [None, None, "q1", "q1"]


def test_costs_of_rotations_are_unknown():
    records = make([TEXT], [CHOICES])
    records.costs = np.full((1, 4), 0.5, dtype=np.float32)
    costs = rotate_records(records)[0].costs
    assert costs[0].tolist() == [0.5] * 4
    assert np.isnan(costs[1:]).all()


def test_a_split_never_uses_rotations():
    texts = [f"{TEXT} {number}" for number in range(20)]
    rotated, _ = rotate_records(make(texts, [CHOICES] * 20))
    split = split_records(rotated.with_splits(["train"] * 60), validation_fraction=0.2, test_fraction=0.3)
    is_rotation = rotated.instructions["rotation_of"].is_not_null().to_numpy()
    assert set(split[is_rotation]) == {"dropped"}
    assert set(split[~is_rotation]) == {"train", "validation", "test"}


# -- mistakes ----------------------------------------------------------------------------------------------


def test_records_without_choices_say_so():
    records = make([TEXT], [CHOICES])
    for table in (
        records.instructions.drop("choices"),
        records.instructions.with_columns(choices=pl.lit("stone; red")),
    ):
        records.instructions = table
        with pytest.raises(SatlightError, match="no column 'choices' with lists of texts"):
            rotate_records(records)


def test_an_answer_that_is_no_option_is_named():
    with pytest.raises(SatlightError, match=r"'q0' has the answer 'D', which is neither a label .*\(A, B, C\)"):
        rotate_records(make([TEXT], [CHOICES], ["D"]))


def test_rotating_twice_is_refused():
    rotated, _ = rotate_records(make([TEXT], [CHOICES]))
    with pytest.raises(SatlightError, match="holds rotations already"):
        rotate_records(rotated)


@pytest.mark.parametrize("share", [0.0, 1.5])
def test_a_share_out_of_range_is_named(share):
    with pytest.raises(SatlightError, match=f"is {share}; it must lie in"):
        rotate_records(make([TEXT], [CHOICES]), share)


def test_what_cannot_be_rotated_is_counted():
    texts = ["Red? Yes or no?", "Q? A. red B. none of the above", "Q? A. both (A) and (B) B. red"]
    choices = [["Yes", "No"], ["red", "none of the above"], ["both (A) and (B)", "red"]]
    with pytest.raises(
        SatlightError, match=r"3 are training .* 1 of them do not show .* 2 of them have an option that refers"
    ):
        rotate_records(make(texts, choices))


def test_real_questions_rotate_back_to_themselves(real_data):
    records = open_records(real_data("mmlu_pro")).rows(np.arange(100))
    rotated, _ = rotate_records(records)
    by_id = {row["instruction_id"]: row for row in rotated.instructions.iter_rows(named=True)}
    rotations = [row for row in by_id.values() if row["rotation_of"]]
    assert len(rotations) > 100

    def right_option(row: dict) -> str:
        return row["choices"]["ABCDEFGHIJ".index(row["answer"])]

    for row in rotations:
        original = by_id[row["rotation_of"]]
        assert right_option(row) == right_option(original)
        back = len(row["choices"]) - int(row["instruction_id"].rpartition("-")[2])
        text = rotate_text(row["instruction"], find_options(row["instruction"], row["choices"]), back)
        assert text.split() == original["instruction"].split()
