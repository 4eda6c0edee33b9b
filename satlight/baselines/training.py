"""Training of small networks through Lightning, on GPU or CPU; imported by ``fit`` only, never to score."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import LambdaCallback
from torch import Tensor, nn


def train(
    network: Any, batches: Iterable[Tensor], after_step: Callable[[int], None] | None = None, clip: float | None = None
) -> None:
    """Train without files, log lines or progress bars; the network ends on the CPU.

    Args:
        network: Module with ``loss(index_B)`` on rows that it holds, and AdamW's ``lr`` and ``decay``, or a method
            ``optimization()`` that returns what Lightning's ``configure_optimizers`` does.
        batches: Row numbers, a batch at a time.
        after_step: Called with the number of steps after each one.
        clip: Largest norm of the gradient; None = any.
    """
    callbacks: list[L.Callback] = []
    if after_step is not None:
        callbacks.append(LambdaCallback(on_train_batch_end=lambda trainer, *_: after_step(trainer.global_step)))
    with _quiet():
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=callbacks,
            gradient_clip_val=clip,
        )
        trainer.fit(_Training(network), batches)


class _Training(L.LightningModule):
    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network: nn.Module = network
        self.objective: Callable[[Tensor], Tensor] = network.loss

    def training_step(self, index_B: Tensor, batch_idx: int) -> Tensor:
        return self.objective(index_B)

    def configure_optimizers(self) -> Any:
        network: Any = self.network
        if hasattr(network, "optimization"):
            return network.optimization()
        return torch.optim.AdamW(network.parameters(), lr=network.lr, weight_decay=network.decay)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Lightning's reports on devices, workers and loggers, which users cannot act on."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
