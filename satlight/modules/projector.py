"""The projector (connector) W: capability vectors into the router LLM's input space."""

from __future__ import annotations

import lightning as L
import torch
from torch import Tensor, nn


class Projector(L.LightningModule):
    """A single linear layer, e_c = W·ψ(c) + b.

    Capability vectors of different candidates are nearly the same direction (their texts differ in numbers
    only), while an LLM's token embeddings are not. With ``fit_scale`` the layer starts from a random
    rotation whose scale and bias make the spread between the first block's candidates as large as a typical
    token embedding. The layer stays the paper's linear one; only its start differs.

    Args:
        fit_scale: Start from the first training block's capability vectors as described.

    The input and output widths are those of its neighbours, set by :meth:`connect`.

    Example:
        >>> projector = Projector()
        >>> projector.connect(384, 576, token_norm=1.0)
        >>> projector(torch.zeros(7, 384)).shape
        torch.Size([7, 576])

    Reference: [Zhang et al. 2025, Eq. 2].
    """

    def __init__(self, fit_scale: bool = True) -> None:
        super().__init__()
        self.fit_scale = fit_scale
        self.linear: nn.Module = nn.Identity()
        self.token_norm = 1.0
        self.register_buffer("fitted", torch.tensor(not fit_scale))
        self.fitted: Tensor

    def connect(self, in_features: int, out_features: int, token_norm: float) -> None:
        """Build the layer.

        Args:
            in_features: Width of a capability vector.
            out_features: Width of the router LLM's embeddings.
            token_norm: Typical Euclidean norm of a token embedding.
        """
        linear = nn.Linear(in_features, out_features)
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
        self.linear, self.token_norm = linear, token_norm

    @torch.no_grad()
    def fit(self, capability_CD: Tensor) -> None:
        """Set scale and bias from capability vectors of at least two candidates; later calls do nothing."""
        if bool(self.fitted) or len(capability_CD) < 2 or not isinstance(self.linear, nn.Linear):
            return
        mean = capability_CD.mean(dim=0)
        moved = (capability_CD - mean) @ self.linear.weight.T
        spread = moved.pow(2).sum(dim=1).mean().sqrt().clamp(min=1e-6)
        self.linear.weight.mul_(self.token_norm / spread)
        self.linear.bias.copy_(-self.linear.weight @ mean)
        self.fitted.fill_(True)

    def forward(self, capability_CD: Tensor) -> Tensor:
        """e_c of C candidates: float (C, D) → float (C, D')."""
        return self.linear(capability_CD)
