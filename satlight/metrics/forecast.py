"""Quality of Pr(correct) = sigmoid(score), cell by cell: calibration and discrimination.

Shape legend: N instructions and M candidates. Every function takes ``score_NM`` (log-odds), ``outcome_NM``
(in [0, 1]) and ``known_NM`` (bool), counts known cells only, and returns NaN when there are none.

A soft outcome t counts as t right and 1 - t wrong answers, e.g. the share of right answers in ten samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def calibration_bins(
    score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, bins: int = 15
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum Pr(correct), outcomes and cells in equally wide bins of Pr(correct).

    Args:
        score_NM: Log-odds (N, M).
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        bins: Number of bins on [0, 1]; bin k holds [k / bins, (k + 1) / bins), the last one also 1.

    Returns:
        Three float32 (bins,): summed probability, summed outcome, count. A reliability diagram plots the
        second over the first, both divided by the third.
    """
    probability = score_NM[known_NM].float().sigmoid()
    outcome = outcome_NM[known_NM].float()
    index = (probability * bins).long().clamp_max(bins - 1)
    zero = torch.zeros(bins, device=probability.device, dtype=torch.float32)
    return (
        zero.index_add(0, index, probability),
        zero.index_add(0, index, outcome),
        zero.index_add(0, index, torch.ones_like(outcome)),
    )


@dataclass(frozen=True)
class ReliabilityBin:
    """One bin of a reliability diagram.

    Args:
        low: Lower end of Pr(correct), inclusive.
        high: Upper end, exclusive except for 1.
        confidence: Mean Pr(correct) of its cells; NaN when the bin is empty.
        accuracy: Mean outcome of its cells; NaN when the bin is empty.
        count: Number of its cells.
    """

    low: float
    high: float
    confidence: float
    accuracy: float
    count: int


def reliability_bins(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, bins: int = 15) -> list[ReliabilityBin]:
    """Compute the reliability diagram: predicted and observed accuracy in equally wide bins.

    Args:
        score_NM: Log-odds (N, M).
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        bins: Number of bins on [0, 1].

    Returns:
        All bins from low to high, including empty ones.

    Example:
        >>> known = torch.ones(1, 2, dtype=torch.bool)
        >>> reliability_bins(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), known, bins=2)[1]
        ReliabilityBin(low=0.5, high=1.0, confidence=0.5, accuracy=0.5, count=2)

    Reference:
        [Guo et al. 2017, "On Calibration of Modern Neural Networks", §2]
    """
    probability, outcome, count = calibration_bins(score_NM, outcome_NM, known_NM, bins)
    rows = zip((probability / count).tolist(), (outcome / count).tolist(), count.tolist(), strict=True)
    return [
        ReliabilityBin(k / bins, (k + 1) / bins, confidence, accuracy, int(size))
        for k, (confidence, accuracy, size) in enumerate(rows)
    ]


def calibration_error_of_bins(probability: Tensor, outcome: Tensor, count: Tensor) -> Tensor:
    """Compute the expected calibration error from the sums of :func:`calibration_bins`."""
    return (probability - outcome).abs().sum() / count.sum()


def expected_calibration_error(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, bins: int = 15) -> Tensor:
    """Compute the mean distance between Pr(correct) and the share of right answers, over equally wide bins.

    Args:
        score_NM: Log-odds (N, M).
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        bins: Number of bins on [0, 1].

    Returns:
        Scalar in [0, 1]; 0 = perfectly calibrated.

    Example:
        >>> score, known = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
        >>> outcome = torch.tensor([[1.0, 1.0, 1.0, 0.0]])  # 0.75 are right where the score says 0.5
        >>> expected_calibration_error(score, outcome, known).item()
        0.25

    Reference:
        [Guo et al. 2017, "On Calibration of Modern Neural Networks", Eq. 3]
    """
    return calibration_error_of_bins(*calibration_bins(score_NM, outcome_NM, known_NM, bins))


def brier_score(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Compute the mean squared difference of Pr(correct) and the outcome.

    0 is perfect; a constant prediction of 1/2 has 0.25.

    Example:
        >>> known = torch.ones(1, 2, dtype=torch.bool)
        >>> brier_score(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), known).item()
        0.25
    """
    return (score_NM[known_NM].float().sigmoid() - outcome_NM[known_NM].float()).square().mean()


def forecast_accuracy(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Compute the share of correctly predicted outcomes: right is predicted where score > 0.

    Example:
        >>> score, outcome = torch.tensor([[2.0, -1.0, 1.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0, 1.0]])
        >>> forecast_accuracy(score, outcome, torch.ones(1, 4, dtype=torch.bool)).item()
        0.75

    Reference:
        Correctness forecast of [Zhuang et al. 2024, EmbedLLM].
    """
    outcome = outcome_NM[known_NM].float()
    return torch.where(score_NM[known_NM] > 0, outcome, 1 - outcome).mean()


def forecast_log_loss(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Compute the mean negative log-likelihood of the outcomes, in nats.

    A constant prediction of 1/2 has ln 2.

    Example:
        >>> known = torch.ones(1, 1, dtype=torch.bool)
        >>> round(forecast_log_loss(torch.zeros(1, 1), torch.ones(1, 1), known).item(), 4)
        0.6931
    """
    return F.binary_cross_entropy_with_logits(score_NM[known_NM].float(), outcome_NM[known_NM].float())


def forecast_auroc(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Compute the probability that a right cell scores above a wrong one; equal scores count one half.

    Args:
        score_NM: Log-odds (N, M); only their order matters.
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).

    Returns:
        Scalar in [0, 1]; NaN when all known cells are right, or all wrong.

    Example:
        >>> score, known = torch.tensor([[3.0, 1.0, 1.0, 0.0]]), torch.ones(1, 4, dtype=torch.bool)
        >>> forecast_auroc(score, torch.tensor([[1.0, 1.0, 0.0, 0.0]]), known).item()
        0.875
    """
    _, rank = score_NM[known_NM].unique(return_inverse=True)
    outcome = outcome_NM[known_NM].double()
    zero = torch.zeros(int(rank.max()) + 1 if len(rank) else 0, dtype=torch.double, device=rank.device)
    right = zero.index_add(0, rank, outcome)
    wrong = zero.index_add(0, rank, 1 - outcome)
    beaten = wrong.cumsum(0) - wrong / 2
    return (right * beaten).sum() / (right.sum() * wrong.sum())
