"""Two-stage tuning in one fit: first the connectors on in-domain instructions, then everything on all."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from satlight.errors import SatlightError
from satlight.modules.base import BlockRouter
from satlight.types import Stage

log = logging.getLogger(__name__)


class TwoStageTuning(Callback):
    """Train the connectors on instructions of core tasks in stage 1, and everything in stage 2.

    The connectors are those of :meth:`~satlight.modules.base.BlockRouter.connectors`: the projector and most
    terms. A module without connectors (the ablation without encoder) skips stage 1; the log says so.

    Args:
        connector_epochs: Epochs of stage 1, at least 0; 0 = stage 2 from the start.

    Reference: [Zhang et al. 2025, §4, stage 1 and 2].
    """

    def __init__(self, connector_epochs: int = 1) -> None:
        if connector_epochs < 0:
            raise SatlightError(f"TwoStageTuning.connector_epochs is {connector_epochs}; it must be 0 or more")
        self.connector_epochs = connector_epochs

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not isinstance(pl_module, BlockRouter):
            raise SatlightError(
                f"TwoStageTuning needs a satlight.modules.BlockRouter, got a {type(pl_module).__name__}; "
                "derive the model from it, or remove the callback"
            )
        if self.connector_epochs > 0 and not pl_module.connectors():
            log.info("%s has no connectors: stage 1 is skipped", type(pl_module).__name__)
        elif trainer.max_epochs is not None and 0 < trainer.max_epochs <= self.connector_epochs:
            log.warning(
                "TwoStageTuning.connector_epochs=%d leaves no epoch of trainer.max_epochs=%d for stage 2",
                self.connector_epochs,
                trainer.max_epochs,
            )
        self._enter(trainer, pl_module, self.stage(trainer, pl_module))

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._enter(trainer, pl_module, self.stage(trainer, pl_module))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._enter(trainer, pl_module, Stage())  # so that the module can be trained again

    def stage(self, trainer: L.Trainer, pl_module: Any) -> Stage:
        """Return the stage of the current epoch.

        Each stage has its own warm-up and decay: weights that start to train late must start slowly, too.
        """
        connectors = pl_module.connectors()
        if self.connector_epochs > 0 and not connectors:
            return Stage()
        total = int(trainer.estimated_stepping_batches)
        steps_per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        boundary = min(total, self.connector_epochs * steps_per_epoch)
        if trainer.current_epoch < self.connector_epochs:
            return Stage("connectors", in_domain_only=True, trainable=connectors, end_step=boundary)
        return Stage(first_step=boundary, end_step=total)

    def _enter(self, trainer: Any, pl_module: Any, stage: Stage) -> None:
        pl_module.enter(stage)
        if getattr(trainer, "datamodule", None) is not None:
            trainer.datamodule.stage = stage
