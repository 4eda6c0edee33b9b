"""Training of the small neural baselines through Lightning, on GPU or CPU, and the choice of when to stop.

Shape legend: N instructions learnt from, Q instructions to score, M candidates, B of a batch, D features.
"""

from __future__ import annotations

import itertools
import logging
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor

from satlight.baselines.tuning import TunedBaseline
from satlight.records import PerformanceRecords

WEIGHT_DECAY = 0.01
CHUNK = 4096
"""Instructions scored at once."""


@dataclass(frozen=True)
class Batches:
    """Row numbers of ``steps`` batches of ``size``, drawn by weight one batch after the other.

    torch's own weighted sampler draws all of them ahead, so that a longer training would begin differently.
    """

    weight_N: Tensor
    steps: int
    size: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.steps):
            yield torch.multinomial(self.weight_N, self.size, replacement=True)


class NeuralRouter(L.LightningModule):
    """A network over frozen instruction embeddings that holds the rows it learns from.

    Args:
        records: N instructions × M candidates.
        vectors_ND: Their embeddings, rows of length 1.
        lr: AdamW's learning rate; constant, so that a short training is the beginning of a long one.
        decay: AdamW's weight decay.
    """

    batch_size = 64
    """Instructions in a batch."""

    x_ND: Tensor
    outcome_NM: Tensor
    known_NM: Tensor

    def __init__(
        self, records: PerformanceRecords, vectors_ND: np.ndarray, lr: float, decay: float = WEIGHT_DECAY
    ) -> None:
        super().__init__()
        self.lr, self.decay = lr, decay
        known_NM = torch.from_numpy(np.array(records.known))
        outcome_NM = torch.from_numpy(np.array(records.outcomes, dtype=np.float32))
        self.register_buffer("x_ND", unit_variance(vectors_ND))
        self.register_buffer("known_NM", known_NM)
        self.register_buffer("outcome_NM", torch.where(known_NM, outcome_NM, 0.0))
        _, self._dataset_N = np.unique(records.datasets, return_inverse=True)

    def loss(self, index_B: Tensor) -> Tensor:
        """Loss on rows ``index_B`` of the matrix."""
        raise NotImplementedError

    def score(self, x_QD: Tensor) -> Tensor:
        """Scores in [0, 1] of instructions by their embeddings: (Q, M)."""
        raise NotImplementedError

    def training_step(self, index_B: Tensor, batch_idx: int) -> Tensor:
        return self.loss(index_B)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.decay)

    def batches(self, steps: int) -> Batches:
        """Row numbers, drawn with every dataset as often as any other: accuracy is a mean over datasets."""
        weight_N = 1 / np.bincount(self._dataset_N)[self._dataset_N]
        return Batches(torch.from_numpy(weight_N), steps, self.batch_size)

    def scores(self, vectors_QD: np.ndarray) -> np.ndarray:
        """:meth:`score` in eval mode, in pieces: float32 (Q, M)."""
        training = self.training
        self.eval()
        with torch.inference_mode():
            parts = unit_variance(vectors_QD).to(self.device).split(CHUNK)
            found = torch.cat([self.score(part) for part in parts]).cpu().numpy()
        self.train(training)
        return found


class NeuralBaseline(TunedBaseline):
    """A baseline that trains a :class:`NeuralRouter`; the number of steps is chosen on validation.

    ``GRID`` must end in ``steps`` (batches): a network is trained once for the most of them and scored on the
    way.
    """

    @abstractmethod
    def module(self, records: PerformanceRecords, vectors_ND: np.ndarray, **chosen: Any) -> NeuralRouter:
        """The network to train; ``chosen`` is without ``steps``."""

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        assert vectors_ND is not None
        steps = chosen.pop("steps")
        with seeded(self.seed):
            self._module = self.module(records, vectors_ND, **chosen)
            train(self._module, steps)

    def score(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        assert vectors_ND is not None
        return self._module.scores(vectors_ND)

    def validation_scores(
        self,
        train_records: PerformanceRecords,
        train_ND: np.ndarray | None,
        texts: Sequence[str],
        vectors_ND: np.ndarray | None,
        points: list[dict[str, Any]],
    ) -> Iterator[np.ndarray]:
        assert train_ND is not None
        assert vectors_ND is not None
        names = list(self.GRID)
        assert names[-1] == "steps", f"{self._who}.GRID ends in {names[-1]}"
        for _, alike in itertools.groupby(points, key=lambda point: [point[name] for name in names[:-1]]):
            stops = list(alike)
            others = {name: stops[0][name] for name in names[:-1]}
            with seeded(self.seed):
                module = self.module(train_records, train_ND, **others)
                watch = _ScoresAt([stop["steps"] for stop in stops], vectors_ND)
                train(module, max(watch.steps), watch)
            yield from (watch.found[steps] for steps in watch.steps)


class _ScoresAt(L.Callback):
    """Scores of the validation rows after the given steps."""

    def __init__(self, steps: list[int], vectors_QD: np.ndarray) -> None:
        self.steps, self.vectors_QD = steps, vectors_QD
        self.found: dict[int, np.ndarray] = {}

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any) -> None:
        if trainer.global_step in self.steps:
            assert isinstance(pl_module, NeuralRouter)
            self.found[trainer.global_step] = pl_module.scores(self.vectors_QD)


def train(module: NeuralRouter, steps: int, *callbacks: L.Callback) -> None:
    """Train without leaving files, log lines or progress bars behind; the module ends on the CPU.

    Args:
        module: The network, with the rows it learns from.
        steps: Number of batches.
        callbacks: Lightning callbacks.
    """
    with _quiet():
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="auto",
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
        )
        trainer.fit(module, module.batches(steps))


def unit_variance(vectors_ND: np.ndarray) -> Tensor:
    """Rows of length 1, scaled so that a feature has a variance of about 1."""
    return torch.from_numpy(np.array(vectors_ND, dtype=np.float32)) * vectors_ND.shape[1] ** 0.5


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws inside follow from ``seed``; torch's generator outside is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide Lightning's reports on devices, workers and loggers: nothing here is up to the user."""
    log = logging.getLogger("lightning.pytorch")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
