"""Temperature scaling in training: every checkpoint knows how sure its scores may be."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from satlight.errors import SatlightError
from satlight.metrics.calibration import Temperature, fit_temperature

if TYPE_CHECKING:
    from satlight.types import Block

log = logging.getLogger(__name__)


class TemperatureScaling(Callback):
    """Fits temperature and bias to the scores of every validation; training and ranking do not change.

    The fit costs no pass of its own, and is part of the checkpoints: whoever loads one (``test``, the
    export of a router) has the temperature of its weights. :attr:`fitted` is that of the last validation,
    or None.
    """

    def __init__(self) -> None:
        self.fitted: Temperature | None = None
        self._cells: list[tuple[Tensor, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.fitted) if self.fitted is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.fitted = Temperature(**state_dict)

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._cells.clear()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        block: Block = batch
        assert block.target_BC is not None
        assert block.known_BC is not None
        cells = (outputs[block.known_BC], block.target_BC[block.known_BC])
        self._cells.append((cells[0].detach().float().cpu(), cells[1].float().cpu()))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Before the checkpoints, which Lightning writes when the validation has ended.
        if trainer.sanity_checking or not self._cells:
            return
        score, outcome = (torch.cat(part) for part in zip(*self._cells, strict=True))
        self._cells.clear()
        try:
            self.fitted = fit_temperature(score, outcome, torch.ones_like(outcome, dtype=torch.bool))
        except SatlightError as error:  # the training goes on; its checkpoints are of no use as they are
            self.fitted = None
            log.warning("no temperature was fitted: %s", error)


def temperature_of(checkpoint: dict[str, Any]) -> Temperature | None:
    """What :class:`TemperatureScaling` left in a checkpoint; None if it took no part in the training."""
    state = checkpoint.get("callbacks", {}).get(TemperatureScaling.__name__)
    return Temperature(**state) if state else None
