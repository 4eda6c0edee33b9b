"""Cache text vectors on disk, so that a frozen embedder reads each text once.

Shape legend: N texts, D features.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Protocol

import numpy as np

from satlight.backbones import weights
from satlight.backbones.store import MODEL_SUFFIXES, Manifest, sha256_of
from satlight.files import atomic_path, cache_dir

log = logging.getLogger(__name__)

FORMAT = 2
"""Cache version; increase it when the same weights give different vectors."""

SHARD_BATCHES = 32
"""Batches between two writes; a killed process loses at most this many."""

SIZED = 512
"""Texts whose sizes are asked for at once; a tokenizer's output for all of them would fill the memory."""

PROGRESS_FROM = 512
"""Show a progress bar from this many uncached texts."""


Batch = list[tuple[bytes, str]]
"""Keys and texts that are embedded together."""

_KEY_BYTES = 16
_DIGEST = "blake2b"


class Map(Protocol):
    """``map``, or the ``map`` of a pool."""

    def __call__(
        self, function: Callable[[list[str]], np.ndarray], batches: Iterable[list[str]], /
    ) -> Iterator[np.ndarray]: ...


def _lengths(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


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

    def read(
        self,
        texts: Sequence[str],
        embed: Callable[[list[str]], np.ndarray],
        batch_size: int = 64,
        sizes: Callable[[list[str]], Sequence[int]] = _lengths,
        budget: int | None = None,
        pool: Callable[[], AbstractContextManager[Map]] | None = None,
    ) -> np.ndarray:
        """Return the vectors of texts; compute and store missing ones.

        Args:
            texts: N texts, at least one.
            embed: n texts → (n, D), called for missing texts in batches of similar size.
            batch_size: Maximum texts per call of ``embed``.
            sizes: n texts → their sizes, e.g. in tokens; default: in characters.
            budget: Maximum size of a batch: number of texts times the largest size; None = no limit.
            pool: Opens a pool whose ``map`` may call ``embed`` in several threads; None = one after the other.

        Returns:
            float32 (N, D).
        """
        keys = [_key(text) for text in texts]
        if any(key not in self._vectors for key in keys):
            self._read_shards()
        absent = {k: text for k, text in zip(keys, texts, strict=True) if k not in self._vectors}
        if absent:
            missing = list(absent.values())
            parts = (missing[start : start + SIZED] for start in range(0, len(missing), SIZED))
            batches = list(_batches(absent, [size for part in parts for size in sizes(part)], batch_size, budget))
            with pool() if pool and len(batches) > 1 else nullcontext(map) as run:
                for part in self._computed(batches, embed, run):
                    self._write_shard(part)
        return np.stack([self._vectors[key] for key in keys])

    def absent(self, texts: Sequence[str]) -> list[str]:
        """Return the different texts that have no stored vector, in the order of their first occurrence."""
        self._read_shards()
        return [text for text in dict.fromkeys(texts) if _key(text) not in self._vectors]

    def _read_shards(self) -> None:
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._shards:
                continue
            try:
                self._vectors.update(_read_shard(path))
                self._shards.add(path.name)
            except OSError as error:
                self._warn("read", error)
            except ValueError as error:
                log.warning("%s is damaged (%s); it is removed, and its vectors are computed again", path, error)
                with suppress(OSError):
                    path.unlink()

    def _write_shard(self, part: dict[bytes, np.ndarray]) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        keys = np.frombuffer(b"".join(part), dtype=np.uint8).reshape(len(part), -1)
        vectors = np.stack(list(part.values()))
        name = f"{hashlib.blake2b(keys.tobytes(), digest_size=8).hexdigest()}.safetensors"
        self._vectors.update(part)
        try:
            with atomic_path(self.folder / name) as temporary:
                save_file({"keys": keys, "vectors": vectors}, temporary, {_DIGEST: _digest(keys, vectors)})
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
        self, batches: list[Batch], embed: Callable[[list[str]], np.ndarray], run: Map
    ) -> Iterator[dict[bytes, np.ndarray]]:
        """Yield the vectors of missing texts shard by shard."""
        from rich.console import Console
        from rich.progress import Progress

        total = sum(map(len, batches))
        quiet = total < PROGRESS_FROM
        with Progress(console=Console(stderr=True), disable=quiet, transient=True) as progress:
            task = progress.add_task(f"Embedding {total} {self.noun}", total=total)
            for start in range(0, len(batches), SHARD_BATCHES):
                group = batches[start : start + SHARD_BATCHES]
                rows: list[np.ndarray] = []
                vectors = run(embed, [[text for _, text in batch] for batch in group])
                for batch, vectors_ND in zip(group, vectors, strict=True):
                    rows.append(np.asarray(vectors_ND, dtype=np.float32))
                    progress.advance(task, len(batch))
                keys = [key for batch in group for key, _ in batch]
                yield dict(zip(keys, np.concatenate(rows), strict=True))


def _batches(texts: dict[bytes, str], sizes: Sequence[int], batch_size: int, budget: int | None) -> Iterator[Batch]:
    """Yield batches of keys and texts of similar size."""
    batch: Batch = []
    order = sorted(zip(sizes, texts.items(), strict=True), key=lambda entry: (entry[0], entry[1][0]))
    for size, item in order:  # ascending, so that the last one is the largest
        if batch and (len(batch) == batch_size or (budget is not None and size * (len(batch) + 1) > budget)):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _read_shard(path: Path) -> dict[bytes, np.ndarray]:
    """Return the vectors of a file by key.

    Raises:
        ValueError: The file is damaged.
        OSError: It cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            keys, vectors = file.get_tensor("keys"), file.get_tensor("vectors")
            digest = (file.metadata() or {}).get(_DIGEST)  # files of older releases have none
    except SafetensorError as error:
        raise ValueError(str(error)) from None
    is_sound = keys.ndim == vectors.ndim == 2 and len(keys) == len(vectors) and keys.shape[1] == _KEY_BYTES
    if not is_sound or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
        raise ValueError(f"keys {keys.shape}, vectors {vectors.shape} of {vectors.dtype}, or not finite")
    if digest is not None and digest != _digest(keys, vectors):
        raise ValueError("its content has another checksum than when it was written")
    return dict(zip(map(bytes, keys), vectors, strict=True))


def _digest(keys: np.ndarray, vectors: np.ndarray) -> str:
    return hashlib.blake2b(keys.tobytes() + vectors.tobytes(), digest_size=16).hexdigest()


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
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def _file_hashes(path: Path) -> list[tuple[str, str]]:
    """Return the model files of a backbone and their SHA-256, from the manifest if there is one."""
    if path.is_file():
        return [(path.name, sha256_of(path))]
    manifest = Manifest.read(path)
    if manifest is not None:
        return [(name, sha256) for name, (_, sha256) in manifest.files.items()]
    files = (file for file in path.rglob("*") if file.suffix in MODEL_SUFFIXES)
    return [(file.relative_to(path).as_posix(), sha256_of(file)) for file in files]
