"""The network of few_results: what it may read, what it falls back to, and that it learns."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from satlight.baselines.attentive import AttentiveNetwork, Episode, train

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
    state = torch.get_rng_state()
    found = train(drawn, DIM, steps=40, regret=1.0, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in found.parameters())
    episode, outcome_QC, _ = drawn(np.random.default_rng(5), queries=400)
    routed = outcome_QC.gather(1, found(episode).argmax(dim=1, keepdim=True)).mean()
    best_single = outcome_QC[:, episode.outcome_KC.mean(dim=0).argmax()].mean()
    assert routed > 0.8
    assert best_single < 0.6


@pytest.mark.parametrize("share", [0.0, 0.2, 0.97, 1.0])
def test_the_ability_is_the_mode_of_the_posterior(share):
    """Whole steps of Newton's method diverge for a candidate that fails where nearly all others succeed."""
    outcome = (np.arange(300) < 300 * share).astype(float)
    offset = np.log(0.97 / 0.03)
    found, _ = AttentiveNetwork(3).ability(
        torch.full((300,), offset), torch.tensor(outcome[:, None]), torch.ones((300, 1), dtype=torch.bool)
    )

    def loss(shift):
        return np.logaddexp(0, offset + shift) * 300 - outcome.sum() * (offset + shift) + shift**2 / 2

    assert found.item() == pytest.approx(minimize_scalar(loss).x, abs=0.01)
