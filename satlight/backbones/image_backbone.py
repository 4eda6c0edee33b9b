"""The interface of image encoders and the format in which they read images.

Images are padded with white to a square, so that shapes keep their proportions and nothing is cut off, and resized.
The processors of transformers are not used: they crop or stretch, and some need torchvision, which is no dependency.

Shape legend: N images, H × W pixels, T patch tokens, D features.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from satlight.errors import SatlightError
from satlight.files import atomic_path, read_json

CONFIG, FORMAT = "config.json", "preprocessor_config.json"
ADVICE = f"an image encoder is a folder with {CONFIG}, {FORMAT} and *.safetensors"


@dataclass(frozen=True)
class Pixels:
    """Format in which a network reads images.

    Args:
        size: Side of the square in pixels.
        mean: Of the colors in [0, 1], subtracted.
        std: Of the colors, divided by.
    """

    size: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    def of(self, images: Sequence[np.ndarray]) -> Tensor:
        """Pad, resize and normalize N images, uint8 (H, W, 3): float32 (N, 3, size, size)."""
        squares = np.stack([self._square(image) for image in images]).astype(np.float32) / 255
        normal = (squares - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(normal.transpose(0, 3, 1, 2).copy())

    def _square(self, image: np.ndarray) -> np.ndarray:
        from PIL import Image

        height, width = image.shape[:2]
        scale = self.size / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
        square = np.full((self.size, self.size, 3), 255, dtype=np.uint8)
        top, left = (self.size - size[1]) // 2, (self.size - size[0]) // 2
        square[top : top + size[1], left : left + size[0]] = resized
        return square

    @classmethod
    def read(cls, folder: Path, size: int | None = None) -> Pixels:
        """Read the format from preprocessor_config.json, as the processors of transformers write it.

        Args:
            folder: Folder of a model.
            size: Side in pixels instead of the stated one.

        Raises:
            SatlightError: No such file, or no size, mean or standard deviation in it.
        """
        content = read_json(folder / FORMAT, ADVICE)
        try:
            stated = content.get("crop_size") or content["size"]  # what reaches the network is the crop
            if isinstance(stated, dict):
                stated = stated.get("height") or stated["shortest_edge"]
            mean, std = (tuple(float(value) for value in content[key]) for key in ("image_mean", "image_std"))
            return cls(size or int(stated), mean, std)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SatlightError(
                f"{folder / FORMAT} lacks size, image_mean or image_std ({type(error).__name__}: {error}); {ADVICE}"
            ) from error

    def write(self, folder: Path) -> None:
        """Write preprocessor_config.json."""
        content = {"image_mean": self.mean, "image_std": self.std, "size": {"height": self.size, "width": self.size}}
        write_json(folder / FORMAT, content)


class ImageBackbone(nn.Module):
    """An image encoder: arrays in, patch tokens out.

    Args:
        network: Module that maps pixels (N, 3, size, size) to a feature map (N, D, grid, grid).
        pixels: Its input format.
        width: D.
        grid: Patches per side, T = grid².
    """

    def __init__(self, network: nn.Module, pixels: Pixels, width: int, grid: int) -> None:
        super().__init__()
        self.network: Any = network
        self.pixels, self.width, self.grid = pixels, width, grid

    def prepare(self, images: Sequence[np.ndarray]) -> Tensor:
        """Pad N images, uint8 (H, W, 3), resize and normalize them: float32 (N, 3, size, size)."""
        return self.pixels.of(images).to(next(self.parameters()).device)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the patch tokens, row by row from the top left: float (N, T, D)."""
        return self.network(pixels.to(next(self.parameters()).dtype)).flatten(2).transpose(1, 2)

    def save(self, folder: Path | str) -> None:
        """Write network and input format as a folder that ``load_image_backbone`` reads exactly."""
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            self.write_network(temporary)
            self.pixels.write(temporary)

    def write_network(self, folder: Path) -> None:
        """Write config.json and the weights."""
        raise NotImplementedError


def write_json(path: Path, content: Any) -> None:
    """Write JSON with a final line break."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
