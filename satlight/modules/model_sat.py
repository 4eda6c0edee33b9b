"""Model-SAT: capability encoder, projector and router LLM combined."""

from __future__ import annotations

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
        objective: Loss on a block.
        optimizer: Learning rates by part and schedule.

    Example:
        >>> model = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert")).eval()
        >>> block = Block(["What is 2+2?"], [("It is good at maths.",), ("It is poor at maths.",)],
        ...               torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([0]))
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
        if encoder is None and task_attention:
            raise SatlightError("model.task_attention is true but model.encoder is null; it needs an encoder")
        self.router_llm = router_llm
        self.encoder = encoder
        self.projector = projector if projector is not None or encoder is None else Projector()
        self.perturbations = perturbations
        if self.encoder is not None and self.projector is not None:
            self.projector.connect(self.encoder.output_size, router_llm.hidden_size, router_llm.token_norm)

        self.task_attention = (
            TaskAttention(encoder.output_size) if encoder is not None and task_attention else None
        )

    def parts(self) -> dict[str, nn.Module]:
        found = {"encoder": self.encoder, "projector": self.projector, "task_attention": self.task_attention}
        return {name: part for name, part in found.items() if part is not None}

    def embed_capabilities(self, capabilities: list[Capability]) -> tuple[Tensor, Tensor]:
        """The candidates as the router LLM reads them: float (C, S, D) and bool (C, S).

        S = 1 behind an encoder.
        """
        if self.encoder is None or self.projector is None:
            return self.router_llm.embed_capabilities(capabilities)
        vector_CD = self.encoder.encode(capabilities)
        if self.training:
            self.projector.follow(vector_CD.detach())
        branch_CSD = self.projector(vector_CD)[:, None, :]
        return branch_CSD, torch.ones(branch_CSD.shape[:2], dtype=torch.bool, device=branch_CSD.device)

    def _orders(self, capabilities: list[Capability]) -> list[list[Capability]]:
        order_matters = self.encoder is None or self.encoder.chunking == "windows"
        if self.training or self.perturbations == 1 or not order_matters:
            return [capabilities]
        shuffled = [perturb(capability, self.perturbations, seed=0) for capability in capabilities]
        return [[orders[i] for orders in shuffled] for i in range(self.perturbations)]

    def score(self, block: Block) -> Tensor:
        """Routing scores of a block: float32 (B, C), the mean over perturbations in evaluation."""
        scores = [
            self.router_llm(block.instructions, *self.embed_capabilities(order))
            for order in self._orders(block.capabilities)
        ]
        score_BC = torch.stack(scores).mean(dim=0)
        if self.task_attention is None or self.encoder is None:
            return score_BC
        return score_BC + self.task_attention(
            *self.encoder.read_results(block.instructions, block.capabilities)
        )
