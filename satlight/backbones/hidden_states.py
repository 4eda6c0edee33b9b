"""Last-token hidden states of a frozen causal LM, cached on disk.

Shape legend: N texts, T tokens, L layers, D features.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from satlight.backbones.embedding import BATCH_TOKENS, single_threaded_workers
from satlight.backbones.vectors import VectorStore, identity
from satlight.errors import SatlightError
from satlight.storage.classes import Configured

_TOKENIZING = threading.Lock()


class HiddenStates(Configured):
    """Read the states of the last token after selected layers, in one forward pass per text.

    Layers above the last selected one are not loaded. A router folder holds the network.

    Args:
        backbone: Name of a causal LM (:mod:`satlight.backbones.weights`).
        layers: Numbers of layers, 1 = the first; None = those at a quarter, half, three quarters and all of the depth.
        max_tokens: Maximum tokens of a text, whose end is truncated.
        batch_size: Maximum texts per forward pass.

    Raises:
        SatlightError: Unknown backbone, weights neither cached nor reachable, or a number out of range.

    Example:
        >>> import os, tempfile
        >>> os.environ["SATLIGHT_CACHE"] = tempfile.mkdtemp()
        >>> HiddenStates("tiny:llama", layers=(1, 2))(["What is 2 + 2?"]).shape  # two layers of 32
        (1, 64)
        >>> del os.environ["SATLIGHT_CACHE"]
    """

    stored_folders = ("backbone",)
    reads_images = False

    def __init__(
        self,
        backbone: str = "smollm2-135m",
        layers: Sequence[int] | None = None,
        max_tokens: int = 256,
        batch_size: int = 64,
    ) -> None:
        if min(max_tokens, batch_size) < 1:
            raise SatlightError(
                f"Hidden states got max_tokens={max_tokens}, batch_size={batch_size}; both are at least 1."
            )
        if layers is not None and (not layers or min(layers) < 1 or len(set(layers)) < len(layers)):
            raise SatlightError(f"Hidden states got layers={list(layers)}; give different numbers from 1.")
        self.backbone, self.layers, self.max_tokens, self.batch_size = backbone, layers, max_tokens, batch_size
        chosen = "quarters" if layers is None else sorted(layers)
        self.store = VectorStore(f"states\0{identity(backbone)}\0{chosen}\0{max_tokens}")

    @property
    def stores(self) -> list[VectorStore]:
        """Where the vectors are cached."""
        return [self.store]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return the states of texts, float32 (N, L · D): one layer after the other, as the network gives them."""
        if not len(texts):
            raise SatlightError("Hidden states got no texts; at least one is needed.")
        return self.store.read(texts, self.read, self.batch_size, self._counts, BATCH_TOKENS, single_threaded_workers)

    def stored_args(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the network into the router folder, and the numbers of the layers."""
        from satlight.backbones.loading import save_encoder

        model, tokenizer, convention, layers = self._network
        save_encoder(folder / name, model, tokenizer, convention)
        return {"backbone": folder / name, "layers": layers}

    def _counts(self, texts: list[str]) -> list[int]:
        _, tokenizer, _, _ = self._network
        with _TOKENIZING:
            return [min(len(ids), self.max_tokens) for ids in tokenizer(texts, verbose=False)["input_ids"]]

    def read(self, texts: Sequence[str]) -> np.ndarray:
        """Compute the states of a batch of texts (N, L · D), past the cache."""
        import torch

        model, tokenizer, _, layers = self._network
        shown = [text or " " for text in texts]  # a text without any token has no last one
        options = {"padding": True, "padding_side": "right", "truncation": True, "max_length": self.max_tokens}
        with _TOKENIZING:
            tokens = tokenizer(shown, return_tensors="pt", **options)
        device = next(model.parameters()).device
        mask_NT = tokens["attention_mask"].to(device)
        last_N = mask_NT.sum(dim=1) - 1
        with torch.inference_mode():
            # position 0 is the embedding; the last one is after the final norm
            states = model(
                input_ids=tokens["input_ids"].to(device), attention_mask=mask_NT, use_cache=False,
                output_hidden_states=True,
            ).hidden_states  # fmt: skip
            rows_N = torch.arange(len(texts), device=device)
            found = torch.cat([states[number][rows_N, last_N].float() for number in layers], dim=1)
        if not found.isfinite().all():
            raise SatlightError(f"{self.backbone} gives states that are not finite: its weights are damaged.")
        return found.cpu().numpy()

    @property
    def num_layers(self) -> int:
        """L."""
        return len(self.layers) if self.layers else len(self._network[3])

    @cached_property
    def _network(self) -> tuple[Any, Any, Any, list[int]]:
        """The network up to the last selected layer, its tokenizer, its convention and the numbers of the layers."""
        import torch

        from satlight.backbones.loading import load_encoder

        layers = sorted(self.layers) if self.layers else None
        model: Any
        model, tokenizer, convention = load_encoder(self.backbone, num_layers=layers[-1] if layers else None)
        if not hasattr(model, "layers"):
            raise SatlightError(
                f"backbone {self.backbone!r} is a {type(model).__name__}; hidden states need a causal LM, e.g. "
                "smollm2-135m"
            )
        depth = model.config.num_hidden_layers
        layers = layers or sorted({max(1, round(depth * part / 4)) for part in (1, 2, 3, 4)})
        model = model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
        return model, tokenizer, convention, layers
