"""Small torch models of Pr(correct) given the embedding, trained on the log loss of known outcomes.

Shape legend: N instructions, M candidates, D features, F factors.
"""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlight.baselines.tuning import TunedBaseline
from satlight.records import PerformanceRecords

BATCH = 128
LEARNING_RATE = 3e-3


class LatentBaseline(TunedBaseline):
    """Expected outcome = sigmoid of what a torch module makes of the embedding.

    ``GRID`` must have ``steps`` (batches) and ``decay`` (AdamW's weight decay).
    """

    @abstractmethod
    def module(self, num_candidates: int, width: int, **chosen: Any) -> nn.Module:
        """The module to train: vectors (N, D) of unit variance → log-odds (N, M)."""

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        assert vectors_ND is not None
        with seeded(self.seed):
            self._module = self.module(records.shape[1], vectors_ND.shape[1], **chosen)
            train_module(
                self._module, vectors_ND, records.outcomes, records.known, chosen["steps"], chosen["decay"]
            )

    def score(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        assert vectors_ND is not None
        with torch.inference_mode():
            return self._module(unit_variance(vectors_ND)).sigmoid().numpy()


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


def train_module(
    module: nn.Module,
    vectors_ND: np.ndarray,
    outcome_NM: np.ndarray,
    known_NM: np.ndarray,
    steps: int,
    decay: float,
) -> None:
    """Minimise the mean log loss over known cells by AdamW, in batches of 128 instructions.

    Args:
        module: Vectors (N, D) → log-odds (N, M).
        vectors_ND: Rows of length 1.
        outcome_NM: Outcomes.
        known_NM: bool.
        steps: Number of batches; the instructions are passed over as often as that takes.
        decay: AdamW's weight decay.
    """
    x_ND, y_NM = unit_variance(vectors_ND), torch.from_numpy(np.array(outcome_NM, dtype=np.float32))
    mask_NM = torch.from_numpy(np.array(known_NM, dtype=np.float32))
    optimizer = torch.optim.AdamW(module.parameters(), lr=LEARNING_RATE, weight_decay=decay)
    for rows in itertools.islice(_batches(len(x_ND)), steps):
        loss_BM = F.binary_cross_entropy_with_logits(module(x_ND[rows]), y_NM[rows], reduction="none")
        loss = (loss_BM * mask_NM[rows]).sum() / mask_NM[rows].sum().clamp(min=1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batches(size: int) -> Iterator[Tensor]:
    while True:
        yield from torch.randperm(size).split(BATCH)


def unit_variance(vectors_ND: np.ndarray) -> Tensor:
    """Rows of length 1, scaled so that a feature has a variance of about 1."""
    return torch.from_numpy(np.array(vectors_ND, dtype=np.float32)) * vectors_ND.shape[1] ** 0.5


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws inside follow from ``seed``; torch's generator outside is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
