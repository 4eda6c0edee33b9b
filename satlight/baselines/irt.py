"""Multidimensional item response theory with item parameters predicted from the text.

Shape legend: N instructions, M candidates, L items of a new candidate, D features, F abilities.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.nn.functional import softplus

from satlight.baselines.latent import LatentBaseline, LogLossRouter, Person, quiet_linear
from satlight.baselines.neural import unit_variance
from satlight.storage.classes import Configured
from satlight.types import AptitudeResults, Candidate

LEAST_VARIANCE = 0.01
"""Least prior variance of a new candidate's abilities around the common ones: that before training."""


class IRT(LatentBaseline):
    """Pr(correct) = sigmoid(discrimination of the instruction · abilities of the candidate - difficulty).

    Discrimination (non-negative, one per ability) and difficulty are linear in the embedding, so that an instruction
    without outcomes has them too. More ability never lowers the prediction, in contrast to matrix factorization.

    The abilities of a new candidate are fitted to its results with fixed items: the maximum of the posterior
    under a normal prior around the common abilities, with the variance of the trained candidates.

    Reference: Song et al. 2025, "IRT-Router", the MIRT variant; Reckase 2009, "Multidimensional Item
        Response Theory", Eq. 4.5.
    """

    GRID = {"abilities": (8, 32), "decay": (0.1, 1.0), "steps": (250, 750)}  # noqa: RUF012

    def network(self, num_candidates: int, width: int, **chosen: Any) -> nn.Module:
        return ItemResponse(num_candidates, width, chosen["abilities"])

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        other, results, vectors_LD = self._admitting(candidate, results)
        assert vectors_LD is not None
        assert isinstance(self._module, LogLossRouter)
        network = self._module.network
        with torch.inference_mode():
            x_LD = unit_variance(vectors_LD).to(self._module.device)
            match_LF, offset_L = network.items(x_LD)
        common_F, own_MF = (network.state_dict()[f"ability.{part}"].cpu() for part in ("common", "own"))
        match_LF = match_LF.double().cpu().numpy()
        offset_L = offset_L[:, 0].double().cpu().numpy() - match_LF @ common_F.double().numpy()
        variance = max(LEAST_VARIANCE, own_MF.square().mean().item())
        own_F = fit_ability(match_LF, offset_L, results.outcomes.astype(np.float64), variance)
        grown_MF = torch.cat([own_MF, torch.from_numpy(own_F).float()[None]])
        other._module = self._module.with_tensors(len(grown_MF), ability__own=grown_MF)
        return other


def fit_ability(match_LF: np.ndarray, offset_L: np.ndarray, outcome_L: np.ndarray, variance: float) -> np.ndarray:
    """Fit the abilities of one candidate: log-odds of item l are match_l · abilities - offset_l.

    Args:
        match_LF: Discriminations of the items.
        offset_L: Difficulties.
        outcome_L: Outcomes in [0, 1].
        variance: Of the normal prior around 0, above 0.

    Returns:
        float64 (F,), the maximum of the posterior, which is unique.

    Example:
        >>> fit_ability(np.ones((2, 1)), np.zeros(2), np.array([1.0, 0.0]), variance=1.0).tolist()
        [0.0]

    Reference: Reckase 2009, "Multidimensional Item Response Theory", chapter 6 (Bayesian modal estimation).
    """

    def posterior(ability_F: np.ndarray) -> tuple[float, np.ndarray]:
        logit_L = match_LF @ ability_F - offset_L
        loss = np.logaddexp(0, logit_L).sum() - outcome_L @ logit_L + ability_F @ ability_F / (2 * variance)
        return loss, match_LF.T @ (0.5 * (1 + np.tanh(logit_L / 2)) - outcome_L) + ability_F / variance

    start_F = np.zeros(match_LF.shape[1])
    return minimize(posterior, start_F, jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-9}).x


class ItemResponse(Configured, nn.Module):
    """Log-odds of M candidates from embeddings of ``width`` features, by ``abilities`` abilities."""

    def __init__(self, num_candidates: int, width: int, abilities: int) -> None:
        super().__init__()
        self.ability = Person(num_candidates, abilities)
        self.discrimination = quiet_linear(width, abilities)
        self.difficulty = quiet_linear(width, 1)

    def items(self, x_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights of the abilities (N, F) and the difficulties (N, 1) of instructions."""
        discrimination_NF = softplus(self.discrimination(x_ND))
        return discrimination_NF / self.discrimination.out_features**0.5, self.difficulty(x_ND)

    def forward(self, x_ND: Tensor) -> Tensor:
        discrimination_NF = softplus(self.discrimination(x_ND))
        match_NM = discrimination_NF @ self.ability().T / self.discrimination.out_features**0.5
        return match_NM - self.difficulty(x_ND)
