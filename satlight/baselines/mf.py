"""Matrix factorization with a linear map of the text.

Shape legend: N instructions, M candidates, D features, F factors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from satlight.baselines.latent import LatentBaseline, Person, quiet_linear
from satlight.storage.classes import Configured


class MF(LatentBaseline):
    """Pr(correct) = sigmoid(vector of the candidate · linear map of the embedding + biases of both).

    Reference: Ong et al. 2024, "RouteLLM", section 4; Zhuang et al. 2024, "EmbedLLM", Eq. 2.
    """

    GRID = {"factors": (16, 64), "decay": (0.1, 1.0), "steps": (250, 750)}  # noqa: RUF012

    def network(self, num_candidates: int, width: int, **chosen: Any) -> nn.Module:
        return Factorization(num_candidates, width, chosen["factors"])


class Factorization(Configured, nn.Module):
    """Log-odds of M candidates from embeddings of ``width`` features, by ``factors`` factors."""

    def __init__(self, num_candidates: int, width: int, factors: int) -> None:
        super().__init__()
        self.candidate = Person(num_candidates, factors)
        self.text = quiet_linear(width, factors, bias=False)
        self.difficulty = quiet_linear(width, 1)
        self.bias_M = nn.Parameter(torch.zeros(num_candidates))

    def forward(self, x_ND: Tensor) -> Tensor:
        match_NM = self.text(x_ND) @ self.candidate().T / self.text.out_features**0.5
        return match_NM + self.difficulty(x_ND) + self.bias_M
