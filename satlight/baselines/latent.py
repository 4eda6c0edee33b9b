"""Networks that predict Pr(correct) from the embedding, trained on the log loss of known outcomes.

Shape legend: N instructions, M candidates, B of a batch, D features, F factors.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from satlight.baselines.neural import NeuralBaseline, NeuralRouter, masked_log_loss, seeded
from satlight.records import PerformanceRecords

LEARNING_RATE = 3e-3


class LatentBaseline(NeuralBaseline):
    """Expected outcome = sigmoid of the output of a torch module for the embedding.

    ``GRID`` must have ``decay`` (AdamW's weight decay) and end in ``steps`` (batches).
    """

    @abstractmethod
    def network(self, num_candidates: int, width: int, **chosen: Any) -> nn.Module:
        """Return the module to train: vectors (N, D) of unit variance → log-odds (N, M)."""

    def module(self, records: PerformanceRecords, vectors_ND: np.ndarray, **chosen: Any) -> NeuralRouter:
        decay = chosen.pop("decay")
        network = self.network(records.shape[1], vectors_ND.shape[1], **chosen)
        return LogLossRouter(network, decay).hold(records, vectors_ND)


class LogLossRouter(NeuralRouter):
    """Train a network by the mean log loss over known cells.

    Args:
        network: Vectors (N, D) of unit variance → log-odds (N, M).
        decay: AdamW's weight decay.
    """

    lr = LEARNING_RATE
    batch_size = 128

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.network: Any = network
        self.decay = decay

    def with_tensors(self, num_candidates: int, **tensors: Tensor) -> LogLossRouter:
        """Return a copy for another number of candidates, with some tensors of the network replaced.

        Args:
            num_candidates: The ``num_candidates`` of the new network.
            tensors: Tensors by name in the network's state, with ``__`` for dots.
        """
        with seeded(0):  # building draws weights, which are replaced
            network = type(self.network)(**{**self.network.init_args, "num_candidates": num_candidates})
        replaced = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
        network.load_state_dict({**self.network.state_dict(), **replaced})
        return LogLossRouter(network, self.decay)

    def loss(self, index_B: Tensor) -> Tensor:
        logit_BM = self.network(self.x_ND[index_B])
        return masked_log_loss(logit_BM, self.outcome_NM[index_B], self.known_NM[index_B].float())

    def score(self, x_QD: Tensor) -> Tensor:
        return torch.sigmoid(self.network(x_QD))


def quiet_linear(width: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a linear map that starts at 0: random features of the text would hide small differences."""
    linear = nn.Linear(width, outputs, bias)
    for parameter in linear.parameters():
        nn.init.zeros_(parameter)
    return linear


class Person(nn.Module):
    """A vector per candidate: a common part plus its own part, which weight decay shrinks to 0.

    A candidate with few outcomes therefore stays near the common part.
    """

    def __init__(self, num_candidates: int, factors: int) -> None:
        super().__init__()
        self.common = nn.Parameter(torch.randn(factors))
        self.own = nn.Parameter(0.1 * torch.randn(num_candidates, factors))

    def forward(self) -> Tensor:
        """Return the vectors, (M, F)."""
        return self.common + self.own
