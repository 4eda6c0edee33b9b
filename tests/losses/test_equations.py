"""The equations against references written another way, and their edge cases."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from satlight.losses import functional as L

OBJECTIVES = [L.instruction_contrastive, L.candidate_contrastive, L.pointwise, L.routing_regret]


def block(rows: int = 6, columns: int = 4, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    score = torch.randn(rows, columns, generator=g)
    target = (torch.rand(rows, columns, generator=g) < 0.5).float()
    known = torch.rand(rows, columns, generator=g) < 0.8
    return score, target, known


def contrast_by_hand(score, target, known, temperature=1.0):
    """Eq. 5 as a double loop over columns and positives."""
    losses = []
    for c in range(score.shape[1]):
        negatives = [score[b, c] / temperature for b in range(len(score)) if known[b, c] and target[b, c] < 0.5]
        for b in range(len(score)):
            if known[b, c] and target[b, c] >= 0.5 and negatives:
                logits = torch.stack([score[b, c] / temperature, *negatives])
                losses.append(F.cross_entropy(logits[None], torch.tensor([0])))
    return torch.stack(losses).mean()


def test_group_of_the_paper_is_cross_entropy():
    score = torch.tensor([[0.3], [1.2], [-0.4], [0.9]])
    target = torch.tensor([[0.0], [1.0], [0.0], [0.0]])
    loss = L.instruction_contrastive(score, target, torch.ones(4, 1, dtype=torch.bool))
    torch.testing.assert_close(loss, F.cross_entropy(score.T, torch.tensor([1])))


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_instruction_contrastive_equals_loop(temperature):
    score, target, known = block()
    loss = L.instruction_contrastive(score, target, known, temperature=temperature)
    torch.testing.assert_close(loss, contrast_by_hand(score, target, known, temperature))


def test_candidate_contrastive_equals_loop_on_rows():
    score, target, known = block(seed=1)
    loss = L.candidate_contrastive(score, target, known, temperature=0.5)
    torch.testing.assert_close(loss, contrast_by_hand(score.T, target.T, known.T, 0.5))


def test_another_positive_is_no_competitor():
    score = torch.tensor([[1.0], [50.0], [0.0]], requires_grad=True)
    target = torch.tensor([[1.0], [1.0], [0.0]])
    L.instruction_contrastive(score, target, torch.ones(3, 1, dtype=torch.bool)).backward()
    # If the 50 competed with the 1, its gradient would push it down.
    assert score.grad[1].item() <= 0
    assert score.grad[0].item() == pytest.approx(-0.5 / (1 + math.e))


def test_pointwise_equals_binary_cross_entropy_on_known_cells():
    score, _, known = block()
    soft = torch.rand(score.shape, generator=torch.Generator().manual_seed(3))
    expected = F.binary_cross_entropy(torch.sigmoid(score[known]), soft[known])
    torch.testing.assert_close(L.pointwise(score, soft, known), expected)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_unknown_cells_never_count(objective):
    score, target, known = block()
    reference = objective(score, target, known)
    spoiled_score = torch.where(known, score, float("nan")).requires_grad_()
    spoiled_target = torch.where(known, target, float("nan"))
    loss = objective(spoiled_score, spoiled_target, known, torch.where(known, 1.0, float("inf")))
    torch.testing.assert_close(loss, reference)
    loss.backward()
    assert torch.isfinite(spoiled_score.grad).all()
    assert (spoiled_score.grad[~known] == 0).all()
    assert (spoiled_score.grad[known] != 0).any()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_integer_weights_equal_repeated_cells(objective):
    score, target, known = block(seed=4)
    if objective is L.candidate_contrastive:
        repeats = torch.tensor([1, 3, 0, 2])
        weight = repeats.float().expand_as(score)
        repeated = [x.repeat_interleave(repeats, dim=1) for x in (score, target, known)]
    else:
        repeats = torch.tensor([2, 1, 0, 1, 3, 1])
        weight = repeats.float()[:, None].expand_as(score)
        repeated = [x.repeat_interleave(repeats, dim=0) for x in (score, target, known)]
    torch.testing.assert_close(objective(score, target, known, weight), objective(*repeated))


def test_soft_targets_weigh_positives_and_negatives():
    score = torch.tensor([[1.0, 0.5, -1.0, 0.0]])
    target = torch.tensor([[1.0, 0.6, 0.4, 0.0]])
    rivals = 0.6 * math.exp(-1.0) + 1.0 * math.exp(0.0)
    terms = [(1.0, math.log(1 + rivals / math.exp(1.0))), (0.6, math.log(1 + rivals / math.exp(0.5)))]
    expected = sum(w * x for w, x in terms) / 1.6
    loss = L.candidate_contrastive(score, target, torch.ones(1, 4, dtype=torch.bool))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_threshold_decides_who_is_positive():
    score, target = torch.tensor([[2.0], [0.0]]), torch.tensor([[0.6], [0.0]])
    known = torch.ones(2, 1, dtype=torch.bool)
    assert L.instruction_contrastive(score, target, known).item() > 0
    assert L.instruction_contrastive(score, target, known, threshold=0.7).item() == 0


@pytest.mark.parametrize("objective", [L.instruction_contrastive, L.candidate_contrastive])
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_no_pair_gives_zero_with_a_graph(objective, fill):
    score = torch.randn(3, 2, requires_grad=True)
    loss = objective(score, torch.full((3, 2), fill), torch.ones(3, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (score.grad == 0).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_nothing_known_gives_zero_with_a_graph(objective):
    score = torch.randn(3, 2, requires_grad=True)
    loss = objective(score, torch.ones(3, 2), torch.zeros(3, 2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert (score.grad == 0).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_gradient_is_right(objective):
    score, target, known = block(4, 3)
    assert torch.autograd.gradcheck(
        lambda s: objective(s, target, known), score.double().requires_grad_(), eps=1e-2, atol=1e-2
    )


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_extreme_half_precision_scores_stay_finite(objective):
    score = torch.tensor([[3e4, -3e4], [-3e4, 3e4]], dtype=torch.bfloat16, requires_grad=True)
    target = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    loss = objective(score, target, torch.ones(2, 2, dtype=torch.bool))
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(score.grad).all()


def test_routing_regret_equals_loop():
    score, _, known = block(seed=3)
    soft = torch.rand(score.shape, generator=torch.Generator().manual_seed(4))
    regrets = []
    for b in range(len(score)):
        columns = known[b].nonzero()[:, 0]
        share = (score[b, columns] / 0.5).softmax(0)
        regrets.append(soft[b, columns].max() - (share * soft[b, columns]).sum())
    torch.testing.assert_close(L.routing_regret(score, soft, known, temperature=0.5), torch.stack(regrets).mean())


def test_routing_regret_falls_to_nothing_when_the_best_is_chosen():
    target, known = torch.tensor([[0.2, 0.9, 0.4]]), torch.ones(1, 3, dtype=torch.bool)
    right, wrong = torch.tensor([[0.0, 20.0, 0.0]]), torch.tensor([[20.0, 0.0, 0.0]])
    assert L.routing_regret(right, target, known).item() == pytest.approx(0, abs=1e-6)
    assert L.routing_regret(wrong, target, known).item() == pytest.approx(0.7, abs=1e-6)
    known[0, 1] = False  # the best that is known
    assert L.routing_regret(wrong, target, known).item() == pytest.approx(0.2, abs=1e-6)


def test_routing_regret_weighs_instructions():
    score, target = torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [0.5, 0.5]])
    known, weight = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[3.0, 3.0], [1.0, 1.0]])
    assert L.routing_regret(score, target, known, weight).item() == pytest.approx(0.5 * 3 / 4)
