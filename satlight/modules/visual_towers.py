"""Visual towers: the score of an instruction's images and a candidate as a dot product, without an LLM."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from satlight.modules.terms import Reading, ScoreTerm


class VisualTowers(ScoreTerm):
    """Compute score = query(images, x) · key(c) for instructions with images, and 0 for all others.

    A router LLM takes thousands of steps to learn which candidate sees what; the towers learn it in hundreds. The
    query keeps the place of each token in its image; of several images it reads the mean. The term starts at 0, so
    training starts from the scores of the router LLM.

    Args:
        width: Hidden units of the query.
        rank: Width of query and key.
        channels: Each token of the image is reduced to this many numbers first.

    Example:
        >>> towers = VisualTowers()
        >>> towers.connect_images(tokens=16, width=320)
        >>> towers.connect(4, 4, 1.0)
        >>> x, c = torch.randn(5, 4), torch.randn(3, 4)
        >>> towers(Reading(x, c, c, lambda: None, torch.randn(5, 16, 320), torch.ones(5, dtype=torch.bool))).shape
        torch.Size([5, 3])

    Reference: not in the paper; :class:`~satlight.modules.two_towers.TwoTowers` with eyes.
    """

    name: ClassVar[str] = "visual_towers"
    needs_images: ClassVar[bool] = True
    query: nn.Sequential
    key: nn.Linear
    reduce: nn.Linear

    def __init__(self, width: int = 128, rank: int = 64, channels: int = 32) -> None:
        super().__init__()
        self.width, self.rank, self.channels = width, rank, channels

    def connect_images(self, tokens: int, width: int) -> None:
        self.tokens, self.image_gain = tokens, width**0.5  # tokens have a norm of 1, and their entries should be near 1
        self.reduce = nn.Linear(width, self.channels)

    def connect(self, in_features: int, out_features: int, token_norm: float) -> None:
        self.gain = in_features**0.5
        first = nn.Linear(self.tokens * self.channels + in_features, self.width)
        last = nn.Linear(self.width, self.rank)
        self.query = nn.Sequential(first, nn.GELU(), last)
        self.key = nn.Linear(in_features, self.rank)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, reading: Reading) -> Tensor:
        if reading.image_BVD is None or reading.has_image_B is None:
            return reading.instruction_BD.new_zeros(len(reading.instruction_BD), len(reading.standard_CD))
        image_BF = self.reduce(self.image_gain * reading.image_BVD).flatten(1)
        query_BR = self.query(torch.cat([image_BF, self.gain * reading.instruction_BD], dim=1))
        return (query_BR @ self.key(reading.standard_CD).T) * reading.has_image_B[:, None]
