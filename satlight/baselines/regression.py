"""Regression from embeddings to outcomes with scikit-learn: the common part of linear, MLP and forest.

Shape legend: N instructions, M candidates, D features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from satlight.baselines.tuning import TunedBaseline, column_means, column_patterns
from satlight.records import PerformanceRecords


class Regression(TunedBaseline):
    """Expected outcomes by least squares on embeddings; unknown outcomes take no part.

    Candidates known on the same rows share one fit with several outputs; others are fitted on their own rows.
    """

    @abstractmethod
    def regressor(self, num_rows: int, **chosen: Any) -> Any:
        """Return an unfitted scikit-learn regressor with several outputs, for ``num_rows`` rows."""

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        assert vectors_ND is not None
        self._mean_M = column_means(records.outcomes, records.known)
        self._parts = []
        for rows, columns in column_patterns(records.known):
            # Around the mean, so that a fit on few rows shrinks toward it and not toward 0.
            target_NC = records.outcomes[np.ix_(rows, columns)] - self._mean_M[columns]
            target = target_NC[:, 0] if len(columns) == 1 else target_NC  # scikit-learn warns of (N, 1)
            regressor = self.regressor(len(rows), **chosen).fit(vectors_ND[rows], target)
            self._parts.append((columns, regressor))

    @property
    def parts(self) -> list[tuple[np.ndarray, Any]]:
        """The fitted regressors, each with the columns of its candidates; they predict around :attr:`means`."""
        self._require_fit()
        return self._parts

    @property
    def means(self) -> np.ndarray:
        """Mean outcome of each candidate in training, (M,)."""
        self._require_fit()
        return self._mean_M

    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        score_NM = np.empty((len(texts), len(self._mean_M)))
        for columns, regressor in self._parts:
            score_NM[:, columns] = regressor.predict(vectors_ND).reshape(len(texts), -1)
        return score_NM + self._mean_M
