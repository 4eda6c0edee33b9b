"""The network of experiments/new_candidates: what it may read, what it falls back to, and that it learns."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from satlight.records import open_records
from satlight.records.sources import SimulatedSpec

sys.path.append(str(Path(__file__).parents[1] / "experiments" / "new_candidates"))
from network import AttentiveNetwork, Episode, mixed, train
from network_over_zoos import Episodes, Zoo
from run import Fold, split
from run_network import NetworkOfFold

DIM = 6


def drawn(rng: np.random.Generator, items: int = 40, candidates: int = 5, queries: int = 30):
    """Instructions near one of two points; a candidate is good near one of them, bad near the other."""
    side_N = rng.integers(2, size=items + queries)
    vectors_ND = np.eye(DIM)[side_N] + 0.05 * rng.normal(size=(items + queries, DIM))
    good_C = np.arange(candidates) % 2
    p_NC = np.where(side_N[:, None] == good_C, 0.85, 0.15)
    outcome_NC = (rng.random(p_NC.shape) < p_NC).astype(np.float32)
    known_NC, mean_N = np.ones_like(outcome_NC, dtype=bool), np.full(items + queries, 0.5)
    episode = Episode.of(
        vectors_ND[:items], mean_N[:items], outcome_NC[:items], known_NC[:items], vectors_ND[items:], mean_N[items:]
    )
    return episode, torch.as_tensor(outcome_NC[items:]), torch.as_tensor(known_NC[items:])


@pytest.fixture
def network() -> AttentiveNetwork:
    torch.manual_seed(0)
    network = AttentiveNetwork(DIM)
    torch.nn.init.normal_(network.gates[2].weight)
    return network


def test_candidates_are_anonymous_and_items_have_no_order(network):
    episode = drawn(np.random.default_rng(0))[0]
    order_K, order_C = torch.randperm(40), torch.randperm(5)
    other = episode._replace(
        item_KD=episode.item_KD[order_K],
        mean_K=episode.mean_K[order_K],
        outcome_KC=episode.outcome_KC[order_K][:, order_C],
    )
    torch.testing.assert_close(network(other), network(episode)[:, order_C])


def test_unknown_results_are_not_read(network):
    episode = drawn(np.random.default_rng(0))[0]
    known_KC = episode.known_KC.clone()
    known_KC[:10, 0] = False
    outcome_KC = episode.outcome_KC.clone()
    outcome_KC[:10, 0] = torch.nan
    less = Episode(*(one[10:] for one in episode[:4]), *episode[4:])
    found = network(episode._replace(outcome_KC=outcome_KC, known_KC=known_KC))
    torch.testing.assert_close(found[:, 0], network(less)[:, 0])


def test_without_deviations_it_is_the_shrunken_mean(network):
    torch.nn.init.zeros_(network.gates[2].weight)
    network.gates[2].bias.data[:] = torch.tensor([0.0, -100.0, -100.0])
    episode = drawn(np.random.default_rng(1))[0]
    score_QC, mean_C = network(episode), episode.outcome_KC.mean(dim=0)
    assert (score_QC == score_QC[:1]).all()
    assert (score_QC[0].argsort(stable=True) == mean_C.argsort(stable=True)).all()
    assert (score_QC[0].sigmoid() - 0.5).abs().lt((mean_C - 0.5).abs()).all()


def test_it_learns_where_candidates_are_good():
    found = train(drawn, DIM, steps=40, regret=1.0, seed=0)
    episode, outcome_QC, _ = drawn(np.random.default_rng(5), queries=400)
    routed = outcome_QC.gather(1, found(episode).argmax(dim=1, keepdim=True)).mean()
    best_single = outcome_QC[:, episode.outcome_KC.mean(dim=0).argmax()].mean()
    assert routed > 0.8
    assert best_single < 0.6


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
