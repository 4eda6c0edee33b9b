"""Multidimensional item response theory with items read off their text.

Shape legend: N instructions, M candidates, D features, F abilities.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import softplus

from satlight.baselines.latent import LatentBaseline, Person, quiet_linear


class IRT(LatentBaseline):
    """Pr(correct) = sigmoid(discrimination of the instruction · abilities of the candidate - difficulty).

    Discrimination (non-negative, one per ability) and difficulty are linear in the embedding, so that an
    instruction that nobody answered has them too. More ability never hurts: this is what distinguishes it
    from matrix factorisation.

    Reference: Song et al. 2025, "IRT-Router", the MIRT variant; Reckase 2009, "Multidimensional Item
        Response Theory", Eq. 4.5.
    """

    GRID = {"abilities": (8, 32), "decay": (0.1, 1.0), "steps": (250, 750)}  # noqa: RUF012

    def network(self, num_candidates: int, width: int, **chosen: Any) -> nn.Module:
        return _ItemResponse(num_candidates, width, chosen["abilities"])


class _ItemResponse(nn.Module):
    def __init__(self, num_candidates: int, width: int, abilities: int) -> None:
        super().__init__()
        self.ability = Person(num_candidates, abilities)
        self.discrimination = quiet_linear(width, abilities)
        self.difficulty = quiet_linear(width, 1)

    def forward(self, x_ND: Tensor) -> Tensor:
        discrimination_NF = softplus(self.discrimination(x_ND))
        match_NM = discrimination_NF @ self.ability().T / self.discrimination.out_features**0.5
        return match_NM - self.difficulty(x_ND)
