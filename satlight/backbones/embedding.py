"""Cached text embeddings, passed as ``embed`` to baselines and evaluation.

Shape legend: N texts, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satlight.backbones.vectors import VectorStore, identity
from satlight.errors import SatlightError
from satlight.storage.classes import Configured

if TYPE_CHECKING:
    from satlight.backbones.text_encoder import TextEncoder


class Embedder(Configured):
    """Embed texts and cache every vector on disk.

    A router folder holds the network, so that a stored baseline needs no pretrained weights.

    Args:
        backbone: Name of a text embedder (:mod:`satlight.backbones.weights`). ``tiny:`` ones have
            random weights from a fixed seed.
        batch_size: Texts per forward pass; does not affect the vectors.

    Raises:
        SatlightError: Unknown backbone, or weights neither cached nor reachable.

    Example:
        >>> import os, tempfile
        >>> os.environ["SATLIGHT_CACHE"] = tempfile.mkdtemp()
        >>> Embedder("tiny:bert")(["What is 2 + 2?", "Sort a list."]).shape
        (2, 32)
        >>> del os.environ["SATLIGHT_CACHE"]
    """

    stored_folders = ("backbone",)

    def __init__(self, backbone: str = "minilm", batch_size: int = 64) -> None:
        if batch_size < 1:
            raise SatlightError(f"The embedder got batch_size={batch_size}; it must be at least 1.")
        self.backbone = backbone
        self.batch_size = batch_size
        self.store = VectorStore(identity(backbone))

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts by the convention of the embedder.

        Args:
            texts: N texts; the end of longer texts than the embedder reads is truncated.

        Returns:
            float32 (N, D), rows of unit norm.
        """
        if not len(texts):
            raise SatlightError("The embedder got no texts; at least one is needed.")
        vector_ND = self.store.read(texts, self._embed, self.batch_size)
        return vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True).clip(min=1e-12)

    def stored_args(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the network into the router folder."""
        from satlight.backbones.loading import save_encoder

        encoder = self._encoder
        save_encoder(folder / name, encoder.backbone, encoder.tokenizer, encoder.convention)
        return {"backbone": folder / name}

    def _embed(self, texts: list[str]) -> np.ndarray:
        import torch

        with torch.inference_mode():
            return self._encoder(texts).float().cpu().numpy()

    @cached_property
    def _encoder(self) -> TextEncoder:
        """The network, loaded when the first uncached text arrives."""
        import torch

        from satlight.backbones.text_encoder import TextEncoder

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for tiny: backbones, whose weights are random
            encoder = TextEncoder(self.backbone).eval().requires_grad_(False)
        return encoder.to("cuda" if torch.cuda.is_available() else "cpu")
