"""UniRoute: a candidate is its error vector on clusters of representative prompts.

Shape legend: N instructions, M candidates, G clusters, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from satlight.baselines.cluster import fit_kmeans
from satlight.baselines.latent import LogLossRouter
from satlight.baselines.neural import seeded, train
from satlight.baselines.tuning import TunedBaseline, membership, probe_rows, weighted_means
from satlight.records import PerformanceRecords

STEPS = 500
SHARPNESS = 10.0


class UniRoute(TunedBaseline):
    """Expected outcome = share of the instruction in each cluster · mean outcomes of the candidate there.

    Clusters and means are those of the representative prompts, which the least measured candidate was tried
    on: all instructions, unless there are candidates with probe outcomes only. So a newcomer is described
    just as the others are, and nothing else about it is needed. With
    ``map="nearest"`` an instruction belongs to its nearest cluster; with ``map="learned"`` to several, by a
    softmax that is trained on all known outcomes.

    Reference: Jitkrittum et al. 2025, "Universal Model Routing for Efficient LLM Inference", sections 4-5.
    """

    GRID = {"clusters": (8, 32, 128), "map": ("nearest", "learned")}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        assert vectors_ND is not None
        rows = probe_rows(records.known)
        kmeans = fit_kmeans(vectors_ND[rows], chosen["clusters"], self.seed)
        self._mean_GM = weighted_means(
            membership(kmeans.labels_, kmeans.n_clusters), records.outcomes[rows], records.known[rows]
        )
        self._kmeans, self._map = kmeans, None
        if chosen["map"] == "learned":
            with seeded(self.seed):
                network = _ClusterMap(kmeans.cluster_centers_, self._mean_GM)
                self._map = LogLossRouter(records, vectors_ND, network, decay=0.0)
                train(self._map, STEPS)

    def score(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        assert vectors_ND is not None
        if self._map is None:
            return self._mean_GM[self._kmeans.predict(vectors_ND)]
        return self._map.scores(vectors_ND)


class _ClusterMap(nn.Module):
    """Soft membership of clusters, starting at the k-means ones; the means of candidates stay fixed."""

    mean_GM: Tensor

    def __init__(self, center_GD: np.ndarray, mean_GM: np.ndarray) -> None:
        super().__init__()
        groups, width = center_GD.shape
        self.linear = nn.Linear(width, groups)
        with torch.no_grad():
            center = torch.from_numpy(center_GD).float()
            # log of exp(-sharpness · squared distance), less what is the same for all clusters
            self.linear.weight.copy_(2 * SHARPNESS * center / width**0.5)
            self.linear.bias.copy_(-SHARPNESS * center.square().sum(1))
        self.register_buffer("mean_GM", torch.from_numpy(mean_GM).float())

    def forward(self, x_ND: Tensor) -> Tensor:
        return (self.linear(x_ND).softmax(-1) @ self.mean_GM).logit(eps=1e-4)
