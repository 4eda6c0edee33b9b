"""Mean outcomes in clusters of instructions.

Shape legend: N instructions, M candidates, L items of a new candidate, G clusters, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.cluster import KMeans

from satlight.baselines.tuning import TunedBaseline, means_of_one, membership, weighted_means
from satlight.records import PerformanceRecords
from satlight.types import AptitudeResults, Candidate


class Cluster(TunedBaseline):
    """Mean outcome in the ``nearest`` of ``clusters`` k-means clusters of instruction embeddings.

    The nearest clusters have equal weight. The means of a new candidate are those of its results.

    Reference: Zhang et al. 2025, "The Avengers: A Simple Recipe for Uniting Smaller Language Models".
    """

    GRID = {"clusters": (8, 16, 32, 64, 128), "nearest": (1, 3)}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        assert vectors_ND is not None
        self._nearest = chosen["nearest"]
        self._kmeans = fit_kmeans(vectors_ND, chosen["clusters"], self.seed)
        self._mean_GM = weighted_means(
            membership(self._kmeans.labels_, self._kmeans.n_clusters), records.outcomes, records.known
        )

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        other, results, vectors_LD = self._admitting(candidate, results)
        assert vectors_LD is not None
        other._mean_GM = np.hstack([self._mean_GM, cluster_means(self._kmeans, vectors_LD, results.outcomes)])
        return other

    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        distance_NG = self._kmeans.transform(vectors_ND)
        nearest_NK = distance_NG.argsort(axis=1, kind="stable")[:, : self._nearest]
        return self._mean_GM[nearest_NK].mean(axis=1)


def fit_kmeans(vectors_ND: np.ndarray, clusters: int, seed: int) -> KMeans:
    """Fit k-means with at most as many clusters as there are different vectors."""
    different = len(np.unique(vectors_ND, axis=0))
    return KMeans(min(clusters, different), n_init=1, random_state=seed).fit(vectors_ND)


def cluster_means(kmeans: KMeans, vectors_LD: np.ndarray, outcome_L: np.ndarray) -> np.ndarray:
    """Compute the mean outcomes of one candidate in the clusters of its items, (G, 1)."""
    return means_of_one(kmeans.predict(vectors_LD), kmeans.n_clusters, outcome_L)
