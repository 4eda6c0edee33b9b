"""A small network for candidates that were not in training, known by K results each.

It is trained on episodes in which known candidates play new ones with a random K. Candidates are anonymous: the network
reads the vectors of the K instructions, the results there, and the mean outcome of the known candidates.

Shape legend: K results of each candidate, C candidates, Q instructions to route, D dimensions of the embedding,
H attention heads, R dimensions of a head's projection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from satlight.baselines.neural import seeded
from satlight.storage.classes import Configured

SIZES = (8, 16, 32, 64, 128, 256, 960)
"""Numbers of results in training."""

QUERIES = 128
"""Instructions to route in an episode."""

BATCH = 2
"""Episodes of a step."""

STEPS, REGRET, RATE, CLIP = 400, 8.0, 0.01, 1.0
"""Defaults of :func:`train`, and the largest norm of a gradient."""

NEWTON_STEPS, LARGEST_STEP = 6, 2.5
"""Steps to a candidate's ability, and the largest one, in log-odds."""

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


class AttentiveNetwork(Configured, nn.Module):
    """Log-odds = those of the mean candidate + gated ability + gated local deviations.

    The ability is the most probable shift of the candidate's log-odds given its results (a shrunken mean). A local
    deviation is a shrunken mean of the remaining residuals, weighted by attention from the instruction to route to the
    K instructions. With all gates of deviations at 0, the network is the shrunken mean.

    Args:
        width: D.
        rank: R.
        hidden: Width of the network of the gates.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> items, asked = rng.normal(size=(5, 3)), rng.normal(size=(2, 3))
        >>> outcomes, half = np.ones((5, 4)), np.full(5, 0.5)
        >>> episode = Episode.of(items, half, outcomes, outcomes == 1, asked, half[:2])
        >>> AttentiveNetwork(width=3)(episode).shape
        torch.Size([2, 4])

    Reference: Kim et al. 2019, "Attentive Neural Processes", the deterministic path; trained on episodes as in Vinyals
        et al. 2016, "Matching Networks for One Shot Learning".
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
        last = nn.Linear(hidden, heads + 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.gates = nn.Sequential(nn.Linear(heads + 3, hidden), nn.Tanh(), last)

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
        """Return the most probable shift of log-odds and its precision, (C,) each, by Newton's method.

        Steps are bounded, since whole ones diverge for a candidate that fails where nearly all others succeed.
        """
        shift_C, noise = offset_K.new_zeros(outcome_KC.shape[1]), self.log_noise.exp()
        for _ in range(NEWTON_STEPS):
            p_KC = (offset_K[:, None] + shift_C).sigmoid()
            precision_C = (known_KC * p_KC * (1 - p_KC)).sum(dim=0) / noise + (-self.log_variance).exp()
            slope_C = torch.where(known_KC, outcome_KC - p_KC, 0.0).sum(dim=0) / noise
            step_C = (slope_C - shift_C * (-self.log_variance).exp()) / precision_C
            shift_C = shift_C + step_C.clamp(-LARGEST_STEP, LARGEST_STEP)
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


Sample = Callable[[np.random.Generator], tuple[Episode, Tensor, Tensor]]
"""Draws an episode, with outcomes and their mask (Q, C) on the instructions to route."""


def train(
    sample: Sample, width: int, *, seed: int, steps: int = STEPS, regret: float = REGRET, rank: int = 16
) -> AttentiveNetwork:
    """Minimize cross-entropy plus the expected regret of choosing by softmax.

    Args:
        sample: Draws an episode.
        width: D.
        seed: Seed of the initial weights and episodes.
        steps: Steps of :data:`BATCH` episodes.
        regret: Weight of the expected regret.
        rank: R.
    """
    from satlight.baselines import training  # imports lightning, which scoring does without

    with seeded(seed):
        network = AttentiveNetwork(width, rank)
        episodes = _Episodes(network, sample, steps, regret, np.random.default_rng([seed, 1]))
        training.train(episodes, torch.arange(steps), clip=CLIP)
    return network.eval().requires_grad_(False)


class _Episodes(nn.Module):
    """A network with the source of its episodes, as :func:`satlight.baselines.training.train` takes it."""

    def __init__(
        self, network: AttentiveNetwork, sample: Sample, steps: int, regret: float, rng: np.random.Generator
    ) -> None:
        super().__init__()
        self.network, self.sample, self.steps, self.regret, self.rng = network, sample, steps, regret, rng

    def loss(self, step: Tensor) -> Tensor:
        """Return the mean loss of some episodes."""
        total = torch.zeros((), device=step.device)
        for _ in range(BATCH):
            episode, outcome_QC, known_QC = self.sample(self.rng)
            score_QC = self.network(Episode(*(one.to(step.device) for one in episode)))
            total = total + loss(score_QC, outcome_QC.to(step.device), known_QC.to(step.device), self.regret) / BATCH
        return total

    def optimization(self) -> dict[str, Any]:
        """Return Adam with a third of the rate for the dense layers; both rates fall to 0 by a cosine."""
        dense = [self.network.project, *self.network.gates.parameters()]
        scalars = [one for name, one in self.network.named_parameters() if name.startswith(("log_", "diff"))]
        groups: list[dict[str, Any]] = [{"params": dense, "lr": RATE / 3}, {"params": scalars}]
        optimizer = torch.optim.Adam(groups, lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loss(score_QC: Tensor, outcome_QC: Tensor, known_QC: Tensor, regret: float) -> Tensor:
    """Return the mean cross-entropy plus the expected outcome lost by choosing with softmax probabilities."""
    total = binary_cross_entropy_with_logits(score_QC[known_QC], outcome_QC[known_QC])
    chosen_QC = (SHARPNESS * score_QC.masked_fill(~known_QC, -1e4)).softmax(dim=1)
    best_Q = outcome_QC.masked_fill(~known_QC, 0.0).amax(dim=1)
    return total + regret * (best_Q - (chosen_QC * outcome_QC.masked_fill(~known_QC, 0.0)).sum(dim=1)).mean()
