"""The instructions that a router missed: which ones, in which order."""

import numpy as np
import polars as pl

from satlight.evaluation.examples import missed
from satlight.records import PerformanceRecords
from satlight.types import Candidate

OUTCOMES = [[0, 1, 0], [0, 1, 1], [1, 1, 1], [0, 0.5, 0], [0, 1, 1], [0, 0, 0]]


def records(known=None, datasets="aaaaba"):
    size = len(OUTCOMES)
    frame = pl.DataFrame(
        {
            "instruction_id": [f"i{row}" for row in range(size)],
            "dataset": list(datasets),
            "task": ["t"] * size,
            "split": ["test"] * size,
            "instruction": [f"question {row}" for row in range(size)],
        }
    )
    outcomes = np.array(OUTCOMES, dtype=np.float32)
    known = np.ones(outcomes.shape, dtype=bool) if known is None else known
    return PerformanceRecords(frame, tuple(map(Candidate, "xyz")), outcomes, known)


def ids(examples):
    return [example.instruction_id for example in examples]


def test_the_largest_loss_comes_first_and_datasets_take_turns():
    examples = missed(records(), np.zeros(6, dtype=int), limit=9)
    assert ids(examples) == ["i1", "i4", "i0", "i3"]  # i4 is the first of its dataset, i2 and i5 lose nothing
    assert (examples[0].choice, examples[0].best, examples[0].best_outcome) == ("x", ("y", "z"), 1.0)
    assert (examples[3].outcome, examples[3].best, examples[3].best_outcome) == (0.0, ("y",), 0.5)
    assert ids(missed(records(), np.zeros(6, dtype=int), limit=2)) == ["i1", "i4"]


def test_no_choice_and_unknown_outcomes_are_no_misses():
    assert missed(records(), np.full(6, -1), limit=9) == []
    known = np.ones((6, 3), dtype=bool)
    known[:, 0] = False
    assert missed(records(known), np.zeros(6, dtype=int), limit=9) == []
    known = np.array([[True, False, True]] * 6)
    assert ids(missed(records(known), np.zeros(6, dtype=int), limit=9)) == ["i1", "i4"]
