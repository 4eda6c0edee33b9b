"""Block samplers: choose the instructions and candidates of each training step.

A sampler turns a :class:`BlockSpace` (arrays) into the indices of blocks. They are a pure function of the
space and of the random generator.

Legend: R training instructions, C candidates, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from satlight.errors import SatlightError

BlockIndices = tuple[np.ndarray, np.ndarray]
"""Rows (B,) and columns (C,) of one block in a space, int64."""


@dataclass(frozen=True)
class BlockSpace:
    """The training rows that a sampler draws from.

    Args:
        target_RC: float32 outcomes in [0, 1].
        known_RC: bool, False where no record exists.
        length_R: Length of each instruction, to bucket by.
        task_R: int64, number of each instruction's task.
        vector_RD: Embeddings of the instructions, for samplers that search for neighbors; None = unknown.
        image_R: bool, rows with images; None = not read.
    """

    target_RC: np.ndarray
    known_RC: np.ndarray
    length_R: np.ndarray
    task_R: np.ndarray
    vector_RD: np.ndarray | None = None
    image_R: np.ndarray | None = None

    def subset(self, keep_R: np.ndarray) -> BlockSpace:
        """Return the space of some rows; blocks drawn from it index rows of the subset."""
        vector_RD = None if self.vector_RD is None else self.vector_RD[keep_R]
        image_R = None if self.image_R is None else self.image_R[keep_R]
        target_RC, known_RC = self.target_RC[keep_R], self.known_RC[keep_R]
        return BlockSpace(target_RC, known_RC, self.length_R[keep_R], self.task_R[keep_R], vector_RD, image_R)


class BlockSampler(ABC):
    """The base of block samplers: subclass it to add a way of building blocks.

    Args:
        instructions: B, instructions per block.
        candidates: C, candidates drawn for each block; None = all.
    """

    needs_vectors: ClassVar[bool] = False
    """True if :meth:`draw` reads ``vector_RD`` of the space."""
    reads_outcomes: ClassVar[bool] = False
    """True if blocks are chosen by outcomes, so that candidates cannot be mixed."""

    def __init__(self, instructions: int = 32, candidates: int | None = None) -> None:
        for name, value in (("instructions", instructions), ("candidates", candidates)):
            if value is not None and value < 1:
                raise SatlightError(f"{type(self).__name__}.{name} is {value}; it must be 1 or more")
        self.instructions = instructions
        self.candidates = candidates

    @abstractmethod
    def draw(self, space: BlockSpace, rng: np.random.Generator) -> list[BlockIndices]:
        """Return the blocks of one pass; always the same number for the same space."""

    def count(self, space: BlockSpace) -> int:
        """Return the number of blocks in a pass; called before the space has vectors."""
        return len(self.draw(space, np.random.default_rng(0)))

    def columns(self, space: BlockSpace, rng: np.random.Generator) -> np.ndarray:
        """Draw the candidates of one block, in ascending order."""
        total = space.target_RC.shape[1]
        if self.candidates is None or self.candidates >= total:
            return np.arange(total)
        return np.sort(rng.choice(total, self.candidates, replace=False))


def share_rows(image_R: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draw as many rows as possible, each at most once, of which ``share`` have images: int64, ascending.

    Args:
        image_R: bool, rows with images.
        share: In [0, 1].
        rng: Draws the rows of the kind that is too frequent.

    Raises:
        SatlightError: The rows lack a kind that the share needs.

    Example:
        >>> share_rows(np.array([True, True, False, True]), 0.5, np.random.default_rng(0)).tolist()
        [2, 3]
    """
    kinds = {"images": (np.flatnonzero(image_R), share), "text alone": (np.flatnonzero(~image_R), 1 - share)}
    for kind, (rows, part) in kinds.items():
        if part > 0 and not len(rows):
            raise SatlightError(
                f"data.image_share is {share}, but none of the {len(image_R)} training instructions to draw from has "
                f"{kind}; set it to null to take them as they are"
            )
    total = min(len(rows) / part for rows, part in kinds.values() if part > 0)
    chosen = [rng.permutation(rows)[: max(1, round(total * part))] for rows, part in kinds.values() if part > 0]
    return np.sort(np.concatenate(chosen))


def bucketed(
    order: np.ndarray, length_R: np.ndarray, size: int, rng: np.random.Generator, pool: int = 16
) -> list[np.ndarray]:
    """Cut a shuffled order into batches of similar length, themselves in random order.

    Instructions are sorted within pools of ``pool`` batches.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> [b.tolist() for b in bucketed(np.array([3, 0, 2, 1]), np.array([5, 9, 6, 10]), 2, rng)]
        [[0, 2], [1, 3]]
    """
    batches = []
    for start in range(0, len(order), size * pool):
        part = order[start : start + size * pool]
        part = part[np.argsort(length_R[part], kind="stable")]
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


class RandomBlocks(BlockSampler):
    """Random blocks of similar length; each instruction occurs once per pass."""

    def draw(self, space: BlockSpace, rng: np.random.Generator) -> list[BlockIndices]:
        order = rng.permutation(len(space.length_R))
        return [(rows, self.columns(space, rng)) for rows in bucketed(order, space.length_R, self.instructions, rng)]


class TaskBlocks(BlockSampler):
    """Blocks of a single task, so that the negatives of a column are homogeneous.

    Each instruction occurs once per pass.
    """

    def draw(self, space: BlockSpace, rng: np.random.Generator) -> list[BlockIndices]:
        blocks = [
            rows
            for task in np.unique(space.task_R)
            for rows in bucketed(
                rng.permutation(np.flatnonzero(space.task_R == task)), space.length_R, self.instructions, rng
            )
        ]
        return [(blocks[i], self.columns(space, rng)) for i in rng.permutation(len(blocks))]


class GroupBlocks(BlockSampler):
    """The paper's groups: one candidate, one positive instruction and k - 1 negatives of the same task.

    A pass has one group per instruction that at least one candidate solves and that has a negative in its
    task. The group is smaller if the task has fewer than k - 1 negatives for the candidate.

    Args:
        size: k, at least 2.
        rank_weight: 0 draws candidates uniformly; larger values draw better ones more often: the candidate
            at rank r of C (0 = best mean outcome) has weight (1 - r / C) ** rank_weight.

    Reference: [Zhang et al. 2025, §4, Eq. 5; candidate weighting §4].
    """

    reads_outcomes: ClassVar[bool] = True

    def __init__(self, size: int = 4, rank_weight: float = 0.0) -> None:
        if size < 2:
            raise SatlightError(
                f"{type(self).__name__}.size is {size}; a group needs 1 positive and at least 1 negative"
            )
        super().__init__(instructions=size, candidates=1)
        self.rank_weight = rank_weight

    def count(self, space: BlockSpace) -> int:
        return int(self._usable(space).any(axis=1).sum())

    def draw(self, space: BlockSpace, rng: np.random.Generator) -> list[BlockIndices]:
        usable_RC = self._usable(space)
        negative_RC = space.known_RC & (space.target_RC < 0.5)
        weight_C = rank_weights(space.target_RC, space.known_RC, self.rank_weight)
        negatives = {
            (task, column): np.flatnonzero((space.task_R == task) & negative_RC[:, column])
            for task in np.unique(space.task_R)
            for column in range(usable_RC.shape[1])
        }
        blocks = []
        for row in rng.permutation(np.flatnonzero(usable_RC.any(axis=1))):
            weight = weight_C * usable_RC[row]
            column = int(rng.choice(len(weight), p=weight / weight.sum()))
            others = self.negatives(space, int(row), column, negatives[space.task_R[row], column], rng)
            if len(others):
                blocks.append((np.concatenate([[row], others]), np.array([column])))
        return blocks

    def negatives(
        self, space: BlockSpace, row: int, column: int, pool: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Return at most k - 1 negatives for the positive (row, column).

        Args:
            space: All rows.
            row: The positive instruction.
            column: Its candidate.
            pool: Rows of the same task that the candidate fails, at least one.
            rng: The only source of randomness.
        """
        return rng.choice(pool, min(self.instructions - 1, len(pool)), replace=False)

    def _usable(self, space: BlockSpace) -> np.ndarray:
        """Mark the positives that have a negative in their task: bool (R, C)."""
        positive_RC = space.known_RC & (space.target_RC >= 0.5)
        negative_RC = space.known_RC & (space.target_RC < 0.5)
        tasks, task_R = np.unique(space.task_R, return_inverse=True)
        has_negative = np.zeros((len(tasks), positive_RC.shape[1]), dtype=bool)
        np.logical_or.at(has_negative, task_R, negative_RC)
        usable_RC = positive_RC & has_negative[task_R]
        if not usable_RC.any():
            raise SatlightError(
                f"{type(self).__name__} found no group: it needs a task in which a candidate solves one "
                "instruction and fails another"
            )
        return usable_RC


def rank_weights(target_RC: np.ndarray, known_RC: np.ndarray, power: float) -> np.ndarray:
    """Weight candidates by the rank of their mean outcome: float (C,), mean 1.

    Example:
        >>> rank_weights(np.array([[1.0, 0.0]]), np.array([[True, True]]), 1.0).round(2).tolist()
        [1.33, 0.67]
    """
    mean_C = (target_RC * known_RC).sum(axis=0) / np.maximum(known_RC.sum(axis=0), 1)
    rank_C = np.argsort(np.argsort(-mean_C, kind="stable"), kind="stable")
    weight_C = (1 - rank_C / len(rank_C)) ** power
    return weight_C / weight_C.mean()


def disagreement_weights(target_RC: np.ndarray, known_RC: np.ndarray, power: float, floor: float = 0.1) -> np.ndarray:
    """Weight instructions by how much the candidates disagree: float (R,), mean 1.

    The weight is proportional to (floor + 4p(1-p)) ** power for a share p of correct outcomes. An instruction
    that all candidates or none solve carries no information on routing.

    Example:
        >>> target = np.array([[1.0, 0.0], [1.0, 1.0]])
        >>> disagreement_weights(target, np.ones((2, 2), dtype=bool), 1.0).round(2).tolist()
        [1.83, 0.17]
    """
    p_R = (target_RC * known_RC).sum(axis=1) / np.maximum(known_RC.sum(axis=1), 1)
    weight_R = (floor + 4 * p_R * (1 - p_R)) ** power
    return weight_R / weight_R.mean()
