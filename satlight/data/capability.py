"""The data module of capability instructions: candidates described by their aptitude results as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from satlight.data.base import RoutingDataModule
from satlight.data.mixtures import Mixtures
from satlight.data.stream import BlockDataset, View
from satlight.errors import SatlightError
from satlight.types import Capability, task_key

if TYPE_CHECKING:
    from satlight.capability import AptitudeTest
    from satlight.records import PerformanceRecords


class CapabilityInstructionDataModule(RoutingDataModule):
    """Blocks of capability instructions: texts of instructions and of aptitude results.

    Takes the arguments of :class:`~satlight.data.base.RoutingDataModule`.

    Example:
        >>> from satlight.data import SimulatedSpec
        >>> data = CapabilityInstructionDataModule(simulated=SimulatedSpec(1500, 6))
        >>> data.setup("fit")
        >>> next(iter(data.train_dataloader())).shape
        (32, 6)

    Reference: [Zhang et al. 2025, §3 and 4].
    """

    aptitude: AptitudeTest

    def design(self, train: PerformanceRecords) -> np.ndarray:
        from satlight.capability import AptitudeTest

        spec = self.aptitude_spec
        self.aptitude = AptitudeTest.design(
            train.filter(candidates=self.seen),
            num_tasks=spec.num_tasks,
            num_shots=spec.num_shots,
            min_shots=spec.min_shots,
            seed=self.seed,
            keywords=spec.keywords,
        )
        core = self.aptitude.holds(train)
        self._core = train.rows(core)
        return core

    def in_domain(self, records: PerformanceRecords) -> np.ndarray:
        return np.isin(records.task_keys, [task_key(task.dataset, task.name) for task in self.aptitude.tasks])

    def capabilities(self, model_ids: list[str], rng: np.random.Generator | None = None) -> list[Capability]:
        from satlight.capability import CapabilityText

        spec = self.aptitude_spec
        return CapabilityText(shots=spec.shots, style=spec.style).write(self.aptitude, self._core, model_ids, rng)

    def train_dataset(self, view: View) -> BlockDataset:
        dataset = super().train_dataset(view)
        dataset.mixtures = self.mixtures(view)
        return dataset

    def mixtures(self, view: View) -> Mixtures | None:
        """Return what mixes the candidates of training blocks; None when they stay as they are."""
        share = self.aptitude_spec.mixtures
        if share == 0:
            return None
        if self.sampler.reads_outcomes:
            raise SatlightError(
                f"data.aptitude.mixtures is {share}, but {type(self.sampler).__name__} chooses blocks by the "
                "outcomes of real candidates, which a mixture does not have; use RandomBlocks or TaskBlocks, "
                "or set data.aptitude.mixtures to 0"
            )
        keywords = {task_key(task.dataset, task.name): task.keywords for task in self.aptitude.tasks}
        kind_R = np.array([keywords.get(key, key) for key in view.records.task_keys])
        return Mixtures(kind_R, view.records.shape[1], share)
