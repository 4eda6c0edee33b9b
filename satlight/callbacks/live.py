"""Scalars that show during training whether a router is better than no router, for every logger."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from satlight.callbacks.calibration import TemperatureScaling
from satlight.callbacks.devices import reduced
from satlight.metrics import functional

if TYPE_CHECKING:
    from satlight.types import Block

CONTROLS = ("random", "best_single", "dataset_best", "oracle")


class LiveScalars(Callback):
    """Log learning rates, stage and speed in training, and routed accuracy next to controls in validation.

    Controls are chosen on train rows and measured on validation rows. Accuracies are in [0, 1]. Logged are:

    - ``lr/PART``, ``stage`` (1 = connectors, 2 = everything), ``cells_per_second`` (known cells, without validation),
    - ``val_random``, ``val_best_single``, ``val_dataset_best``, ``val_oracle``: macro means over datasets,
    - ``val_gap_closed``: share of the gap from best single to oracle; NaN if the gap is below two points,
    - ``val_routed/DATASET``, and each control as ``val_best_single/DATASET``,
    - ``val_share/CANDIDATE``: share of the choices,
    - ``val_temperature`` and ``val_bias`` of the calibration.

    The module itself logs ``train_loss`` with the parts of its objective, ``val_loss``, ``val_routed_accuracy`` and
    ``val_ece``. List this callback after :class:`~satlight.callbacks.TemperatureScaling`.
    """

    def __init__(self) -> None:
        self._controls: dict[str, dict[str, float]] = {}
        self._datasets: list[str] = []

    # -- training ------------------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._cells, self._start = 0, time.perf_counter()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        block: Block = batch
        if block.known_BC is None:
            return
        self._cells += block.known_BC.numel() * trainer.world_size
        if (batch_idx + 1) % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        stage: Any = getattr(pl_module, "stage", None)
        values = {
            f"lr/{group.get('name', number)}": float(group["lr"])
            for optimizer in trainer.optimizers
            for number, group in enumerate(optimizer.param_groups)
            if not str(group.get("name", "")).endswith("_no_decay")  # the same rate as the rest of the part
        }
        values["stage"] = 1.0 if stage is not None and stage.trainable is not None else 2.0
        now = time.perf_counter()
        values["cells_per_second"] = self._cells / max(now - self._start, 1e-9)
        self._cells, self._start = 0, now
        pl_module.log_dict(values, on_step=True, on_epoch=False)

    # -- validation ----------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from satlight.data import RoutingDataModule

        data: Any = getattr(trainer, "datamodule", None)
        self._controls, self._datasets = {}, []
        if not isinstance(data, RoutingDataModule):
            return
        from satlight.evaluation.controls import measure_controls, numbered

        records = data.eval_view("validation").records
        self._datasets, self._model_ids = sorted(set(records.datasets.tolist())), records.model_ids
        (self._group_N,) = numbered(records.datasets)
        controls = measure_controls(records, data.train_view().records, with_texts=False)
        for name in CONTROLS:
            outcomes, known = controls[name].outcomes, controls[name].known
            self._controls[name] = {
                dataset: float(functional.masked_mean(outcomes[self._group_N == g], known[self._group_N == g]))
                for g, dataset in enumerate(self._datasets)
            }

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        device = pl_module.device
        self._total_G = torch.zeros(len(self._datasets), device=device)
        self._count_G = torch.zeros(len(self._datasets), device=device)
        self._chosen_M = torch.zeros(len(self._model_ids) if self._datasets else 0, device=device)

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        block: Block = batch
        if not self._datasets or block.target_BC is None or block.known_BC is None:
            return
        choice_B = functional.choose(outputs.detach().float())
        outcome_B, known_B = functional.outcomes_of(choice_B, block.target_BC, block.known_BC)
        group_B = self._group_N.to(choice_B.device)[block.rows]
        self._total_G.index_add_(0, group_B, outcome_B.to(self._total_G))
        self._count_G.index_add_(0, group_B, known_B.to(self._count_G))
        if block.known_BC.any():  # else another device counts the block
            self._chosen_M.index_add_(0, choice_B, torch.ones_like(choice_B, dtype=self._chosen_M.dtype))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self._datasets:
            return
        total_G, count_G, chosen_M = (
            reduced(trainer, sums, "sum") for sums in (self._total_G, self._count_G, self._chosen_M)
        )
        routed = dict(zip(self._datasets, (total_G / count_G).tolist(), strict=True))
        macro = {name: _mean(values) for name, values in self._controls.items()}
        least = 0.02  # as in the table of `test`
        values = {f"val_{name}": value for name, value in macro.items()}
        values["val_gap_closed"] = functional.gap_closed(_mean(routed), macro["best_single"], macro["oracle"], least)
        for name, accuracy in {"routed": routed, **self._controls}.items():
            values |= {f"val_{name}/{dataset}": value for dataset, value in accuracy.items()}
        shares = (chosen_M / chosen_M.sum().clamp(min=1)).tolist()
        values |= {f"val_share/{name}": share for name, share in zip(self._model_ids, shares, strict=True)}
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        fitted = next((one.fitted for one in callbacks if isinstance(one, TemperatureScaling)), None)
        if fitted is not None:
            values |= {"val_temperature": fitted.temperature, "val_bias": fitted.bias}
        pl_module.log_dict(values, on_epoch=True, batch_size=1, sync_dist=True)  # sums of all devices: equal on each


def _mean(values: dict[str, float]) -> float:
    """Return the mean of the known values."""
    known = [value for value in values.values() if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
