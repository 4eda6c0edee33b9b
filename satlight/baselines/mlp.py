"""A multi-layer perceptron from embeddings to outcomes."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor

from satlight.baselines.regression import Regression
from satlight.records import PerformanceRecords

HIDDEN = 128
BATCH = 128


class MLP(Regression):
    """One hidden layer of 128 on the embedding, trained by Adam for about ``steps`` batches, with L2 penalty
    ``alpha``.

    Reference: the MLP router of Hu et al. 2024, "RouterBench".
    """

    GRID = {"steps": (250, 1000), "alpha": (0.03, 0.3, 3.0)}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        with warnings.catch_warnings():
            # Training stops after a fixed number of steps by design.
            warnings.simplefilter("ignore", ConvergenceWarning)
            super().learn(records, vectors_ND, **chosen)

    def regressor(self, num_rows: int, **chosen: Any) -> MLPRegressor:
        batch = min(BATCH, num_rows)
        epochs = math.ceil(chosen["steps"] / math.ceil(num_rows / batch))
        # Not scaled to unit variance: outputs then start near 0, as candidates differ little.
        return MLPRegressor(
            hidden_layer_sizes=(HIDDEN,),
            alpha=chosen["alpha"],
            batch_size=batch,
            max_iter=epochs,
            n_iter_no_change=epochs,
            random_state=self.seed,
        )
