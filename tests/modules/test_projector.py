"""The projector: the paper's linear layer, started so that candidates differ."""

import pytest
import torch

from satlight.modules import Projector


@pytest.fixture
def projector() -> Projector:
    torch.manual_seed(0)
    projector = Projector()
    projector.connect(8, 12, token_norm=3.0)
    return projector


@torch.no_grad()
def test_it_is_one_linear_layer(projector):
    x, y = torch.randn(5, 8), torch.randn(5, 8)
    assert projector(x).shape == (5, 12)
    assert torch.allclose(
        projector(x + y), projector(x) + projector(y) - projector(torch.zeros(5, 8)), atol=1e-5
    )
    assert [name for name, _ in projector.named_parameters()] == ["linear.weight", "linear.bias"]


@torch.no_grad()
def test_fit_spreads_nearly_equal_candidates_as_far_as_tokens(projector):
    vectors = torch.ones(6, 8) + 1e-3 * torch.randn(6, 8)
    assert projector(vectors).std(dim=0).max() < 0.01
    projector.fit(vectors)
    moved = projector(vectors)
    assert torch.allclose(moved.mean(dim=0), torch.zeros(12), atol=1e-3)
    assert moved.square().sum(dim=1).mean().sqrt().item() == pytest.approx(3.0, rel=1e-3)
    assert bool(projector.fitted)


@torch.no_grad()
def test_fit_happens_once_and_needs_two_candidates(projector):
    projector.fit(torch.randn(1, 8))
    assert not bool(projector.fitted)
    projector.fit(torch.randn(4, 8))
    weight = projector.linear.weight.clone()
    projector.fit(torch.randn(4, 8))
    assert torch.equal(projector.linear.weight, weight)


@torch.no_grad()
def test_a_resumed_projector_is_not_fitted_again(projector):
    projector.fit(torch.randn(4, 8))
    other = Projector()
    other.connect(8, 12, token_norm=3.0)
    other.load_state_dict(projector.state_dict())
    other.fit(torch.randn(4, 8))
    assert torch.equal(other.linear.weight, projector.linear.weight)


@torch.no_grad()
def test_equal_candidates_do_not_break_the_fit(projector):
    projector.fit(torch.ones(3, 8))
    assert projector(torch.ones(3, 8)).isfinite().all()


@torch.no_grad()
def test_without_fit_scale_it_stays_as_drawn():
    projector = Projector(fit_scale=False)
    projector.connect(8, 12, token_norm=3.0)
    weight = projector.linear.weight.clone()
    projector.fit(torch.randn(4, 8))
    assert torch.equal(projector.linear.weight, weight)
