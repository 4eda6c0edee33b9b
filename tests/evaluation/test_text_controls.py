"""The controls that read the text, where a few words decide everything."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.evaluation import measure_controls
from satlight.evaluation.text_controls import TEXT_CONTROLS, text_choices
from satlight.records import PerformanceRecords
from satlight.types import Candidate

WORDS = {"math": "sum of numbers", "code": "sort the list", "law": "court and contract"}
BEST = {"math": 0, "code": 1, "law": 2}


def records(datasets, zoo="abc", split="train", texts=None, unknown=()) -> PerformanceRecords:
    """Only one candidate solves each dataset: a math, b code, c law; ``unknown`` ones have no outcomes."""
    n = len(datasets)
    table = pl.DataFrame(
        {
            "instruction_id": [f"{split}{i}" for i in range(n)],
            "dataset": datasets,
            "task": datasets,
            "split": [split] * n,
            "instruction": texts or [f"{WORDS[name]} {i}" for i, name in enumerate(datasets)],
        }
    )
    outcomes = np.array([[float("abc"[BEST[name]] == m) for m in zoo] for name in datasets], dtype=np.float32)
    known = np.array([[m not in unknown for m in zoo]] * n)
    return PerformanceRecords(table, tuple(Candidate(m) for m in zoo), outcomes * known, known)


TRAIN = records(["math", "code", "law"] * 20)
TEST = records(["law", "math", "code"], split="test")


@pytest.mark.parametrize("control", TEXT_CONTROLS)
def test_words_name_the_right_candidate(control):
    assert text_choices(TEST, TRAIN)[control].tolist() == [2, 0, 1]


def test_they_stand_among_the_controls_with_their_outcomes():
    controls = measure_controls(TEST, TRAIN)
    assert [name for name in controls if name in TEXT_CONTROLS] == list(TEXT_CONTROLS)
    for name in TEXT_CONTROLS:
        assert controls[name].outcomes.tolist() == [1, 1, 1]
        assert controls[name].known.all()


@pytest.mark.parametrize("control", TEXT_CONTROLS)
def test_candidates_are_matched_by_name_and_need_an_outcome(control):
    shuffled = records(["math", "code", "law"] * 20, zoo="cab", unknown="c")
    chosen = text_choices(TEST, shuffled)[control].tolist()
    assert chosen[1:] == [0, 1]
    assert chosen[0] in (0, 1)  # nobody who was measured solves law, so any of the two will do


@pytest.mark.parametrize("control", TEXT_CONTROLS)
def test_candidates_that_are_not_routed_between_do_not_disturb(control):
    test = TEST.filter(candidates=["b", "c"])
    assert text_choices(test, TRAIN)[control].tolist()[::2] == [1, 0]


@pytest.mark.parametrize(
    "train",
    [
        None,
        records(["math"] * 9, zoo="xyz"),  # none of the test's candidates
        records(["math"] * 9, unknown="abc"),
        records(["math"] * 9, texts=[" "] * 9),
    ],
)
def test_where_there_is_nothing_to_learn_nobody_is_chosen(train):
    chosen = text_choices(TEST, train)
    assert list(chosen) == list(TEXT_CONTROLS)
    assert all(choice.tolist() == [-1, -1, -1] for choice in chosen.values())


@pytest.mark.parametrize("n", [1, 2, 4, 5, 6])
@pytest.mark.parametrize("zoo", ["a", "ab"])
def test_tiny_records_and_single_datasets_are_enough(n, zoo):
    test = TEST.filter(candidates=list(zoo))
    for chosen in text_choices(test, records(["math"] * n, zoo=zoo)).values():
        assert chosen.tolist() == [0, 0, 0]


def test_test_outcomes_and_the_labels_of_train_rows_change_nothing():
    silent = records(["law", "math", "code"], split="test", unknown="abc")
    labelled = TRAIN.with_splits(["test"] * 60)  # what the caller passes as train is train
    for name in TEXT_CONTROLS:
        assert text_choices(silent, labelled)[name].tolist() == [2, 0, 1]


def test_only_core_instructions_vote_in_the_aptitude_control():
    core = [f"train{i}" for i in range(60) if i % 3 != 2]  # none about law
    chosen = text_choices(TEST, TRAIN, core)
    assert chosen["aptitude_knn"].tolist()[1:] == [0, 1]
    assert chosen["aptitude_knn"].tolist()[0] != 2
    assert chosen["tfidf_knn"].tolist() == [2, 0, 1]


def test_the_number_of_core_neighbours_is_chosen_on_validation_rows():
    # With all 40 core rows voting alike, a wins everywhere; validation rows ask for few neighbours.
    datasets = ["math"] * 25 + ["code"] * 5 + ["math", "code"] * 5
    train = records(datasets).with_splits(["train"] * 30 + ["validation"] * 10)
    core = [f"train{i}" for i in range(30)]
    assert text_choices(TEST, train, core)["aptitude_knn"].tolist()[1:] == [0, 1]


def test_core_instructions_of_other_records_are_an_error():
    with pytest.raises(SatlightError, match="None of the 2 core instructions is among the 60"):
        text_choices(TEST, TRAIN, ["x", "y"])
