"""Temperature scaling in training: every checkpoint holds the calibration of its scores."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from satlight.callbacks.devices import gathered
from satlight.errors import SatlightError
from satlight.metrics.calibration import Temperature, fit_candidates, fit_temperature
from satlight.storage.typed import typed

if TYPE_CHECKING:
    from satlight.data.base import RoutingDataModule
    from satlight.types import Block

log = logging.getLogger(__name__)


class TemperatureScaling(Callback):
    """Fit temperature and bias of each candidate to the scores of every validation.

    Training and the ranking by score do not change. The fit reuses the validation scores and is stored in
    checkpoints, so that ``test`` and the export of a router use the calibration of their weights. :attr:`fitted` is
    that of the last validation, or None.
    """

    def __init__(self) -> None:
        self.fitted: Temperature | None = None
        self._cells: list[tuple[Tensor, Tensor, Tensor]] = []

    def state_dict(self) -> dict[str, Any]:
        return asdict(self.fitted) if self.fitted is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.fitted = typed(Temperature, state_dict, "the temperature") if state_dict else None

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._cells.clear()

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        block: Block = batch
        assert block.target_BC is not None
        assert block.known_BC is not None
        known_BC = block.known_BC
        score, outcome = outputs[known_BC].detach().float(), block.target_BC[known_BC].float()
        column = block.columns.to(known_BC.device)[known_BC.nonzero()[:, 1]]
        self._cells.append((score.cpu(), outcome.cpu(), column.cpu()))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # This precedes the checkpoints, which Lightning writes when the validation has ended.
        if trainer.sanity_checking or not self._cells:
            return
        parts = (torch.cat(part) for part in zip(*self._cells, strict=True))
        score, outcome, column = (torch.cat(gathered(trainer, part)) for part in parts)
        data: RoutingDataModule | None = trainer.datamodule  # type: ignore[attr-defined]
        # Without a data module, columns have no names, and all candidates share one calibration.
        names = [] if data is None else data.eval_view("validation").records.model_ids
        self._cells.clear()
        try:
            if names:
                self.fitted = fit_candidates(score, outcome, column, names)
            else:
                self.fitted = fit_temperature(score, outcome, torch.ones_like(outcome, dtype=torch.bool))
        except SatlightError as error:  # training continues; its checkpoints have no calibration
            self.fitted = None
            log.warning("no temperature was fitted: %s", error)


def temperature_of(checkpoint: dict[str, Any]) -> Temperature | None:
    """Return the temperature stored in a checkpoint; None without :class:`TemperatureScaling`."""
    state = checkpoint.get("callbacks", {}).get(TemperatureScaling.__name__)
    return typed(Temperature, state, "the temperature") if state else None
