"""Targets of training blocks: outcomes, optionally shrunk toward the mean of their task."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from satlight.errors import SatlightError


@dataclass
class TargetSpec:
    """Settings of training targets made from outcomes.

    One sampled outcome is a noisy estimate of a success probability; the mean of its candidate on its task
    has less variance. A target between the two keeps a router from fitting noise.

    Args:
        shrinkage: Share λ of the task mean in the target, in [0, 1]; 0 = the outcome itself.
        task_prior: Pseudo-count of the dataset mean in a task mean, in instructions; at least 0.
        rank_weight: Weight cells by their candidate's rank, see :func:`satlight.data.blocks.rank_weights`;
            0 = uniformly.
        disagreement_weight: Weight cells by disagreement, see
            :func:`satlight.data.blocks.disagreement_weights`; 0 = uniformly.
    """

    shrinkage: float = 0.0
    task_prior: float = 20.0
    rank_weight: float = 0.0
    disagreement_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.shrinkage <= 1:
            raise SatlightError(f"data.targets.shrinkage is {self.shrinkage}; it must lie in [0, 1]")
        if self.task_prior < 0:
            raise SatlightError(f"data.targets.task_prior is {self.task_prior}; it must be 0 or more")


def shrink(
    outcome_RC: np.ndarray, known_RC: np.ndarray, task_R: np.ndarray, dataset_R: np.ndarray, spec: TargetSpec
) -> np.ndarray:
    """Compute training targets (1 - λ) · outcome + λ · mean of the candidate on the task: float32 (R, C).

    The task mean is shrunk toward the dataset mean by ``task_prior`` pseudo-instructions. Unknown cells are 0.

    Args:
        outcome_RC: Outcomes in [0, 1] of the training rows only.
        known_RC: bool, False where no record exists.
        task_R: Key of the task of each row, distinct between datasets.
        dataset_R: Dataset name of each row.
        spec: λ and the prior.

    Example:
        >>> target = shrink(np.array([[1.0], [0.0]]), np.ones((2, 1), dtype=bool), np.array(["t", "t"]),
        ...                 np.array(["d", "d"]), TargetSpec(shrinkage=0.5))
        >>> target.ravel().tolist()
        [0.75, 0.25]
    """
    if spec.shrinkage == 0:
        return outcome_RC.astype(np.float32)
    dataset_mean = shrunk_means(outcome_RC, known_RC, dataset_R, np.zeros(outcome_RC.shape, dtype=np.float32), 0.0)
    task_mean = shrunk_means(outcome_RC, known_RC, task_R, dataset_mean, spec.task_prior)
    target = (1 - spec.shrinkage) * outcome_RC + spec.shrinkage * task_mean
    return np.where(known_RC, target, 0).astype(np.float32)


def shrunk_means(
    outcome_RC: np.ndarray, known_RC: np.ndarray, group_R: np.ndarray, prior_RC: np.ndarray, strength: float
) -> np.ndarray:
    """Average the outcomes of each row's group, with ``strength`` pseudo-rows of ``prior_RC``: (R, C)."""
    _, code_R = np.unique(group_R, return_inverse=True)
    groups = code_R.max() + 1
    total = np.zeros((groups, outcome_RC.shape[1]))
    count = np.zeros_like(total)
    np.add.at(total, code_R, np.where(known_RC, outcome_RC, 0))
    np.add.at(count, code_R, known_RC)
    return (total[code_R] + strength * prior_RC) / np.maximum(count[code_R] + strength, 1e-9)
