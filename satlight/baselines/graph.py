"""A graph router: tasks, instructions and candidates as nodes, outcomes as edges, routing as edge prediction.

Shape legend: Q instructions to score, S instructions with outcome edges (the support), M candidates, G tasks,
B of a batch, D features of the embedding, H of a node's state.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlight.baselines.neural import NeuralBaseline, NeuralRouter, masked_log_loss
from satlight.records import PerformanceRecords

WIDTH = 64
SUPPORT = 1024
"""Instructions whose edges are used in a training step; scoring uses all of them."""

FEWEST = 0.02
"""Smallest share of its edges that a candidate keeps in a training step."""


class Graph(NeuralBaseline):
    """Predict the outcome edges of an instruction from the graph of the training instructions.

    Nodes: instructions (state: their embedding), tasks (the mean of their instructions) and candidates, which
    share an initial state and differ by their edges. Edges: instruction–candidate with the outcome,
    task–candidate with the mean outcome, instruction–task. For an instruction to be routed, the tasks are
    weighted by the similarity of its embedding to theirs. In training, the edges of the batch are hidden and
    predicted from the others, and candidates lose random shares of their edges. A candidate that is known on
    a few probe instructions therefore gets its state from these edges, as every other one does.

    The score of an instruction and a candidate is the match of their states plus the path over the tasks: the
    candidate's mean outcomes on the tasks of the instruction. Scores need the outcomes of all training instructions, so
    a router folder holds them. More edges change the scores of all candidates, so none can be admitted.

    Reference: Feng et al. 2024, "GraphRouter: A Graph-based Router for LLM Selections".
    """

    GRID = {"layers": (1, 2), "steps": (50, 100, 200, 400)}  # noqa: RUF012

    def module(self, records: PerformanceRecords, vectors_ND: np.ndarray, **chosen: Any) -> NeuralRouter:
        return GraphNetwork.of(records, vectors_ND, chosen["layers"])


class _Edges(NamedTuple):
    """The support: right and wrong outcomes, members of tasks, mean outcomes on them, similarity to tasks.

    Rows of shares (right and wrong together, members, nearness) sum to 1, or to 0 without any. Mean outcomes
    on a task are differences from the mean over candidates.
    """

    right_MS: Tensor
    wrong_MS: Tensor
    member_GS: Tensor
    mean_GM: Tensor
    near_QG: Tensor
    near_SG: Tensor


class GraphNetwork(NeuralRouter):
    """The graph of N instructions, M candidates and G tasks with its message passing.

    Args:
        num_rows: N.
        num_candidates: M.
        width: D, features of an embedding.
        num_tasks: G.
        layers: Rounds of message passing.
    """

    lr = 3e-4
    rows_stored = True

    task_N: Tensor
    center_GD: Tensor

    def __init__(self, num_rows: int, num_candidates: int, width: int, num_tasks: int, layers: int) -> None:
        super().__init__()
        self.register_buffer("x_ND", torch.zeros(num_rows, width))
        self.register_buffer("known_NM", torch.zeros(num_rows, num_candidates, dtype=torch.bool))
        self.register_buffer("outcome_NM", torch.zeros(num_rows, num_candidates))
        self.register_buffer("task_N", torch.zeros(num_rows, dtype=torch.int64))
        self.register_buffer("center_GD", torch.zeros(num_tasks, width))
        self.read = nn.Linear(width, WIDTH)
        self.newcomer_H = nn.Parameter(torch.randn(WIDTH))
        self.layers = nn.ModuleList(_MessagePassing() for _ in range(layers))
        self.sharpness = nn.Parameter(torch.tensor(3.5))  # exp of it multiplies cosines
        self.path = nn.Parameter(torch.tensor(4.0))  # from a difference of means to one of log-odds
        self.ask, self.answer = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.difficulty, self.strength = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 1)

    @classmethod
    def of(cls, records: PerformanceRecords, vectors_ND: np.ndarray, layers: int) -> Self:
        """Build the graph of the rows to learn from."""
        names = np.char.add(np.char.add(records.datasets, "\n"), records.tasks)
        tasks, task_N = np.unique(names, return_inverse=True)
        made = cls(*records.shape, vectors_ND.shape[1], len(tasks), layers).hold(records, vectors_ND)
        made.task_N = torch.from_numpy(task_N.astype(np.int64))
        made.center_GD = F.normalize(F.one_hot(made.task_N).T.float() @ made.x_ND, dim=1)
        return made

    def loss(self, index_B: Tensor) -> Tensor:
        other_N = torch.ones(len(self.x_ND), dtype=torch.bool, device=self.device)
        other_N[index_B] = False
        support_S = other_N.nonzero()[:, 0]
        support_S = support_S[torch.randperm(len(support_S), device=self.device)[:SUPPORT]]
        if not len(support_S):  # a batch that holds every row
            support_S = index_B
        log_odds_BM = self.predicted(self.x_ND[index_B], support_S, self._left(support_S))
        return masked_log_loss(log_odds_BM, self.outcome_NM[index_B], self.known_NM[index_B])

    def score(self, x_QD: Tensor) -> Tensor:
        every_S = torch.arange(len(self.x_ND), device=self.device)
        return self.predicted(x_QD, every_S, self.known_NM).sigmoid()

    def _left(self, support_S: Tensor) -> Tensor:
        """Draw edges of the support (S, M): half of the candidates lose a random share of theirs."""
        known_SM = self.known_NM[support_S]
        share_M = FEWEST ** torch.rand(known_SM.shape[1], device=self.device)
        share_M = torch.where(torch.rand_like(share_M) < 0.5, share_M, 1.0)
        return known_SM & (torch.rand(known_SM.shape, device=self.device) < share_M)

    def predicted(self, x_QD: Tensor, support_S: Tensor, known_SM: Tensor) -> Tensor:
        """Compute log-odds (Q, M) from the edges ``known_SM`` of the support."""
        x_SD = self.x_ND[support_S]
        edges = self._edges(x_QD, support_S, known_SM)
        support_SH, query_QH = self.read(x_SD), self.read(x_QD)
        task_GH, candidate_MH = edges.member_GS @ support_SH, self.newcomer_H.expand(known_SM.shape[1], -1)
        for layer in self.layers:
            support_SH, query_QH, task_GH, candidate_MH = layer(edges, support_SH, query_QH, task_GH, candidate_MH)
        match_QM = self.ask(query_QH) @ self.answer(candidate_MH).T / WIDTH**0.5
        path_QM = self.path * (edges.near_QG @ edges.mean_GM)
        return path_QM + match_QM + self.difficulty(query_QH) + self.strength(candidate_MH).T

    def _edges(self, x_QD: Tensor, support_S: Tensor, known_SM: Tensor) -> _Edges:
        outcome_SM = self.outcome_NM[support_S] * known_SM
        count_M = known_SM.sum(dim=0).clamp(min=1)
        member_GS = F.one_hot(self.task_N[support_S], len(self.center_GD)).T.float()
        mean_M = outcome_SM.sum(dim=0) / count_M
        # The overall mean of the candidate counts as one more outcome in each task.
        mean_GM = (member_GS @ outcome_SM + mean_M) / (member_GS @ known_SM.float() + 1)
        return _Edges(
            right_MS=(outcome_SM / count_M).T,
            wrong_MS=((known_SM.float() - outcome_SM) / count_M).T,
            member_GS=member_GS / member_GS.sum(dim=1, keepdim=True).clamp(min=1),
            mean_GM=mean_GM - mean_GM.mean(dim=1, keepdim=True),
            near_QG=self._near(x_QD),
            near_SG=self._near(self.x_ND[support_S]),
        )

    def _near(self, x_QD: Tensor) -> Tensor:
        """Compute the weights (Q, G) of the tasks of each instruction, which sum to 1."""
        cosine_QG = F.normalize(x_QD, dim=1) @ self.center_GD.T
        return (self.sharpness.exp() * cosine_QG).softmax(dim=1)


class _MessagePassing(nn.Module):
    """Add the messages of its neighbors to the state of every node."""

    def __init__(self) -> None:
        super().__init__()
        self.right, self.wrong, self.from_tasks = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.from_members, self.from_candidates, self.to_queries = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(
        self, edges: _Edges, support_SH: Tensor, query_QH: Tensor, task_GH: Tensor, candidate_MH: Tensor
    ) -> tuple[Tensor, ...]:
        candidate_MH = candidate_MH + F.gelu(
            self.right(edges.right_MS @ support_SH)
            + self.wrong(edges.wrong_MS @ support_SH)
            + self.from_tasks(edges.mean_GM.T @ task_GH)
        )
        task_GH = task_GH + F.gelu(
            self.from_members(edges.member_GS @ support_SH) + self.from_candidates(edges.mean_GM @ candidate_MH)
        )
        support_SH = support_SH + F.gelu(self.to_queries(edges.near_SG @ task_GH))
        query_QH = query_QH + F.gelu(self.to_queries(edges.near_QG @ task_GH))
        return support_SH, query_QH, task_GH, candidate_MH
