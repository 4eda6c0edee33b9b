"""Parts of the kernel of :mod:`satlight.baselines.gaussian_process`, and how its variances are learned.

Shape legend: N instructions, T training candidates, D features of an instruction, G tasks, Z landmarks, B parts of the
kernel, C candidates of an episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

SHRINKAGE = 0.3
"""Share of the diagonal in the covariance of the task classifier."""

PENALTIES = (3.0, 10.0, 30.0, 100.0)
"""Ridge penalties to choose from, in instructions."""

WIDTH = 0.5
"""Length scale of the text kernel, in units of the embedding."""

LEAST_EIGENVALUE = 1e-6


@dataclass
class TaskGuess:
    """Probabilities of the tasks given the embedding, by linear discriminant analysis.

    Example:
        >>> vectors = np.array([[0.0, 1.0], [0.1, 0.9], [1.0, 0.0], [0.9, 0.1]])
        >>> TaskGuess.fit(vectors, np.array([0, 0, 1, 1]), 2)(vectors).argmax(axis=1).tolist()
        [0, 0, 1, 1]
    """

    weight_DG: np.ndarray
    offset_G: np.ndarray

    @classmethod
    def fit(cls, vectors_ND: np.ndarray, task_N: np.ndarray, tasks: int) -> Self:
        """Fit the classifier; tasks without a row have probability 0."""
        weight_DG, offset_G = np.zeros((vectors_ND.shape[1], tasks)), np.full(tasks, -np.inf)
        present = np.unique(task_N)
        if len(present) == 1:
            offset_G[present] = 0.0
            return cls(weight_DG, offset_G)
        fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=SHRINKAGE).fit(vectors_ND, task_N)
        if len(present) == 2:  # one log-odds
            weight_DG[:, present[1]], offset_G[present] = fitted.coef_[0], [0.0, fitted.intercept_[0]]
        else:
            weight_DG[:, present], offset_G[present] = fitted.coef_.T, fitted.intercept_
        return cls(weight_DG, offset_G)

    def __call__(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Return probabilities (N, G)."""
        return softmax(vectors_ND @ self.weight_DG + self.offset_G, axis=1)


@dataclass
class TextRidge:
    """Expected outcomes of candidates given features of the text, by ridge regression.

    Args:
        mean_D: Means of the features.
        weight_DT: Coefficients.
        mean_T: Mean known outcomes.
    """

    mean_D: np.ndarray
    weight_DT: np.ndarray
    mean_T: np.ndarray

    @classmethod
    def fit(cls, feature_ND: np.ndarray, outcome_NT: np.ndarray, known_NT: np.ndarray) -> dict[float, Self]:
        """Fit with every penalty; an unknown outcome counts as the candidate's mean."""
        mean_D = feature_ND.mean(axis=0)
        mean_T = np.where(known_NT, outcome_NT, 0).sum(axis=0) / known_NT.sum(axis=0).clip(1)
        x_ND, y_NT = feature_ND - mean_D, np.where(known_NT, outcome_NT - mean_T, 0)
        value_D, vector_DD = np.linalg.eigh(x_ND.T @ x_ND)
        moment_DT = vector_DD.T @ (x_ND.T @ y_NT)
        return {
            penalty: cls(mean_D, vector_DD @ (moment_DT / (value_D.clip(0) + penalty)[:, None]), mean_T)
            for penalty in PENALTIES
        }

    def __call__(self, feature_ND: np.ndarray) -> np.ndarray:
        """Return expected outcomes (N, T)."""
        return (feature_ND - self.mean_D) @ self.weight_DT + self.mean_T


class TextModel(NamedTuple):
    """Models of the text, and what they predict of their own training rows from the other folds.

    Args:
        tasks: Classifier of tasks.
        ridge: Expected outcomes of the training candidates.
        task_NG: Cross-fitted probabilities of tasks.
        expected_NT: Cross-fitted expected outcomes.
    """

    tasks: TaskGuess
    ridge: TextRidge
    task_NG: np.ndarray
    expected_NT: np.ndarray


def fit_text(
    vectors_ND: np.ndarray, tasks: np.ndarray, outcome_NT: np.ndarray, known_NT: np.ndarray, fold_N: np.ndarray
) -> TextModel:
    """Fit task classifier and ridge regression, with the penalty of the least cross-fitted squared error.

    Args:
        vectors_ND: Embeddings.
        tasks: Name of each row's task.
        outcome_NT: Outcomes of the training candidates.
        known_NT: bool.
        fold_N: Fold of each row, at least two.
    """
    names, task_N = np.unique(tasks, return_inverse=True)
    task_NG = np.zeros((len(task_N), len(names)))
    expected = {penalty: np.zeros(outcome_NT.shape) for penalty in PENALTIES}
    for fold in np.unique(fold_N):
        rest, own = fold_N != fold, fold_N == fold
        task_NG[own] = TaskGuess.fit(vectors_ND[rest], task_N[rest], len(names))(vectors_ND[own])
    feature_ND = np.hstack([vectors_ND, task_NG])
    for fold in np.unique(fold_N):
        rest, own = fold_N != fold, fold_N == fold
        for penalty, ridge in TextRidge.fit(feature_ND[rest], outcome_NT[rest], known_NT[rest]).items():
            expected[penalty][own] = ridge(feature_ND[own])
    error = {penalty: (known_NT * (outcome_NT - guess) ** 2).sum() for penalty, guess in expected.items()}
    best = min(error, key=error.__getitem__)
    ridge = TextRidge.fit(feature_ND, outcome_NT, known_NT)[best]
    return TextModel(TaskGuess.fit(vectors_ND, task_N, len(names)), ridge, task_NG, expected[best])


@dataclass
class Landmarks:
    """Features whose products approximate the kernel exp(-|x - x'|² / (2 width²)).

    Example:
        >>> x = np.eye(3)
        >>> feature = Landmarks.at(x)(x)
        >>> bool(np.allclose(feature @ feature.T, np.exp(-(1 - x @ x.T) / 0.25)))
        True

    Reference: Williams and Seeger 2001, "Using the Nyström Method to Speed Up Kernel Machines".
    """

    point_ZD: np.ndarray
    root_ZZ: np.ndarray

    @classmethod
    def at(cls, point_ZD: np.ndarray) -> Self:
        """Place landmarks."""
        value_Z, vector_ZZ = np.linalg.eigh(_near(point_ZD, point_ZD))
        kept = value_Z > LEAST_EIGENVALUE
        return cls(point_ZD, vector_ZZ[:, kept] / np.sqrt(value_Z[kept]))

    def __call__(self, vectors_ND: np.ndarray) -> np.ndarray:
        """Return features of vectors, (N, at most Z)."""
        return _near(vectors_ND, self.point_ZD) @ self.root_ZZ


def _near(one_ND: np.ndarray, other_ZD: np.ndarray) -> np.ndarray:
    square_NZ = (one_ND**2).sum(axis=1)[:, None] + (other_ZD**2).sum(axis=1) - 2 * one_ND @ other_ZD.T
    return np.exp(-square_NZ.clip(0) / (2 * WIDTH**2))


class Episode(NamedTuple):
    """Candidates that play new ones, on N rows.

    Args:
        kernel_BNN: Parts of the kernel of the outcomes.
        noise_N: Variance of an outcome, up to the factor that is learned.
        residual_NC: Outcomes minus their means.
    """

    kernel_BNN: np.ndarray
    noise_N: np.ndarray
    residual_NC: np.ndarray


def fit_variances(episodes: Sequence[Episode], start: Mapping[str, float]) -> dict[str, float]:
    """Maximize the marginal likelihood of the residuals in the variances of the kernel's parts and the noise.

    Args:
        episodes: At least one; B parts each.
        start: Initial variances by name, B parts and last the noise.

    Returns:
        Variances by name, each within a factor of 1,000 of its start.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> residual = rng.normal(0, 2, (1, 400)) + rng.normal(0, 1, (20, 400))
        >>> episode = Episode(np.ones((1, 20, 20)), np.ones(20), residual)
        >>> found = fit_variances([episode], {"ability": 1.0, "noise": 0.5})
        >>> {name: round(value) for name, value in found.items()}
        {'ability': 4, 'noise': 1}

    Reference: Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", Eq. 5.8 and 5.9.
    """
    start_B = np.log(list(start.values()))
    bounds = list(zip(start_B - np.log(1000), start_B + np.log(1000), strict=True))
    options = {"maxiter": 50, "ftol": 1e-7}
    found = minimize(marginal_loss, start_B, (episodes,), "L-BFGS-B", jac=True, bounds=bounds, options=options)
    return dict(zip(start, np.exp(found.x).tolist(), strict=True))


def marginal_loss(log_B: np.ndarray, episodes: Sequence[Episode]) -> tuple[float, np.ndarray]:
    """Return the negative log marginal likelihood per residual, and its gradient.

    Args:
        log_B: Logarithms of the variances of the parts, and last of the noise.
        episodes: At least one.
    """
    cells = sum(episode.residual_NC.size for episode in episodes)
    variance_B, total, slope_B = np.exp(log_B), 0.0, np.zeros(len(log_B))
    for kernel_BNN, noise_N, residual_NC in episodes:
        covariance_NN = np.tensordot(variance_B[:-1], kernel_BNN, 1) + variance_B[-1] * np.diag(noise_N)
        factor = cho_factor(covariance_NN, lower=True)
        solved_NC, inverse_NN = cho_solve(factor, residual_NC), cho_solve(factor, np.eye(len(noise_N)))
        count = residual_NC.shape[1]
        total += (residual_NC * solved_NC).sum() / 2 + count * np.log(np.diag(factor[0])).sum()
        slope_NN = (count * inverse_NN - solved_NC @ solved_NC.T) / 2
        slope_B[:-1] += variance_B[:-1] * np.tensordot(kernel_BNN, slope_NN, 2)
        slope_B[-1] += variance_B[-1] * noise_N @ np.diag(slope_NN)
    return total / cells, slope_B / cells
