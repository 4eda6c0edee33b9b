"""Training-free aptitude kNN: the core instructions that are nearest vote."""

from __future__ import annotations

from typing import Any

import numpy as np

from satlight.baselines.neighbours import NeighbourVote
from satlight.baselines.tuning import probe_rows
from satlight.capability.selection import choose_tasks
from satlight.records import PerformanceRecords

CORE_TASKS = 50
CORE_SHOTS = 20


class AptitudeKNN(NeighbourVote):
    """Similarity-weighted mean outcome on the k nearest core instructions of the aptitude test.

    What Model-SAT knows of a candidate, used without training: the outcomes on at most 50 × 20 core
    instructions, chosen by how well they tell the candidates apart. Only instructions that the least measured
    candidate took part in can be core instructions, so that a new candidate with a few probe outcomes is
    compared on its own test. Embeddings, or TF-IDF when ``fit`` is given no embedder.

    Reference: the capability representation of Zhang et al. 2025 without the router; own control.
    """

    needs_embeddings = False
    GRID = {"k": (5, 10, 20, 50, 100, 200)}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        rows = probe_rows(records.known)
        # The validation rows of the final fit have served their purpose and may be core items too.
        candidates_for_core = records.rows(rows).with_splits(np.full(len(rows), "train"))
        tasks = choose_tasks(
            candidates_for_core, CORE_TASKS, CORE_SHOTS, min_shots=1, max_share=1.0, seed=self.seed
        )
        core = np.sort(rows[np.concatenate([task.rows for task in tasks])])
        super().learn(records.rows(core), None if vectors_ND is None else vectors_ND[core], **chosen)

    def weigh(self, cosine_QK: np.ndarray) -> np.ndarray:
        return cosine_QK.clip(0)
