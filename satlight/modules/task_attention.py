"""Task attention: a candidate's results on the core tasks nearest to an instruction."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from satlight.modules.terms import Reading, ScoreTerm


class TaskAttention(ScoreTerm):
    """Attend from an instruction to the nearest core tasks; the values are a candidate's results on them.

    score = scale · softmax((x·Q) · tasks / temperature) · strength. Q starts as the identity, so that the
    term routes before any training, seen and unseen candidates alike; training learns which tasks an
    instruction belongs to. Stage 1 does not train it.

    Args:
        scale: Log-odds for one standard deviation of accuracy in the zoo (0.15 is about 0.6).
        temperature: Of the softmax over cosines; small = the nearest task only.

    Example:
        >>> attention = TaskAttention()
        >>> attention.connect(2, 2, 1.0)
        >>> x, tasks = torch.tensor([[1.0, 0.0]]), torch.eye(2)
        >>> strength = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
        >>> attention(Reading(x, tasks, tasks, lambda: (tasks, strength))).detach().round(decimals=2)
        tensor([[ 0.6000, -0.6000]])

    Reference: not in the paper; without training it is a vote of the nearest core tasks.
    """

    name: ClassVar[str] = "task_attention"
    connector: ClassVar[bool] = False
    order_invariant: ClassVar[bool] = True
    query: nn.Linear

    def __init__(self, scale: float = 0.6, temperature: float = 0.05) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log())

    def connect(self, in_features: int, out_features: int, token_norm: float) -> None:
        self.query = nn.Linear(in_features, in_features, bias=False)
        nn.init.eye_(self.query.weight)

    def forward(self, reading: Reading) -> Tensor:
        """Return the log-odds relative to a typical candidate: float (B, C).

        A candidate without a result on a task attends to its other tasks only, so that its score does not
        depend on the other candidates of the block.
        """
        instruction_BD, (task_TD, strength_CT) = reading.instruction_BD, reading.results
        if not len(task_TD):
            return instruction_BD.new_zeros(len(instruction_BD), len(strength_CT))
        nearness_BT = self.query(instruction_BD) @ task_TD.T / self.log_temperature.exp()
        lacks_CT = strength_CT.isnan()
        if not lacks_CT.any():
            return self.scale * nearness_BT.softmax(dim=-1) @ strength_CT.T
        lowest = torch.finfo(nearness_BT.dtype).min
        attention_BCT = nearness_BT[:, None, :].masked_fill(lacks_CT, lowest).softmax(dim=-1)
        return self.scale * (attention_BCT * strength_CT.nan_to_num(0.0)).sum(dim=-1)
