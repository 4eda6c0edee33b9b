"""From views of the records to a stream of blocks that can be cut into epochs and resumed anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from satlight.data.blocks import BlockSpace, Plan
from satlight.errors import SatlightError
from satlight.types import Block, Capability

if TYPE_CHECKING:
    from satlight.data.capability import CapabilityInstructionDataModule
    from satlight.records import PerformanceRecords


@dataclass
class View:
    """One side of the data: records of some rows and candidates, with the candidates' capabilities."""

    records: PerformanceRecords
    capabilities: list[Capability]
    targets: np.ndarray
    weights: np.ndarray | None = None


class BlockDataset(Dataset):
    """Turns plans into blocks.

    Args:
        view: Records and capabilities.
        data: For training blocks, the data module; it says whether results are drawn anew and candidates
            mixed.
    """

    def __init__(self, view: View, data: CapabilityInstructionDataModule | None = None) -> None:
        self.view = view
        self.texts = view.records.texts
        self.groups = codes(view.records.datasets)
        self.resampling = data if data is not None and data.aptitude_spec.resample else None
        self.mixtures = None if data is None else data.mixtures(view)

    def __getitem__(self, plan: Plan) -> Block:
        rows, columns = plan
        view = self.view
        rng = np.random.default_rng([int(rows[0]), int(columns[0]), len(rows), int(rows[-1])])
        cells: tuple[np.ndarray, ...] = np.ix_(rows, columns)
        if self.mixtures is None:
            names = [view.records.model_ids[c] for c in columns]
            capabilities = [view.capabilities[c] for c in columns]
            if self.resampling is not None:
                capabilities = self.resampling.capabilities(names, rng)
        else:
            own = view.capabilities
            if self.resampling is not None:
                own = self.resampling.capabilities(view.records.model_ids, rng)
            capabilities, source_CK = self.mixtures.mix(own, columns, rng)
            cells = rows[:, None], self.mixtures.sources(source_CK, rows)
        return Block(
            instructions=[self.texts[r] for r in rows],
            capabilities=capabilities,
            rows=torch.as_tensor(rows),
            columns=torch.as_tensor(columns),
            groups=torch.as_tensor(self.groups[rows]),
            target_BC=torch.from_numpy(np.asarray(view.targets[cells], dtype=np.float32)),
            known_BC=torch.from_numpy(np.asarray(view.records.known[cells])),
            weight_BC=None if view.weights is None else torch.from_numpy(view.weights[cells]),
        )


class PlanSampler(Sampler):
    """The endless stream of plans, cut into epochs.

    A pure function of (seed, epoch, stage), so that training can resume anywhere.

    Args:
        data: The data module, asked at the start of every epoch whether it wants in-domain instructions
            only (stage 1).
        space: All training rows.
        in_domain_R: bool, rows whose task is a core task.
    """

    def __init__(
        self, data: CapabilityInstructionDataModule, space: BlockSpace, in_domain_R: np.ndarray
    ) -> None:
        self.data, self.space, self.in_domain_R = data, space, in_domain_R
        self.epoch, self._skip = 0, 0
        self._spaces: dict[bool, tuple[np.ndarray, BlockSpace]] = {}
        self._length = data.blocks_per_epoch or data.sampler.count(space)

    def __len__(self) -> int:
        return self._length

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this at the start of every epoch."""
        self.epoch = epoch

    def resume(self, epoch: int, done: int) -> None:
        """Leave out the first ``done`` plans of ``epoch``, once."""
        self.epoch, self._skip = epoch, done

    def plans(self, epoch: int, in_domain_only: bool) -> list[Plan]:
        """All plans of one epoch."""
        keep, space = self._stage(in_domain_only)
        plans: list[Plan] = []
        start, number, skipped = epoch * self._length, 0, 0
        while len(plans) < self._length:
            rng = np.random.default_rng([self.data.seed, int(in_domain_only), number])
            drawn = [(keep[rows], columns) for rows, columns in self.data.sampler.draw(space, rng)]
            if not drawn:
                raise SatlightError(
                    f"{type(self.data.sampler).__name__} built no block from {len(keep)} instructions"
                    + (" of the core tasks (stage 1)" if in_domain_only else "")
                    + "; check data.sampler, data.aptitude and data.train_datasets"
                )
            first = max(0, start - skipped)
            plans += drawn[first : first + self._length - len(plans)]
            skipped, number = skipped + len(drawn), number + 1
        return plans

    def _stage(self, in_domain_only: bool) -> tuple[np.ndarray, BlockSpace]:
        """Rows of a stage and their space, the same object until the instruction vectors change.

        So a sampler may keep what it worked out of a space.
        """
        vectors = self.data.instruction_vectors
        if vectors is not self.space.vector_RD:
            if vectors is not None and len(vectors) != len(self.in_domain_R):
                raise SatlightError(
                    f"instruction_vectors of the data module holds {len(vectors)} rows, but there are "
                    f"{len(self.in_domain_R)} training instructions; read data.training_texts"
                )
            self.space, self._spaces = replace(self.space, vector_RD=vectors), {}
        if in_domain_only not in self._spaces:
            keep = np.flatnonzero(self.in_domain_R) if in_domain_only else np.arange(len(self.in_domain_R))
            self._spaces[in_domain_only] = keep, self.space.subset(keep) if in_domain_only else self.space
        return self._spaces[in_domain_only]

    def __iter__(self) -> Iterator[Plan]:
        # A generator: Lightning makes the first epoch's iterator before callbacks have set the stage.
        skip, self._skip = self._skip, 0
        yield from self.plans(self.epoch, self.data.in_domain_only)[skip:]


def lengths(records: PerformanceRecords) -> np.ndarray:
    """Bytes of each instruction, int64 (N,)."""
    return np.array([len(text.encode()) for text in records.texts])


def codes(names: np.ndarray) -> np.ndarray:
    """Numbers of the names in alphabetical order, int64 (N,)."""
    return np.unique(names, return_inverse=True)[1].astype(np.int64)
