"""Two-stage tuning in one fit: the connector alone on in-domain instructions, then everything on all."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from satlight.errors import SatlightError
from satlight.modules.base import BlockRouter

log = logging.getLogger(__name__)


class TwoStageTuning(Callback):
    """Stage 1 trains the connectors alone, on instructions whose task is a core task; stage 2 everything.

    The connectors are those of :meth:`~satlight.modules.base.BlockRouter.connectors`: the projector first.

    A module without projector (the ablation without encoder) has no stage 1; the log says so.

    Args:
        connector_epochs: Epochs of stage 1, at least 0; 0 = stage 2 from the start.

    Reference: [Zhang et al. 2025, §4, stage 1 and 2].
    """

    def __init__(self, connector_epochs: int = 1) -> None:
        if connector_epochs < 0:
            raise SatlightError(
                f"TwoStageTuning.connector_epochs is {connector_epochs}; it must be 0 or more"
            )
        self.connector_epochs = connector_epochs
        self._trainable: dict[str, bool] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.connector_epochs > 0 and getattr(pl_module, "projector", None) is None:
            log.info("%s has no projector: there is no stage 1", type(pl_module).__name__)
        elif trainer.max_epochs is not None and 0 < trainer.max_epochs <= self.connector_epochs:
            log.warning(
                "TwoStageTuning.connector_epochs=%d leaves no epoch of trainer.max_epochs=%d for stage 2",
                self.connector_epochs,
                trainer.max_epochs,
            )
        self._enter(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._enter(trainer, pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Leave the module as it came, so that it can be trained again.
        for name, parameter in pl_module.named_parameters():
            parameter.requires_grad_((self._trainable or {}).get(name, parameter.requires_grad))
        self._trainable = None

    def _enter(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._trainable is None:
            self._trainable = {name: p.requires_grad for name, p in pl_module.named_parameters()}
        if self.connector_epochs > 0 and getattr(pl_module, "projector", None) is None:
            return
        connector_only = trainer.current_epoch < self.connector_epochs
        self._set_schedule(trainer, pl_module, connector_only)
        datamodule: Any = getattr(trainer, "datamodule", None)
        if datamodule is not None:
            datamodule.in_domain_only = connector_only
        connectors = pl_module.connectors() if isinstance(pl_module, BlockRouter) else ("projector",)
        for name, parameter in pl_module.named_parameters():
            parameter.requires_grad_(
                self._trainable[name] and (not connector_only or name.split(".")[0] in connectors)
            )

    def _set_schedule(self, trainer: L.Trainer, pl_module: Any, connector_only: bool) -> None:
        """Give each stage a warm-up and a decay: weights that start to move late must start slowly too."""
        total = int(trainer.estimated_stepping_batches)
        epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        boundary = min(total, self.connector_epochs * epoch)
        pl_module.schedule_window = (0, boundary) if connector_only else (boundary, total)
