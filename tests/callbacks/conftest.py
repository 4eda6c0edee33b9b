"""Tiny runs in this process: everything of a real one except size."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from satlight.callbacks import TwoStageTuning
from satlight.data import AptitudeSpec, CapabilityInstructionDataModule, RandomBlocks
from satlight.modules import CapabilityEncoder, LoraSpec, ModelSAT, OptimizerSpec, RouterLLM
from satlight.types import Stage


class PowerCutError(RuntimeError):
    """Stands for the power cut."""


@dataclass
class Watch(L.Callback):
    """Keeps what every training step saw and cuts the power after ``kill_after`` steps."""

    kill_after: int | None = None
    steps: list[tuple[int, list[str], list[float]]] = field(default_factory=list)
    """Epoch, instructions and learning rates of each step."""
    stages: list[Stage] = field(default_factory=list)
    """Stage of each step, the same for data and module."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        self.steps.append((trainer.current_epoch, list(batch.instructions), rates))
        assert pl_module.stage == trainer.datamodule.stage
        self.stages.append(pl_module.stage)

    def on_train_batch_end(self, trainer, *args) -> None:
        if trainer.global_step == self.kill_after:
            raise PowerCutError


@dataclass
class Run:
    """A trainer, its module and data, and what was seen."""

    trainer: L.Trainer
    module: ModelSAT
    data: CapabilityInstructionDataModule
    watch: Watch

    def fit(self, ckpt_path: Path | None = None) -> "Run":
        self.trainer.fit(self.module, self.data, ckpt_path=ckpt_path, weights_only=True if ckpt_path else None)
        return self

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.module.named_parameters()}


@pytest.fixture(scope="session")
def make_run(records_folder, tmp_path_factory) -> Callable[..., Run]:
    """A run over the small records folder: 10 steps an epoch, stage 1 in the first."""

    def make(
        folder: Path | None = None,
        *,
        kill_after: int | None = None,
        save_every: int | None = 3,
        connector_epochs: int = 1,
        callbacks: list[L.Callback] | None = None,
        module: ModelSAT | None = None,
        data: dict | None = None,
        **options,
    ) -> Run:
        folder = folder or tmp_path_factory.mktemp("run")
        L.seed_everything(0, verbose=False)
        module = module or ModelSAT(
            RouterLLM("tiny:llama", lora=LoraSpec(r=4, dropout=0.2)),  # dropout: the random state matters
            CapabilityEncoder("tiny:bert", grad_chunks=1),  # so do slightly old vectors
            optimizer=OptimizerSpec(lr=1e-2),
        )
        given = {
            "records": str(records_folder),
            "score_column": "correct",
            "aptitude": AptitudeSpec(num_tasks=2, num_shots=6, min_shots=3),
            "sampler": RandomBlocks(8, candidates=3),
            "blocks_per_epoch": 10,
        }
        watch = Watch(kill_after)
        checkpoints = ModelCheckpoint(folder, save_last=True, every_n_train_steps=save_every)
        defaults = {
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "max_epochs": 3,
            "default_root_dir": folder,
        }
        session = L.Trainer(
            **(defaults | options), callbacks=[TwoStageTuning(connector_epochs), watch, checkpoints, *(callbacks or [])]
        )
        datamodule = CapabilityInstructionDataModule(**(given | (data or {})))
        return Run(session, module, datamodule, watch)

    return make
