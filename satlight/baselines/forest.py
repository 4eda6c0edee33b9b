"""Random forest from embeddings to outcomes."""

from __future__ import annotations

from typing import Any

from sklearn.ensemble import RandomForestRegressor

from satlight.baselines.regression import Regression

TREES = 100


class Forest(Regression):
    """Mean of 100 regression trees on the embedding, with at least ``leaf`` instructions in every leaf.

    Reference: Breiman 2001, "Random Forests".
    """

    GRID = {"leaf": (5, 20, 80)}  # noqa: RUF012

    def regressor(self, num_rows: int, **chosen: Any) -> RandomForestRegressor:
        return RandomForestRegressor(
            n_estimators=TREES, min_samples_leaf=chosen["leaf"], max_features="sqrt", random_state=self.seed
        )
