"""RouterDC's dual-contrastive learning: instructions and candidates in one space.

Shape legend: B instructions of a batch, M candidates, D features of the embedding, H of the common space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlight.baselines.base import Instruction
from satlight.baselines.cluster import fit_kmeans
from satlight.baselines.neural import NeuralBaseline, NeuralRouter
from satlight.records import PerformanceRecords

WIDTH = 256
DROPOUT = 0.5
CLUSTERS = 5
NEGATIVES = 3
"""Number of instructions of other clusters per instruction of the same cluster."""

TOP = 3
"""Maximum number of positive candidates of an instruction, and of negative ones."""

GOOD = 0.5
"""A candidate with a higher outcome is never a negative."""


class RouterDC(NeuralBaseline):
    """A text tower and a learned vector per candidate; the score is their cosine.

    A cosine in [-1, 1] ranks candidates and is not an expected outcome. An instruction is pulled toward the
    candidates with the best outcomes and away from those that failed (sample-LLM loss), and toward an
    instruction of its k-means cluster and away from those of other clusters (sample-sample loss).

    The published router trains mDeBERTa-v3-base, which needs a GPU and weights from the hub. Here the text
    tower is a two-layer network on frozen embeddings. Equal outcomes are ordered at random at every step; the
    published code orders them by column.

    Reference: Chen et al. 2024, "RouterDC: Query-Based Router by Dual Contrastive Learning for Assembling
    Large Language Models", Eq. 3 to 6.
    """

    predicts_outcomes = False
    GRID = {"temperature": (0.2, 1.0), "steps": (100, 250, 500, 1000)}  # noqa: RUF012

    def module(self, records: PerformanceRecords, vectors_ND: np.ndarray, **chosen: Any) -> NeuralRouter:
        cluster_N = fit_kmeans(vectors_ND, CLUSTERS, self.seed).labels_
        network = DualContrastive(records.shape[1], vectors_ND.shape[1], chosen["temperature"])
        network.cluster_N = torch.from_numpy(cluster_N.astype(np.int64))
        return network.hold(records, vectors_ND)

    def predict(self, instructions: Sequence[Instruction], candidates: Sequence[str]) -> np.ndarray:
        """See :meth:`Baseline.predict`; cosines."""
        return 2 * super().predict(instructions, candidates) - 1


class DualContrastive(NeuralRouter):
    """The text tower and the vectors of M candidates.

    Args:
        num_candidates: M.
        width: D, features of an embedding.
        temperature: Divides cosines in the sample-LLM loss.
    """

    cluster_N: Tensor

    def __init__(self, num_candidates: int, width: int, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.tower = nn.Sequential(
            nn.Dropout(DROPOUT), nn.Linear(width, WIDTH), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(WIDTH, WIDTH)
        )
        self.candidates = nn.Parameter(torch.randn(num_candidates, WIDTH))
        self.register_buffer("cluster_N", None, persistent=False)

    def place(self, x_BD: Tensor) -> Tensor:
        """Map instructions to points on the sphere: (B, H)."""
        return F.normalize(self.tower(x_BD), dim=-1)

    def score(self, x_QD: Tensor) -> Tensor:
        """Compute cosines, mapped to [0, 1]."""
        return (1 + self.place(x_QD) @ F.normalize(self.candidates, dim=-1).T) / 2

    def loss(self, index_B: Tensor) -> Tensor:
        point_BH = self.place(self.x_ND[index_B])
        cosine_BM = point_BH @ F.normalize(self.candidates, dim=-1).T
        outcome_BM, known_BM = self.outcome_NM[index_B], self.known_NM[index_B]
        return sample_llm_loss(cosine_BM / self.temperature, outcome_BM, known_BM) + sample_sample_loss(
            point_BH @ point_BH.T, self.cluster_N[index_B]
        )


def sample_llm_loss(score_BM: Tensor, outcome_BM: Tensor, known_BM: Tensor) -> Tensor:
    """Contrast each of the best candidates of an instruction with those among the worst that failed.

    Args:
        score_BM: Scores, e.g. cosines over a temperature.
        outcome_BM: Outcomes in [0, 1].
        known_BM: bool; unknown candidates are neither.

    Returns:
        Scalar: -log softmax of each positive against all negatives, summed over positives, mean over B.
    """
    size = min(TOP, score_BM.shape[1] // 2)
    noise_BM = 1e-3 * torch.rand_like(outcome_BM)
    best_BM = _highest((outcome_BM + noise_BM).masked_fill(~known_BM, -1), size) & known_BM & (outcome_BM > 0)
    worst_BM = _highest((noise_BM - outcome_BM).masked_fill(~known_BM, -2), size) & known_BM
    negative_BM = worst_BM & ~best_BM & (outcome_BM <= GOOD)
    negative_B1 = score_BM.masked_fill(~negative_BM, -torch.inf).logsumexp(dim=1, keepdim=True)
    loss_BM = torch.logaddexp(score_BM, negative_B1) - score_BM
    return torch.where(best_BM, loss_BM, 0.0).sum(dim=1).mean()


def sample_sample_loss(cosine_BB: Tensor, cluster_B: Tensor) -> Tensor:
    """Contrast a random instruction of the same cluster with some of other clusters.

    Args:
        cosine_BB: Cosines of the instructions of a batch.
        cluster_B: int64, their clusters.

    Returns:
        Scalar: mean over the instructions with another one of their cluster and enough of other clusters.
    """
    same_BB = cluster_B[:, None] == cluster_B[None, :]
    noise_BB = torch.rand_like(cosine_BB)
    positive_BB = same_BB & ~torch.eye(len(cluster_B), dtype=torch.bool, device=same_BB.device)
    usable_B = positive_BB.any(dim=1) & ((~same_BB).sum(dim=1) >= NEGATIVES)
    if not usable_B.any():
        return cosine_BB.new_zeros(())
    chosen_B1 = noise_BB.masked_fill(~positive_BB, -1).argmax(dim=1, keepdim=True)
    others_BK = noise_BB.masked_fill(same_BB, -1).topk(NEGATIVES, dim=1).indices
    logit_BK = cosine_BB.gather(1, torch.cat([chosen_B1, others_BK], dim=1))[usable_B]
    return -logit_BK.log_softmax(dim=1)[:, 0].mean()


def _highest(value_BM: Tensor, size: int) -> Tensor:
    """Mark the ``size`` highest values of each row."""
    mask_BM = torch.zeros_like(value_BM, dtype=torch.bool)
    return mask_BM.scatter_(1, value_BM.topk(size, dim=1).indices, True)
