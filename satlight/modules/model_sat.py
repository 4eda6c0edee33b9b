"""Model-SAT: capability encoder, projector and router LLM combined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from satlight.capability.text import perturbations as perturb
from satlight.errors import SatlightError
from satlight.losses.objectives import Objective
from satlight.modules.base import BlockRouter, OptimizerSpec
from satlight.modules.encoder import CapabilityEncoder
from satlight.modules.projector import Projector
from satlight.modules.router_llm import RouterLLM
from satlight.modules.task_attention import TaskAttention
from satlight.modules.two_towers import TwoTowers
from satlight.types import Block, Capability


class ModelSAT(BlockRouter):
    """Scores [c_m, x, p] by reading the candidate through encoder and projector, the rest as text.

    Args:
        router_llm: φ.
        encoder: ψ; None = the candidate is read as text by the router LLM (the paper's ablation).
        projector: W; a default one when None and there is an encoder.
        perturbations: In evaluation, average the scores over so many orders of the results inside c_m, at
            least 1 (paper: 2). An encoder that reads statement by statement does not see their order and is
            asked once.
        task_attention: Add what the candidate's results on the nearest core tasks say
            (:class:`~satlight.modules.task_attention.TaskAttention`); the router LLM then learns what is
            left to say. Ours, not the paper's. Needs an encoder.
        two_towers: Add the score of two towers on the encoder's vectors of instruction and candidate
            (:class:`~satlight.modules.two_towers.TwoTowers`). Ours, not the paper's. Needs an encoder.
        instruction_vector: Let the router LLM read the encoder's vector of the instruction too, as one more
            token before its text. Ours, not the paper's. Needs an encoder.
        objective: Loss on a block.
        optimizer: Learning rates by part and schedule.

    Example:
        >>> model = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert")).eval()
        >>> good, poor = (Capability(notes=(f"It is {word} at math.",)) for word in ("good", "poor"))
        >>> zero = torch.tensor([0])
        >>> block = Block(["What is 2+2?"], [good, poor], zero, torch.tensor([0, 1]), zero)
        >>> model(block).shape
        torch.Size([1, 2])

    Reference: [Zhang et al. 2025, §4, Eq. 2 to 4; perturbation in §5].
    """

    def __init__(
        self,
        router_llm: RouterLLM,
        encoder: CapabilityEncoder | None = None,
        projector: Projector | None = None,
        perturbations: int = 1,
        task_attention: bool = False,
        two_towers: bool = False,
        instruction_vector: bool = False,
        objective: Objective | None = None,
        optimizer: OptimizerSpec | None = None,
    ) -> None:
        super().__init__(objective, optimizer)
        if perturbations < 1:
            raise SatlightError(f"model.perturbations is {perturbations}; it must be 1 or more")
        if encoder is None and projector is not None:
            raise SatlightError(
                "model.projector is set but model.encoder is null; a projector needs an encoder"
            )
        extras = {
            "task_attention": task_attention,
            "two_towers": two_towers,
            "instruction_vector": instruction_vector,
        }
        for option in (name for name, wanted in extras.items() if wanted and encoder is None):
            raise SatlightError(f"model.{option} is true but model.encoder is null; it needs an encoder")
        self.router_llm = router_llm
        self.encoder = encoder
        self.projector = projector if projector is not None or encoder is None else Projector()
        self.perturbations = perturbations
        if self.encoder is not None and self.projector is not None:
            self.projector.connect(self.encoder.output_size, router_llm.hidden_size, router_llm.token_norm)

        size = 0 if encoder is None else encoder.output_size
        self.task_attention = TaskAttention(size) if task_attention else None
        self.two_towers = TwoTowers(size) if two_towers else None
        self.instruction_projector = Projector(standardize=False) if instruction_vector else None
        if self.instruction_projector is not None:
            self.instruction_projector.connect(size, router_llm.hidden_size, router_llm.token_norm)

    def parts(self) -> dict[str, nn.Module]:
        names = ("encoder", "projector", "task_attention", "two_towers", "instruction_projector")
        return {name: part for name in names if (part := getattr(self, name)) is not None}

    def connectors(self) -> tuple[str, ...]:
        return "projector", "two_towers", "instruction_projector"

    def count_tokens(self, instructions: Sequence[str]) -> list[int]:
        """As :meth:`RouterLLM.count_tokens`."""
        return self.router_llm.count_tokens(instructions)

    def embed_capabilities(self, capabilities: list[Capability]) -> tuple[Tensor, Tensor]:
        """The candidates as the router LLM reads them: float (C, S, D) and bool (C, S).

        S = 1 behind an encoder.
        """
        if self.encoder is None or self.projector is None:
            return self.router_llm.embed_capabilities(capabilities)
        return _one_token(self.projector(self.encode_capabilities(capabilities)))

    def encode_capabilities(self, capabilities: list[Capability]) -> Tensor:
        """ψ(c) of C candidates, float (C, D); in training the projector's mean follows it."""
        assert self.encoder is not None
        assert self.projector is not None
        vector_CD = self.encoder.encode(capabilities)
        if self.training:
            self.projector.follow(vector_CD.detach())
        return vector_CD

    def _orders(self, capabilities: list[Capability]) -> list[list[Capability]]:
        order_matters = self.encoder is None or self.encoder.chunking == "windows"
        if self.training or self.perturbations == 1 or not order_matters:
            return [capabilities]
        shuffled = [perturb(capability, self.perturbations, seed=0) for capability in capabilities]
        return [[orders[i] for orders in shuffled] for i in range(self.perturbations)]

    def score(self, block: Block) -> Tensor:
        """Routing scores of a block: float32 (B, C), the mean over perturbations in evaluation."""
        encoder, projector = self.encoder, self.projector
        if encoder is None or projector is None:
            orders = self._orders(block.capabilities)
            scores = [
                self.router_llm(block.instructions, *self.embed_capabilities(order)) for order in orders
            ]
            return torch.stack(scores).mean(dim=0)
        reads_instructions = self.task_attention or self.two_towers or self.instruction_projector
        instruction_BD = encoder.read_instructions(block.instructions) if reads_instructions else None
        token_BD = None if self.instruction_projector is None else self.instruction_projector(instruction_BD)
        scores = []
        for order in self._orders(block.capabilities):
            vector_CD = self.encode_capabilities(order)
            branch = _one_token(projector(vector_CD))
            scores.append(self.router_llm(block.instructions, *branch, token_BD))
            if self.two_towers is not None:
                scores[-1] = scores[-1] + self.two_towers(instruction_BD, projector.standard(vector_CD))
        score_BC = torch.stack(scores).mean(dim=0)
        if self.task_attention is not None:
            score_BC = score_BC + self.task_attention(
                instruction_BD, *encoder.read_results(block.capabilities)
            )
        return score_BC


def _one_token(embedding_CD: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings of candidates as branches of one token: float (C, 1, D) and bool (C, 1)."""
    mask = torch.ones(len(embedding_CD), 1, dtype=torch.bool, device=embedding_CD.device)
    return embedding_CD[:, None, :], mask
