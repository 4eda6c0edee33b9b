"""Training-free aptitude kNN: votes of the nearest core instructions."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from satlight.baselines.neighbors import NeighbourVote
from satlight.baselines.tuning import picked, probe_rows
from satlight.capability.selection import choose_tasks
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.types import AptitudeResults, Candidate

CORE_TASKS = 50
CORE_SHOTS = 20


class AptitudeKNN(NeighbourVote):
    """Similarity-weighted mean outcome on the k nearest core instructions of the aptitude test.

    It uses the information of Model-SAT without training: the outcomes on at most 50 × 20 core instructions,
    chosen by how well they distinguish the candidates. Only instructions with an outcome of the least
    measured candidate can be core instructions, so that a new candidate with few probe outcomes is compared
    on its own test. Embeddings, or TF-IDF when ``fit`` is given no embedder.

    A new candidate is admitted by its results on core instructions; other results are not used.

    Attributes:
        row_ids: Ids of the core instructions, after ``fit``.

    Reference: the capability representation of Zhang et al. 2025 without the router; own control.
    """

    needs_embeddings = False
    GRID = {"k": (5, 10, 20, 50, 100, 200)}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        rows = probe_rows(records.known)
        # In the final fit nothing is left to choose, so validation rows may be core instructions too.
        candidates_for_core = records.rows(rows).with_splits(np.full(len(rows), "train"))
        tasks = choose_tasks(candidates_for_core, CORE_TASKS, CORE_SHOTS, min_shots=1, max_share=1.0, seed=self.seed)
        core = np.sort(rows[np.concatenate([task.rows for task in tasks])])
        super().learn(records.rows(core), None if vectors_ND is None else vectors_ND[core], **chosen)

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        """See :meth:`satlight.routers.Router.admit`; at least one result must be on a core instruction."""
        self._require_fit()
        core = set(self.row_ids)
        kept = [item for item, name in enumerate(results.instruction_ids) if name in core]
        if not kept:
            raise SatlightError(
                f"The results of '{candidate.model_id}' are on none of the {len(core)} core instructions of "
                f"this router, e.g. '{self.row_ids[0]}'; its attribute row_ids lists them"
            )
        return super().admit(candidate, picked(results, kept))

    def weigh(self, cosine_QK: np.ndarray) -> np.ndarray:
        return cosine_QK.clip(0)
