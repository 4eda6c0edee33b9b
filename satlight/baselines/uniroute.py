"""UniRoute: a candidate is represented by its mean outcomes in clusters of representative prompts.

Shape legend: N instructions, M candidates, G clusters, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from satlight.baselines.cluster import cluster_means, fit_kmeans
from satlight.baselines.latent import LogLossRouter
from satlight.baselines.neural import seeded
from satlight.baselines.tuning import TunedBaseline, membership, probe_rows, weighted_means
from satlight.records import PerformanceRecords
from satlight.storage.classes import Configured
from satlight.types import AptitudeResults, Candidate

STEPS = 500
SHARPNESS = 10.0


class UniRoute(TunedBaseline):
    """Expected outcome = share of the instruction in each cluster · mean outcomes of the candidate there.

    Clusters and means are those of the representative prompts, the instructions with an outcome of the least measured
    candidate: all instructions, unless there are candidates with probe outcomes only. A new candidate is represented as
    the others are, by the means of its results. With ``map="nearest"`` an instruction belongs to its nearest cluster;
    with ``map="learned"`` to several, by a softmax that is trained on all known outcomes.

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
        self._kmeans = kmeans
        self._map: LogLossRouter | None = None
        if chosen["map"] == "learned":
            from satlight.baselines.training import train  # imports lightning, which scoring does without

            with seeded(self.seed):
                network = ClusterMap.around(kmeans.cluster_centers_, self._mean_GM)
                self._map = LogLossRouter(network, decay=0.0).hold(records, vectors_ND)
                train(self._map, self._map.batches(STEPS))

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        other, results, vectors_LD = self._admitting(candidate, results)
        assert vectors_LD is not None
        other._mean_GM = np.hstack([self._mean_GM, cluster_means(self._kmeans, vectors_LD, results.outcomes)])
        if self._map is not None:
            mean_GM = torch.from_numpy(other._mean_GM).float()
            other._map = self._map.with_tensors(mean_GM.shape[1], mean_GM=mean_GM)
        return other

    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        assert vectors_ND is not None
        if self._map is None:
            return self._mean_GM[self._kmeans.predict(vectors_ND)]
        return self._map.scores(vectors_ND)


class ClusterMap(Configured, nn.Module):
    """Log-odds from soft membership of clusters, which is trained, and mean outcomes, which stay fixed."""

    mean_GM: Tensor

    def __init__(self, num_candidates: int, width: int, clusters: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, clusters)
        self.register_buffer("mean_GM", torch.zeros(clusters, num_candidates))

    @classmethod
    def around(cls, center_GD: np.ndarray, mean_GM: np.ndarray) -> Self:
        """Return the map that starts at the nearest of these centers."""
        groups, width = center_GD.shape
        made = cls(mean_GM.shape[1], width, groups)
        with torch.no_grad():
            center = torch.from_numpy(center_GD).float()
            # log of exp(-sharpness · squared distance), without the terms that all clusters share
            made.linear.weight.copy_(2 * SHARPNESS * center / width**0.5)
            made.linear.bias.copy_(-SHARPNESS * center.square().sum(1))
        made.mean_GM.copy_(torch.from_numpy(mean_GM).float())
        return made

    def forward(self, x_ND: Tensor) -> Tensor:
        return (self.linear(x_ND).softmax(-1) @ self.mean_GM).logit(eps=1e-4)
