"""k nearest neighbors among instruction embeddings."""

from __future__ import annotations

from satlight.baselines.neighbors import NeighbourVote


class KNN(NeighbourVote):
    """Mean outcome on the k instructions with the nearest embeddings; exact search by faiss.

    Reference: Shnitzer et al. 2023, "Large Language Model Routing with Benchmark Datasets"; the kNN router
        of Hu et al. 2024, "RouterBench".
    """
