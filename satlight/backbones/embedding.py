"""Cached embeddings of texts and images, passed as ``embed`` to baselines and evaluation.

Shape legend: N texts, images or requests, T patch tokens, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satlight.backbones.vectors import Map, VectorStore, identity
from satlight.errors import SatlightError
from satlight.images import MAX_SIDE, content_keys, read_image
from satlight.storage.classes import Configured
from satlight.types import Request

if TYPE_CHECKING:
    from satlight.backbones.image_backbone import ImageBackbone
    from satlight.backbones.text_encoder import TextEncoder


BATCH_TOKENS = 2048
"""Tokens per forward pass, padding included. The activations of more do not fit the cache of a core."""


class Embedder(Configured):
    """Embed texts and cache every vector on disk.

    A router folder holds the network, so that a stored baseline needs no pretrained weights.

    Args:
        backbone: Name of a text embedder (:mod:`satlight.backbones.weights`). ``tiny:`` ones have
            random weights from a fixed seed.
        batch_size: Maximum texts per forward pass; does not affect the vectors.

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
    reads_images = False

    def __init__(self, backbone: str = "minilm", batch_size: int = 64) -> None:
        if batch_size < 1:
            raise SatlightError(f"The embedder got batch_size={batch_size}; it must be at least 1.")
        self.backbone = backbone
        self.batch_size = batch_size
        self.store = VectorStore(identity(backbone))

    @property
    def stores(self) -> list[VectorStore]:
        """Where the vectors are cached."""
        return [self.store]

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts by the convention of the embedder.

        Args:
            texts: N texts; the end of longer texts than the embedder reads is truncated.

        Returns:
            float32 (N, D), rows of unit norm.
        """
        if not len(texts):
            raise SatlightError("The embedder got no texts; at least one is needed.")
        vector_ND = self.store.read(
            texts, self._embed, self.batch_size, self._counts, BATCH_TOKENS, single_threaded_workers
        )
        return _unit(vector_ND)

    def stored_args(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the network into the router folder."""
        from satlight.backbones.loading import save_encoder

        encoder = self._encoder
        save_encoder(folder / name, encoder.backbone, encoder.tokenizer, encoder.convention)
        return {"backbone": folder / name}

    def _counts(self, texts: list[str]) -> list[int]:
        return self._encoder.counts(texts)

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


class ImageEmbedder(Configured):
    """Embed images by the pooled tokens of an image encoder, and cache every vector on disk by image content.

    The image is divided into ``cells`` × ``cells`` cells, whose mean tokens are concatenated: the vector tells where
    things are, roughly. A router folder holds the network.

    Args:
        backbone: Name of an image encoder (:mod:`satlight.backbones.vision`). ``tiny:`` ones have random weights from
            a fixed seed.
        cells: Cells per side; 1 = the mean over the whole image.
        num_layers: Keep only the first layers of the encoder; None = all.
        image_size: Side in pixels of the square that the encoder reads; None = its own.
        batch_size: Images per forward pass.

    Raises:
        SatlightError: Unknown backbone, weights neither cached nor reachable, or a number out of range.

    Example:
        >>> import os, tempfile
        >>> os.environ["SATLIGHT_CACHE"] = tempfile.mkdtemp()
        >>> from PIL import Image
        >>> Image.new("RGB", (8, 8)).save(file := Path(tempfile.mkdtemp()) / "black.png")
        >>> ImageEmbedder("tiny:conv", cells=2)([file]).shape
        (1, 128)
        >>> del os.environ["SATLIGHT_CACHE"]
    """

    stored_folders = ("backbone",)

    def __init__(
        self,
        backbone: str = "efficientnet-lite0",
        cells: int = 2,
        num_layers: int | None = None,
        image_size: int | None = None,
        batch_size: int = 16,
    ) -> None:
        if min(cells, batch_size) < 1:
            raise SatlightError(f"The image embedder got cells={cells}, batch_size={batch_size}; both are at least 1.")
        self.backbone, self.cells, self.batch_size = backbone, cells, batch_size
        self.num_layers, self.image_size = num_layers, image_size
        self.store = VectorStore(f"image\0{identity(backbone)}\0{cells}\0{num_layers}\0{image_size}", "images")

    def __call__(self, images: Sequence[Path | bytes]) -> np.ndarray:
        """Embed images.

        Args:
            images: N files or contents of files.

        Returns:
            float32 (N, D), rows of unit norm.

        Raises:
            SatlightError: An image that cannot be read, or none at all.
        """
        if not len(images):
            raise SatlightError("The image embedder got no images; at least one is needed.")
        keys = content_keys(images)
        source = dict(zip(keys, images, strict=True))
        return _unit(self.store.read(keys, lambda batch: self._embed([source[key] for key in batch]), self.batch_size))

    def stored_args(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the network into the router folder."""
        self._encoder.save(folder / name)
        return {"backbone": folder / name}

    def _embed(self, images: list[Path | bytes]) -> np.ndarray:
        import torch
        from torch.nn.functional import adaptive_avg_pool2d

        encoder = self._encoder
        with torch.inference_mode():
            token_NTD = encoder(encoder.prepare([read_image(image, max_side=MAX_SIDE) for image in images])).float()
            map_NDGG = token_NTD.transpose(1, 2).unflatten(2, (encoder.grid, encoder.grid))
            return adaptive_avg_pool2d(map_NDGG, self.cells).flatten(1).cpu().numpy()

    @property
    def width(self) -> int:
        """D."""
        return self._encoder.width * self.cells**2

    @cached_property
    def _encoder(self) -> ImageBackbone:
        """The network, loaded when the first uncached image arrives."""
        import torch

        from satlight.backbones.vision import load_image_backbone

        encoder = load_image_backbone(self.backbone, num_layers=self.num_layers, image_size=self.image_size)
        return encoder.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")


class RequestEmbedder(Configured):
    """Embed requests: the vector of the text, then that of the images.

    Both parts have unit norm before they are weighted. The image part is the mean over the images of a request, and
    zero without images: such a row is the vector of the text alone, followed by zeros.

    Args:
        text: Embedder of texts.
        image: Embedder of images.
        image_weight: Share of the image part in the squared norm, between 0 and 1: cosines of two requests with images
            are the mean of the cosines of texts and images with this weight.

    Raises:
        SatlightError: A weight out of range.

    Example:
        >>> import os, tempfile
        >>> os.environ["SATLIGHT_CACHE"] = tempfile.mkdtemp()
        >>> embedder = RequestEmbedder(Embedder("tiny:bert"), ImageEmbedder("tiny:conv", cells=1))
        >>> embedder(["What is 2 + 2?"]).shape  # 32 features of the text, 32 of the images
        (1, 64)
        >>> del os.environ["SATLIGHT_CACHE"]
    """

    reads_images = True

    def __init__(self, text: Embedder, image: ImageEmbedder, image_weight: float = 0.5) -> None:
        if not 0 < image_weight < 1:
            raise SatlightError(f"The request embedder got image_weight={image_weight}; it must be between 0 and 1.")
        self.text, self.image, self.image_weight = text, image, image_weight

    @property
    def stores(self) -> list[VectorStore]:
        """Where the vectors are cached."""
        return [self.text.store, self.image.store]

    def __call__(self, requests: Sequence[Request | str]) -> np.ndarray:
        """Embed requests, or texts as requests without images.

        Args:
            requests: N requests.

        Returns:
            float32 (N, D), rows of unit norm.
        """
        whole = [Request(one) if isinstance(one, str) else one for one in requests]
        text_ND = self.text([one.text for one in whole])
        image_ND = self._images(whole)
        seen_N1 = np.any(image_ND, axis=1, keepdims=True)
        return np.concatenate(
            [np.where(seen_N1, (1 - self.image_weight) ** 0.5, 1) * text_ND, self.image_weight**0.5 * image_ND],
            axis=1,
            dtype=np.float32,
        )

    def _images(self, requests: Sequence[Request]) -> np.ndarray:
        """Return the image parts (N, D): unit norm, or zero."""
        images = [image for one in requests for image in one.images]
        if not images:
            return np.zeros((len(requests), self.image.width), dtype=np.float32)
        vector_ID = self.image(images)
        owner_I = np.repeat(np.arange(len(requests)), [len(one.images) for one in requests])
        sum_ND = np.zeros((len(requests), vector_ID.shape[1]), dtype=np.float32)
        np.add.at(sum_ND, owner_I, vector_ID)
        return _unit(sum_ND)


def build_embedder(spec: str | Mapping[str, Any], batch_size: int = 64) -> Embedder | RequestEmbedder:
    """Build an embedder of texts, or of texts with images.

    Args:
        spec: Name of a text embedder; or a mapping with one as ``text``, the ``backbone`` and other options of an
            :class:`ImageEmbedder`, and ``image_weight``.
        batch_size: Texts per forward pass.

    Example:
        >>> build_embedder("tiny:bert").reads_images
        False
        >>> build_embedder({"text": "tiny:bert", "image_weight": 0.5, "backbone": "tiny:conv"}).reads_images
        True
    """
    if isinstance(spec, str):
        return Embedder(spec, batch_size)
    options = {key: value for key, value in spec.items() if key not in ("text", "image_weight")}
    return RequestEmbedder(Embedder(spec["text"], batch_size), ImageEmbedder(**options), spec["image_weight"])


def _unit(vector_ND: np.ndarray) -> np.ndarray:
    return vector_ND / np.linalg.norm(vector_ND, axis=1, keepdims=True).clip(min=1e-12)


@contextmanager
def single_threaded_workers() -> Iterator[Map]:
    """Yield a map that runs on one worker per thread of torch, each with one thread of its own.

    Threads that share the work of a single pass wait for each other at every layer.
    """
    import torch

    threads = torch.get_num_threads()
    if threads == 1 or torch.cuda.is_available():
        yield map
        return
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool.map
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # the workers set the number that new threads start with
