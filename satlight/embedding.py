"""Text embeddings that are computed once: the ``embed`` that baselines and evaluation are handed.

Shape legend: N texts, D features.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satlight import weights
from satlight.errors import SatlightError
from satlight.files import atomic_path, cache_dir
from satlight.weights_store import MODEL_SUFFIXES, Manifest, sha256_of

if TYPE_CHECKING:
    from satlight.modules import CapabilityEncoder

FORMAT = 1
"""Raise it when the same weights begin to give other vectors, so that old ones are not used."""

SHARD_BATCHES = 32
"""Batches between two writes; what a killed process loses at most."""

PROGRESS_FROM = 512
"""Texts that must be new before a progress bar is worth its line."""


class Embedder:
    """Embeds texts and keeps every vector on disk; calling it again with the same texts reads them.

    The vectors lie under ``embeddings/`` in :func:`satlight.files.cache_dir`, in a folder per backbone and
    weights. Files are written whole, so two processes may fill the same folder at once.

    Args:
        backbone: Name of a text embedder (see :mod:`satlight.weights`). ``tiny:`` ones are random with a
            fixed seed.
        batch_size: Texts per pass; changes speed, not vectors.

    Raises:
        SatlightError: Unknown backbone, or weights neither cached nor reachable.

    Example:
        >>> import os, tempfile
        >>> os.environ["SATLIGHT_CACHE"] = tempfile.mkdtemp()
        >>> Embedder("tiny:bert")(["What is 2 + 2?", "Sort a list."]).shape
        (2, 32)
        >>> del os.environ["SATLIGHT_CACHE"]
    """

    def __init__(self, backbone: str = "minilm", batch_size: int = 64) -> None:
        if batch_size < 1:
            raise SatlightError(f"The embedder got batch_size={batch_size}; it must be at least 1.")
        self.backbone = backbone
        self.batch_size = batch_size
        self.folder = cache_dir() / "embeddings" / _identity(backbone)
        self._vectors: dict[bytes, np.ndarray] = {}
        self._read: set[str] = set()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts by the embedder's own convention.

        Args:
            texts: N texts; one longer than the embedder reads keeps its head.

        Returns:
            float32 (N, D), rows of length 1.
        """
        if not len(texts):
            raise SatlightError("The embedder got no texts; at least one is needed.")
        keys = [_key(text) for text in texts]
        absent = self._absent(keys, texts)
        if absent:
            self._read_shards()
            absent = self._absent(keys, texts)
        if absent:
            for part in self._computed(absent):
                self._write_shard(part)
        return np.stack([self._vectors[key] for key in keys])

    def _absent(self, keys: list[bytes], texts: Sequence[str]) -> dict[bytes, str]:
        return {key: text for key, text in zip(keys, texts, strict=True) if key not in self._vectors}

    def _read_shards(self) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._read:
                continue
            try:
                shard = load_file(path)
            except SafetensorError as error:
                raise SatlightError(
                    f"The embeddings in {path} cannot be read ({error}). Delete it."
                ) from None
            self._vectors.update(zip(map(bytes, shard["keys"]), shard["vectors"], strict=True))
            self._read.add(path.name)

    def _write_shard(self, part: dict[bytes, np.ndarray]) -> None:
        from safetensors.numpy import save_file

        keys = np.frombuffer(b"".join(part), dtype=np.uint8).reshape(len(part), -1)
        name = f"{hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()}.safetensors"
        with atomic_path(self.folder / name) as temporary:
            save_file({"keys": keys, "vectors": np.stack(list(part.values()))}, temporary)
        self._read.add(name)
        self._vectors.update(part)

    def _computed(self, absent: dict[bytes, str]) -> Iterator[dict[bytes, np.ndarray]]:
        """Vectors of new texts, a shard at a time; texts of like length share a batch."""
        import torch
        from rich.console import Console
        from rich.progress import track
        from torch.nn.functional import normalize

        items = sorted(absent.items(), key=lambda item: (len(item[1]), item[0]))
        starts = track(
            range(0, len(items), self.batch_size),
            description=f"Embedding {len(items)} texts",
            console=Console(stderr=True),
            disable=len(items) < PROGRESS_FROM,
            transient=True,
        )
        shard: dict[bytes, np.ndarray] = {}
        for number, start in enumerate(starts, start=1):
            batch = items[start : start + self.batch_size]
            with torch.inference_mode():
                vectors = normalize(self._encoder.embed([text for _, text in batch]), dim=-1)
            shard.update(zip((key for key, _ in batch), vectors.float().cpu().numpy(), strict=True))
            if number % SHARD_BATCHES == 0:
                yield shard
                shard = {}
        if shard:
            yield shard

    @cached_property
    def _encoder(self) -> CapabilityEncoder:
        """The network, loaded when a text is new and not before."""
        import torch

        from satlight.modules import CapabilityEncoder

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # for tiny: backbones, whose weights are drawn
            encoder = CapabilityEncoder(self.backbone, trainable=False).eval()
        return encoder.to("cuda" if torch.cuda.is_available() else "cpu")


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _identity(backbone: str) -> str:
    """Name of the cache folder: changes with the backbone's name (which decides prefixes) and its files."""
    digest = hashlib.blake2b(f"{FORMAT}\0{backbone}".encode(), digest_size=8)
    if not backbone.startswith("tiny:"):
        for name, sha256 in _file_hashes(weights.resolve(backbone)):
            digest.update(f"\0{name}\0{sha256}".encode())
    return digest.hexdigest()


def _file_hashes(path: Path) -> list[tuple[str, str]]:
    """The model files of a backbone with their SHA-256; from the manifest where one was written."""
    if path.is_file():
        return [(path.name, sha256_of(path))]
    manifest = Manifest.read(path)
    if manifest is not None:
        return [(name, sha256) for name, (_, sha256) in sorted(manifest.files.items())]
    files = sorted(file for file in path.rglob("*") if file.suffix in MODEL_SUFFIXES)
    return [(file.relative_to(path).as_posix(), sha256_of(file)) for file in files]
