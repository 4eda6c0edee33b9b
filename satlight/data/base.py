"""The base of every data module: performance records in, blocks of the score matrix out."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from satlight.data.blocks import (
    BlockIndices,
    BlockSampler,
    BlockSpace,
    RandomBlocks,
    disagreement_weights,
    rank_weights,
)
from satlight.data.stream import BlockDataset, BlockStream, EvaluationBlocks, View, codes, lengths, place
from satlight.data.targets import TargetSpec, shrink
from satlight.data.trained_on import TrainedOn
from satlight.errors import SatlightError
from satlight.records.sources import SimulatedSpec
from satlight.types import Capability, Stage

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

log = logging.getLogger(__name__)


@dataclass
class AptitudeSpec:
    """Size and wording of the aptitude test.

    Args:
        num_tasks: Maximum number of core tasks.
        num_shots: Maximum number of core instructions per task.
        min_shots: Tasks with fewer usable instructions are skipped.
        shots: Compute results from the first ``shots`` core instructions of each task only; None = all.
        keywords: JSON file {task: "keyword, keyword, ..."}; None = from the name of the task.
        style: ``plain`` or ``graded`` wording of a result, see :mod:`satlight.capability.text`.
        resample: In training, resample the core instructions of each block with replacement, so that the
            router learns that results are estimates.
        mixtures: In training, share of the candidates of each block that are mixed from two,
            see :mod:`satlight.data.mixtures`; 0 = none.
    """

    num_tasks: int = 50
    num_shots: int = 20
    min_shots: int = 5
    shots: int | None = None
    keywords: str | None = None
    style: Literal["plain", "graded"] = "plain"
    resample: bool = False
    mixtures: float = 0.0


class RoutingDataModule(L.LightningDataModule, ABC):
    """Blocks of the score matrix from any performance records.

    A subclass defines how candidates are described: :meth:`design`, :meth:`in_domain` and
    :meth:`capabilities`.

    ``fit`` never holds a test row. Core instructions come from the train split and are never training instructions.

    Args:
        records: A folder of performance records, a CSV or JSONL file, or ``simulated``.
        score_column: Column of outcomes to learn, in [0, 1].
        candidates: Names or patterns (``*7b*``) of the zoo; None = all.
        datasets: Datasets to use; None = all.
        train_datasets: Datasets to train and validate on; None = all that have train rows.
        test_groups: Named groups of datasets that get a macro mean in the test table, e.g.
            ``{in_domain: [a, b]}``.
        unseen_candidates: Names or patterns of candidates excluded from training, validation and the design
            of the aptitude test; they are routed from their aptitude results alone.
        zoo: Candidates that test and predict route between: ``all``, ``seen`` or ``unseen``.
        group_column: Instructions with the same value are kept in the same split.
        validation_fraction: Share of train instructions used for validation, in (0, 1).
        aptitude: The aptitude test.
        sampler: How blocks are built; random ones when None.
        targets: How outcomes become targets.
        blocks_per_epoch: Training blocks per epoch, over all devices; None = one pass. Passes continue across epochs.
        eval_instructions: B of validation, test and predict blocks.
        predict_split: Instructions that ``predict`` scores.
        simulated: Size of the simulated zoo.
        seed: Seed of splits and samplers.
        zoo_preset: Zoo setting that narrows the candidates further: a YAML file or the name of one in
            ``configs/zoo``, see :class:`satlight.records.zoo.ZooSetting`.
        circle_share: Training rows only, like the next two; see :class:`satlight.records.refine.Refinement`.
            Apply the circle test to instructions whose mean outcome over the candidates is at most this.
        near_duplicates: Remove training instructions with at least this similarity to another; 1 = the same text.
        max_per_dataset: Maximum number of training instructions per dataset.
        split_column: Column of the instructions that holds their split, see :func:`satlight.records.use_split`.
        cluster_tasks: Clusters that replace the tasks of records without tasks: ``auto``, ``off``, or their number.
        cluster_embedder: Their vectors, e.g. :class:`satlight.backbones.embedding.Embedder`; None = TF-IDF.
    """

    def __init__(
        self,
        records: str = "simulated",
        score_column: str = "score",
        candidates: list[str] | None = None,
        datasets: list[str] | None = None,
        train_datasets: list[str] | None = None,
        test_groups: dict[str, list[str]] | None = None,
        unseen_candidates: list[str] | None = None,
        zoo: Literal["all", "seen", "unseen"] = "all",
        group_column: str | None = None,
        validation_fraction: float = 0.1,
        aptitude: AptitudeSpec = AptitudeSpec(),  # noqa: B008  dataclass defaults are what jsonargparse shows
        sampler: BlockSampler | None = None,
        targets: TargetSpec = TargetSpec(),  # noqa: B008
        blocks_per_epoch: int | None = None,
        eval_instructions: int = 64,
        predict_split: Literal["train", "validation", "test", "all"] = "test",
        simulated: SimulatedSpec = SimulatedSpec(),  # noqa: B008
        seed: int = 0,
        zoo_preset: str | None = None,
        circle_share: float | None = None,
        near_duplicates: float | None = None,
        max_per_dataset: int | None = None,
        split_column: str = "split",
        cluster_tasks: Literal["auto", "off"] | int = "auto",
        cluster_embedder: Callable[[list[str]], Any] | None = None,
    ) -> None:
        super().__init__()
        if seed < 0:
            raise SatlightError(f"data.seed is {seed}; it must be 0 or more")
        self.source, self.score_column = records, score_column
        self.candidates, self.datasets, self.zoo_preset = candidates, datasets, zoo_preset
        self.train_datasets, self.test_groups = train_datasets, test_groups
        self.unseen_candidates, self.zoo = unseen_candidates, zoo
        self.group_column, self.split_column, self.validation_fraction = group_column, split_column, validation_fraction
        self.aptitude_spec = aptitude
        self.sampler = sampler if sampler is not None else RandomBlocks()
        self.target_spec = targets
        self.blocks_per_epoch = blocks_per_epoch
        self.eval_instructions, self.predict_split = eval_instructions, predict_split
        self.simulated, self.seed = simulated, seed
        self.circle_share, self.near_duplicates = circle_share, near_duplicates
        self.max_per_dataset = max_per_dataset
        self.cluster_tasks, self.cluster_embedder = cluster_tasks, cluster_embedder
        self.stage = Stage()
        """The current stage of training; set by a callback."""
        self.instruction_vectors: np.ndarray | None = None
        """Embeddings of :attr:`training_texts` (R, D), for samplers that need them; set by a callback."""
        self.not_judged: TrainedOn | None = None
        """Training rows of the router; they leave :attr:`judged_split`. None = its rows as they are."""
        self.judged_split = "test"
        self.image_share: float | None = None
        """Share of training instructions with images; None = as in the records."""
        self._stream: BlockStream | None = None
        self._resume: dict[str, int] | None = None
        self._records: PerformanceRecords | None = None
        self._without_test, self._told = False, 0

    # -- what a subclass defines ---------------------------------------------------------------------------

    @abstractmethod
    def design(self, train: PerformanceRecords) -> np.ndarray:
        """Design the aptitude test.

        Args:
            train: All train rows; its candidates include unseen ones.

        Returns:
            bool (N,), the rows of ``train`` that are core instructions; they leave the training rows.
        """

    @abstractmethod
    def in_domain(self, records: PerformanceRecords) -> np.ndarray:
        """Return which rows belong to a core task: bool (N,)."""

    @abstractmethod
    def capabilities(self, model_ids: list[str], rng: np.random.Generator | None = None) -> list[Capability]:
        """Return the capability representations of the candidates.

        Args:
            model_ids: Candidates.
            rng: Resamples the core instructions; None = the results as they are.
        """

    def train_dataset(self, view: View) -> BlockDataset:
        """Return the dataset of training blocks."""
        return BlockDataset(view, self.capabilities if self.aptitude_spec.resample else None)

    # -- reading -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if self._records is not None and (stage == "fit" or not self._without_test):
            return
        from satlight.records import open_records, split_records, use_split

        records = open_records(
            self.source, self.score_column, candidates=self.candidates, datasets=self.datasets, simulated=self.simulated
        )
        if self.zoo_preset is not None:
            from satlight.records.zoo import load_setting

            records = load_setting(self.zoo_preset).select(records)
        records = use_split(records, self.split_column)
        split = split_records(
            records, validation_fraction=self.validation_fraction, seed=self.seed, group_column=self.group_column
        )
        records = self._with_tasks(records.with_splits(split), split != "test" if stage == "fit" else None)
        self.seen, self.unseen = self._divide(records)
        self._training = self._training_rows(records)
        # Test rows are dropped here, so that fit cannot use them.
        self._without_test = stage == "fit"
        self._records = records.rows(records.splits != "test") if self._without_test else records

    def _with_tasks(self, records: PerformanceRecords, rows: np.ndarray | None) -> PerformanceRecords:
        from satlight.capability.clusters import cluster_tasks

        options = (self.cluster_tasks, self.cluster_embedder, self.seed)
        records, self.task_clusters = cluster_tasks(records, *options, rows)  # type: ignore[arg-type]
        return records

    def _divide(self, records: PerformanceRecords) -> tuple[list[str], list[str]]:
        unseen = records.filter(candidates=self.unseen_candidates).model_ids if self.unseen_candidates else []
        seen = [name for name in records.model_ids if name not in unseen]
        if len(seen) < 1:
            raise SatlightError("data.unseen_candidates leaves no candidate to train on")
        if self.zoo == "unseen" and not unseen:
            raise SatlightError("data.zoo is 'unseen' but data.unseen_candidates names none")
        return seen, unseen

    def _training_rows(self, records: PerformanceRecords) -> PerformanceRecords:
        training = records.splits == "train"
        if self.train_datasets is not None:
            unknown = sorted(set(self.train_datasets) - set(records.datasets))
            if unknown:
                raise SatlightError(
                    f"data.train_datasets names {unknown}; the records have {sorted(set(records.datasets))}"
                )
            training &= np.isin(records.datasets, self.train_datasets)
        if not training.any():
            raise SatlightError(
                f"The train split of {records.name} is empty"
                + (f" for train_datasets {self.train_datasets}" if self.train_datasets else "")
                + "; check the split column, data.datasets and data.train_datasets"
            )
        core = self.design(records.rows(training))
        if core.all():
            raise SatlightError(
                "All train instructions became core instructions; lower data.aptitude.num_tasks or "
                "data.aptitude.num_shots"
            )
        from satlight.records.refine import Refinement

        # The aptitude test is not refined: candidates added later have no rotations of its items.
        training[np.flatnonzero(training)] = ~core
        refinement = Refinement(self.circle_share, self.near_duplicates, self.max_per_dataset)
        refined, keep = refinement.apply(records, training, candidates=self.seen, seed=self.seed)
        return refined.rows(keep)

    # -- views ---------------------------------------------------------------------------------------------

    @property
    def records(self) -> PerformanceRecords:
        """The records of this stage with satlight's splits; without test rows in ``fit``."""
        if self._records is None:
            raise SatlightError("The data module is not set up; call setup('fit') or setup('test') first")
        return self._records

    @property
    def zoo_candidates(self) -> list[str]:
        """Names of the candidates that test and predict route between."""
        chosen = {"all": self.seen + self.unseen, "seen": self.seen, "unseen": self.unseen}[self.zoo]
        return [name for name in self.records.model_ids if name in set(chosen)]

    @property
    def training_texts(self) -> list[str]:
        """R training instructions, in the order of the rows of training blocks."""
        return self._training.texts

    def train_view(self) -> View:
        """Return the training rows with the seen candidates, targets and weights."""
        records = self._training.filter(candidates=self.seen)
        spec = self.target_spec
        targets = shrink(records.outcomes, records.known, records.task_keys, records.datasets, spec)
        weights = None
        if spec.rank_weight or spec.disagreement_weight:
            weights = np.outer(
                disagreement_weights(records.outcomes, records.known, spec.disagreement_weight),
                rank_weights(records.outcomes, records.known, spec.rank_weight),
            ).astype(np.float32)
        return View(records, self.capabilities(self.seen), targets, weights)

    def eval_view(self, split: str) -> View:
        """Return the rows of ``split`` with the seen candidates (validation) or the zoo (test, predict)."""
        names = self.seen if split == "validation" else self.zoo_candidates
        rows = np.ones(len(self.records.splits), dtype=bool) if split == "all" else self.records.splits == split
        if split == "validation" and self.train_datasets is not None:
            rows &= np.isin(self.records.datasets, self.train_datasets)
        if split == self.judged_split and self.not_judged is not None:
            rows = self._without_trained(rows, self.not_judged)
        if not rows.any():
            raise SatlightError(
                f"The {split} split of {self.records.name} is empty; its splits are "
                f"{sorted(set(self.records.splits))}. Check the split column, data.datasets and "
                "data.validation_fraction."
            )
        records = self.records.rows(rows).filter(candidates=names)
        return View(records, self.capabilities(names), records.outcomes)

    def control_records(self) -> PerformanceRecords:
        """Return what controls and baselines may learn from: train and validation rows, for the zoo."""
        return self._fitted_rows().filter(candidates=self.zoo_candidates)

    def trained_on(self) -> TrainedOn:
        """Return what ``fit`` reads: the texts and groups of core, training and validation rows."""
        return TrainedOn.of(self._fitted_rows(), self.group_column)

    def _fitted_rows(self) -> PerformanceRecords:
        keep = np.isin(self.records.splits, ["train", "validation"])
        if self.train_datasets is not None:
            keep &= np.isin(self.records.datasets, self.train_datasets)
        return self.records.rows(keep)

    def _without_trained(self, rows: np.ndarray, trained: TrainedOn) -> np.ndarray:
        """Return ``rows`` without those that the router was trained on."""
        left = rows & ~trained.holds(self.records)
        if rows.any() and not left.any():
            raise SatlightError(
                f"The router was trained on the text or group of each of the {rows.sum()} {self.judged_split} rows of "
                f"{self.records.name}, so none can be judged; use other rows"
            )
        if (dropped := int(rows.sum() - left.sum())) != self._told:
            log.warning(
                "%d of %d %s rows of %s are left out: the router was trained on their text or group",
                *(dropped, rows.sum(), self.judged_split, self.records.name),
            )
            self._told = dropped
        return left

    # -- loaders -------------------------------------------------------------------------------------------

    def loader(self, dataset: BlockDataset, indices: Iterable[BlockIndices]) -> DataLoader:
        """Return the loader of training or evaluation blocks."""
        return DataLoader(dataset, sampler=indices, batch_size=None)  # type: ignore[arg-type]

    def train_dataloader(self) -> DataLoader:
        view = self.train_view()
        known, tasks_R = view.records.known, codes(view.records.task_keys)
        image_R = np.array([bool(images) for images in view.records.images])
        space = BlockSpace(view.targets, known, self._lengths(view.records), tasks_R, image_R=image_R)
        self._stream = BlockStream(self, space, self.in_domain(view.records), *place(self.trainer))
        if self._resume is not None:
            self._stream.resume(self._resume["epoch"], math.ceil(self._resume["done"] / place(self.trainer)[1]))
            self._resume = None
        return self.loader(self.train_dataset(view), self._stream)

    def val_dataloader(self) -> DataLoader:
        return self._eval_loader("validation")

    def test_dataloader(self) -> DataLoader:
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self._eval_loader(self.predict_split)

    def _eval_loader(self, split: str) -> DataLoader:
        view = self.eval_view(split)
        order = np.argsort(self._lengths(view.records), kind="stable")
        columns = np.arange(len(view.capabilities))
        blocks = [
            (order[i : i + self.eval_instructions], columns) for i in range(0, len(order), self.eval_instructions)
        ]
        return self.loader(BlockDataset(view), EvaluationBlocks(blocks, *place(self.trainer)))

    def _lengths(self, records: PerformanceRecords) -> np.ndarray:
        """Return the lengths to bucket instructions by, (N,): tokens if the module counts them, else bytes.

        Texts with the same number of bytes may differ several-fold in tokens (Chinese, digits), and padding
        costs as much as text.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        count = getattr(module, "count_tokens", None)
        return lengths(records) if count is None else np.asarray(count(records.texts))

    # -- resuming ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        if self._stream is None or self.trainer is None:
            return {}
        # Not `completed`: a checkpoint written at the end of a step counts that step as processed only.
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        done = int(progress.processed)
        done %= max(1, len(self._stream))
        return {"epoch": self._stream.epoch, "done": done * place(self.trainer)[1]}  # blocks of all devices

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = dict(state_dict) or None
