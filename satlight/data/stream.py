"""The stream of training blocks: cut into epochs, resumable at any step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from satlight.data.blocks import BlockIndices, BlockSampler, BlockSpace, share_rows
from satlight.data.mixtures import Mixtures
from satlight.errors import SatlightError
from satlight.types import Block, Capability, Stage

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

Describe = Callable[[list[str], np.random.Generator], list[Capability]]
"""Function that draws capability representations of the named candidates."""


@dataclass
class View:
    """Records of some rows and candidates, with the capabilities of the candidates and the targets.

    Args:
        records: The rows and candidates.
        capabilities: Capability representations of the C candidates.
        targets: float (N, C), in [0, 1].
        weights: float32 (N, C), non-negative weights of the cells; None = all 1.
    """

    records: PerformanceRecords
    capabilities: list[Capability]
    targets: np.ndarray
    weights: np.ndarray | None = None


class Repeated(NamedTuple):
    """Indices of a block that another process counts: none of its cells is known, so that no metric counts it again."""

    rows: np.ndarray
    columns: np.ndarray


class BlockDataset(Dataset):
    """Turn the indices of a block into the block.

    Args:
        view: Records and capabilities.
        resample: Draws the capabilities of each block again; None = those of the view.
        mixtures: Mixes the candidates of each block; None = the candidates of the view.
    """

    def __init__(self, view: View, resample: Describe | None = None, mixtures: Mixtures | None = None) -> None:
        self.view, self.resample, self.mixtures = view, resample, mixtures
        self.read_images: Callable[[int], tuple[np.ndarray, ...]] | None = None
        """Reads the images of a row, uint8 (H, W, 3) each; None = blocks without images."""
        self.texts = view.records.texts
        self.groups = codes(view.records.datasets)

    def __getitem__(self, indices: BlockIndices) -> Block:
        rows, columns = indices
        view = self.view
        rng = np.random.default_rng([int(rows[0]), int(columns[0]), len(rows), int(rows[-1])])
        cells: tuple[np.ndarray, ...] = np.ix_(rows, columns)
        if self.mixtures is None:
            names = [view.records.model_ids[c] for c in columns]
            capabilities = [view.capabilities[c] for c in columns]
            if self.resample is not None:
                capabilities = self.resample(names, rng)
        else:
            own = view.capabilities
            if self.resample is not None:
                own = self.resample(view.records.model_ids, rng)
            capabilities, source_CK = self.mixtures.mix(own, columns, rng)
            cells = rows[:, None], self.mixtures.sources(source_CK, rows)
        known_BC = np.asarray(view.records.known[cells])
        if isinstance(indices, Repeated):
            known_BC = np.zeros_like(known_BC)
        return Block(
            instructions=[self.texts[r] for r in rows],
            capabilities=capabilities,
            rows=torch.as_tensor(rows),
            columns=torch.as_tensor(columns),
            groups=torch.as_tensor(self.groups[rows]),
            target_BC=torch.from_numpy(np.asarray(view.targets[cells], dtype=np.float32)),
            known_BC=torch.from_numpy(known_BC),
            weight_BC=None if view.weights is None else torch.from_numpy(view.weights[cells]),
            images=None if self.read_images is None else [self.read_images(int(r)) for r in rows],
        )


class StreamSettings(Protocol):
    """Settings that a :class:`BlockStream` reads from its data module; callbacks may change the last two."""

    seed: int
    sampler: BlockSampler
    blocks_per_epoch: int | None
    image_share: float | None
    stage: Stage
    instruction_vectors: np.ndarray | None


class EvaluationBlocks(DistributedSampler):
    """The blocks that one of several processes evaluates: each block is counted in exactly one process.

    All processes get the same number of blocks, since each forward pass is a collective operation in DDP and FSDP.
    Where the blocks do not divide evenly, the first ones are :class:`Repeated`. It is a DistributedSampler so that
    Lightning does not divide the blocks a second time.

    Args:
        blocks: All blocks, at least one.
        rank: Number of this process, in [0, world_size).
        world_size: Number of processes.

    Example:
        >>> blocks = [(np.array([row]), np.array([0])) for row in range(3)]
        >>> [[int(rows[0]) for rows, _ in EvaluationBlocks(blocks, rank, 2)] for rank in range(2)]
        [[0, 2], [1, 0]]
        >>> isinstance([*EvaluationBlocks(blocks, 1, 2)][-1], Repeated)
        True
    """

    def __init__(self, blocks: Sequence[BlockIndices], rank: int = 0, world_size: int = 1) -> None:
        missing = -len(blocks) % world_size
        repeated = [Repeated(*blocks[number % len(blocks)]) for number in range(missing)]
        self._own = [*blocks, *repeated][rank::world_size]

    def __len__(self) -> int:
        return len(self._own)

    def __iter__(self) -> Iterator[BlockIndices]:
        return iter(self._own)


class BlockStream(DistributedSampler):
    """The endless stream of block indices, cut into epochs.

    A pure function of (seed, epoch, stage), so that training can resume at any step. Several processes take turns:
    process r of W gets the blocks r, r + W, …, and an epoch is extended to a multiple of W blocks, so that no block is
    trained on twice. It is a DistributedSampler so that Lightning does not divide the blocks a second time.

    Args:
        data: The data module; its stage is read when an epoch starts.
        space: All training rows.
        in_domain_R: bool, rows whose task is a core task.
        rank: Number of this process, in [0, world_size).
        world_size: Number of processes W.
    """

    def __init__(
        self, data: StreamSettings, space: BlockSpace, in_domain_R: np.ndarray, rank: int = 0, world_size: int = 1
    ) -> None:
        self.data, self.in_domain_R = data, in_domain_R
        self._rank, self._world_size = rank, world_size
        self.epoch, self._skip = 0, 0
        self._rows = {False: np.arange(len(in_domain_R)), True: np.flatnonzero(in_domain_R)}
        self._all, self._drawn_from = space, (False, space)
        mixed = self._mixed(space, np.random.default_rng(0))[1]
        length = data.blocks_per_epoch or data.sampler.count(mixed)
        self._length = length + -length % world_size

    def __len__(self) -> int:
        return self._length // self._world_size

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch to draw; Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, done: int) -> None:
        """Skip the first ``done`` blocks of this process in ``epoch``, once."""
        self.epoch, self._skip = epoch, done

    def blocks(self, epoch: int) -> list[BlockIndices]:
        """Return the indices of all blocks of one epoch in the current stage, those of all processes."""
        stage = self.data.stage
        rows, space = self._rows[stage.in_domain_only], self.space()
        blocks: list[BlockIndices] = []
        start, number, skipped = epoch * self._length, 0, 0
        while len(blocks) < self._length:
            rng = np.random.default_rng([self.data.seed, int(stage.in_domain_only), number])
            kept, mixed = self._mixed(space, rng)
            drawn = [(rows[kept[own]], columns) for own, columns in self.data.sampler.draw(mixed, rng)]
            if not drawn:
                raise SatlightError(
                    f"{type(self.data.sampler).__name__} built no block from {len(rows)} instructions"
                    + (f" of the core tasks (stage {stage.name!r})" if stage.in_domain_only else "")
                    + "; check data.sampler, data.aptitude and data.train_datasets"
                )
            first = max(0, start - skipped)
            blocks += drawn[first : first + self._length - len(blocks)]
            skipped, number = skipped + len(drawn), number + 1
        return blocks

    def _mixed(self, space: BlockSpace, rng: np.random.Generator) -> tuple[np.ndarray, BlockSpace]:
        """Return the rows of one pass, and the space of these: all, or those that give the share of images."""
        share = self.data.image_share
        if share is None:
            return np.arange(len(space.length_R)), space
        assert space.image_R is not None  # the data module counts the images
        kept = share_rows(space.image_R, share, rng)
        return kept, space.subset(kept)

    def space(self) -> BlockSpace:
        """Return what the current stage draws from.

        It is the same object until the stage or the instruction vectors change, so that a sampler may cache
        what it derives from it.
        """
        vectors, in_domain_only = self.data.instruction_vectors, self.data.stage.in_domain_only
        if vectors is not self._all.vector_RD:
            if vectors is not None and len(vectors) != len(self.in_domain_R):
                raise SatlightError(
                    f"instruction_vectors of the data module has {len(vectors)} rows, but there are "
                    f"{len(self.in_domain_R)} training instructions; embed its training_texts"
                )
            self._all = replace(self._all, vector_RD=vectors)
            self._drawn_from = False, self._all
        if in_domain_only != self._drawn_from[0]:
            space = self._all.subset(self._rows[True]) if in_domain_only else self._all
            self._drawn_from = in_domain_only, space
        return self._drawn_from[1]

    def __iter__(self) -> Iterator[BlockIndices]:
        # A generator: Lightning makes the iterator of the first epoch before callbacks have set the stage.
        skip, self._skip = self._skip, 0
        yield from self.blocks(self.epoch)[self._rank :: self._world_size][skip:]


def place(trainer: Any) -> tuple[int, int]:
    """Return the number of this process and the number of processes; (0, 1) without a trainer."""
    return (0, 1) if trainer is None else (trainer.global_rank, trainer.world_size)


def lengths(records: PerformanceRecords) -> np.ndarray:
    """Return the length of each instruction in bytes: int64 (N,)."""
    return np.array([len(text.encode()) for text in records.texts])


def codes(names: np.ndarray) -> np.ndarray:
    """Number the distinct names in alphabetical order: int64 (N,)."""
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
