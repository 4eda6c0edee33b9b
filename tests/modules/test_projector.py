"""The projector: one linear layer on standardized capability vectors."""

import pytest
import torch

from satlight.errors import SatlightError
from satlight.modules import Projector


@pytest.fixture
def projector():
    torch.manual_seed(0)
    layer = Projector(momentum=0.5)
    layer.connect(8, 12, token_norm=3.0)
    return layer


def close_vectors(count=4):
    """Nearly one direction, as capability vectors are."""
    return torch.ones(8) + 0.01 * torch.randn(count, 8, generator=torch.Generator().manual_seed(1))


def test_candidates_start_as_far_apart_as_token_embeddings(projector):
    vectors = close_vectors()
    projector.follow(vectors)
    tokens = projector(vectors)
    assert tokens.pow(2).sum(dim=1).mean().sqrt().item() == pytest.approx(3.0, rel=1e-4)
    assert tokens.mean(dim=0).abs().max() < 1e-3


def test_a_shift_of_all_candidates_is_forgotten(projector):
    vectors = close_vectors()
    projector.follow(vectors)
    before = projector(vectors)
    for _ in range(30):
        projector.follow(vectors + 5.0)
    torch.testing.assert_close(projector(vectors + 5.0), before, atol=1e-2, rtol=0)


def test_the_spread_is_measured_once(projector):
    projector.follow(close_vectors())
    spread = projector.spread.clone()
    projector.follow(10 * close_vectors())
    assert torch.equal(projector.spread, spread)


def test_one_candidate_has_no_spread_yet(projector):
    projector.follow(close_vectors(1))
    assert projector.spread == 0
    projector.follow(close_vectors(4))
    assert projector.spread > 0


def test_blocks_of_one_candidate_tell_candidates_apart(projector):
    vectors = close_vectors()
    for _ in range(20):
        for vector in vectors:
            projector.follow(vector[None])
    tokens = projector(vectors)
    length = (tokens - tokens.mean(dim=0)).pow(2).sum(dim=1).mean().sqrt().item()
    assert 0.5 * 3.0 < length < 2 * 3.0


def test_the_same_candidate_twice_is_no_spread(projector):
    vector = close_vectors(1)
    projector.follow(vector)
    projector.follow(vector + 1e-6)  # rounding
    assert projector.spread == 0
    projector.follow(close_vectors(2)[1:])
    assert projector.spread > 0


def test_evaluation_does_not_depend_on_the_other_candidates(projector):
    vectors = close_vectors()
    projector.follow(vectors)
    torch.testing.assert_close(projector(vectors)[1:2], projector(vectors[1:2]), atol=1e-6, rtol=0)


def test_without_standardizing_it_is_the_plain_layer():
    layer = Projector(standardize=False)
    layer.connect(8, 12, token_norm=1.0)
    layer.follow(close_vectors())
    vectors = close_vectors()
    assert torch.equal(layer(vectors), layer.linear(vectors))


def test_the_state_travels_with_the_weights(projector):
    projector.follow(close_vectors())
    other = Projector()
    other.connect(8, 12, token_norm=1.0)
    other.load_state_dict(projector.state_dict())
    assert torch.equal(other(close_vectors()), projector(close_vectors()))


def test_momentum_out_of_range():
    with pytest.raises(SatlightError, match=r"momentum is 2.*\[0, 1\]"):
        Projector(momentum=2)
