"""Equations of the objectives, each an operation on a block of the score matrix.

Shape legend: B instructions and C candidates of a block.

A cell with a soft outcome t is a *positive* where t >= ``threshold`` and counts t; otherwise it is a
*negative* and counts 1 - t. A weight w makes a cell count w times. All sums are computed in float32,
independent of the precision of the scores.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def instruction_contrastive(
    score_BC: Tensor,
    target_BC: Tensor,
    known_BC: Tensor,
    weight_BC: Tensor | None = None,
    *,
    temperature: float = 1.0,
    threshold: float = 0.5,
) -> Tensor:
    """Compute the softmax loss along columns: instructions a candidate solves against those it fails.

    Every positive of a column competes with the negatives of that column only, never with other positives:
    -log(exp(s⁺) / (exp(s⁺) + Σ exp(s⁻))). The result is the mean over all positives of all columns.

    Args:
        score_BC: Log-odds (B, C).
        target_BC: Outcomes (B, C) in [0, 1].
        known_BC: bool (B, C), False where no record exists; such cells never count.
        weight_BC: Non-negative weights (B, C); None = all 1.
        temperature: Divides the scores; > 0. Smaller values emphasize the hardest negatives.
        threshold: Outcome from which a cell is a positive, in (0, 1].

    Returns:
        Scalar loss. A block without any positive-negative pair has a differentiable loss of 0.

    Example:
        >>> score = torch.tensor([[2.0], [0.0], [0.0], [0.0]])
        >>> target = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
        >>> f"{instruction_contrastive(score, target, torch.ones(4, 1, dtype=torch.bool)):.4f}"
        '0.3408'

    Reference:
        [Zhang et al. 2025, Eq. 5]; the paper's group is a block with C = 1 and B = k.
    """
    score_BC, target_BC, weight_BC = _masked(score_BC, target_BC, known_BC, weight_BC)
    score_BC = score_BC / temperature
    positive_BC = target_BC >= threshold
    gain_BC = torch.where(positive_BC, target_BC, 0.0) * weight_BC
    mass_BC = torch.where(positive_BC, 0.0, 1.0 - target_BC) * weight_BC
    paired_C = (gain_BC > 0).any(0) & (mass_BC > 0).any(0)
    # A column without negatives would be all -inf, and its logsumexp would have NaN gradients; use a constant
    # there, with zero gain.
    rival_BC = torch.where(mass_BC > 0, score_BC + mass_BC.clamp_min(1e-30).log(), float("-inf"))
    rivals_C = torch.where(paired_C, rival_BC, 0.0).logsumexp(0)
    # -log(e^s / (e^s + e^r)) = softplus(r - s)
    return _weighted_mean(F.softplus(rivals_C - score_BC), gain_BC * paired_C)


def candidate_contrastive(
    score_BC: Tensor,
    target_BC: Tensor,
    known_BC: Tensor,
    weight_BC: Tensor | None = None,
    *,
    temperature: float = 1.0,
    threshold: float = 0.5,
) -> Tensor:
    """Compute the softmax loss along rows: candidates that solve an instruction against those that fail.

    This is :func:`instruction_contrastive` on the transposed block, and the comparison made by routing.

    Args:
        score_BC: Log-odds (B, C).
        target_BC: Outcomes (B, C) in [0, 1].
        known_BC: bool (B, C), False where no record exists; such cells never count.
        weight_BC: Non-negative weights (B, C); None = all 1.
        temperature: Divides the scores; > 0.
        threshold: Outcome from which a cell is a positive, in (0, 1].

    Returns:
        Scalar loss. A block without any positive-negative pair has a differentiable loss of 0.

    Example:
        >>> score, target = torch.tensor([[2.0, 0.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
        >>> f"{candidate_contrastive(score, target, torch.ones(1, 4, dtype=torch.bool)):.4f}"
        '0.3408'
    """
    return instruction_contrastive(
        score_BC.T,
        target_BC.T,
        known_BC.T,
        None if weight_BC is None else weight_BC.T,
        temperature=temperature,
        threshold=threshold,
    )


def routing_regret(
    score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, weight_BC: Tensor | None = None, *, temperature: float = 1.0
) -> Tensor:
    """Compute the outcome lost by softmax routing: max_c t_c - Σ_c softmax(s / τ)_c · t_c.

    It is a smooth version of the loss in routed accuracy. Where all candidates have the same outcome it is 0
    for any scores, so such instructions have no gradient.

    Args:
        score_BC: Log-odds (B, C).
        target_BC: Outcomes (B, C) in [0, 1], soft ones allowed.
        known_BC: bool (B, C), False where no record exists; such cells are never chosen.
        weight_BC: Non-negative weights (B, C); the weight of an instruction is the mean over its
            known cells. None = all 1.
        temperature: Divides the scores; > 0. Smaller values approach choosing the highest score.

    Returns:
        Scalar loss, the weighted mean over instructions with a known cell; a differentiable 0 when there are none.

    Example:
        >>> score, target = torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 0.5]])
        >>> f"{routing_regret(score, target, torch.ones(1, 2, dtype=torch.bool)):.4f}"
        '0.2500'

    Reference:
        Expected reward of a softmax policy; not from the paper.
    """
    score_BC, target_BC, weight_BC = _masked(score_BC, target_BC, known_BC, weight_BC)
    some_B = known_BC.any(1)
    # A row of only -inf would have NaN gradients; use a constant there, with zero weight.
    logit_BC = torch.where(known_BC, score_BC / temperature, float("-inf"))
    share_BC = torch.where(some_B[:, None], logit_BC, 0.0).softmax(1)
    regret_B = torch.where(known_BC, target_BC, 0.0).amax(1) - (share_BC * target_BC).sum(1)
    weight_B = weight_BC.sum(1) / known_BC.sum(1).clamp_min(1)
    return _weighted_mean(torch.where(some_B, regret_B, 0.0), weight_B)


def pointwise(score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, weight_BC: Tensor | None = None) -> Tensor:
    """Compute the binary cross-entropy of Pr(correct) = sigmoid(score) on every known cell.

    There is no temperature: the score is the log-odds, and this objective keeps it calibrated.

    Args:
        score_BC: Log-odds (B, C).
        target_BC: Outcomes (B, C) in [0, 1], soft ones allowed.
        known_BC: bool (B, C), False where no record exists; such cells never count.
        weight_BC: Non-negative weights (B, C); None = all 1.

    Returns:
        Scalar loss, the weighted mean over known cells; a differentiable 0 when none is known.

    Example:
        >>> f"{pointwise(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), torch.tensor([[True, False]])):.4f}"
        '0.6931'
    """
    score_BC, target_BC, weight_BC = _masked(score_BC, target_BC, known_BC, weight_BC)
    loss_BC = F.binary_cross_entropy_with_logits(score_BC, target_BC, reduction="none")
    return _weighted_mean(loss_BC, weight_BC)


def _masked(
    score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, weight_BC: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return float32 scores, targets and weights, set to 0 in unknown cells (which may hold NaN)."""
    weight_BC = torch.ones_like(score_BC) if weight_BC is None else weight_BC
    shapes = {x.shape for x in (score_BC, target_BC, known_BC, weight_BC)}
    assert len(shapes) == 1, f"a block has one shape, got {shapes}"
    return (
        torch.where(known_BC, score_BC.float(), 0.0),
        torch.where(known_BC, target_BC.float(), 0.0),
        torch.where(known_BC, weight_BC.float(), 0.0),
    )


def _weighted_mean(value_BC: Tensor, weight_BC: Tensor) -> Tensor:
    """Compute Σwv / Σw, or a differentiable 0 where Σw = 0, without synchronizing with the device."""
    total = weight_BC.sum()
    return (value_BC * weight_BC).sum() / torch.where(total > 0, total, 1.0)
