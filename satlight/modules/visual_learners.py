"""Visual learners: low-rank attention to the images, in parallel with the attention of the router LLM.

Shape legend: B instructions, K tokens of their images, R rows of T tokens in the router LLM, D its width, r the rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from satlight.errors import SatlightError
from satlight.modules.precision import Float32, without_autocast
from satlight.storage.classes import Configured


class VisualLearner(nn.Module):
    """Attend from hidden states to the tokens of images, with queries, keys and values of ``rank`` dimensions."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, rank, bias=False) for _ in range(3))
        self.out = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, hidden_RTD: Tensor, image_RKD: Tensor, mask_RK: Tensor) -> Tensor:
        """Return what is added to the hidden states, exactly 0 for rows without images: float (R, T, D)."""
        query_RTr = self.query(hidden_RTD)
        logit_RTK = query_RTr @ self.key(image_RKD).transpose(1, 2) / query_RTr.shape[-1] ** 0.5
        lowest = torch.finfo(logit_RTK.dtype).min
        share_RTK = logit_RTK.masked_fill(~mask_RK[:, None, :], lowest).softmax(dim=-1)
        return self.out(share_RTK @ self.value(image_RKD)) * mask_RK.any(dim=1)[:, None, None]


class VisualLearners(Float32, Configured):
    """A :class:`VisualLearner` next to the attention of layers of the router LLM.

    They start at 0, so that training starts from the scores without them, and add nothing to an instruction without
    images: what the router LLM does with text cannot be forgotten on their account.

    Args:
        rank: r, dimensions of queries, keys and values.
        layers: Numbers of the layers, from 0; None = all.

    Example:
        >>> VisualLearners(rank=4).init_args
        {'rank': 4, 'layers': None}

    Reference: the visual learners of [Zhang et al. 2024, Wings: Learning Multimodal LLMs without Text-only
        Forgetting]; without their textual learners and their router between both (docs/decisions.md).
    """

    def __init__(self, rank: int = 16, layers: list[int] | None = None) -> None:
        super().__init__()
        if rank < 1:
            raise SatlightError(f"visual_learners.rank is {rank}; it must be 1 or more")
        self.rank, self.layers = rank, layers
        self.learners = nn.ModuleDict()
        self._images: tuple[Tensor, Tensor] | None = None

    def connect(self, decoder: Any) -> None:
        """Build the learners and hook them into the decoder of the router LLM; the model calls this once."""
        available = len(decoder.layers)
        chosen = range(available) if self.layers is None else self.layers
        if wrong := [layer for layer in chosen if not 0 <= layer < available]:
            raise SatlightError(f"visual_learners.layers names {wrong}; the router LLM has layers 0 to {available - 1}")
        for layer in chosen:
            attention = getattr(decoder.layers[layer], "self_attn", None)
            if attention is None:
                raise SatlightError(
                    f"visual_learners: a {type(decoder.layers[layer]).__name__} has no self_attn to put a learner next "
                    "to; use a router LLM like Llama, Qwen or Phi-3, or leave visual_learners out"
                )
            self.learners[str(layer)] = VisualLearner(int(decoder.config.hidden_size), self.rank)
            attention.register_forward_hook(partial(self._add, str(layer)), with_kwargs=True)

    @contextmanager
    def attending(self, images: tuple[Tensor, Tensor] | None) -> Iterator[None]:
        """Let the learners attend to the tokens of images (B, K, D) with their mask (B, K); None = do nothing."""
        self._images = images
        try:
            yield
        finally:
            self._images = None

    def _add(self, layer: str, attention: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        if self._images is None:
            return output
        hidden_RTD = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
        image_BKD, mask_BK = self._images
        pairs = len(hidden_RTD) // len(image_BKD)  # capability_first has a row per pair, candidates vary fastest
        with without_autocast(hidden_RTD.device):
            added = self.learners[layer](
                hidden_RTD.float(), image_BKD.repeat_interleave(pairs, 0), mask_BK.repeat_interleave(pairs, 0)
            )
        first, *rest = output
        return (first + added.to(first.dtype), *rest)
