"""Small networks of Pr(correct) given the embedding, trained on the log loss of known outcomes.

Shape legend: N instructions, M candidates, B of a batch, D features, F factors.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlight.baselines.neural import NeuralBaseline, NeuralRouter
from satlight.records import PerformanceRecords

LEARNING_RATE = 3e-3


class LatentBaseline(NeuralBaseline):
    """Expected outcome = sigmoid of what a torch module makes of the embedding.

    ``GRID`` must have ``decay`` (AdamW's weight decay) and end in ``steps`` (batches).
    """

    @abstractmethod
    def network(self, num_candidates: int, width: int, **chosen: Any) -> nn.Module:
        """The module to train: vectors (N, D) of unit variance → log-odds (N, M)."""

    def module(self, records: PerformanceRecords, vectors_ND: np.ndarray, **chosen: Any) -> NeuralRouter:
        decay = chosen.pop("decay")
        network = self.network(records.shape[1], vectors_ND.shape[1], **chosen)
        return LogLossRouter(records, vectors_ND, network, decay)


class LogLossRouter(NeuralRouter):
    """Trains a network by the mean log loss over known cells.

    Args:
        records: N × M.
        vectors_ND: Rows of length 1.
        network: Vectors (N, D) of unit variance → log-odds (N, M).
        decay: AdamW's weight decay.
    """

    batch_size = 128

    def __init__(
        self, records: PerformanceRecords, vectors_ND: np.ndarray, network: nn.Module, decay: float
    ) -> None:
        super().__init__(records, vectors_ND, LEARNING_RATE, decay)
        self.network = network

    def loss(self, index_B: Tensor) -> Tensor:
        logit_BM, known_BM = self.network(self.x_ND[index_B]), self.known_NM[index_B].float()
        loss_BM = F.binary_cross_entropy_with_logits(logit_BM, self.outcome_NM[index_B], reduction="none")
        return (loss_BM * known_BM).sum() / known_BM.sum().clamp(min=1)

    def score(self, x_QD: Tensor) -> Tensor:
        return torch.sigmoid(self.network(x_QD))


def quiet_linear(width: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear map that starts at 0: candidates differ little, and random text features would drown that."""
    linear = nn.Linear(width, outputs, bias)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    return linear


class Person(nn.Module):
    """A vector per candidate, as a common part and its own, which weight decay pulls to 0.

    A candidate with few outcomes therefore stays near the common one.
    """

    def __init__(self, num_candidates: int, factors: int) -> None:
        super().__init__()
        self.common = nn.Parameter(torch.randn(factors))
        self.own = nn.Parameter(0.1 * torch.randn(num_candidates, factors))

    def forward(self) -> Tensor:
        """(M, F)."""
        return self.common + self.own
