"""Model-SAT: capability encoder, projector and router LLM combined."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from satlight.capability.text import perturbations as perturb
from satlight.errors import SatlightError
from satlight.losses.objectives import Objective
from satlight.modules.base import BlockRouter, OptimizerSpec
from satlight.modules.encoder import CapabilityEncoder
from satlight.modules.precision import without_autocast
from satlight.modules.projector import Projector
from satlight.modules.router_llm import RouterLLM
from satlight.modules.task_attention import TaskAttention
from satlight.modules.terms import InstructionVector, Reading, ScoreTerm, Term
from satlight.modules.two_towers import TwoTowers
from satlight.types import Block, Capability

OPTIONS: dict[str, type[Term]] = {
    "task_attention": TaskAttention,
    "two_towers": TwoTowers,
    "instruction_vector": InstructionVector,
}
"""Terms with an option of :class:`ModelSAT`, in the order of its parameters; give others in ``terms``."""


class ModelSAT(BlockRouter):
    """Score [c_m, x, p]: the candidate enters through encoder and projector, the rest as text.

    The options ``task_attention`` to ``terms`` need an encoder; they are not in the paper.

    Args:
        router_llm: φ.
        encoder: ψ; None = the router LLM reads the candidate as text (the paper's ablation).
        projector: W; None = a default one if there is an encoder.
        perturbations: In evaluation, average the scores over this many orders of the results inside c_m, at
            least 1 (paper: 2). With an encoder that does not depend on their order, scores are computed once.
        task_attention: Add a vote of the candidate's results on the nearest core tasks
            (:class:`~satlight.modules.task_attention.TaskAttention`); the router LLM learns the rest.
        two_towers: Add the score of two towers on the encoder's vectors of instruction and candidate
            (:class:`~satlight.modules.two_towers.TwoTowers`).
        instruction_vector: Let the router LLM read the encoder's vector of the instruction as one more token
            before its text (:class:`~satlight.modules.terms.InstructionVector`).
        objective: Loss on a block.
        optimizer: Learning rates by part and schedule.
        terms: Further terms, e.g. a :class:`~satlight.modules.terms.ScoreTerm` of your own.

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
        terms: list[Term] | None = None,
    ) -> None:
        super().__init__(objective, optimizer)
        if perturbations < 1:
            raise SatlightError(f"model.perturbations is {perturbations}; it must be 1 or more")
        if encoder is None and projector is not None:
            raise SatlightError("model.projector is set but model.encoder is null; a projector needs an encoder")
        self.router_llm = router_llm
        self.encoder = encoder
        self.projector = projector if projector is not None or encoder is None else Projector()
        self.perturbations = perturbations
        if self.encoder is not None and self.projector is not None:
            self.projector.connect(self.encoder.output_size, router_llm.hidden_size, router_llm.token_norm)
            self.encoder.log_scale.requires_grad_(False)

        options = zip(OPTIONS.items(), (task_attention, two_towers, instruction_vector), strict=True)
        chosen = {option: term() for (option, term), wanted in options if wanted}
        for option, term in [*chosen.items(), *(("terms", term) for term in terms or [])]:
            self._add(option, term)

    def _add(self, option: str, term: Term) -> None:
        if self.encoder is None:
            raise SatlightError(f"model.{option} is set but model.encoder is null; it needs an encoder")
        if hasattr(self, term.name):
            raise SatlightError(
                f"model.{option}: the name {term.name!r} of {type(term).__name__} is taken; terms need "
                "different names that are no attributes of the model"
            )
        term.connect(self.encoder.output_size, self.router_llm.hidden_size, self.router_llm.token_norm)
        self.add_module(term.name, term)

    @property
    def terms(self) -> list[Term]:
        """The optional parts in use."""
        return [part for part in self.children() if isinstance(part, Term)]

    def parts(self) -> dict[str, nn.Module]:
        own = {"encoder": self.encoder, "projector": self.projector}
        found = {name: part for name, part in own.items() if part is not None}
        return found | {term.name: term for term in self.terms}

    def frozen_parameters(self) -> list[str]:
        return [] if self.encoder is None else ["encoder.log_scale"]  # only an encoder used alone reads it

    def connectors(self) -> tuple[str, ...]:
        return (*super().connectors(), *(term.name for term in self.terms if term.connector))

    def count_tokens(self, instructions: Sequence[str]) -> list[int]:
        """Count the tokens of each instruction, see :meth:`RouterLLM.count_tokens`."""
        return self.router_llm.count_tokens(instructions)

    def embed_capabilities(self, capabilities: list[Capability]) -> tuple[Tensor, Tensor]:
        """Embed the candidates for the router LLM: float (C, S, D) and bool (C, S).

        S = 1 behind an encoder.
        """
        if self.encoder is None or self.projector is None:
            return self.router_llm.embed_capabilities(capabilities)
        return _one_token(self.projector(self.encode_capabilities(capabilities)))

    def encode_capabilities(self, capabilities: list[Capability]) -> Tensor:
        """Encode C candidates as ψ(c), float (C, D); in training, update the mean of the projector."""
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
        """Score a block: float32 (B, C), in evaluation the mean over perturbations."""
        encoder, projector = self.encoder, self.projector
        if encoder is None or projector is None:
            orders = self._orders(block.capabilities)
            scores = [self.router_llm(block.instructions, *self.embed_capabilities(order)) for order in orders]
            return torch.stack(scores).mean(dim=0)
        return self._score(block, encoder, projector)

    def _score(self, block: Block, encoder: CapabilityEncoder, projector: Projector) -> Tensor:
        terms, exact = self.terms, partial(without_autocast, self.device)
        per_order = [term for term in terms if isinstance(term, ScoreTerm) and not term.order_invariant]
        once = [term for term in terms if isinstance(term, ScoreTerm) and term.order_invariant]
        instruction_BD = encoder.read_instructions(block.instructions) if terms else torch.empty(0)
        with exact():
            token_BD = next((t(instruction_BD) for t in terms if isinstance(t, InstructionVector)), None)
        read_results = partial(encoder.read_results, block.capabilities)
        scores = []
        for order in self._orders(block.capabilities):
            vector_CD = self.encode_capabilities(order)
            with exact():
                reading = Reading(instruction_BD, vector_CD, projector.standard(vector_CD), read_results)
                branch_CSD = _one_token(projector(vector_CD))
            score_BC = self.router_llm(block.instructions, *branch_CSD, token_BD)
            with exact():
                scores.append(sum((term(reading) for term in per_order), score_BC))
        with exact():
            return sum((term(reading) for term in once), torch.stack(scores).mean(dim=0))


def _one_token(embedding_CD: Tensor) -> tuple[Tensor, Tensor]:
    """Turn embeddings of candidates into branches of one token: float (C, 1, D) and bool (C, 1)."""
    mask = torch.ones(len(embedding_CD), 1, dtype=torch.bool, device=embedding_CD.device)
    return embedding_CD[:, None, :], mask
