"""Vision transformers that transformers reads: CLIP, SigLIP 2, DINOv3, ViT and others.

Shape legend: N images, T patch tokens, D features.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, CLIPVisionConfig, PreTrainedConfig

from satlight.backbones import loading
from satlight.backbones.image_backbone import ImageBackbone, Pixels
from satlight.errors import SatlightError


class VisionTower(ImageBackbone):
    """A vision transformer; tokens before the patches (class, registers) are left out."""

    def __init__(self, name: str, network: Any, pixels: Pixels) -> None:
        config = network.config
        patch, native = _side(config, "patch_size"), _side(config, "image_size")
        if patch is None or native is None or "pixel_values" not in inspect.signature(network.forward).parameters:
            raise SatlightError(
                f"image backbone {name!r} is a {type(network).__name__}, not a vision transformer with patch_size and "
                "image_size; use CLIP, SigLIP 2 (fixed resolution), DINOv3 (ViT), or efficientnet-lite0."
            )
        super().__init__(network, pixels, int(config.hidden_size), pixels.size // patch)
        # Learned positions are interpolated to another resolution; rotary ones fit any.
        resized = pixels.size != native and "interpolate_pos_encoding" in inspect.signature(network.forward).parameters
        self._options = {"interpolate_pos_encoding": True} if resized else {}

    def forward(self, pixels: Tensor) -> Tensor:
        pixels = pixels.to(next(self.parameters()).dtype)
        hidden = self.network(pixel_values=pixels, **self._options).last_hidden_state
        return hidden[:, hidden.shape[1] - self.grid**2 :]

    def write_network(self, folder: Path) -> None:
        with loading._writing(folder):
            self.network.save_pretrained(folder)


def _side(config: PreTrainedConfig, name: str) -> int | None:
    value = getattr(config, name, None)
    return value[0] if isinstance(value, list | tuple) else value


def load_tower(
    name: str, folder: Path, pretrained: bool, num_layers: int | None, image_size: int | None, dtype: torch.dtype
) -> VisionTower:
    """Load the vision tower of a model folder, without text tower and pooling head; see ``load_image_backbone``."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise SatlightError(f"image backbone {name!r}: {folder} has no readable config.json ({error}).") from error
    config = getattr(config, "vision_config", config)
    return build_tower(name, folder if pretrained else None, config, Pixels.read(folder, image_size), num_layers, dtype)


def build_tower(
    name: str, folder: Path | None, config: PreTrainedConfig, pixels: Pixels, num_layers: int | None, dtype: torch.dtype
) -> VisionTower:
    """Build a vision tower from its config; with a folder, read its weights."""
    loading._keep_first_layers(config, num_layers, name)
    if hasattr(config, "vision_use_head"):
        config.vision_use_head = False  # unused; DDP would wait for its gradients
    if folder is None:
        network = AutoModel.from_config(config, dtype=dtype)
    else:
        network = loading._read_weights(name, folder, config, dtype)
    if getattr(network, "pooler", None) is not None:
        network.pooler = None
    return VisionTower(name, network, pixels)


def tiny_tower(name: str, num_layers: int | None, image_size: int | None) -> VisionTower:
    """Build a random CLIP tower: 32 features, 2 layers, 4 × 4 patches of 8 pixels."""
    config = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8,
        projection_dim=32, initializer_range=0.2,
    )  # fmt: skip
    return build_tower(name, None, config, Pixels(image_size or 32), num_layers, torch.float32)
