"""The data module of capability instructions: performance records in, blocks out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import lightning as L
import numpy as np
from torch.utils.data import DataLoader

from satlight.data.blocks import BlockSampler, BlockSpace, RandomBlocks, disagreement_weights, rank_weights
from satlight.data.mixtures import Mixtures
from satlight.data.stream import BlockDataset, PlanSampler, View, codes, lengths
from satlight.data.targets import TargetSpec, shrink
from satlight.errors import SatlightError
from satlight.records.sources import SimulatedSpec
from satlight.types import Capability, task_key

if TYPE_CHECKING:
    from satlight.capability import AptitudeTest
    from satlight.records import PerformanceRecords


@dataclass
class AptitudeSpec:
    """How capabilities are measured and written down.

    Args:
        num_tasks: Core tasks, at most.
        num_shots: Core instructions per task, at most.
        min_shots: Tasks with fewer usable instructions are passed over.
        shots: Use only the first so many core instructions of each task in results; None = all.
        keywords: JSON file {task: "keyword, keyword, ..."}; None = from the task's name.
        style: ``plain`` or ``graded`` wording of a result, see :mod:`satlight.capability.text`.
        resample: In training, draw each block's results anew from the core instructions with replacement,
            so that the router learns that they are estimates.
        mixtures: In training, share of each block's candidates that are mixed from two,
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


class CapabilityInstructionDataModule(L.LightningDataModule):
    """Blocks of capability instructions from any performance records.

    ``fit`` never holds a test row. Core instructions come from the train split and are never training
    instructions.

    Args:
        records: A folder of performance records, a CSV or JSONL file, or ``simulated``.
        score_column: Column of outcomes to learn, in [0, 1].
        candidates: Names or patterns (``*7b*``) of the zoo; None = all.
        zoo_preset: Zoo setting that narrows the candidates further: a YAML file or the name of one in
            ``configs/zoo``, see :class:`satlight.records.zoo.ZooSetting`.
        datasets: Datasets to use; None = all.
        train_datasets: Datasets to train and validate on; None = all that have train rows.
        test_groups: Named groups of datasets that get a macro mean in the test table, e.g.
            ``{in_domain: [a, b]}``.
        unseen_candidates: Names or patterns of candidates kept out of training, validation and the design
            of the aptitude test; they are routed from their aptitude results alone.
        zoo: Candidates that test and predict route between: ``all``, ``seen`` or ``unseen``.
        group_column: Instructions with the same value never stand on two sides of a split.
        validation_fraction: Share of train instructions kept for validation, in (0, 1).
        aptitude: The aptitude test.
        sampler: How blocks are built; random ones when None.
        targets: How outcomes become targets.
        blocks_per_epoch: Training steps in an epoch; None = one pass. Passes run on across epochs.
        eval_instructions: B of validation, test and predict blocks.
        predict_split: Instructions that ``predict`` scores.
        simulated: Size of the simulated zoo.
        seed: Of splits and samplers.
        circle_share: Training rows only, as the next two; see :class:`satlight.records.refine.Refinement`.
            Apply the circle test to instructions on which the candidates' mean outcome is at most this.
        near_duplicates: Leave out training instructions at least so similar to another; 1 = the same text.
        max_per_dataset: Train on at most so many instructions of a dataset.

    Example:
        >>> data = CapabilityInstructionDataModule(simulated=SimulatedSpec(1500, 6))
        >>> data.setup("fit")
        >>> next(iter(data.train_dataloader())).shape
        (32, 6)
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
    ) -> None:
        super().__init__()
        self.source, self.score_column = records, score_column
        self.candidates, self.datasets, self.zoo_preset = candidates, datasets, zoo_preset
        self.train_datasets, self.test_groups = train_datasets, test_groups
        self.unseen_candidates, self.zoo = unseen_candidates, zoo
        self.group_column, self.validation_fraction = group_column, validation_fraction
        self.aptitude_spec = aptitude
        self.sampler = sampler if sampler is not None else RandomBlocks()
        self.target_spec = targets
        self.blocks_per_epoch = blocks_per_epoch
        self.eval_instructions, self.predict_split = eval_instructions, predict_split
        self.simulated, self.seed = simulated, seed
        self.circle_share, self.near_duplicates = circle_share, near_duplicates
        self.max_per_dataset = max_per_dataset
        self.in_domain_only = False
        self.instruction_vectors: np.ndarray | None = None
        """What :attr:`training_texts` mean, (R, D), for samplers that need it; a callback's to set."""
        self._plans: PlanSampler | None = None
        self._resume: dict[str, int] | None = None
        self._records: PerformanceRecords | None = None
        self._without_test = False

    # -- reading -------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if self._records is not None and (stage == "fit" or not self._without_test):
            return
        from satlight.records import open_records, split_records

        records = open_records(
            self.source,
            self.score_column,
            candidates=self.candidates,
            datasets=self.datasets,
            simulated=self.simulated,
        )
        if self.zoo_preset is not None:
            from satlight.records.zoo import load_setting

            records = load_setting(self.zoo_preset).select(records)
        split = split_records(
            records,
            validation_fraction=self.validation_fraction,
            seed=self.seed,
            group_column=self.group_column,
        )
        records = records.with_splits(split)
        self.seen, self.unseen = self._divide(records)
        fitting = records.splits == "train"
        if self.train_datasets is not None:
            unknown = sorted(set(self.train_datasets) - set(records.datasets))
            if unknown:
                raise SatlightError(
                    f"data.train_datasets names {unknown}; the records have {sorted(set(records.datasets))}"
                )
            fitting &= np.isin(records.datasets, self.train_datasets)
        if not fitting.any():
            raise SatlightError(
                f"The train split of {records.name} is empty"
                + (f" for train_datasets {self.train_datasets}" if self.train_datasets else "")
                + "; check the split column, data.datasets and data.train_datasets"
            )
        self._design(records, fitting)
        # What fit holds cannot be peeked at: test rows leave memory here.
        self._without_test = stage == "fit"
        self._records = records.rows(records.splits != "test") if self._without_test else records

    def _divide(self, records: PerformanceRecords) -> tuple[list[str], list[str]]:
        unseen = records.filter(candidates=self.unseen_candidates).model_ids if self.unseen_candidates else []
        seen = [name for name in records.model_ids if name not in unseen]
        if len(seen) < 1:
            raise SatlightError("data.unseen_candidates leaves no candidate to train on")
        if self.zoo == "unseen" and not unseen:
            raise SatlightError("data.zoo is 'unseen' but data.unseen_candidates names none")
        return seen, unseen

    def _design(self, records: PerformanceRecords, fitting: np.ndarray) -> None:
        from satlight.capability import AptitudeTest
        from satlight.records.refine import Refinement

        spec = self.aptitude_spec
        train = records.rows(fitting)
        self.aptitude: AptitudeTest = AptitudeTest.design(
            train.filter(candidates=self.seen),
            num_tasks=spec.num_tasks,
            num_shots=spec.num_shots,
            min_shots=spec.min_shots,
            seed=self.seed,
            keywords=spec.keywords,
        )
        core = self.aptitude.holds(train)
        self._core = train.rows(core)
        if core.all():
            raise SatlightError(
                "Every train instruction became a core instruction; lower data.aptitude.num_tasks or "
                "data.aptitude.num_shots"
            )
        # The aptitude test stays as it is: a candidate that comes later has no rotations of its items.
        training = fitting.copy()
        training[fitting] = ~core
        refinement = Refinement(self.circle_share, self.near_duplicates, self.max_per_dataset)
        refined, keep = refinement.apply(records, training, candidates=self.seen, seed=self.seed)
        self._training = refined.rows(keep)

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

    def capabilities(self, model_ids: list[str], rng: np.random.Generator | None = None) -> list[Capability]:
        """Capability representations of the candidates, from their outcomes on the core instructions.

        Args:
            model_ids: Candidates.
            rng: Resample the core instructions with it; None = the results as they are.
        """
        from satlight.capability import CapabilityText

        spec = self.aptitude_spec
        return CapabilityText(shots=spec.shots, style=spec.style).write(
            self.aptitude, self._core, model_ids, rng
        )

    @property
    def training_texts(self) -> list[str]:
        """R training instructions, in the order of the rows of training blocks."""
        return self._training.texts

    def train_view(self) -> View:
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

    def mixtures(self, view: View) -> Mixtures | None:
        """What mixes the candidates of training blocks; None when they stay as they are."""
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

    def eval_view(self, split: str) -> View:
        """Rows of ``split`` against the seen candidates (validation) or the zoo (test, predict)."""
        names = self.seen if split == "validation" else self.zoo_candidates
        rows = (
            np.ones(len(self.records.splits), dtype=bool) if split == "all" else self.records.splits == split
        )
        if split == "validation" and self.train_datasets is not None:
            rows &= np.isin(self.records.datasets, self.train_datasets)
        if not rows.any():
            raise SatlightError(
                f"The {split} split of {self.records.name} is empty; its splits are "
                f"{sorted(set(self.records.splits))}. Check the split column, data.datasets and "
                "data.validation_fraction."
            )
        records = self.records.rows(rows).filter(candidates=names)
        return View(records, self.capabilities(names), records.outcomes)

    def control_records(self) -> PerformanceRecords:
        """What controls and baselines may learn from: train and validation rows, for the zoo."""
        keep = np.isin(self.records.splits, ["train", "validation"])
        if self.train_datasets is not None:
            keep &= np.isin(self.records.datasets, self.train_datasets)
        return self.records.rows(keep).filter(candidates=self.zoo_candidates)

    # -- loaders -------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader:
        view = self.train_view()
        tasks_R = view.records.task_keys
        in_domain_R = np.isin(tasks_R, [task_key(task.dataset, task.name) for task in self.aptitude.tasks])
        space = BlockSpace(view.targets, view.records.known, self._lengths(view.records), codes(tasks_R))
        self._plans = PlanSampler(self, space, in_domain_R)
        if self._resume is not None:
            self._plans.resume(**self._resume)
            self._resume = None
        return DataLoader(BlockDataset(view, self), sampler=self._plans, batch_size=None)

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
        plans = [
            (order[i : i + self.eval_instructions], columns)
            for i in range(0, len(order), self.eval_instructions)
        ]
        return DataLoader(BlockDataset(view), sampler=plans, batch_size=None)  # type: ignore[arg-type]

    def _lengths(self, records: PerformanceRecords) -> np.ndarray:
        """What to bucket instructions by, (N,): tokens where the module of the run counts them, else bytes.

        Texts of equally many bytes differ several-fold in tokens (Chinese, digits), and padding costs as
        much as text.
        """
        module = None if self.trainer is None else self.trainer.lightning_module
        count = getattr(module, "count_tokens", None)
        return lengths(records) if count is None else np.asarray(count(records.texts))

    # -- resuming ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        if self._plans is None or self.trainer is None:
            return {}
        # Not `completed`: a checkpoint written at the end of a step counts that step as processed only.
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
        done = int(progress.processed)
        return {"epoch": self._plans.epoch, "done": done % max(1, len(self._plans))}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = dict(state_dict) or None
