"""Targets shrunk toward the task mean, against figures worked out by hand."""

import numpy as np
import pytest

from satlight.data import TargetSpec
from satlight.data.targets import shrink
from satlight.errors import SatlightError

OUTCOME = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
KNOWN = np.array([[True, True], [True, True], [True, True], [True, False]])
TASK = np.array(["s", "s", "t", "t"])
DATASET = np.array(["d", "d", "d", "d"])


def test_no_shrinkage_is_the_outcome():
    target = shrink(OUTCOME, KNOWN, TASK, DATASET, TargetSpec())
    assert target.dtype == np.float32
    assert (target == OUTCOME).all()


def test_full_shrinkage_without_prior_is_the_task_mean():
    target = shrink(OUTCOME, KNOWN, TASK, DATASET, TargetSpec(shrinkage=1.0, task_prior=0.0))
    # the unknown cell of candidate 1 in task t stays 0 and is not in the mean of the other row
    assert target == pytest.approx(np.array([[1.0, 0.5], [1.0, 0.5], [0.0, 1.0], [0.0, 0.0]]))


def test_partial_shrinkage_with_a_prior():
    target = shrink(OUTCOME, KNOWN, TASK, DATASET, TargetSpec(shrinkage=0.5, task_prior=2.0))
    # candidate 0: dataset mean 2/4. task s: (2 + 2·0.5) / 4 = 0.75; task t: (0 + 2·0.5) / 4 = 0.25
    # candidate 1: dataset mean 2/3. task s: (1 + 4/3) / 4 = 7/12; task t: (1 + 4/3) / 3 = 7/9
    expected = np.array([[0.5 + 0.375, 7 / 24], [0.5 + 0.375, 0.5 + 7 / 24], [0.125, 0.5 + 7 / 18], [0.125, 0.0]])
    assert target == pytest.approx(expected, abs=1e-6)


def test_means_are_of_the_dataset_the_row_stands_in():
    dataset = np.array(["d", "d", "e", "e"])
    spec = TargetSpec(shrinkage=1.0, task_prior=1e9)  # all prior: the dataset mean
    target = shrink(OUTCOME, KNOWN, np.array(["s", "t", "s", "t"]), dataset, spec)
    assert target == pytest.approx(np.array([[1.0, 0.5], [1.0, 0.5], [0.0, 1.0], [0.0, 0.0]]), abs=1e-6)


def test_a_candidate_without_outcomes_in_a_task_gets_no_target():
    known = np.array([[True, False], [True, False], [True, True], [True, True]])
    target = shrink(OUTCOME, known, TASK, DATASET, TargetSpec(shrinkage=1.0))
    assert np.isfinite(target).all()
    assert target[:2, 1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("key", "value"), [("shrinkage", -0.1), ("shrinkage", 1.1), ("task_prior", -1.0)])
def test_numbers_out_of_range_are_named(key, value):
    with pytest.raises(SatlightError, match=rf"data\.targets\.{key} is {value}"):
        TargetSpec(**{key: value})
