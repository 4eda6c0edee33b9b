"""Ridge regression from embeddings to outcomes."""

from __future__ import annotations

from typing import Any

from sklearn.linear_model import Ridge

from satlight.baselines.regression import Regression


class Linear(Regression):
    """A linear function of the embedding per candidate, with ridge penalty ``alpha``.

    Reference: Hoerl and Kennard 1970, "Ridge Regression"; as a router in Somerstep et al. 2025, "CARROT".
    """

    GRID = {"alpha": (1.0, 3.0, 10.0, 30.0, 100.0)}  # noqa: RUF012

    def regressor(self, num_rows: int, **chosen: Any) -> Ridge:
        return Ridge(alpha=chosen["alpha"])
