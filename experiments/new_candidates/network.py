"""Attentive network for candidates that were not in training, known by K results each (see README.md).

It is trained on episodes in which known candidates play new ones with a random K. Candidates are anonymous: the network
reads the vectors of the K instructions, the results there, and the mean outcome of the known candidates.

Shape legend: K results of each candidate, C candidates, Q instructions to route, D dimensions of the embedding,
H attention heads, R dimensions of a head's projection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

SIZES = (8, 16, 32, 64, 128, 256, 960)
QUERIES = 128
BATCH = 2
LEAST, MOST = 0.02, 0.98
WIDTHS = (4.0, 16.0)
"""Initial inverse squared length scales, one for each head."""

SHARPNESS = 4.0
"""Factor of log-odds in the softmax of the expected regret."""


class Episode(NamedTuple):
    """Candidates known by results, and instructions to route.

    Args:
        item_KD: Embeddings of the K instructions.
        mean_K: Expected outcome of the mean candidate there, in (0, 1).
        outcome_KC: Results in [0, 1]; any number where unknown.
        known_KC: bool.
        query_QD: Embeddings of the instructions to route.
        mean_Q: Expected outcome of the mean candidate there.
    """

    item_KD: Tensor
    mean_K: Tensor
    outcome_KC: Tensor
    known_KC: Tensor
    query_QD: Tensor
    mean_Q: Tensor

    @classmethod
    def of(cls, *arrays: np.ndarray) -> Episode:
        """Convert arrays in the order of the fields; numbers become float32."""
        return cls(*(torch.as_tensor(one if one.dtype == bool else one.astype(np.float32)) for one in arrays))


class AttentiveNetwork(nn.Module):
    """Log-odds = that of the mean candidate + gated ability + gated local deviations.

    The ability is the most probable shift of the candidate's log-odds given its results (a shrunken mean). A local
    deviation is a shrunken mean of the remaining residuals, weighted by attention from the instruction to route to the
    K instructions. With all gates of deviations at 0, the network is the shrunken mean.

    Args:
        width: D.
        rank: R.
        hidden: Width of the network of the gates.
    """

    def __init__(self, width: int, rank: int = 16, hidden: int = 16) -> None:
        super().__init__()
        heads = len(WIDTHS)
        self.project = nn.Parameter(torch.randn(heads, rank, width) * 0.3 / width**0.5)
        self.log_width = nn.Parameter(torch.tensor(WIDTHS).log())
        self.log_prior = nn.Parameter(torch.full((heads,), 5.0).log())
        self.difficulty = nn.Parameter(torch.full((heads,), -4.0))
        self.log_variance = nn.Parameter(torch.tensor(0.0))
        self.log_noise = nn.Parameter(torch.tensor(0.0))
        self.gates = nn.Sequential(nn.Linear(heads + 3, hidden), nn.Tanh(), nn.Linear(hidden, heads + 1))
        nn.init.zeros_(self.gates[2].weight)
        nn.init.zeros_(self.gates[2].bias)

    def forward(self, episode: Episode) -> Tensor:
        """Return log-odds (Q, C)."""
        offset_K, offset_Q = episode.mean_K.logit(), episode.mean_Q.logit()
        ability_C, precision_C = self.ability(offset_K, episode.outcome_KC, episode.known_KC)
        p_KC = (offset_K[:, None] + ability_C).sigmoid()
        residual_KC = torch.where(episode.known_KC, episode.outcome_KC - p_KC, 0.0)
        weight_HQK = self.attention(episode, offset_K, offset_Q)
        count_HQC = weight_HQK @ (p_KC * (1 - p_KC) * episode.known_KC)
        deviation_HQC = (weight_HQK @ residual_KC) / (count_HQC + self.log_prior.exp()[:, None, None])
        shape = count_HQC.shape[1:]
        read = [*count_HQC.log1p(), *(one.expand(shape) for one in (precision_C.log(), ability_C, offset_Q[:, None]))]
        gate_QCG = 2 * self.gates(torch.stack(read, dim=-1)).sigmoid()
        parts_QCG = torch.stack([ability_C.expand(shape), *deviation_HQC], dim=-1)
        return offset_Q[:, None] + (gate_QCG * parts_QCG).sum(dim=-1)

    def ability(self, offset_K: Tensor, outcome_KC: Tensor, known_KC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the most probable shift of log-odds and its precision, (C,) each, by Newton's method."""
        shift_C, noise = torch.zeros(outcome_KC.shape[1]), self.log_noise.exp()
        for _ in range(4):
            p_KC = (offset_K[:, None] + shift_C).sigmoid()
            precision_C = (known_KC * p_KC * (1 - p_KC)).sum(dim=0) / noise + (-self.log_variance).exp()
            slope_C = torch.where(known_KC, outcome_KC - p_KC, 0.0).sum(dim=0) / noise
            shift_C = shift_C + (slope_C - shift_C * (-self.log_variance).exp()) / precision_C
        return shift_C, precision_C

    def attention(self, episode: Episode, offset_K: Tensor, offset_Q: Tensor) -> Tensor:
        """Return weights (H, Q, K) in (0, 1], a learned kernel of embedding and difficulty."""
        weights = []
        for project_RD, log_width, difficulty in zip(self.project, self.log_width, self.difficulty, strict=True):
            distance_QK = log_width.exp() * _squares(episode.query_QD, episode.item_KD)
            distance_QK = distance_QK + _squares(episode.query_QD @ project_RD.T, episode.item_KD @ project_RD.T)
            distance_QK = distance_QK + difficulty.exp() * (offset_Q[:, None] - offset_K) ** 2
            weights.append((-distance_QK / 2).exp())
        return torch.stack(weights)


def _squares(one_QD: Tensor, other_KD: Tensor) -> Tensor:
    square_QK = (one_QD**2).sum(dim=1)[:, None] + (other_KD**2).sum(dim=1) - 2 * one_QD @ other_KD.T
    return square_QK.clamp(min=0)


def train(
    sample: Callable[[np.random.Generator], tuple[Episode, Tensor, Tensor]],
    width: int,
    *,
    steps: int,
    regret: float,
    seed: int,
    rank: int = 16,
    rate: float = 0.01,
) -> AttentiveNetwork:
    """Minimize cross-entropy plus the expected regret of choosing by softmax.

    Args:
        sample: Draws an episode, with outcomes and their mask (Q, C) on the instructions to route.
        width: D.
        steps: Steps of :data:`BATCH` episodes.
        regret: Weight of the expected regret.
        seed: Seed of the initial weights and episodes.
        rate: Initial learning rate; falls to 0 by a cosine.
    """
    torch.manual_seed(seed)
    network, rng = AttentiveNetwork(width, rank), np.random.default_rng([seed, 1])
    optimizer = torch.optim.Adam(
        [
            {"params": [network.project, *network.gates.parameters()], "lr": rate / 3},
            {"params": [one for name, one in network.named_parameters() if name.startswith(("log_", "diff"))]},
        ],
        lr=rate,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        for _ in range(BATCH):
            episode, outcome_QC, known_QC = sample(rng)
            (loss(network(episode), outcome_QC, known_QC, regret) / BATCH).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def loss(score_QC: Tensor, outcome_QC: Tensor, known_QC: Tensor, regret: float) -> Tensor:
    """Return the mean cross-entropy plus the expected outcome lost by choosing with softmax probabilities."""
    total = binary_cross_entropy_with_logits(score_QC[known_QC], outcome_QC[known_QC])
    chosen_QC = (SHARPNESS * score_QC.masked_fill(~known_QC, -1e4)).softmax(dim=1)
    best_Q = outcome_QC.masked_fill(~known_QC, 0.0).amax(dim=1)
    return total + regret * (best_Q - (chosen_QC * outcome_QC.masked_fill(~known_QC, 0.0)).sum(dim=1)).mean()


def item_means(outcome_KM: np.ndarray, expected_K: np.ndarray | float, prior: float = 8.0) -> np.ndarray:
    """Return the mean outcome of each instruction, shrunk toward its expectation by ``prior`` candidates."""
    return ((outcome_KM.sum(axis=1) + prior * expected_K) / (outcome_KM.shape[1] + prior)).clip(LEAST, MOST)


def mixed(outcome_NC: np.ndarray, group_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Make candidates that are one of the given ones on each group of rows, (N, count)."""
    names, group_N = np.unique(group_N, return_inverse=True)
    parent_GC = rng.integers(outcome_NC.shape[1], size=(len(names), count))
    return np.take_along_axis(outcome_NC, parent_GC[group_N], axis=1)
