"""Small networks on frozen embeddings, and the choice of when to stop their training.

Shape legend: N instructions learned from, Q instructions to score, M candidates, B of a batch, D features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlight.baselines.tuning import Rows, Texts, TunedBaseline
from satlight.records import PerformanceRecords
from satlight.storage.classes import Configured

WEIGHT_DECAY = 0.01
CHUNK = 4096
"""Instructions scored at once."""


@dataclass(frozen=True)
class Batches:
    """Row numbers of ``steps`` batches of ``size``, drawn by weight one batch at a time.

    torch's own weighted sampler draws all of them in advance: a longer training would start differently.
    """

    weight_N: Tensor
    steps: int
    size: int

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.steps):
            yield torch.multinomial(self.weight_N, self.size, replacement=True)


class NeuralRouter(Configured, nn.Module):
    """A network over frozen instruction embeddings, and in training the rows it learns from.

    The constructor takes sizes and settings only, so that a router folder can hold the network without its
    training rows; :meth:`hold` gives it the rows.

    Attributes:
        lr: AdamW's learning rate; constant, so that a short training is the beginning of a long one.
        decay: AdamW's weight decay.
        batch_size: Instructions in a batch.
        rows_stored: Whether scores need the rows too, so that a router folder holds them.
    """

    lr: float = 1e-3
    decay: float = WEIGHT_DECAY
    batch_size: ClassVar[int] = 64
    rows_stored: ClassVar[bool] = False

    x_ND: Tensor
    outcome_NM: Tensor
    known_NM: Tensor

    def hold(self, records: PerformanceRecords, vectors_ND: np.ndarray) -> Self:
        """Take the rows to learn from, and return the network itself.

        Args:
            records: N instructions × M candidates.
            vectors_ND: Their embeddings, rows of length 1.
        """
        known_NM = torch.from_numpy(np.array(records.known))
        outcome_NM = torch.from_numpy(np.array(records.outcomes, dtype=np.float32))
        self.register_buffer("x_ND", unit_variance(vectors_ND), self.rows_stored)
        self.register_buffer("known_NM", known_NM, self.rows_stored)
        self.register_buffer("outcome_NM", torch.where(known_NM, outcome_NM, 0.0), self.rows_stored)
        _, self._dataset_N = np.unique(records.datasets, return_inverse=True)
        return self

    def loss(self, index_B: Tensor) -> Tensor:
        """Compute the loss on rows ``index_B`` of the matrix."""
        raise NotImplementedError

    def score(self, x_QD: Tensor) -> Tensor:
        """Score instructions by their embeddings: (Q, M) in [0, 1]."""
        raise NotImplementedError

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def batches(self, steps: int) -> Batches:
        """Return row numbers in which all datasets are equally frequent: accuracy is a mean over datasets."""
        weight_N = 1 / np.bincount(self._dataset_N)[self._dataset_N]
        return Batches(torch.from_numpy(weight_N), steps, self.batch_size)

    def scores(self, vectors_QD: np.ndarray) -> np.ndarray:
        """Compute :meth:`score` in eval mode, in pieces: float32 (Q, M)."""
        training = self.training
        self.eval()
        with torch.inference_mode():
            parts = unit_variance(vectors_QD).to(self.device).split(CHUNK)
            found = torch.cat([self.score(part) for part in parts]).cpu().numpy()
        self.train(training)
        return found


class NeuralBaseline(TunedBaseline):
    """A baseline that trains a :class:`NeuralRouter`; the number of steps is chosen on validation.

    ``GRID`` must end in ``steps`` (batches): a network is trained once for the largest number and scored on the way.
    """

    @abstractmethod
    def module(self, records: PerformanceRecords, vectors_ND: np.ndarray, **chosen: Any) -> NeuralRouter:
        """Return the network to train, with its rows; ``chosen`` is without ``steps``."""

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        from satlight.baselines.training import train  # imports lightning, which scoring does without

        assert vectors_ND is not None
        steps = chosen.pop("steps")
        with seeded(self.seed):
            self._module = self.module(records, vectors_ND, **chosen)
            train(self._module, self._module.batches(steps))

    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        assert vectors_ND is not None
        return self._module.scores(vectors_ND)

    def validation_scores(self, train: Rows, held: Texts, points: list[dict[str, Any]]) -> Iterable[np.ndarray]:
        from satlight.baselines import training

        (records, train_ND), (_, held_ND) = train, held
        assert train_ND is not None
        assert held_ND is not None
        found = {point["steps"]: np.empty(0) for point in points}
        others = {name: value for name, value in points[0].items() if name != "steps"}

        def note(step: int) -> None:
            if step in found:
                found[step] = module.scores(held_ND)

        with seeded(self.seed):
            module = self.module(records, train_ND, **others)
            training.train(module, module.batches(max(found)), note)
        return found.values()


def masked_log_loss(logit_BM: Tensor, outcome_BM: Tensor, known_BM: Tensor) -> Tensor:
    """Compute the mean log loss over known cells, a scalar; 0 when none is known."""
    loss_BM = F.binary_cross_entropy_with_logits(logit_BM, outcome_BM, reduction="none")
    return (loss_BM * known_BM).sum() / known_BM.sum().clamp(min=1)


def unit_variance(vectors_ND: np.ndarray) -> Tensor:
    """Scale rows of length 1 so that a feature has a variance of about 1."""
    return torch.from_numpy(np.array(vectors_ND, dtype=np.float32)) * vectors_ND.shape[1] ** 0.5


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator inside the context and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
