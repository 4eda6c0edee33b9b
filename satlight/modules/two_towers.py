"""Two towers: the score of instruction and candidate as a dot product, without an LLM."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from satlight.modules.terms import Reading, ScoreTerm


class TwoTowers(ScoreTerm):
    """Compute score = query(x) · key(c): a small network of the instruction, a linear layer of the candidate.

    A linear layer on capability vectors and a router LLM of a few layers take thousands of steps to learn
    which candidate is good at what; the towers learn it in hundreds and leave the rest to the LLM. The term
    starts at 0, so training starts from the scores of the router LLM. A candidate enters through its
    capability vector only, so candidates that were not in training can be scored.

    Args:
        width: Hidden units of the query.
        rank: Width of query and key.

    Example:
        >>> import torch
        >>> towers = TwoTowers()
        >>> towers.connect(4, 4, 1.0)
        >>> towers(Reading(torch.randn(5, 4), torch.randn(3, 4), torch.randn(3, 4), lambda: None)).shape
        torch.Size([5, 3])

    Reference: not in the paper; a matrix-factorization router with text on both sides.
    """

    name: ClassVar[str] = "two_towers"
    query: nn.Sequential
    key: nn.Linear

    def __init__(self, width: int = 128, rank: int = 64) -> None:
        super().__init__()
        self.width, self.rank = width, rank

    def connect(self, in_features: int, out_features: int, token_norm: float) -> None:
        # Instruction vectors have length 1; scaled to entries near 1, they reach the bend of the GELU.
        self.gain = in_features**0.5
        first, last = nn.Linear(in_features, self.width), nn.Linear(self.width, self.rank)
        self.query = nn.Sequential(first, nn.GELU(), last)
        self.key = nn.Linear(in_features, self.rank)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, reading: Reading) -> Tensor:
        return self.query(self.gain * reading.instruction_BD) @ self.key(reading.standard_CD).T
