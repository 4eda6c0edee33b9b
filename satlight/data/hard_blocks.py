"""Blocks of instructions that lie close together and are handled differently.

Legend: R training instructions, C candidates, D features, K neighbours, P pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from satlight.data.blocks import BlockSampler, BlockSpace, GroupBlocks, Plan
from satlight.data.negatives import (
    Hardness,
    InstructionIndex,
    hard_negatives,
    mean_cosine,
    neighbours,
    unit_rows,
)
from satlight.errors import SatlightError

log = logging.getLogger(__name__)

REPORTED = 1000
"""Blocks whose cosines are measured for the log."""


@dataclass(frozen=True)
class MiningSpec:
    """Which neighbours may become hard negatives.

    Args:
        near_duplicate: Instructions with a higher cosine say the same thing and are no negatives, in (0, 1].
        margin: A negative's target lies at least so far below the positive's, in [0, 1]; matters where
            outcomes are soft or shrunk.
        first_rank: Pass over so many of the nearest instructions, 0 or more.
        last_rank: Look no further than the so-manieth nearest, above ``first_rank``.
    """

    near_duplicate: float = 0.95
    margin: float = 0.0
    first_rank: int = 0
    last_rank: int = 100

    def __post_init__(self) -> None:
        for key, value, allowed, good in (
            ("near_duplicate", self.near_duplicate, "it must lie in (0, 1]", 0 < self.near_duplicate <= 1),
            ("margin", self.margin, "it must lie in [0, 1]", 0 <= self.margin <= 1),
            ("first_rank", self.first_rank, "it must be 0 or more", self.first_rank >= 0),
            (
                "last_rank",
                self.last_rank,
                f"it must be above first_rank = {self.first_rank}",
                self.last_rank > self.first_rank,
            ),
        ):
            if not good:
                raise SatlightError(f"data.sampler.mining.{key} is {value}; {allowed}")


class Neighbourhoods:
    """Who is near whom in a space: worked out once for each space, and reported once.

    Args:
        space: With vectors.
        spec: Which neighbours count.
        name: Of the sampler, for messages.
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
        near_RK = neighbours(index, self.vector_RD, spec.last_rank, spec.near_duplicate)
        self.near_RK = near_RK[:, spec.first_rank :]
        self.task_members = {
            int(task): np.flatnonzero(space.task_R == task) for task in np.unique(space.task_R)
        }
        self._reported = False

    def apart(self, row: int, pool: np.ndarray) -> np.ndarray:
        """Those of ``pool`` that are neither the instruction ``row`` nor a near-duplicate of it."""
        cosine = self.vector_RD[pool] @ self.vector_RD[row]
        return pool[(pool != row) & (cosine <= self.spec.near_duplicate)]

    def report(self, plans: list[Plan], filled: int, rivals: Callable[[Plan], np.ndarray]) -> None:
        """Say once how hard the negatives of a pass are; the first row of a block is its anchor.

        Args:
            plans: In random order; cosines are those of the first :data:`REPORTED`.
            filled: How many of all negatives the neighbourhoods did not hold.
            rivals: Instructions of the anchor's task that might stand in a block, to compare with.
        """
        if self._reported or not plans:
            return
        self._reported = True
        rng = np.random.default_rng(0)  # of its own: what is logged must not change what is drawn
        anchors, mined, random = [], [], []
        for rows, columns in plans[:REPORTED]:
            pool = rivals((rows, columns))
            anchors.append(rows[0])
            mined.append(rows[1:])
            random.append(rng.choice(pool, min(len(rows) - 1, len(pool)), replace=False))
        hardness = Hardness(
            mined=self._mean_cosine(anchors, mined),
            random=self._mean_cosine(anchors, random),
            negatives=sum(len(rows) - 1 for rows, _ in plans),
            filled=filled,
        )
        message, level = f"{self.name}: {hardness}", logging.INFO
        if hardness.share_filled > 0.5:
            message, level = (
                f"{message}; a larger last_rank or near_duplicate of data.sampler.mining fills fewer",
                logging.WARNING,
            )
        log.log(level, message)

    def _mean_cosine(self, anchors: list[np.int64], others: list[np.ndarray]) -> float:
        return mean_cosine(self.vector_RD, np.repeat(anchors, list(map(len, others))), np.concatenate(others))


class Miner:
    """Keeps the neighbourhoods of the space it was asked for last."""

    def __init__(self, spec: MiningSpec, name: str) -> None:
        self.spec, self.name = spec, name
        self._last: Neighbourhoods | None = None

    def around(self, space: BlockSpace) -> Neighbourhoods:
        """The neighbourhoods of ``space``."""
        if self._last is None or self._last.space is not space:
            self._last = Neighbourhoods(space, self.spec, self.name)
        return self._last


class HardGroupBlocks(GroupBlocks):
    """The paper's groups with hard negatives: the nearest instructions that the same candidate fails.

    Where the neighbourhood holds fewer than k - 1 of them, the rest is drawn from those of the same task,
    and the log says how often; a positive that has nothing but near-duplicates there forms no group.
    Positive and negative mean a target from 0.5 on, and below, as in the objectives.

    Args:
        size: k, at least 2.
        rank_weight: As in :class:`~satlight.data.blocks.GroupBlocks`.
        mining: Which neighbours may become negatives.

    Reference: groups in [Zhang et al. 2025, §4, Eq. 5]; nearest negatives are ours.
    """

    needs_vectors: ClassVar[bool] = True

    def __init__(
        self,
        size: int = 4,
        rank_weight: float = 0.0,
        mining: MiningSpec = MiningSpec(),
    ) -> None:
        super().__init__(size, rank_weight)
        self.mining = Miner(mining, type(self).__name__)

    def draw(self, space: BlockSpace, rng: np.random.Generator) -> list[Plan]:
        around = self.mining.around(space)
        plans = super().draw(space, rng)
        # What the neighbourhood had was taken first, so whatever lies outside of it was filled in.
        filled = sum(int((~np.isin(rows[1:], around.near_RK[rows[0]])).sum()) for rows, _ in plans)
        around.report(plans, filled, lambda plan: self._rivals(around, int(plan[0][0]), int(plan[1][0])))
        return plans

    def negatives(
        self, space: BlockSpace, row: int, column: int, pool: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        around, count = self.mining.around(space), self.instructions - 1
        mined = hard_negatives(
            around.near_RK,
            np.array([row]),
            np.array([column]),
            space.target_RC,
            space.known_RC,
            count,
            around.spec.margin,
        )[0]
        mined = mined[mined >= 0]
        if len(mined) == count:
            return mined
        pool = np.setdiff1d(self._rivals(around, row, column), mined)
        filling = rng.choice(pool, min(count - len(mined), len(pool)), replace=False)
        return np.concatenate([mined, filling])

    def _rivals(self, around: Neighbourhoods, row: int, column: int) -> np.ndarray:
        """Instructions of the task that the candidate fails, no near-duplicates of the positive."""
        space, pool = around.space, around.task_members[int(around.space.task_R[row])]
        target = space.target_RC[pool, column]
        failed = space.known_RC[pool, column] & (target < 0.5)
        failed &= space.target_RC[row, column] - target >= around.spec.margin
        return around.apart(row, pool[failed])


class HardNegativeBlocks(BlockSampler):
    """Every instruction once a pass, in blocks of neighbours that candidates handle differently.

    A block grows around a random instruction: its nearest ones whose target differs from its own for at
    least one candidate of the block. Where too few of them are still free, the rest is drawn from its task,
    then from all; the log says how often. The blocks serve every objective: a column holds near
    instructions with different outcomes, and no row is left out.

    Neighbours differ in length, so blocks hold more padding than those of
    :class:`~satlight.data.blocks.RandomBlocks`.

    Args:
        instructions: B, instructions in a block.
        candidates: C, candidates drawn for each block; None = all.
        mining: Which neighbours count.
    """

    needs_vectors: ClassVar[bool] = True
    reads_outcomes: ClassVar[bool] = True

    def __init__(
        self,
        instructions: int = 32,
        candidates: int | None = None,
        mining: MiningSpec = MiningSpec(),
    ) -> None:
        super().__init__(instructions, candidates)
        self.mining = Miner(mining, type(self).__name__)

    def count(self, space: BlockSpace) -> int:
        return -(-len(space.task_R) // self.instructions)

    def draw(self, space: BlockSpace, rng: np.random.Generator) -> list[Plan]:
        if not len(space.task_R):
            return []
        around = self.mining.around(space)
        free_R = np.ones(len(space.task_R), dtype=bool)
        plans, filled = [], 0
        for anchor in rng.permutation(len(free_R)):
            if not free_R[anchor]:
                continue
            columns = self.columns(space, rng)
            mined = self._mined(around, int(anchor), columns, free_R)
            free_R[anchor] = free_R[mined] = False
            filling = self._filling(around, int(anchor), self.instructions - 1 - len(mined), free_R, rng)
            free_R[filling] = False
            filled += len(filling)
            plans.append((np.concatenate([[anchor], mined, filling]), columns))
        around.report(plans, filled, lambda plan: self._rivals(around, int(plan[0][0]), plan[1]))
        return plans

    def _mined(
        self, around: Neighbourhoods, anchor: int, columns: np.ndarray, free_R: np.ndarray
    ) -> np.ndarray:
        """The nearest free instructions with another target for some candidate."""
        near = around.near_RK[anchor]
        near = near[near >= 0]
        near = near[free_R[near]]
        return near[self._differs(around, anchor, near, columns)][: self.instructions - 1]

    def _differs(
        self, around: Neighbourhoods, anchor: int, rows: np.ndarray, columns: np.ndarray
    ) -> np.ndarray:
        """bool, rows with another target than the anchor's for at least one candidate."""
        space, cells = around.space, np.ix_(rows, columns)
        gap = np.abs(space.target_RC[cells] - space.target_RC[anchor, columns])
        both_known = space.known_RC[cells] & space.known_RC[anchor, columns]
        return (both_known & (gap > 0) & (gap >= around.spec.margin)).any(axis=1)

    def _rivals(self, around: Neighbourhoods, anchor: int, columns: np.ndarray) -> np.ndarray:
        """Instructions of the task that differ from the anchor, no near-duplicates of it."""
        pool = around.task_members[int(around.space.task_R[anchor])]
        return around.apart(anchor, pool[self._differs(around, anchor, pool, columns)])

    def _filling(
        self, around: Neighbourhoods, anchor: int, count: int, free_R: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Random free instructions, of the task as far as there are any."""
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
