"""Task attention: what a candidate's results on the nearest core tasks say of an instruction."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TaskAttention(nn.Module):
    """An instruction attends to the core tasks nearest in meaning; a candidate's value is its results there.

    score = scale · softmax((x·Q) · tasks / temperature) · strength. Q starts as the identity, so that it
    routes before any training, seen and unseen candidates alike; training sharpens which tasks an
    instruction belongs to.

    Args:
        size: D, the width of the encoder's vectors.
        scale: Log-odds for one standard deviation of accuracy in the zoo (0.15 is about 0.6).
        temperature: Of the softmax over cosines; small = the nearest task alone.

    Example:
        >>> attention = TaskAttention(2)
        >>> tasks, strength = torch.eye(2), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> attention(torch.tensor([[1.0, 0.0]]), tasks, strength).detach().round(decimals=2)
        tensor([[ 0.6000, -0.6000]])

    Reference: ours; without training it is the nearest-core-tasks vote.
    """

    def __init__(self, size: int, scale: float = 0.6, temperature: float = 0.05) -> None:
        super().__init__()
        self.query = nn.Linear(size, size, bias=False)
        nn.init.eye_(self.query.weight)
        self.scale = nn.Parameter(torch.tensor(scale))
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    def forward(self, instruction_BD: Tensor, task_TD: Tensor, strength_CT: Tensor) -> Tensor:
        """Log-odds above or below a typical candidate's: float (B, C).

        Args:
            instruction_BD: Unit vectors of B instructions.
            task_TD: Unit vectors of T core tasks.
            strength_CT: Results of C candidates in standard deviations, NaN where a candidate has none: its
                attention is over its own tasks, so that its score does not hang on whose block it is in.
        """
        if not len(task_TD):
            return instruction_BD.new_zeros(len(instruction_BD), len(strength_CT))
        nearness_BT = self.query(instruction_BD) @ task_TD.T / self.log_temperature.exp()
        lacks_CT = strength_CT.isnan()
        if not lacks_CT.any():
            return self.scale * nearness_BT.softmax(dim=-1) @ strength_CT.T
        lowest = torch.finfo(nearness_BT.dtype).min
        attention_BCT = nearness_BT[:, None, :].masked_fill(lacks_CT, lowest).softmax(dim=-1)
        return self.scale * (attention_BCT * strength_CT.nan_to_num(0.0)).sum(dim=-1)
