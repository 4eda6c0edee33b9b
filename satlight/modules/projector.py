"""The projector (connector) W: maps capability vectors into the input space of the router LLM."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from satlight.errors import SatlightError
from satlight.modules.lightning_module import LightningModule
from satlight.modules.precision import Float32
from satlight.storage.classes import Configured


class Projector(Float32, LightningModule, Configured):
    """A linear layer on standardized capability vectors, e_c = W·(ψ(c) - μ) / σ + b.

    Capability vectors of different candidates have nearly the same direction: their texts differ in numbers only, and
    the spread around their mean is about a fortieth of their length. Token embeddings of an LLM are not like that, and
    training the encoder moves all capability vectors together. Standardizing exposes the differences:

    - μ is a moving average of the mean over the candidates of a training block.
    - σ is the spread of the first block (of the first two with different candidates, if blocks have one).
    - W starts as a random rotation that scales to the length of a token embedding.

    μ and σ are constant in evaluation and have no gradient. The layer stays in float32.

    Args:
        standardize: False disables μ and σ.
        momentum: Weight of the newest block in μ, in [0, 1].

    :meth:`connect` sets the input and output widths.

    Example:
        >>> projector = Projector()
        >>> projector.connect(384, 576, token_norm=1.0)
        >>> projector(torch.zeros(7, 384)).shape
        torch.Size([7, 576])

    Reference: [Zhang et al. 2025, Eq. 2]; μ and σ are an addition (docs/decisions.md).
    """

    center: Tensor
    spread: Tensor

    def __init__(self, standardize: bool = True, momentum: float = 0.1) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise SatlightError(f"projector.momentum is {momentum}; it must lie in [0, 1]")
        self.standardize, self.momentum = standardize, momentum
        self.linear: nn.Module = nn.Identity()

    def connect(self, in_features: int, out_features: int, token_norm: float) -> None:
        """Build the layer.

        Args:
            in_features: Width of a capability vector.
            out_features: Width of the router LLM's embeddings.
            token_norm: Typical Euclidean norm of a token embedding.
        """
        linear = nn.Linear(in_features, out_features)
        nn.init.orthogonal_(linear.weight, gain=token_norm)
        nn.init.zeros_(linear.bias)
        self.linear = linear
        self.register_buffer("center", torch.zeros(in_features))
        self.register_buffer("spread", torch.tensor(0.0))  # 0 = not measured yet

    @torch.no_grad()
    def follow(self, capability_CD: Tensor) -> None:
        """Update μ (and, once, σ) from the capability vectors of a training block."""
        if not self.standardize:
            return
        if float(self.spread) > 0:
            self.center.lerp_(capability_CD.mean(dim=0), self.momentum)
            return
        if len(capability_CD) == 1 and self.center.any():
            # The paper's groups have one candidate: centered on it, all candidates would look the same.
            capability_CD = torch.stack([self.center, capability_CD[0].to(self.center)])
        mean = capability_CD.mean(dim=0)
        self.center.copy_(mean)
        spread = (capability_CD - mean).pow(2).sum(dim=1).mean().sqrt()
        if spread > 1e-4 * mean.norm():  # else the same candidate twice, up to rounding
            self.spread.copy_(spread)

    def standard(self, capability_CD: Tensor) -> Tensor:
        """Standardize the vectors of C candidates as (ψ(c) - μ) / σ: float (C, D)."""
        if not self.standardize or not isinstance(self.linear, nn.Linear):
            return capability_CD
        capability_CD = capability_CD - self.center
        return capability_CD / self.spread if float(self.spread) > 0 else capability_CD

    def forward(self, capability_CD: Tensor) -> Tensor:
        """Project the vectors of C candidates to e_c: float (C, D) → float (C, D')."""
        return self.linear(self.standard(capability_CD))
