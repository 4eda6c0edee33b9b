"""Images in a block: the vision encoder, its projector into the router LLM, and what the score reads of them.

Shape legend: N images of a block, V tokens per image, K tokens of all images of an instruction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from satlight.errors import SatlightError
from satlight.modules.base import Part
from satlight.modules.precision import Float32, without_autocast
from satlight.modules.projector import Projector

CACHE_BYTES = 1 << 29
"""Size of the features that a frozen encoder keeps at most; the oldest ones leave first."""
BATCH = 32
"""Images that pass through a frozen encoder together, at most."""


class VisionEncoder(Float32, Part):
    """An image encoder whose patches are pooled to a fixed number of tokens.

    Args:
        backbone: Name of an image encoder (:mod:`satlight.backbones.vision`): ``efficientnet-lite0``, ``small-conv``,
            a CLIP, SigLIP 2 or DINOv3 of the hub, a local folder, ``tiny:vit`` or ``tiny:conv``.
        num_layers: Keep only the first K layers; None = all. Of EfficientNet-Lite0, the first 11 of 16 blocks see
            twice the resolution of the whole, the first 5 four times.
        image_size: Side in pixels of the square that it reads; None = its own.
        tokens: V, a square number: the patches are averaged in a grid of √V × √V.
        trainable: False freezes it; its features are then kept in memory by the content of the image.
        dtype: ``float32``, ``bfloat16`` or ``float16``, of the backbone.

    Example:
        >>> encoder = VisionEncoder("tiny:conv", tokens=4)
        >>> encoder([np.zeros((20, 30, 3), np.uint8)]).shape
        torch.Size([1, 4, 32])
    """

    _own_only = True
    weights_apart = ("backbone.",)
    stored_folders = ("backbone",)
    backbone: nn.Module

    def __init__(
        self,
        backbone: str = "efficientnet-lite0",
        num_layers: int | None = None,
        image_size: int | None = None,
        tokens: int = 16,
        trainable: bool = False,
        dtype: str = "float32",
    ) -> None:
        super().__init__()
        from satlight.backbones.vision import load_image_backbone, starts_random  # transformers is slow to import

        self.starts_random = starts_random(backbone)
        if self.starts_random and not trainable:
            raise SatlightError(f"vision.trainable is false, but {backbone} has no pretrained weights; set it to true")
        loaded = load_image_backbone(backbone, num_layers=num_layers, image_size=image_size, dtype=dtype)
        self.side = round(max(tokens, 0) ** 0.5)
        if self.side**2 != tokens or not 1 <= self.side <= loaded.grid:
            raise SatlightError(
                f"vision.tokens is {tokens}; allowed are the square numbers 1, 4, 9, ... up to {loaded.grid**2}, the "
                f"{loaded.grid} × {loaded.grid} patches of {backbone}"
            )
        self.backbone, self.tokens, self.width = loaded.requires_grad_(trainable), tokens, loaded.width
        self.trainable = trainable
        self._kept: dict[bytes, Tensor] = {}

    def frozen_parameters(self) -> list[str]:
        return [] if self.trainable else [f"backbone.{name}" for name, _ in self.backbone.named_parameters()]

    def stored_args(self, folder: Path, name: str) -> dict[str, Any]:
        """Write the backbone; a router folder holds it as it is after training."""
        self.backbone.save(folder / name)  # type: ignore[operator]
        return {"backbone": folder / name, "num_layers": None, "image_size": None, "trainable": False}

    def forward(self, images: Sequence[np.ndarray]) -> Tensor:
        """Encode N images, uint8 (H, W, 3) of any sizes: float32 (N, V, D). Equal images are read once."""
        keys = [_content_key(image) for image in images]
        distinct = dict(zip(keys, images, strict=True))
        if self.trainable:
            place = {key: i for i, key in enumerate(distinct)}
            return self._pooled(list(distinct.values()))[[place[key] for key in keys]]
        absent = [key for key in distinct if key not in self._kept]
        found = {key: self._kept[key] for key in distinct if key in self._kept}
        for start in range(0, len(absent), BATCH):
            batch = absent[start : start + BATCH]
            with torch.no_grad():
                found |= zip(batch, self._pooled([distinct[key] for key in batch]).cpu(), strict=True)
        self._keep({key: found[key] for key in absent})
        return torch.stack([found[key] for key in keys]).to(self.device)

    def _pooled(self, images: list[np.ndarray]) -> Tensor:
        backbone: Any = self.backbone
        token_NTD = backbone(backbone.prepare(images))
        map_NDGG = token_NTD.transpose(1, 2).unflatten(2, (backbone.grid, backbone.grid)).float()
        return F.adaptive_avg_pool2d(map_NDGG, self.side).flatten(2).transpose(1, 2)

    def _keep(self, features: dict[bytes, Tensor]) -> None:
        self._kept |= features
        most = max(1, CACHE_BYTES // (4 * self.tokens * self.width))
        while len(self._kept) > most:
            del self._kept[next(iter(self._kept))]


def _content_key(image: np.ndarray) -> bytes:
    found = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    found.update(np.ascontiguousarray(image).data)
    return found.digest()


class VisualProjector(Projector):
    """A linear layer from the tokens of images to the embeddings of the router LLM.

    As :class:`~satlight.modules.projector.Projector`, standardized tokens start with the norm of a token embedding.
    Both μ and σ are moving averages over training blocks: a block has few images, and an encoder that is trained from
    scratch changes its scale.

    Example:
        >>> projector = VisualProjector()
        >>> projector.connect(1280, 576, token_norm=1.0)
        >>> projector(torch.zeros(2, 16, 1280)).shape
        torch.Size([2, 16, 576])
    """

    def connect(self, in_features: int, out_features: int, token_norm: float) -> None:
        # A rotation into fewer dimensions keeps that share of the squared norm only.
        super().connect(in_features, out_features, token_norm * max(1.0, in_features / out_features) ** 0.5)

    @torch.no_grad()
    def follow(self, capability_CD: Tensor) -> None:
        """Update μ and σ from the tokens of the images of a training block."""
        mean = capability_CD.mean(dim=0)
        spread = (capability_CD - mean).pow(2).sum(dim=1).mean().sqrt()
        if not self.standardize or spread <= 1e-4 * mean.norm():  # images of one color
            return
        weight = self.momentum if float(self.spread) > 0 else 1.0
        self.center.lerp_(mean, weight)
        self.spread.lerp_(spread, weight)


@dataclass(frozen=True)
class SeenImages:
    """The tokens of all images of a block.

    Args:
        standard_NVD: Standardized tokens.
        projected_NVD: The same in the space of the router LLM.
        row_N: int64, the instruction of each image, ascending; images of one keep their order.
        rows: B.
    """

    standard_NVD: Tensor
    projected_NVD: Tensor
    row_N: Tensor
    rows: int

    def _counts(self) -> Tensor:
        return torch.bincount(self.row_N, minlength=self.rows)

    def soft_tokens(self) -> tuple[Tensor, Tensor]:
        """Return the projected tokens of each instruction, image after image: float (B, K, D) and bool (B, K)."""
        count_B, (_, V, D) = self._counts(), self.projected_NVD.shape
        place_N = torch.arange(len(self.row_N), device=count_B.device) - (count_B.cumsum(0) - count_B)[self.row_N]
        most = int(count_B.max())
        soft = self.projected_NVD.new_zeros(self.rows, most, V, D).index_put((self.row_N, place_N), self.projected_NVD)
        mask_BI = torch.arange(most, device=count_B.device) < count_B[:, None]
        return soft.flatten(1, 2), mask_BI.repeat_interleave(V, dim=1)

    def means(self) -> tuple[Tensor, Tensor]:
        """Return the mean over the images of each instruction, float (B, V, D), and which have one, bool (B,)."""
        count_B = self._counts()
        total = self.standard_NVD.new_zeros(self.rows, *self.standard_NVD.shape[1:])
        total = total.index_add(0, self.row_N, self.standard_NVD)
        return total / count_B.clamp(min=1)[:, None, None], count_B > 0


def see(
    images: Sequence[Sequence[np.ndarray]] | None, encoder: VisionEncoder, projector: VisualProjector, learn: bool
) -> SeenImages | None:
    """Read the images of a block; None if there are none.

    Args:
        images: The images of B instructions.
        encoder: Reads them.
        projector: Its projector.
        learn: Update the mean and spread of the projector.
    """
    if images is None or not any(images):
        return None
    row_N = torch.tensor([row for row, own in enumerate(images) for _ in own], device=encoder.device)
    token_NVD = encoder([image for own in images for image in own])
    with without_autocast(token_NVD.device):
        if learn:
            projector.follow(token_NVD.detach().flatten(0, 1))
        standard_NVD = projector.standard(token_NVD)
        return SeenImages(standard_NVD, projector.linear(standard_NVD), row_N, len(images))
