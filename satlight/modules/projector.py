"""The projector (connector) W: capability vectors into the router LLM's input space."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor, nn

from satlight.errors import SatlightError
from satlight.storage.classes import Configured


class Projector(L.LightningModule, Configured):
    """A single linear layer on standardised capability vectors, e_c = W·(ψ(c) - μ) / σ + b.

    Capability vectors of different candidates are nearly one direction: their texts differ in numbers only,
    and the spread around their mean is about a fortieth of their length. An LLM's token embeddings are not
    like that, and what little the encoder moves while it trains moves all of them together. So the layer sees
    their differences: μ follows the mean over the candidates of the training blocks, σ is their spread in the
    first block (in the first two with different candidates, where blocks hold one each), and W starts as a
    random rotation to the length of a token embedding. μ and σ are constants in evaluation and carry no
    gradient; the layer stays the paper's linear one.

    Args:
        standardize: False leaves out μ and σ.
        momentum: How fast μ follows, in [0, 1]: share of the newest block in it.

    The input and output widths are those of its neighbours, set by :meth:`connect`.

    Example:
        >>> projector = Projector()
        >>> projector.connect(384, 576, token_norm=1.0)
        >>> projector(torch.zeros(7, 384)).shape
        torch.Size([7, 576])

    Reference: [Zhang et al. 2025, Eq. 2]; μ and σ are ours (docs/decisions.md).
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
        self.register_buffer("spread", torch.tensor(0.0))  # 0 = no block of several candidates seen yet

    @torch.no_grad()
    def follow(self, capability_CD: Tensor) -> None:
        """Let μ (and, once, σ) follow the capability vectors of a training block."""
        if not self.standardize:
            return
        if float(self.spread) > 0:
            self.center.lerp_(capability_CD.mean(dim=0), self.momentum)
            return
        if len(capability_CD) == 1 and self.center.any():
            # The paper's groups hold one candidate: centred on it alone, all candidates would look the same.
            capability_CD = torch.stack([self.center, capability_CD[0].to(self.center)])
        mean = capability_CD.mean(dim=0)
        self.center.copy_(mean)
        spread = (capability_CD - mean).pow(2).sum(dim=1).mean().sqrt()
        if spread > 1e-4 * mean.norm():  # else one candidate, read twice with another rounding
            self.spread.copy_(spread)

    def standard(self, capability_CD: Tensor) -> Tensor:
        """(ψ(c) - μ) / σ of C candidates: float (C, D)."""
        if not self.standardize or not isinstance(self.linear, nn.Linear):
            return capability_CD
        capability_CD = capability_CD - self.center
        return capability_CD / self.spread if float(self.spread) > 0 else capability_CD

    def forward(self, capability_CD: Tensor) -> Tensor:
        """e_c of C candidates: float (C, D) → float (C, D')."""
        return self.linear(self.standard(capability_CD))
