"""A small convolutional image encoder that is trained from scratch.

Shape legend: N images, C channels, H × W pixels or cells.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

NAME = "small-conv"
_CHANNELS = (32, 48, 96, 128)
_GROUPS = 8


def _step(channels: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    # Group normalization: an image has the same features in any batch.
    return nn.Sequential(
        nn.Conv2d(channels, out, kernel, stride, kernel // 2, bias=False), nn.GroupNorm(_GROUPS, out), nn.GELU()
    )


class _Stage(nn.Module):
    """Halve the resolution, then refine with a residual convolution."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.reduce, self.refine = _step(channels, out, 3, 2), _step(out, out, 3, 1)

    def forward(self, features: Tensor) -> Tensor:
        features = self.reduce(features)
        return features + self.refine(features)


class SmallConv(nn.Module):
    """Encode images in steps of half the resolution each: (N, 3, H, W) to (N, 128, H/16, W/16).

    Two channels with the coordinates of each pixel join the colors, because counting and overlap depend on where
    things are and a convolution alone does not see it.

    Args:
        widths: Channels of the steps.

    Example:
        >>> SmallConv()(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 128, 4, 4])

    Reference: coordinates as in Liu et al. 2018, "CoordConv".
    """

    def __init__(self, widths: tuple[int, ...] = _CHANNELS) -> None:
        super().__init__()
        self.stem = _step(5, widths[0], 5, 2)
        self.stages = nn.Sequential(*(_Stage(a, b) for a, b in pairwise(widths)))
        self.width, self.stride = widths[-1], 2 ** len(widths)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the feature map: float (N, C, H / 16, W / 16)."""
        height, width = pixels.shape[2:]
        y_H, x_W = (torch.linspace(-1, 1, size, device=pixels.device, dtype=pixels.dtype) for size in (height, width))
        place = torch.stack([y_H[:, None].expand(height, width), x_W[None, :].expand(height, width)])
        return self.stages(self.stem(torch.cat([pixels, place.expand(len(pixels), 2, height, width)], dim=1)))
