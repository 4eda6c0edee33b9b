"""Ridge regression from embeddings to outcomes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.linear_model import Ridge

from satlight.baselines.regression import Regression
from satlight.types import AptitudeResults, Candidate


class Linear(Regression):
    """A linear function of the embedding per candidate, with ridge penalty ``alpha``.

    The functions do not depend on each other; that of a new candidate is fitted on its results.

    Reference: Hoerl and Kennard 1970, "Ridge Regression"; as a router in Somerstep et al. 2025, "CARROT".
    """

    GRID = {"alpha": (1.0, 3.0, 10.0, 30.0, 100.0)}  # noqa: RUF012

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        other, results, vectors_LD = self._admitting(candidate, results)
        mean = results.outcomes.mean(dtype=np.float64)
        ridge = self.regressor(len(results.texts), **self.chosen).fit(vectors_LD, results.outcomes - mean)
        other._parts = [*self._parts, (np.array([len(self._mean_M)]), ridge)]
        other._mean_M = np.append(self._mean_M, mean)
        return other

    def regressor(self, num_rows: int, **chosen: Any) -> Ridge:
        return Ridge(alpha=chosen["alpha"])
