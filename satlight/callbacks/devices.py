"""Several devices: values of all processes in each of them, and checkpoints of another number of processes."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

log = logging.getLogger(__name__)

_KEY = "satlight_world_size"


def reduced(trainer: L.Trainer, tensor: Tensor, operation: str) -> Tensor:
    """Return the ``sum`` or ``max`` over all processes of a tensor that has the same shape in each, on the CPU."""
    device = trainer.strategy.root_device
    value: Any = trainer.strategy.reduce(tensor.clone().to(device), reduce_op=operation)
    return value.cpu()


def gathered(trainer: L.Trainer, tensor: Tensor) -> list[Tensor]:
    """Return the tensor of each process, on the CPU; their lengths may differ."""
    if trainer.world_size == 1:
        return [tensor.cpu()]
    return [part.cpu() for part in gather_all_tensors(tensor.to(trainer.strategy.root_device))]


class WorldSize(Callback):
    """Let checkpoints continue on another number of devices.

    A checkpoint counts batches and optimizer steps of one process. On W devices an epoch has 1/W as many, so the
    counters are scaled when the number differs: epoch, learning rate and stage of training continue where they were. In
    the middle of an epoch, fewer than W blocks may be skipped.
    """

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[_KEY] = trainer.world_size

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        then, now = checkpoint.get(_KEY, 1), trainer.world_size
        if then == now or trainer.state.fn != "fit":
            return
        rescale(checkpoint, then, now)
        log.info("the checkpoint was written on %d devices; the steps of its epochs count for %d now", then, now)


def rescale(checkpoint: dict[str, Any], then: int, now: int) -> None:
    """Scale the counters of a checkpoint in place from ``then`` to ``now`` processes, rounded up.

    Example:
        >>> loop = {"epoch_loop.batch_progress": {"total": {"ready": 5}}}
        >>> rescale(checkpoint := {"global_step": 5, "loops": {"fit_loop": loop}}, 1, 2)
        >>> checkpoint["global_step"], loop["epoch_loop.batch_progress"]
        (3, {'total': {'ready': 3}})
    """

    def scaled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: scaled(inner) for key, inner in value.items()}
        counts = isinstance(value, int) and not isinstance(value, bool)
        return math.ceil(value * then / now) if counts else value

    checkpoint["global_step"] = scaled(checkpoint["global_step"])
    loop = checkpoint.get("loops", {}).get("fit_loop", {})
    for key in ("state_dict", "batch_progress", "automatic_optimization.optim_progress"):
        if (name := f"epoch_loop.{key}") in loop:
            loop[name] = scaled(loop[name])
    for schedule in checkpoint.get("lr_schedulers", []):
        schedule |= {key: scaled(schedule[key]) for key in ("last_epoch", "_step_count") if key in schedule}
