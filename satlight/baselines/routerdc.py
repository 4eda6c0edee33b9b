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

from satlight.baselines.cluster import fit_kmeans
from satlight.baselines.neural import NeuralBaseline, NeuralRouter
from satlight.records import PerformanceRecords

WIDTH = 256
DROPOUT = 0.5
CLUSTERS = 5
NEGATIVES = 3
"""Instructions of other clusters against which one of the same cluster is set."""

TOP = 3
"""Candidates taken as positives of an instruction, and as many as negatives."""

GOOD = 0.5
"""A candidate with a higher outcome is never a negative."""


class RouterDC(NeuralBaseline):
    """A text tower and a learnt vector per candidate; the score is their cosine.

    A cosine in [-1, 1] ranks candidates and is no expected outcome. An instruction is drawn to the candidates
    that did best on it and away from those that failed (sample-LLM loss), and to an instruction of its own
    k-means cluster and away from those of other clusters (sample-sample loss).

    The published router trains mDeBERTa-v3-base, which needs a GPU and weights from the hub. Here the text
    tower is a two-layer network on frozen embeddings. Equal outcomes are ordered by lot at every step, as
    the published code orders them by column.

    Reference: Chen et al. 2024, "RouterDC: Query-Based Router by Dual Contrastive Learning for Assembling
    Large Language Models", Eq. 3 to 6.
    """

    GRID = {"temperature": (0.2, 1.0), "steps": (100, 250, 500, 1000)}  # noqa: RUF012

    def module(self, records: PerformanceRecords, vectors_ND: np.ndarray, **chosen: Any) -> NeuralRouter:
        cluster_N = fit_kmeans(vectors_ND, CLUSTERS, self.seed).labels_
        return _DualContrastive(records, vectors_ND, cluster_N, chosen["temperature"])

    def predict(self, instructions: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """See :meth:`Baseline.predict`; cosines."""
        return 2 * super().predict(instructions, candidates) - 1


class _DualContrastive(NeuralRouter):
    cluster_N: Tensor

    def __init__(
        self, records: PerformanceRecords, vectors_ND: np.ndarray, cluster_N: np.ndarray, temperature: float
    ) -> None:
        super().__init__(records, vectors_ND, lr=1e-3)
        self.temperature = temperature
        self.tower = nn.Sequential(
            nn.Dropout(DROPOUT),
            nn.Linear(vectors_ND.shape[1], WIDTH),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(WIDTH, WIDTH),
        )
        self.candidates = nn.Parameter(torch.randn(records.shape[1], WIDTH))
        self.register_buffer("cluster_N", torch.from_numpy(cluster_N.astype(np.int64)))

    def place(self, x_BD: Tensor) -> Tensor:
        """Instructions as points on the sphere: (B, H)."""
        return F.normalize(self.tower(x_BD), dim=-1)

    def score(self, x_QD: Tensor) -> Tensor:
        """Cosines moved to [0, 1]."""
        return (1 + self.place(x_QD) @ F.normalize(self.candidates, dim=-1).T) / 2

    def loss(self, index_B: Tensor) -> Tensor:
        point_BH = self.place(self.x_ND[index_B])
        cosine_BM = point_BH @ F.normalize(self.candidates, dim=-1).T
        outcome_BM, known_BM = self.outcome_NM[index_B], self.known_NM[index_B]
        return sample_llm_loss(cosine_BM / self.temperature, outcome_BM, known_BM) + sample_sample_loss(
            point_BH @ point_BH.T, self.cluster_N[index_B]
        )


def sample_llm_loss(score_BM: Tensor, outcome_BM: Tensor, known_BM: Tensor) -> Tensor:
    """Each of the best candidates of an instruction against those among the worst that failed.

    Args:
        score_BM: Scores, e.g. cosines over a temperature.
        outcome_BM: Outcomes in [0, 1].
        known_BM: bool; unknown candidates are neither.

    Returns:
        Scalar: -log softmax of each positive against all negatives, summed over positives, mean over B.
    """
    size = min(TOP, score_BM.shape[1] // 2)
    lot_BM = 1e-3 * torch.rand_like(outcome_BM)
    best_BM = _highest((outcome_BM + lot_BM).masked_fill(~known_BM, -1), size) & known_BM & (outcome_BM > 0)
    worst_BM = _highest((lot_BM - outcome_BM).masked_fill(~known_BM, -2), size) & known_BM
    negative_BM = worst_BM & ~best_BM & (outcome_BM <= GOOD)
    negative_B1 = score_BM.masked_fill(~negative_BM, -torch.inf).logsumexp(dim=1, keepdim=True)
    loss_BM = torch.logaddexp(score_BM, negative_B1) - score_BM
    return torch.where(best_BM, loss_BM, 0.0).sum(dim=1).mean()


def sample_sample_loss(cosine_BB: Tensor, cluster_B: Tensor) -> Tensor:
    """An instruction of the same cluster, drawn by lot, against some of other clusters.

    Args:
        cosine_BB: Cosines of the instructions of a batch.
        cluster_B: int64, their clusters.

    Returns:
        Scalar: mean over the instructions that have another of their cluster, and enough of other ones.
    """
    same_BB = cluster_B[:, None] == cluster_B[None, :]
    lot_BB = torch.rand_like(cosine_BB)
    positive_BB = same_BB & ~torch.eye(len(cluster_B), dtype=torch.bool, device=same_BB.device)
    usable_B = positive_BB.any(dim=1) & ((~same_BB).sum(dim=1) >= NEGATIVES)
    if not usable_B.any():
        return cosine_BB.new_zeros(())
    chosen_B1 = lot_BB.masked_fill(~positive_BB, -1).argmax(dim=1, keepdim=True)
    others_BK = lot_BB.masked_fill(same_BB, -1).topk(NEGATIVES, dim=1).indices
    logit_BK = cosine_BB.gather(1, torch.cat([chosen_B1, others_BK], dim=1))[usable_B]
    return -logit_BK.log_softmax(dim=1)[:, 0].mean()


def _highest(value_BM: Tensor, size: int) -> Tensor:
    """Mask of the ``size`` highest values of each row."""
    mask_BM = torch.zeros_like(value_BM, dtype=torch.bool)
    return mask_BM.scatter_(1, value_BM.topk(size, dim=1).indices, True)
