"""A small network per candidate on the hidden states of a frozen causal LM.

Shape legend: N instructions learned from, Q instructions to score, M candidates, L layers, D features of a layer,
K principal components, H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from satlight.baselines.base import Embed
from satlight.baselines.neural import NeuralBaseline, NeuralRouter, masked_log_loss
from satlight.baselines.tuning import Rows, Texts
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords

HIDDEN = 32
DROPOUT = 0.1


class PrefillNetwork(NeuralRouter):
    """Networks with one hidden layer, one for each candidate, trained together.

    Args:
        features: K.
        candidates: M.
        decay: AdamW's weight decay.
    """

    def __init__(self, features: int, candidates: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.first_MKH = nn.Parameter(torch.randn(candidates, features, HIDDEN) * features**-0.5)
        self.bias_M1H = nn.Parameter(torch.zeros(candidates, 1, HIDDEN))
        self.second_MH = nn.Parameter(torch.randn(candidates, HIDDEN) * HIDDEN**-0.5)
        self.bias_M = nn.Parameter(torch.zeros(candidates))
        self.dropout = nn.Dropout(DROPOUT)

    def logits(self, x_QK: Tensor) -> Tensor:
        """Return log-odds (Q, M)."""
        hidden_MQH = torch.relu(self.dropout(x_QK) @ self.first_MKH + self.bias_M1H)
        return torch.einsum("mqh,mh->qm", self.dropout(hidden_MQH), self.second_MH) + self.bias_M

    def loss(self, index_B: Tensor) -> Tensor:
        return masked_log_loss(self.logits(self.x_ND[index_B]), self.outcome_NM[index_B], self.known_NM[index_B])

    def score(self, x_QD: Tensor) -> Tensor:
        return self.logits(x_QD).sigmoid()


class Prefill(NeuralBaseline):
    """Expected outcomes from the states that a causal LM has at the last token of an instruction.

    The states of each selected layer are standardized, averaged over the layers, and reduced to ``components``
    principal components of unit variance; a small network per candidate reads them. Only the networks are trained.

    Args:
        seed: Seed of all random draws.
        fixed: Hyper-parameters that are not to be chosen.
        backbone: Causal LM whose states are read, unless ``fit`` gets an embedder.
        layers: Its layers, 1 = the first; None = at a quarter, half, three quarters and all of the depth.
        max_tokens: Maximum tokens of an instruction.

    Reference: NVIDIA's prefill router, arXiv 2603.20895. The sizes of the networks and their training are our own.
    """

    needs_embeddings = False
    GRID = {"components": (16, 64), "decay": (0.01, 1.0), "steps": (250, 1000)}  # noqa: RUF012

    def __init__(
        self,
        seed: int = 0,
        fixed: Mapping[str, Any] | None = None,
        backbone: str = "smollm2-135m",
        layers: Sequence[int] | None = None,
        max_tokens: int = 256,
    ) -> None:
        super().__init__(seed, fixed)
        self.backbone, self.layers, self.max_tokens = backbone, layers, max_tokens

    def fit(self, records: PerformanceRecords, embed: Embed | None = None) -> Self:
        """See :meth:`Baseline.fit`.

        Args:
            records: N instructions × M candidates.
            embed: Texts → (N, L · D), one layer after the other; L is its attribute ``num_layers``, or 1.
                None = :class:`~satlight.backbones.hidden_states.HiddenStates` of the backbone.
        """
        if embed is None:
            from satlight.backbones.hidden_states import HiddenStates

            embed = HiddenStates(self.backbone, self.layers, self.max_tokens)
        self._num_layers = int(getattr(embed, "num_layers", 1))
        return super().fit(records, embed)

    def module(self, records: PerformanceRecords, vectors_ND: np.ndarray, **chosen: Any) -> PrefillNetwork:
        network = PrefillNetwork(vectors_ND.shape[1], records.shape[1], chosen["decay"])
        return network.hold(records, vectors_ND)

    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        assert vectors_ND is not None
        self._fit_features(vectors_ND, chosen["components"])
        super().learn(records, self._features(vectors_ND), **chosen)

    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        assert vectors_ND is not None
        return super().expected(texts, self._features(vectors_ND))

    def validation_scores(self, train: Rows, held: Texts, points: list[dict[str, Any]]) -> Iterable[np.ndarray]:
        (records, train_ND), (texts, held_ND) = train, held
        assert train_ND is not None
        assert held_ND is not None
        self._fit_features(train_ND, points[0]["components"])
        reduced = self._features(train_ND), self._features(held_ND)
        return super().validation_scores((records, reduced[0]), (texts, reduced[1]), points)

    def _fit_features(self, states_NF: np.ndarray, components: int) -> None:
        """Learn the scales of the states and the principal components of their mean over layers."""
        if states_NF.shape[1] % self._num_layers:
            raise SatlightError(
                f"{self._who}: the embedder gave {states_NF.shape[1]} features, which {self._num_layers} layers cannot "
                "share equally."
            )
        self._mean_F = states_NF.mean(axis=0)
        self._scale_F = 1 / states_NF.std(axis=0).clip(min=1e-6)
        averaged_ND = self._averaged(states_NF)
        number = min(components, averaged_ND.shape[1], len(averaged_ND))
        pca = PCA(number, svd_solver="covariance_eigh").fit(averaged_ND)
        deviation_K = np.sqrt(pca.explained_variance_).clip(min=1e-6)
        # Rows of about unit length, which the networks scale to unit variance.
        self._components_DK = (pca.components_.T / deviation_K / number**0.5).astype(np.float32)

    def _averaged(self, states_QF: np.ndarray) -> np.ndarray:
        standard_QF = (states_QF - self._mean_F) * self._scale_F
        return standard_QF.reshape(len(states_QF), self._num_layers, -1).mean(axis=1)

    def _features(self, states_QF: np.ndarray) -> np.ndarray:
        return self._averaged(states_QF) @ self._components_DK
