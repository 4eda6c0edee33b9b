"""Blocks of similar instructions with different outcomes.

Legend: R training instructions, C candidates, D features, K neighbors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from satlight.data.blocks import BlockIndices, BlockSampler, BlockSpace, GroupBlocks
from satlight.data.negatives import InstructionIndex, hard_negatives, mean_cosine, neighbors, unit_rows
from satlight.errors import SatlightError

log = logging.getLogger(__name__)

REPORTED = 1000
"""Maximum number of blocks whose cosines are measured for the log."""


@dataclass(frozen=True)
class MiningSpec:
    """Limits on the neighbors that may become hard negatives.

    Args:
        near_duplicate: Instructions with a higher cosine are duplicates, not negatives, in (0, 1].
        margin: Minimum difference between the targets of a positive and its negative, in [0, 1]; matters if
            outcomes are soft or shrunk.
        first_rank: Number of nearest instructions to skip, at least 0.
        last_rank: Maximum neighbor rank (1 = nearest), above ``first_rank``.
    """

    near_duplicate: float = 0.95
    margin: float = 0.0
    first_rank: int = 0
    last_rank: int = 100

    def __post_init__(self) -> None:
        first = self.first_rank
        for key, value, allowed, good in (
            ("near_duplicate", self.near_duplicate, "it must lie in (0, 1]", 0 < self.near_duplicate <= 1),
            ("margin", self.margin, "it must lie in [0, 1]", 0 <= self.margin <= 1),
            ("first_rank", first, "it must be 0 or more", first >= 0),
            ("last_rank", self.last_rank, f"it must be above first_rank = {first}", self.last_rank > first),
        ):
            if not good:
                raise SatlightError(f"data.sampler.mining.{key} is {value}; {allowed}")


class Neighborhoods:
    """The neighbors of every instruction of a space, computed once and reported once.

    Args:
        space: With vectors.
        spec: Limits on the neighbors.
        name: The sampler, for messages.
    """

    def __init__(self, space: BlockSpace, spec: MiningSpec, name: str) -> None:
        if space.vector_RD is None:
            raise SatlightError(
                f"data.sampler {name} needs a vector of every training instruction and has none; add the "
                "callback satlight.callbacks.HardNegatives to trainer.callbacks "
                "(configs/overlay/hard_negatives.yaml does), or set instruction_vectors of the data module"
            )
        self.space, self.spec, self.name = space, spec, name
        self.vector_RD = unit_rows(space.vector_RD)
        index = InstructionIndex.build(self.vector_RD)
        near_RK = neighbors(index, self.vector_RD, spec.last_rank, spec.near_duplicate)
        self.near_RK = near_RK[:, spec.first_rank :]
        self.task_members = {int(task): np.flatnonzero(space.task_R == task) for task in np.unique(space.task_R)}
        self._reported = False

    def apart(self, row: int, pool: np.ndarray) -> np.ndarray:
        """Remove the instruction ``row`` and its near-duplicates from ``pool``."""
        cosine = self.vector_RD[pool] @ self.vector_RD[row]
        return pool[(pool != row) & (cosine <= self.spec.near_duplicate)]

    def report(self, blocks: list[BlockIndices], filled: int, rivals: Callable[[BlockIndices], np.ndarray]) -> None:
        """Log once how hard the negatives of a pass are; the first row of a block is its anchor.

        Args:
            blocks: In random order; cosines are measured on the first :data:`REPORTED`.
            filled: Number of negatives that are not from the neighborhoods.
            rivals: Returns the instructions of the anchor's task that a block may hold, for comparison.
        """
        if self._reported or not blocks:
            return
        self._reported = True
        rng = np.random.default_rng(0)  # separate: logging must not change what is drawn
        anchors, mined, random = [], [], []
        for rows, columns in blocks[:REPORTED]:
            pool = rivals((rows, columns))
            anchors.append(rows[0])
            mined.append(rows[1:])
            random.append(rng.choice(pool, min(len(rows) - 1, len(pool)), replace=False))
        negatives = sum(len(rows) - 1 for rows, _ in blocks)
        share = filled / max(1, negatives)
        advice = "; increase data.sampler.mining.last_rank or near_duplicate to fill fewer" if share > 0.5 else ""
        log.log(
            logging.WARNING if advice else logging.INFO,
            f"{self.name}: mean cosine {self._mean_cosine(anchors, mined):.3f} (random negatives of the same task "
            f"{self._mean_cosine(anchors, random):.3f}), {filled} of {negatives} filled from the same task "
            f"({share:.1%}){advice}",
        )

    def _mean_cosine(self, anchors: list[np.int64], others: list[np.ndarray]) -> float:
        return mean_cosine(self.vector_RD, np.repeat(anchors, list(map(len, others))), np.concatenate(others))


class Miner:
    """Cache the neighborhoods of the last space."""

    def __init__(self, spec: MiningSpec, name: str) -> None:
        self.spec, self.name = spec, name
        self._last: Neighborhoods | None = None

    def around(self, space: BlockSpace) -> Neighborhoods:
        """Return the neighborhoods of ``space``."""
        if self._last is None or self._last.space is not space:
            self._last = Neighborhoods(space, self.spec, self.name)
        return self._last


class HardGroupBlocks(GroupBlocks):
    """The paper's groups with hard negatives: the nearest instructions that the same candidate fails.

    If the neighborhood has fewer than k - 1 of them, the rest is drawn from failed instructions of the same
    task, and the log reports how often. A positive whose only candidates for negatives are near-duplicates
    forms no group. As in the objectives, a target of at least 0.5 is positive.

    Args:
        size: k, at least 2.
        rank_weight: As in :class:`~satlight.data.blocks.GroupBlocks`.
        mining: Limits on the neighbors that may become negatives.

    Reference: groups in [Zhang et al. 2025, §4, Eq. 5]; nearest negatives are an addition of satlight.
    """

    needs_vectors: ClassVar[bool] = True

    def __init__(self, size: int = 4, rank_weight: float = 0.0, mining: MiningSpec = MiningSpec()) -> None:
        super().__init__(size, rank_weight)
        self.mining = Miner(mining, type(self).__name__)

    def draw(self, space: BlockSpace, rng: np.random.Generator) -> list[BlockIndices]:
        around = self.mining.around(space)
        blocks = super().draw(space, rng)
        # Neighbors are taken first, so negatives outside the neighborhood were filled in.
        filled = sum(int((~np.isin(rows[1:], around.near_RK[rows[0]])).sum()) for rows, _ in blocks)
        around.report(blocks, filled, lambda block: self._rivals(around, int(block[0][0]), int(block[1][0])))
        return blocks

    def negatives(
        self, space: BlockSpace, row: int, column: int, pool: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        around, count = self.mining.around(space), self.instructions - 1
        cell, margin = (np.array([row]), np.array([column])), around.spec.margin
        mined = hard_negatives(around.near_RK, *cell, space.target_RC, space.known_RC, count, margin)[0]
        mined = mined[mined >= 0]
        if len(mined) == count:
            return mined
        pool = np.setdiff1d(self._rivals(around, row, column), mined)
        filling = rng.choice(pool, min(count - len(mined), len(pool)), replace=False)
        return np.concatenate([mined, filling])

    def _rivals(self, around: Neighborhoods, row: int, column: int) -> np.ndarray:
        """Return the instructions of the task that the candidate fails, without near-duplicates."""
        space, pool = around.space, around.task_members[int(around.space.task_R[row])]
        target = space.target_RC[pool, column]
        failed = space.known_RC[pool, column] & (target < 0.5)
        failed &= space.target_RC[row, column] - target >= around.spec.margin
        return around.apart(row, pool[failed])


class HardNegativeBlocks(BlockSampler):
    """Blocks of neighbors with different outcomes; each instruction occurs once per pass.

    A block consists of a random instruction, the anchor, and its nearest unused neighbors whose target
    differs from the anchor's for at least one candidate of the block. If there are too few, the rest is drawn
    from the anchor's task, then from all tasks; the log reports how often. The blocks suit every objective:
    a column has similar instructions with different outcomes, and no instruction is lost.

    Neighbors differ in length, so these blocks have more padding than those of
    :class:`~satlight.data.blocks.RandomBlocks`.

    Args:
        instructions: B, instructions per block.
        candidates: C, candidates drawn for each block; None = all.
        mining: Limits on the neighbors.
    """

    needs_vectors: ClassVar[bool] = True
    reads_outcomes: ClassVar[bool] = True

    def __init__(
        self, instructions: int = 32, candidates: int | None = None, mining: MiningSpec = MiningSpec()
    ) -> None:
        super().__init__(instructions, candidates)
        self.mining = Miner(mining, type(self).__name__)

    def count(self, space: BlockSpace) -> int:
        return -(-len(space.task_R) // self.instructions)

    def draw(self, space: BlockSpace, rng: np.random.Generator) -> list[BlockIndices]:
        if not len(space.task_R):
            return []
        around = self.mining.around(space)
        free_R = np.ones(len(space.task_R), dtype=bool)
        blocks, filled = [], 0
        for anchor in rng.permutation(len(free_R)):
            if not free_R[anchor]:
                continue
            columns = self.columns(space, rng)
            mined = self._mined(around, int(anchor), columns, free_R)
            free_R[anchor] = free_R[mined] = False
            filling = self._filling(around, int(anchor), self.instructions - 1 - len(mined), free_R, rng)
            free_R[filling] = False
            filled += len(filling)
            blocks.append((np.concatenate([[anchor], mined, filling]), columns))
        around.report(blocks, filled, lambda block: self._rivals(around, int(block[0][0]), block[1]))
        return blocks

    def _mined(self, around: Neighborhoods, anchor: int, columns: np.ndarray, free_R: np.ndarray) -> np.ndarray:
        """Return the nearest unused instructions with a different target for some candidate."""
        near = around.near_RK[anchor]
        near = near[near >= 0]
        near = near[free_R[near]]
        return near[self._differs(around, anchor, near, columns)][: self.instructions - 1]

    def _differs(self, around: Neighborhoods, anchor: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Mark the rows whose target differs from the anchor's for at least one candidate: bool."""
        space, cells = around.space, np.ix_(rows, columns)
        gap = np.abs(space.target_RC[cells] - space.target_RC[anchor, columns])
        both_known = space.known_RC[cells] & space.known_RC[anchor, columns]
        return (both_known & (gap > 0) & (gap >= around.spec.margin)).any(axis=1)

    def _rivals(self, around: Neighborhoods, anchor: int, columns: np.ndarray) -> np.ndarray:
        """Return the instructions of the task that differ from the anchor, without near-duplicates."""
        pool = around.task_members[int(around.space.task_R[anchor])]
        return around.apart(anchor, pool[self._differs(around, anchor, pool, columns)])

    def _filling(
        self, around: Neighborhoods, anchor: int, count: int, free_R: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw random unused instructions, from the anchor's task first."""
        if count <= 0:
            return np.array([], dtype=np.int64)
        members = around.task_members[int(around.space.task_R[anchor])]
        pool = around.apart(anchor, members[free_R[members]])
        same = rng.choice(pool, min(count, len(pool)), replace=False)
        if len(same) == count:
            return same
        rest = np.setdiff1d(np.flatnonzero(free_R), same)
        others = rng.choice(rest, min(count - len(same), len(rest)), replace=False)
        return np.concatenate([same, others])
