"""Cache text vectors on disk, so that a frozen embedder reads each text once.

Shape legend: N texts, D features.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from satlight.backbones import weights
from satlight.backbones.store import MODEL_SUFFIXES, Manifest, sha256_of
from satlight.errors import SatlightError
from satlight.files import atomic_path, cache_dir

log = logging.getLogger(__name__)

FORMAT = 2
"""Cache version; increase it when the same weights give different vectors."""

SHARD_BATCHES = 32
"""Batches between two writes; a killed process loses at most this many."""

PROGRESS_FROM = 512
"""Show a progress bar from this many uncached texts."""


class VectorStore:
    """Store the text vectors of one embedder in memory and, where that is possible, on disk.

    Each embedder has a folder under ``embeddings/`` in :func:`satlight.files.cache_dir`. Files are written
    atomically, so several processes can share a folder.

    Args:
        embedder: Text that identifies the embedder, e.g. from :func:`identity`.
        noun: Name of the inputs, in the plural, for messages.

    Example:
        >>> import os, tempfile
        >>> os.environ["SATLIGHT_CACHE"] = tempfile.mkdtemp()
        >>> store = VectorStore("lengths")
        >>> store.read(["a", "bcd"], lambda texts: np.array([[len(t)] for t in texts])).tolist()
        [[1.0], [3.0]]
        >>> VectorStore("lengths").read(["bcd"], lambda texts: 1 / 0).tolist()
        [[3.0]]
        >>> del os.environ["SATLIGHT_CACHE"]
    """

    def __init__(self, embedder: str, noun: str = "texts") -> None:
        self.noun = noun
        name = hashlib.blake2b(f"{FORMAT}\0{embedder}".encode(), digest_size=8).hexdigest()
        self.folder = cache_dir() / "embeddings" / name
        self._vectors: dict[bytes, np.ndarray] = {}
        self._shards: set[str] = set()
        self._warned = False

    def read(self, texts: Sequence[str], embed: Callable[[list[str]], np.ndarray], batch_size: int = 64) -> np.ndarray:
        """Return the vectors of texts; compute and store missing ones.

        Args:
            texts: N texts, at least one.
            embed: n texts → (n, D), called for missing texts in batches of similar length.
            batch_size: Texts per call of ``embed``.

        Returns:
            float32 (N, D).

        Raises:
            SatlightError: A damaged file in the store.
        """
        keys = [_key(text) for text in texts]
        if any(key not in self._vectors for key in keys):
            self._read_shards()
        absent = {k: text for k, text in zip(keys, texts, strict=True) if k not in self._vectors}
        for part in self._computed(absent, embed, batch_size):
            self._write_shard(part)
        return np.stack([self._vectors[key] for key in keys])

    def absent(self, texts: Sequence[str]) -> list[str]:
        """Return the different texts that have no stored vector, in the order of their first occurrence."""
        self._read_shards()
        return [text for text in dict.fromkeys(texts) if _key(text) not in self._vectors]

    def _read_shards(self) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._shards:
                continue
            try:
                shard = load_file(path)
            except SafetensorError as error:
                raise SatlightError(f"The vectors in {path} cannot be read ({error}). Delete it.") from None
            except OSError as error:
                self._warn("read", error)
                continue
            self._vectors.update(zip(map(bytes, shard["keys"]), shard["vectors"], strict=True))
            self._shards.add(path.name)

    def _write_shard(self, part: dict[bytes, np.ndarray]) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        keys = np.frombuffer(b"".join(part), dtype=np.uint8).reshape(len(part), -1)
        name = f"{hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()}.safetensors"
        self._vectors.update(part)
        try:
            with atomic_path(self.folder / name) as temporary:
                save_file({"keys": keys, "vectors": np.stack(list(part.values()))}, temporary)
            self._shards.add(name)
        except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
            self._warn("written", error)

    def _warn(self, verb: str, error: Exception) -> None:
        """Say once that the cache is not used; the vectors can always be computed again."""
        if not self._warned:
            log.warning(
                "Vectors in %s cannot be %s (%s) and are computed again in each run; set SATLIGHT_CACHE to a "
                "folder with room that can be written",
                *(self.folder, verb, error),
            )
        self._warned = True

    def _computed(
        self, absent: dict[bytes, str], embed: Callable[[list[str]], np.ndarray], batch_size: int
    ) -> Iterator[dict[bytes, np.ndarray]]:
        """Yield the vectors of missing texts shard by shard; texts of similar length share a batch."""
        from rich.console import Console
        from rich.progress import track

        items = sorted(absent.items(), key=lambda item: (len(item[1]), item[0]))
        starts = track(
            range(0, len(items), batch_size),
            description=f"Embedding {len(items)} {self.noun}",
            console=Console(stderr=True),
            disable=len(items) < PROGRESS_FROM,
            transient=True,
        )
        shard: dict[bytes, np.ndarray] = {}
        for number, start in enumerate(starts, start=1):
            batch = items[start : start + batch_size]
            vectors = np.asarray(embed([text for _, text in batch]), dtype=np.float32)
            shard.update(zip((key for key, _ in batch), vectors, strict=True))
            if number % SHARD_BATCHES == 0:
                yield shard
                shard = {}
        if shard:
            yield shard


def identity(backbone: str) -> str:
    """Return a text that identifies a backbone by its name (which determines prefixes) and its files.

    Args:
        backbone: Name of a text embedder; ``tiny:`` ones are identified by name alone.
    """
    if backbone.startswith("tiny:"):
        return backbone
    hashes = sorted(_file_hashes(weights.resolve(backbone)))
    return "\0".join([backbone, *(f"{name}\0{sha256}" for name, sha256 in hashes)])


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _file_hashes(path: Path) -> list[tuple[str, str]]:
    """Return the model files of a backbone and their SHA-256, from the manifest if there is one."""
    if path.is_file():
        return [(path.name, sha256_of(path))]
    manifest = Manifest.read(path)
    if manifest is not None:
        return [(name, sha256) for name, (_, sha256) in manifest.files.items()]
    files = (file for file in path.rglob("*") if file.suffix in MODEL_SUFFIXES)
    return [(file.relative_to(path).as_posix(), sha256_of(file)) for file in files]
