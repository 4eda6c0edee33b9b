"""Infer the dataset of an instruction from its text, then use the mean outcomes on that dataset.

Shape legend: N instructions, M candidates, L items of a new candidate, G datasets (or tasks).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from sklearn.linear_model import LogisticRegression

from satlight.baselines.features import Features
from satlight.baselines.tuning import Rows, Texts, TunedBaseline, means_of_one, membership, weighted_means
from satlight.records import PerformanceRecords
from satlight.types import AptitudeResults, Candidate

MAX_TOKENS = 5000
"""Size of the TF-IDF vocabulary; a larger one slows logistic regression and does not improve it."""


class InferredDataset(TunedBaseline):
    """Expected outcome = mean outcome on the dataset (or task) that logistic regression infers from the text.

    ``use="mix"`` weighs the means by the probabilities of the datasets, ``use="best"`` takes the most
    probable dataset alone, so that its best candidate is chosen. The instruction's true dataset is read in
    ``fit`` only. Embeddings, or TF-IDF when ``fit`` is given no embedder.

    The means of a new candidate are those of its results on each dataset. The dataset of an item is inferred
    from its text where the results do not name a known one, and always where labels are tasks.

    Reference: own control; it measures how much of a router's accuracy comes from guessing the benchmark.
    """

    needs_embeddings = False
    GRID = {"label": ("dataset", "task"), "use": ("mix", "best")}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        self._by_task, self._use = chosen["label"] == "task", chosen["use"]
        names = records.datasets
        if self._by_task:  # two datasets may each have an "algebra"
            names = np.char.add(np.char.add(names, "\n"), records.tasks)
        labels, label_N = np.unique(names, return_inverse=True)
        self._mean_GM = weighted_means(membership(label_N, len(labels)), records.outcomes, records.known)
        self._labels = [str(label) for label in labels]
        self._features = Features.fit(records.texts, vectors_ND, MAX_TOKENS)
        self._classifier = None
        if len(labels) > 1:
            self._classifier = LogisticRegression(C=10.0, max_iter=1000)
            self._classifier.fit(self._features(records.texts, vectors_ND), label_N)

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        other, results, vectors_LD = self._admitting(candidate, results)
        label_L = self._probabilities(results.texts, vectors_LD).argmax(axis=1)
        if not self._by_task:
            place = {label: number for number, label in enumerate(self._labels)}
            for item, dataset in enumerate(results.datasets):
                label_L[item] = place.get(dataset, label_L[item])
        mean_G1 = means_of_one(label_L, len(self._labels), results.outcomes)
        other._mean_GM = np.hstack([self._mean_GM, mean_G1])
        return other

    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        return self._means(self._probabilities(texts, vectors_ND), self._use)

    def validation_scores(self, train: Rows, held: Texts, points: list[dict[str, Any]]) -> list[np.ndarray]:
        """Return scores at points of one label: one classifier serves both uses of its probabilities."""
        self.learn(*train, **points[0])
        probability_NG = self._probabilities(*held)
        return [self._means(probability_NG, point["use"]) for point in points]

    def _probabilities(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        if self._classifier is None:
            return np.ones((len(texts), 1))
        return self._classifier.predict_proba(self._features(texts, vectors_ND))

    def _means(self, probability_NG: np.ndarray, use: str) -> np.ndarray:
        if use == "best":
            return self._mean_GM[probability_NG.argmax(axis=1)]
        return probability_NG @ self._mean_GM
