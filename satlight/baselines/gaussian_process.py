"""A Gaussian process whose prior is learned from the training candidates, for candidates known by few results.

Shape legend: N training instructions, T training candidates, M candidates, L results of a candidate, Q instructions,
F features, D dimensions of the embedding, G tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit, logit

from satlight.baselines.kernel_parts import Episode, Landmarks, fit_text, fit_variances
from satlight.baselines.tuning import TunedBaseline
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.records.names import listed
from satlight.types import AptitudeResults, Candidate

START = {"ability": 1.0, "task": 0.2, "near": 0.1, "alike": 5.0, "noise": 0.7}
"""Variances before learning; used as they are with fewer than :data:`LEAST_TRAINED` training candidates."""

PARTS = tuple(name for name in START if name != "noise")

LEAST_TRAINED = 4
ITEM_PRIOR = 8.0
"""Weight of the expected outcome given the text in the mean outcome on an instruction, in candidates."""

LANDMARKS = 256
FOLDS = 4
EPISODES, EPISODE_ROWS = 4, 300
STEPS, TOLERANCE, LEAST_STEP = 25, 1e-8, 1e-6
"""Newton's method: maximum steps, expected gain in log-likelihood below which it stops, smallest part of a step."""

LEAST, MOST = 0.02, 0.98
"""Bounds of the expected outcomes of training candidates."""


@dataclass
class Items:
    """Inputs of the kernel from L instructions besides their embeddings.

    Args:
        task_LG: Probabilities of tasks.
        expected_LT: Expected outcomes of the training candidates given the text.
        outcome_LT: Their outcomes; expected where unknown.
    """

    task_LG: np.ndarray
    expected_LT: np.ndarray
    outcome_LT: np.ndarray

    def means(self) -> np.ndarray:
        """Return the mean outcome of a candidate on each instruction, shrunk toward its expectation, (L,)."""
        total_L = self.outcome_LT.sum(axis=1) + ITEM_PRIOR * self.expected_LT.mean(axis=1)
        return (total_L / (self.outcome_LT.shape[1] + ITEM_PRIOR)).clip(LEAST, MOST)

    def expectations(self) -> np.ndarray:
        """Return the mean expected outcome given the text, (L,)."""
        return self.expected_LT.mean(axis=1).clip(LEAST, MOST)

    def cut(self, row_L: np.ndarray, columns: np.ndarray | slice = slice(None)) -> Items:
        """Return some of the instructions, and some of the training candidates."""
        return Items(self.task_LG[row_L], self.expected_LT[row_L][:, columns], self.outcome_LT[row_L][:, columns])


class GaussianProcess(TunedBaseline):
    """Expected outcome = mean of the training candidates + a Gaussian process on the candidate's own results.

    The deviation of a candidate from the mean has four parts: its ability, a value per task, a smooth function of the
    text, and a weighted sum of the deviations of the training candidates. The prior variance of each part is learned
    on the training candidates, which play new ones in turn, by marginal likelihood. With few results, the posterior is
    a shrunk mean; with many, it follows the text as nearest neighbors do, and the training candidates that are alike.

    A result on a training instruction is compared with the outcomes of the training candidates there, so that failing a
    hard instruction says little. On other instructions, their expected outcomes given the text take this place: ridge
    regressions, cross-fitted on the training instructions.

    Training candidates are those with at least half as many outcomes as the most measured one; their own expected
    outcomes are the ridge regressions. Others are known by their results, as in :meth:`admit`.

    Args:
        seed: Seed of folds, landmarks and episodes.
        fixed: Must be empty: nothing is chosen on validation rows.
        variances: Prior variances of ``ability``, ``task``, ``near`` and ``alike``, and of the ``noise``, e.g. those
            learned on other records; a part without one is left out. None = learned.

    Attributes:
        variances: The variances in use, after ``fit``.

    Raises:
        SatlightError: Variances of unknown parts, not above 0, or without noise.

    Reference: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", Eq. 2.11; the prior of
        exchangeable candidates as in Schwaighofer et al. 2005, "Learning Gaussian Process Kernels via
        Hierarchical Bayes".
    """

    def __init__(
        self, seed: int = 0, fixed: Mapping[str, Any] | None = None, variances: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(seed, fixed)
        if variances is not None and (
            not {"noise"} < set(variances) <= set(START) or not all(value > 0 for value in variances.values())
        ):
            raise SatlightError(
                f"{self._who}: variances are {dict(variances)}; give numbers above 0 for 'noise' and some of "
                f"{listed(PARTS)}."
            )
        self.given = variances

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        assert vectors_ND is not None
        rng = np.random.default_rng(self.seed)
        trained_M = self._trained(records)
        known_NT = np.asarray(records.known[:, trained_M])
        outcome_NT = np.where(known_NT, records.outcomes[:, trained_M], 0).astype(np.float64)
        vectors_ND = vectors_ND.astype(np.float64)
        fold_N = rng.permutation(np.arange(len(vectors_ND)) % FOLDS)
        text = fit_text(vectors_ND, records.task_keys, outcome_NT, known_NT, fold_N)
        self._tasks, self._ridge = text.tasks, text.ridge
        self._near = Landmarks.at(vectors_ND[rng.permutation(len(vectors_ND))[:LANDMARKS]])
        self._rows = Items(text.task_NG, text.expected_NT, np.where(known_NT, outcome_NT, text.expected_NT))
        self.row_ids = [str(one) for one in records.instructions["instruction_id"]]
        self.variances = dict(self.given) if self.given else self._learn_variances(vectors_ND, known_NT, rng)
        self._weight_FC = np.empty((0, 0))
        for column in np.flatnonzero(~trained_M):
            row_L = np.flatnonzero(records.known[:, column])
            self._append(vectors_ND[row_L], self._rows.cut(row_L), records.outcomes[row_L, column])
        self._column_M = np.argsort(np.argsort(~trained_M, kind="stable"))

    @staticmethod
    def _trained(records: PerformanceRecords) -> np.ndarray:
        """Return the mask of the training candidates, (M,)."""
        count_M = np.asarray(records.known).sum(axis=0)
        return 2 * count_M >= count_M.max()

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        """See :meth:`satlight.routers.Router.admit`; results on training instructions say most."""
        other, results, vectors_LD = self._admitting(candidate, results, self.row_ids)
        assert vectors_LD is not None
        vectors_LD = vectors_LD.astype(np.float64)
        other._append(vectors_LD, self._items(vectors_LD, results.instruction_ids), results.outcomes)
        other._column_M = np.append(self._column_M, len(self._column_M))
        return other

    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        assert vectors_ND is not None
        vectors_ND = vectors_ND.astype(np.float64)
        items = self._read(vectors_ND)
        known = [items.expected_LT]
        if self._weight_FC.size:
            known.append(self._admitted(vectors_ND, items))
        return np.hstack(known)[:, self._column_M]

    def _admitted(self, vectors_ND: np.ndarray, items: Items) -> np.ndarray:
        """Return expected outcomes of the candidates that are known by results, in the order of :meth:`_append`."""
        feature_NF = np.hstack(self._features(vectors_ND, items))
        return expit(logit(items.means())[:, None] + feature_NF @ self._weight_FC)

    def _append(self, vectors_LD: np.ndarray, items: Items, outcome_L: np.ndarray) -> None:
        """Add a candidate that is known by results, in new objects, since copies share the old ones."""
        self._weight_FC = np.column_stack([*self._weight_FC.T, self._weights(vectors_LD, items, outcome_L)])

    def _items(self, vectors_LD: np.ndarray, ids: Sequence[str]) -> Items:
        """Return what is known of instructions; of training instructions, also the outcomes there."""
        items, place = self._read(vectors_LD), {name: row for row, name in enumerate(self.row_ids)}
        own = [(item, place[name]) for item, name in enumerate(ids) if name in place]
        for item, row in own:
            items.task_LG[item] = self._rows.task_LG[row]
            items.expected_LT[item], items.outcome_LT[item] = self._rows.expected_LT[row], self._rows.outcome_LT[row]
        return items

    def _read(self, vectors_LD: np.ndarray) -> Items:
        """Return what the text alone says of instructions."""
        task_LG = self._tasks(vectors_LD)
        expected_LT = self._ridge(np.hstack([vectors_LD, task_LG])).clip(LEAST, MOST)
        return Items(task_LG, expected_LT, expected_LT.copy())

    def _features(
        self, vectors_LD: np.ndarray, items: Items, columns: np.ndarray | slice = slice(None)
    ) -> list[np.ndarray]:
        """Return the features of each part of the kernel, (L, ·), whose products are its values.

        Args:
            vectors_LD: Embeddings.
            items: With the training candidates in ``columns``.
            columns: Training candidates that are read.
        """
        center_T = _deviation(self._rows.expected_LT[:, columns]).mean(axis=0)
        made = {
            "ability": lambda: np.ones((len(vectors_LD), 1)),
            "task": lambda: items.task_LG,
            "near": lambda: self._near(vectors_LD),
            "alike": lambda: (_deviation(items.outcome_LT) - center_T) / np.sqrt(len(center_T)),
        }
        return [made[part]() for part in self._parts]

    @property
    def _parts(self) -> list[str]:
        return [part for part in PARTS if self.given is None or part in self.given]

    def _weights(self, vectors_LD: np.ndarray, items: Items, outcome_L: np.ndarray) -> np.ndarray:
        """Compute the most probable weights of a candidate's features, (F,)."""
        features = self._features(vectors_LD, items)
        sizes = [block.shape[1] for block in features]
        scale_F = np.repeat([self.variances[part] ** 0.5 for part in self._parts], sizes)
        feature_LF = np.hstack(features) * scale_F
        return scale_F * posterior_weights(feature_LF, items.means(), outcome_L, self.variances["noise"])

    def _learn_variances(
        self, vectors_ND: np.ndarray, known_NT: np.ndarray, rng: np.random.Generator
    ) -> dict[str, float]:
        """Hold out each quarter of the training candidates and explain their outcomes on some rows by the rest."""
        trained = known_NT.shape[1]
        if trained < LEAST_TRAINED:
            return dict(START)
        episodes = []
        for held in np.array_split(rng.permutation(trained), EPISODES):
            rest = np.setdiff1d(np.arange(trained), held)
            # The best measured rows; an unknown outcome counts as its expectation.
            row_L = rng.permutation(len(known_NT))
            row_L = row_L[np.argsort(-known_NT[row_L][:, held].sum(axis=1), kind="stable")][:EPISODE_ROWS]
            items = self._rows.cut(row_L, rest)
            mean_L = items.means()
            slope_L = mean_L * (1 - mean_L)
            kernels = [
                (slope_L[:, None] * block) @ (slope_L[:, None] * block).T
                for block in self._features(vectors_ND[row_L], items, rest)
            ]
            residual_LC = self._rows.outcome_LT[np.ix_(row_L, held)] - mean_L[:, None]
            episodes.append(Episode(np.array(kernels), slope_L, residual_LC))
        return fit_variances(episodes, START)


def _deviation(outcome_LT: np.ndarray) -> np.ndarray:
    """Return outcomes minus their mean over candidates."""
    return outcome_LT - outcome_LT.mean(axis=1, keepdims=True)


def posterior_weights(feature_LF: np.ndarray, mean_L: np.ndarray, outcome_L: np.ndarray, noise: float) -> np.ndarray:
    """Compute the most probable weights of features in the log-odds of results, by Newton's method.

    A step is halved until the objective falls: whole steps diverge for candidates far below the mean candidate.

    Args:
        feature_LF: Features, scaled so that the prior variance of each weight is 1.
        mean_L: Expected results of the mean candidate, in (0, 1).
        outcome_L: Results in [0, 1].
        noise: Variance of a result, in units of that of a coin with its expectation.

    Returns:
        float64 (F,), the maximum of the posterior.

    Example:
        >>> weight = posterior_weights(np.ones((40, 1)), np.full(40, 0.5), np.ones(40), noise=1.0)
        >>> bool(2 < weight[0] < 3)
        True

    Reference: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", §3.4.
    """

    def loss(logit_L: np.ndarray, weight_F: np.ndarray) -> float:
        return (np.logaddexp(0, logit_L) - outcome_L * logit_L).sum() / noise + weight_F @ weight_F / 2

    logit_L, weight_F = logit(mean_L), np.zeros(feature_LF.shape[1])
    for _ in range(STEPS):
        p_L = expit(logit_L)
        slope_F = feature_LF.T @ (outcome_L - p_L) / noise - weight_F
        curve_L = (p_L * (1 - p_L)).clip(LEAST * MOST) / noise
        curve_FF = (feature_LF.T * curve_L) @ feature_LF + np.eye(len(weight_F))
        step_F = cho_solve(cho_factor(curve_FF), slope_F)
        if slope_F @ step_F < TOLERANCE:
            break
        step_L, before = feature_LF @ step_F, loss(logit_L, weight_F)
        size = 1.0
        while size > LEAST_STEP and loss(logit_L + size * step_L, weight_F + size * step_F) > before:
            size /= 2
        logit_L, weight_F = logit_L + size * step_L, weight_F + size * step_F
    return weight_F
