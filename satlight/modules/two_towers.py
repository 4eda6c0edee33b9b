"""Two towers: what an instruction asks for against what a candidate has to offer, without an LLM between."""

from __future__ import annotations

from torch import Tensor, nn


class TwoTowers(nn.Module):
    """score = query(x) · key(c): a small network on the instruction, a linear layer on the candidate.

    A linear layer on capability vectors and a router LLM of a few layers take thousands of steps to learn
    which candidate is good at what; the towers learn it in hundreds and leave the LLM what the vectors do
    not say. They start at 0, so training begins from the router LLM's scores. A candidate enters through
    its capability vector alone, one that was not in training likewise.

    Args:
        size: D, the width of the encoder's vectors.
        width: Hidden units of the query.
        rank: Features that query and key meet in.

    Example:
        >>> import torch
        >>> towers = TwoTowers(4)
        >>> towers(torch.randn(5, 4), torch.randn(3, 4)).shape
        torch.Size([5, 3])

    Reference: ours; a factorised router as in matrix-factorisation routers, with text on both sides.
    """

    def __init__(self, size: int, width: int = 128, rank: int = 64) -> None:
        super().__init__()
        # Instruction vectors have length 1; scaled to entries near 1, the layer starts in GELU's bend.
        self.gain = size**0.5
        self.query = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, rank))
        self.key = nn.Linear(size, rank)
        last = self.query[2]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, instruction_BD: Tensor, capability_CD: Tensor) -> Tensor:
        """Log-odds to add: float (B, C).

        Args:
            instruction_BD: Unit vectors of B instructions.
            capability_CD: Standardised capability vectors of C candidates.
        """
        return self.query(self.gain * instruction_BD) @ self.key(capability_CD).T
