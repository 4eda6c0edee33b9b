"""A pretrained text embedder, used by its own convention."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlight.errors import SatlightError

log = logging.getLogger(__name__)

_TOKENIZING = threading.Lock()
"""A fast tokenizer keeps the settings of the last call, so that only one thread may use it."""


PASS_COST = 32
"""Fixed cost of a forward pass on a CPU, in tokens: that of MiniLM is 22 to 53 (benchmarks/README.md)."""


def similar(lengths: Sequence[int], spare: int) -> list[list[int]]:
    """Group texts by length, so that each group can be padded to its longest text at little cost.

    Args:
        lengths: Tokens of each text.
        spare: Maximum tokens of padding in a group.

    Returns:
        Indices into ``lengths``; the longest texts come first.

    Example:
        >>> similar([10, 200, 12, 190], spare=16)
        [[1, 3], [2, 0]]
    """
    groups: list[list[int]] = []
    padding = 0
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        padding += lengths[groups[-1][0]] - lengths[row] if groups else 0
        if not groups or padding > spare:
            groups.append([])
            padding = 0
        groups[-1].append(row)
    return groups


class TextEncoder(nn.Module):
    """Embed texts with a transformer; prefix, pooling, and norm follow the convention of the embedder.

    Args:
        name: Backbone name (see :mod:`satlight.backbones.weights`).
        num_layers: Keep only the first K layers; None = all, 0 = the token embeddings alone (a bag of words).
        max_tokens: Maximum tokens of a text; None = the embedder's own limit.
        pooling: Token pooling; None = the embedder's own convention.

    Raises:
        SatlightError: As :func:`~satlight.backbones.loading.load_encoder`, or ``max_tokens`` above the limit.

    Example:
        >>> TextEncoder("tiny:bert").eval()(["What is 2 + 2?", "Sort a list."]).shape
        torch.Size([2, 32])
    """

    backbone: Any  # a transformers model; its types stay in loading.py

    def __init__(
        self,
        name: str,
        num_layers: int | None = None,
        max_tokens: int | None = None,
        pooling: Literal["mean", "cls", "last"] | None = None,
    ) -> None:
        super().__init__()
        from satlight.backbones.loading import load_encoder  # transformers is slow to import

        self.name, self.num_layers = name, num_layers
        self.backbone, self.tokenizer, self.convention = load_encoder(name, num_layers=num_layers)
        limit = self.convention.max_length
        if max_tokens is not None and max_tokens > limit:
            raise SatlightError(f"encoder.max_tokens is {max_tokens}, but {name} reads at most {limit} tokens")
        self.max_tokens = max_tokens or limit
        self.pooling = pooling or self.convention.pooling
        self.shortened = 0

    @property
    def size(self) -> int:
        """Vector dimension D."""
        return int(self.backbone.config.hidden_size)

    @property
    def variant(self) -> str:
        """Cache key suffix of settings that differ from the embedder's defaults; empty for the defaults."""
        plain = self.max_tokens == self.convention.max_length and self.pooling == self.convention.pooling
        layers = "" if self.num_layers is None else f"\0{self.num_layers} layers"
        return layers + ("" if plain else f"\0{self.max_tokens} tokens, {self.pooling}")

    def count(self, text: str) -> int:
        """Return the number of tokens of a text with the embedder's prefix and special tokens."""
        return len(self.tokenizer(self.convention.prefix + text, verbose=False)["input_ids"])

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens that :meth:`forward` reads of each text."""
        if not texts:
            return []
        with _TOKENIZING:
            found = self.tokenizer([self.convention.prefix + text for text in texts], verbose=False)["input_ids"]
        return [min(len(ids), self.max_tokens) for ids in found]

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Embed N texts: float32 (N, D).

        The end of texts longer than :attr:`max_tokens` is truncated; the log says so once and
        :attr:`shortened` counts them. To lose nothing, split texts into chunks first.

        In evaluation on a CPU, only texts of similar length share a pass (:func:`similar`), so that hardly any padding
        is computed; the vectors stay the same up to rounding.
        """
        texts = [self.convention.prefix + text for text in texts]
        with _TOKENIZING:
            tokens = self.tokenizer(
                texts, padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
            )
        number = sum(bool(encoding.overflowing) for encoding in tokens.encodings or ())
        if number and not self.shortened:
            log.warning(
                "A text is longer than the %d tokens that the encoder reads: such texts keep their head; "
                "CapabilityEncoder.shortened counts them",
                self.max_tokens,
            )
        self.shortened += number
        tokens = dict(tokens.to(self.backbone.device))
        mask = tokens["attention_mask"]
        if self.training or torch.is_grad_enabled() or mask.device.type != "cpu":
            vectors = self._pooled(tokens)
        else:
            order = [torch.tensor(rows) for rows in similar(mask.sum(dim=1).tolist(), PASS_COST)]
            read = [{name: ids[rows][:, mask[rows].any(dim=0)] for name, ids in tokens.items()} for rows in order]
            vectors = torch.cat([self._pooled(part) for part in read])[torch.cat(order).argsort()]
        if not torch.is_grad_enabled() and not vectors.isfinite().all():
            raise SatlightError(
                f"The text encoder {self.name} gives vectors that are not finite (NaN or infinity): its weights are "
                "damaged or it diverged in training. Fetch it again, or train again"
            )
        return F.normalize(vectors, dim=-1) if self.convention.normalize else vectors

    def _pooled(self, tokens: dict[str, Tensor]) -> Tensor:
        """Read tokenized texts in one pass and pool their tokens: float32 (N, D)."""
        hidden = self.backbone(**tokens).last_hidden_state.float()  # half precision cannot count to 300
        mask = tokens["attention_mask"].float()
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(dim=1)
            return hidden[torch.arange(len(hidden), device=hidden.device), last]
        return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
