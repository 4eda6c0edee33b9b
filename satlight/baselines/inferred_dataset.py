"""Name the dataset of an instruction from its text, then trust what candidates did on that dataset.

Shape legend: N instructions, M candidates, G datasets (or tasks).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from satlight.baselines.features import Features
from satlight.baselines.tuning import TunedBaseline, membership, weighted_means
from satlight.records import PerformanceRecords

MAX_TOKENS = 5000
"""Of the TF-IDF vocabulary; a longer one makes logistic regression slower, and names datasets no better."""


class InferredDataset(TunedBaseline):
    """Expected outcome = mean outcome on the dataset (or task) that logistic regression reads off the text.

    ``use="mix"`` weighs the means by the probabilities of the datasets, ``use="best"`` takes the most
    probable dataset alone, so that its best candidate is chosen. The instruction's true dataset is read in
    ``fit`` only. Embeddings, or TF-IDF when ``fit`` is given no embedder.

    Reference: own control; it asks how much of a router is guessing the benchmark.
    """

    needs_embeddings = False
    GRID = {"label": ("dataset", "task"), "use": ("mix", "best")}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        self._use = chosen["use"]
        names = records.datasets
        if chosen["label"] == "task":  # two datasets may each have an "algebra"
            names = np.char.add(np.char.add(names, "\n"), records.tasks)
        labels, label_N = np.unique(names, return_inverse=True)
        self._mean_GM = weighted_means(membership(label_N, len(labels)), records.outcomes, records.known)
        self._features = Features(records.texts, vectors_ND, MAX_TOKENS)
        self._classifier = None
        if len(labels) > 1:
            self._classifier = LogisticRegression(C=10.0, max_iter=1000)
            self._classifier.fit(self._features(records.texts, vectors_ND), label_N)

    def score(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        return self._expected(self._probabilities(texts, vectors_ND), self._use)

    def validation_scores(
        self,
        train: PerformanceRecords,
        train_ND: np.ndarray | None,
        texts: Sequence[str],
        vectors_ND: np.ndarray | None,
        points: list[dict[str, Any]],
    ) -> Iterator[np.ndarray]:
        """One classifier serves both uses of its probabilities."""
        label = None
        for point in points:  # sorted by label, the first name of the grid
            if point["label"] != label:
                label = point["label"]
                self.learn(train, train_ND, **point)
                probability_NG = self._probabilities(texts, vectors_ND)
            yield self._expected(probability_NG, point["use"])

    def _probabilities(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        if self._classifier is None:
            return np.ones((len(texts), 1))
        return self._classifier.predict_proba(self._features(texts, vectors_ND))

    def _expected(self, probability_NG: np.ndarray, use: str) -> np.ndarray:
        if use == "best":
            return self._mean_GM[probability_NG.argmax(axis=1)]
        return probability_NG @ self._mean_GM
