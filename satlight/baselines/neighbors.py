"""Votes of the nearest instructions: the common part of kNN, TF-IDF kNN and aptitude kNN.

Shape legend: N instructions, M candidates, L items of a new candidate, Q instructions to score, K neighbors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_matrix

from satlight.baselines.features import Features, nearest
from satlight.baselines.tuning import Rows, Texts, TunedBaseline, column_patterns, weighted_means
from satlight.records import PerformanceRecords
from satlight.types import AptitudeResults, Candidate


class NeighbourVote(TunedBaseline):
    """Expected outcome = mean outcome on the k nearest instructions that the candidate is known on.

    A candidate known on fewer than k instructions votes with all of them. Its overall mean counts as one
    more neighbor, which breaks ties. A new candidate votes with its own results.
    """

    GRID = {"k": (10, 20, 50, 100, 200, 400)}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        self._chosen = chosen
        self._num_candidates = records.shape[1]
        self.row_ids = [str(one) for one in records.instructions["instruction_id"]]
        self._features = Features.fit(records.texts, vectors_ND)
        features_ND = self._features(records.texts, vectors_ND)
        self._parts = [
            (columns, features_ND[rows], records.outcomes[np.ix_(rows, columns)])
            for rows, columns in column_patterns(records.known)
            if len(rows)  # a candidate without an outcome on any of these rows gets no votes
        ]

    def weigh(self, cosine_QK: np.ndarray) -> np.ndarray:
        """Return the weight of every neighbor's vote, (Q, K)."""
        return np.ones_like(cosine_QK)

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        other, results, vectors_LD = self._admitting(candidate, results, self.row_ids)
        features_LD = self._features(results.texts, vectors_LD)
        column = np.array([self._num_candidates])
        other._parts = [*self._parts, (column, features_LD, results.outcomes[:, None])]
        other._num_candidates = self._num_candidates + 1
        return other

    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        return next(self._votes((texts, vectors_ND), [self._chosen["k"]]))

    def validation_scores(self, train: Rows, held: Texts, points: list[dict[str, Any]]) -> Iterator[np.ndarray]:
        self.learn(*train, **points[0])
        return self._votes(held, [point["k"] for point in points])

    def _votes(self, asked: Texts, sizes: list[int]) -> Iterator[np.ndarray]:
        """Yield scores (Q, M) for every k from one search: the nearest k are the first k of more."""
        query_QD = self._features(*asked)
        found = [nearest(query_QD, base, min(max(sizes), base.shape[0])) for _, base, _ in self._parts]
        for size in sizes:
            score_QM = np.zeros((len(asked[0]), self._num_candidates))
            for (columns, _, outcome_NC), (id_QK, cosine_QK) in zip(self._parts, found, strict=True):
                k = min(size, id_QK.shape[1])
                weight_QK = self.weigh(cosine_QK[:, :k])
                starts = np.arange(0, weight_QK.size + 1, k)
                parts, shape = (weight_QK.ravel(), id_QK[:, :k].ravel(), starts), (len(score_QM), len(outcome_NC))
                weight_QN = csr_matrix(parts, shape)
                known_NC = np.ones(outcome_NC.shape, dtype=bool)
                score_QM[:, columns] = weighted_means(weight_QN, outcome_NC, known_NC)
            yield score_QM
