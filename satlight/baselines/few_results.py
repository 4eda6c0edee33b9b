"""The Gaussian process and small networks together, for candidates known by few results.

Shape legend: N instructions, T training candidates, M candidates, K results of a candidate, C candidates with the same
instructions answered, D dimensions of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from satlight.baselines.attentive import QUERIES, SIZES, STEPS, AttentiveNetwork, Episode, Sample, train
from satlight.baselines.gaussian_process import LEAST_TRAINED, GaussianProcess, Items
from satlight.records import PerformanceRecords

NETWORKS = 3
"""Networks, with seeds of their own."""

LEAST_ROWS = 16
"""With fewer training instructions there are no networks."""


@dataclass(frozen=True)
class Answered:
    """Results of candidates that answered the same instructions.

    Args:
        vectors_KD: Embeddings.
        mean_K: Expected outcome of the mean candidate.
        outcome_KC: Results.
        place_C: Places of the candidates among those that are known by results.
    """

    vectors_KD: np.ndarray
    mean_K: np.ndarray
    outcome_KC: np.ndarray
    place_C: np.ndarray


class FewResults(GaussianProcess):
    """Expected outcome of a new candidate = mean of the Gaussian process and of three attentive networks.

    The parts are trained on the training candidates, and each makes errors of its own: the Gaussian process assumes
    normal deviations and learns their variances by likelihood, the networks learn from the routing regret how far to
    trust them. Training candidates and the arguments are those of :class:`GaussianProcess`. With fewer than four
    training candidates or 16 training instructions there are no networks.

    Args:
        seed: Seed of folds, landmarks, episodes, and initial weights.
        fixed: ``{"steps": …}``, the training steps of a network (400); nothing is chosen on validation rows.
        variances: Of the Gaussian process; None = learned.

    Example:
        >>> from satlight.baselines import build
        >>> build("few_results", seed=1).seed
        1

    Reference: as for :class:`GaussianProcess` and :class:`~satlight.baselines.attentive.AttentiveNetwork`; the mean
        of models as in Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles".
    """

    GRID = {"steps": (STEPS,)}  # noqa: RUF012

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        assert vectors_ND is not None
        self._answered: list[Answered] = []
        super().learn(records, vectors_ND)
        known_NT = np.asarray(records.known[:, self._trained(records)])
        self._networks: list[AttentiveNetwork] = []
        if known_NT.shape[1] >= LEAST_TRAINED and len(known_NT) >= LEAST_ROWS:
            sample = _sampler(self._rows, vectors_ND, known_NT)
            seeds = np.random.default_rng([self.seed, NETWORKS]).integers(2**31, size=NETWORKS)
            self._networks = [
                train(sample, vectors_ND.shape[1], seed=int(seed), steps=chosen["steps"]) for seed in seeds
            ]

    def _append(self, vectors_LD: np.ndarray, items: Items, outcome_L: np.ndarray) -> None:
        super()._append(vectors_LD, items, outcome_L)
        place = self._weight_FC.shape[1] - 1
        new = Answered(vectors_LD, items.means(), outcome_L[:, None], np.array([place]))
        for number, old in enumerate(self._answered):
            if np.array_equal(old.vectors_KD, new.vectors_KD) and np.array_equal(old.mean_K, new.mean_K):
                outcome_KC = np.hstack([old.outcome_KC, new.outcome_KC])
                joined = replace(old, outcome_KC=outcome_KC, place_C=np.append(old.place_C, place))
                self._answered = [*self._answered[:number], joined, *self._answered[number + 1 :]]
                return
        self._answered = [*self._answered, new]

    def _admitted(self, vectors_ND: np.ndarray, items: Items) -> np.ndarray:
        expected_NC = super()._admitted(vectors_ND, items)
        if not self._networks:
            return expected_NC
        logit_NC = np.empty((len(self._networks), *expected_NC.shape))
        for one in self._answered:
            known_KC = np.ones(one.outcome_KC.shape, dtype=bool)
            episode = Episode.of(one.vectors_KD, one.mean_K, one.outcome_KC, known_KC, vectors_ND, items.means())
            with torch.inference_mode():
                for number, network in enumerate(self._networks):
                    logit_NC[number][:, one.place_C] = network(episode).numpy()
        return (expected_NC + expit(logit_NC).mean(axis=0)) / 2


def _sampler(rows: Items, vectors_ND: np.ndarray, known_NT: np.ndarray) -> Sample:
    """Return a function that lets a quarter to a half of the training candidates play new ones."""
    count, trained = known_NT.shape

    def sample(rng: np.random.Generator) -> tuple[Episode, Tensor, Tensor]:
        new = rng.permutation(trained)[: rng.integers(max(2, trained // 4), max(3, trained // 2 + 1))]
        rest = np.setdiff1d(np.arange(trained), new)
        asked = min(QUERIES, count // 2)
        size = min(int(rng.choice(SIZES)), count - asked)
        row_N = rng.permutation(count)[: size + asked]
        item_K, query_Q = row_N[:size], row_N[size:]
        mean_Q = rows.cut(query_Q, rest).expectations()
        result = np.ix_(item_K, new)
        episode = Episode.of(
            vectors_ND[item_K], rows.cut(item_K, rest).means(), rows.outcome_LT[result], known_NT[result],
            vectors_ND[query_Q], mean_Q,
        )  # fmt: skip
        outcome_QC = rows.outcome_LT[np.ix_(query_Q, new)].astype(np.float32)
        return episode, torch.from_numpy(outcome_QC), torch.from_numpy(known_NT[np.ix_(query_Q, new)])

    return sample
