"""Model-SAT: capability encoder, projector and router LLM combined."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
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
from satlight.modules.router_llm import RouterLLM, SoftTokens
from satlight.modules.task_attention import TaskAttention
from satlight.modules.terms import InstructionVector, Reading, ScoreTerm, Term
from satlight.modules.two_towers import TwoTowers
from satlight.modules.vision import SeenImages, VisionEncoder, VisualProjector, see
from satlight.modules.visual_learners import VisualLearners
from satlight.modules.visual_towers import VisualTowers
from satlight.types import Block, Capability

OPTIONS: dict[str, type[Term]] = {
    "task_attention": TaskAttention,
    "two_towers": TwoTowers,
    "instruction_vector": InstructionVector,
    "visual_towers": VisualTowers,
}
"""Terms with an option of :class:`ModelSAT`, in the order of its parameters; give others in ``terms``."""
PARTS = ("encoder", "projector", "vision", "visual_projector", "visual_learners")
"""Parts with a learning rate of their own, in addition to the terms."""


class ModelSAT(BlockRouter):
    """Score [c_m, x, p]: the candidate enters through encoder and projector, the rest as text.

    With a vision encoder it reads images as well: [c_m, v, x, p], where v are the tokens of the instruction's images.
    The options ``task_attention`` to ``visual_towers`` and ``terms`` need an encoder; they are not in the paper.

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
        vision: Reads the images of instructions; None = text only.
        visual_projector: Of the tokens of images; None = a default one if there is a vision encoder.
        visual_towers: Add the score of two towers on images with instruction and candidate
            (:class:`~satlight.modules.visual_towers.VisualTowers`); needs ``vision``.
        visual_learners: Let layers of the router LLM attend to the images with attention of their own
            (:class:`~satlight.modules.visual_learners.VisualLearners`); needs ``vision``.

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
        vision: VisionEncoder | None = None,
        visual_projector: VisualProjector | None = None,
        visual_towers: bool = False,
        visual_learners: VisualLearners | None = None,
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

        self._connect_images(vision, visual_projector, visual_learners)
        wishes = (task_attention, two_towers, instruction_vector, visual_towers)
        options = zip(OPTIONS.items(), wishes, strict=True)
        chosen = {option: term() for (option, term), wanted in options if wanted}
        for option, term in [*chosen.items(), *(("terms", term) for term in terms or [])]:
            self._add(option, term)

    def _connect_images(
        self, vision: VisionEncoder | None, projector: VisualProjector | None, learners: VisualLearners | None
    ) -> None:
        for option, part in (("visual_projector", projector), ("visual_learners", learners)):
            if vision is None and part is not None:
                raise SatlightError(f"model.{option} is set but model.vision is null; it needs a vision encoder")
        self.vision = vision
        self.visual_projector = projector if projector is not None or vision is None else VisualProjector()
        self.visual_learners = learners
        if vision is not None and self.visual_projector is not None:
            self.visual_projector.connect(vision.width, self.router_llm.hidden_size, self.router_llm.token_norm)
        if learners is not None:
            learners.connect(self.router_llm.backbone)

    def _add(self, option: str, term: Term) -> None:
        if self.encoder is None:
            raise SatlightError(f"model.{option} is set but model.encoder is null; it needs an encoder")
        if term.needs_images and self.vision is None:
            raise SatlightError(f"model.{option} is set but model.vision is null; it needs a vision encoder")
        if hasattr(self, term.name):
            raise SatlightError(
                f"model.{option}: the name {term.name!r} of {type(term).__name__} is taken; terms need "
                "different names that are no attributes of the model"
            )
        if self.vision is not None:
            term.connect_images(self.vision.tokens, self.vision.width)
        term.connect(self.encoder.output_size, self.router_llm.hidden_size, self.router_llm.token_norm)
        self.add_module(term.name, term)

    @property
    def terms(self) -> list[Term]:
        """The optional parts in use."""
        return [part for part in self.children() if isinstance(part, Term)]

    def parts(self) -> dict[str, nn.Module]:
        own = {name: getattr(self, name) for name in PARTS}
        found = {name: part for name, part in own.items() if part is not None}
        return found | {term.name: term for term in self.terms}

    def frozen_parameters(self) -> list[str]:
        return [] if self.encoder is None else ["encoder.log_scale"]  # only an encoder used alone reads it

    def connectors(self) -> tuple[str, ...]:
        # What has no pretrained weights starts in stage 1, a vision encoder too.
        own = [name for name in PARTS if name.startswith("visual_") and getattr(self, name) is not None]
        if self.vision is not None and self.vision.starts_random:
            own.append("vision")
        return (*super().connectors(), *own, *(term.name for term in self.terms if term.connector))

    @property
    def reads_images(self) -> bool:  # type: ignore[override]
        """True with a vision encoder."""
        return self.vision is not None

    @property
    def image_tokens(self) -> int:
        """Tokens that the router LLM reads of each image; 0 without a vision encoder."""
        return 0 if self.vision is None else self.vision.tokens

    def count_tokens(self, instructions: Sequence[str]) -> list[int]:
        """Count the tokens of each text, see :meth:`RouterLLM.count_tokens`; images add ``image_tokens`` each."""
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
        self.check_images(block.images)
        seen = self._see(block)
        images = None if seen is None else seen.soft_tokens()
        with self.visual_learners.attending(images) if self.visual_learners is not None else nullcontext():
            if self.encoder is not None and self.projector is not None:
                return self._score(block, self.encoder, self.projector, seen, images)
            orders = map(self.embed_capabilities, self._orders(block.capabilities))
            scores = [self.router_llm(block.instructions, *branches, images) for branches in orders]
            return torch.stack(scores).mean(dim=0)

    def _see(self, block: Block) -> SeenImages | None:
        if self.vision is None or self.visual_projector is None:
            return None
        return see(block.images, self.vision, self.visual_projector, learn=self.training)

    def _score(
        self,
        block: Block,
        encoder: CapabilityEncoder,
        projector: Projector,
        seen: SeenImages | None,
        images: SoftTokens | None,
    ) -> Tensor:
        terms, exact = self.terms, partial(without_autocast, self.device)
        per_order = [term for term in terms if isinstance(term, ScoreTerm) and not term.order_invariant]
        once = [term for term in terms if isinstance(term, ScoreTerm) and term.order_invariant]
        instruction_BD = encoder.read_instructions(block.instructions) if terms else torch.empty(0)
        with exact():
            vectors = [_one_token(t(instruction_BD)) for t in terms if isinstance(t, InstructionVector)]
            soft = _joined([images, *vectors])
            means = (None, None) if seen is None else seen.means()
        read_results = partial(encoder.read_results, block.capabilities)
        scores = []
        for order in self._orders(block.capabilities):
            vector_CD = self.encode_capabilities(order)
            with exact():
                reading = Reading(instruction_BD, vector_CD, projector.standard(vector_CD), read_results, *means)
                branch_CSD = _one_token(projector(vector_CD))
            score_BC = self.router_llm(block.instructions, *branch_CSD, soft)
            with exact():
                scores.append(sum((term(reading) for term in per_order), score_BC))
        with exact():
            return sum((term(reading) for term in once), torch.stack(scores).mean(dim=0))


def _joined(parts: Sequence[SoftTokens | None]) -> SoftTokens | None:
    """Put soft tokens one after the other: float (B, K, D) and bool (B, K); None if there are none."""
    given = [part for part in parts if part is not None]
    if not given:
        return None
    soft, mask = zip(*given, strict=True)
    return torch.cat(soft, dim=1), torch.cat(mask, dim=1)


def _one_token(embedding_CD: Tensor) -> tuple[Tensor, Tensor]:
    """Turn embeddings into sequences of one token: float (C, 1, D) and bool (C, 1)."""
    mask = torch.ones(len(embedding_CD), 1, dtype=torch.bool, device=embedding_CD.device)
    return embedding_CD[:, None, :], mask
