"""The attentive network in experiments/new_candidates: what it may read there."""

import sys
from pathlib import Path

import numpy as np
import pytest

from satlight.records import open_records
from satlight.records.sources import SimulatedSpec

sys.path.append(str(Path(__file__).parents[1] / "experiments" / "new_candidates"))
from network_over_zoos import Episodes, Zoo
from run import Fold, split
from run_network import NetworkOfFold, mixed

DIM = 6


def test_mixtures_are_one_candidate_on_each_group():
    rng = np.random.default_rng(0)
    outcome_NC, group_N = rng.random((30, 4)), np.repeat(["a", "b", "c"], 10)
    made = mixed(outcome_NC, group_N, 6, rng)
    for name in "abc":
        rows = group_N == name
        assert all(any((one == given).all() for given in outcome_NC[rows].T) for one in made[rows].T)


@pytest.fixture(scope="module")
def records():
    return open_records("simulated", simulated=SimulatedSpec(num_instructions=1500, num_candidates=8))


def test_a_fold_reads_no_judged_outcome_and_no_new_candidate_in_training(records):
    """Scores stay the same when everything that the network must not read is replaced."""
    records = split(records, "validation", 0)
    vectors_ND = np.random.default_rng(0).normal(size=(records.shape[0], DIM)) / DIM**0.5
    new_M, family_M = np.arange(8) < 3, np.arange(8).astype(str)
    found = []
    for hidden in (False, True):
        fold = Fold(records, vectors_ND, new_M, family_M, 0)
        rows = fold.draw(64, 0)
        if hidden:
            fold.outcome_NM[fold.judged_rows] = 0.5
            fold.outcome_NM[np.ix_(np.setdiff1d(fold.probe_rows, rows), fold.new)] = 0.5
        found.append(NetworkOfFold(fold, steps=3, regret=1.0).scores(rows))
    assert found[0].shape == (len(fold.judged_rows), 3)
    np.testing.assert_array_equal(*found)


def test_episodes_of_zoos_read_no_test_row():
    zoo = Zoo("simulated", Path(), lambda texts: np.random.default_rng(0).normal(size=(len(texts), DIM)))
    zoo.outcome_NM = zoo.outcome_NM.copy()
    zoo.outcome_NM[zoo.sides("test", 0)[1]] = 7.0
    sample, rng = Episodes([zoo], "test"), np.random.default_rng(0)
    for _ in range(10):
        episode, outcome_QC, known_QC = sample(rng)
        assert len(episode.item_KD) in (8, 16, 32, 64, 128, 256)
        assert 4 <= outcome_QC.shape[1] == episode.outcome_KC.shape[1] == known_QC.shape[1]
        assert max(episode.outcome_KC.max(), outcome_QC.max()) <= 1
