"""k nearest neighbors by shared words."""

from __future__ import annotations

from typing import Self

from satlight.baselines.base import Embed
from satlight.baselines.neighbors import NeighbourVote
from satlight.records import PerformanceRecords


class TfidfKNN(NeighbourVote):
    """Mean outcome on the k instructions with the nearest TF-IDF vectors; an embedder is not used.

    Reference: Salton and Buckley 1988, "Term-weighting approaches in automatic text retrieval"; the vote as
        in :class:`~satlight.baselines.knn.KNN`.
    """

    needs_embeddings = False

    def fit(self, records: PerformanceRecords, embed: Embed | None = None) -> Self:
        """See :meth:`satlight.baselines.Baseline.fit`; ``embed`` is not used."""
        return super().fit(records)
