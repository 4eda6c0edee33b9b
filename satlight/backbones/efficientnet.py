"""EfficientNet-Lite0 without squeeze-and-excitation, and its published weights as safetensors.

Shape legend: N images, C channels, H × W pixels or cells.
"""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from satlight.errors import SatlightError

NAME = "efficientnet-lite0"
# Kernel, stride, output channels and repeats of each stage of inverted residual blocks.
_STAGES = (
    (3, 1, 16, 1), (3, 2, 24, 2), (5, 2, 40, 2), (3, 2, 80, 3), (5, 1, 112, 3), (5, 2, 192, 4), (3, 1, 320, 1),
)  # fmt: skip
_STEM, _HEAD, _EXPANSION = 32, 1280, 6
NUM_BLOCKS = sum(repeats for *_, repeats in _STAGES)


def _same(conv: nn.Conv2d, pixels: Tensor) -> Tensor:
    """Apply a convolution with TensorFlow's SAME padding, with which the weights were trained."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    sides: list[int] = []
    for size in (pixels.shape[3], pixels.shape[2]):
        missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        sides += [missing // 2, missing - missing // 2]
    return conv(F.pad(pixels, sides))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _Block(nn.Module):
    """An inverted residual block: expand, filter each channel, project."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        if expansion > 1:
            self.expand_conv: nn.Conv2d | None = nn.Conv2d(channels, wide, 1, bias=False)
            self.bn0 = _norm(wide)
        else:
            self.expand_conv = None
        self.depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self.bn1 = _norm(wide)
        self.project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self.bn2 = _norm(out)
        self.is_residual = stride == 1 and channels == out

    def forward(self, features: Tensor) -> Tensor:
        hidden = features
        if self.expand_conv is not None:
            hidden = F.relu6(self.bn0(self.expand_conv(hidden)))
        hidden = F.relu6(self.bn1(_same(self.depthwise_conv, hidden)))
        hidden = self.bn2(self.project_conv(hidden))
        return features + hidden if self.is_residual else hidden


class EfficientNetLite0(nn.Module):
    """The feature map of EfficientNet-Lite0 before pooling: (N, 3, H, W) to (N, C, H/32, W/32).

    The statistics of batch normalization never change, so that an image has the same features in any batch.

    Args:
        num_blocks: Keep only the first K of its 16 blocks, without the head; None = all, and the head of 1,280
            channels. 11 blocks give 112 channels at 1/16 of the resolution, 5 give 40 channels at 1/8.

    Example:
        >>> EfficientNetLite0()(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 1280, 2, 2])
        >>> EfficientNetLite0(11)(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 112, 4, 4])

    Reference: Tan & Le 2019, "EfficientNet"; Lite: no squeeze-and-excitation, ReLU6, fixed stem and head.
    """

    def __init__(self, num_blocks: int | None = None) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, _STEM, 3, 2, bias=False)
        self.bn0 = _norm(_STEM)
        blocks: list[nn.Module] = []
        channels, self.stride = _STEM, 2
        for kernel, stride, out, repeats in _STAGES:
            for i in range(repeats):
                if num_blocks is None or len(blocks) < num_blocks:
                    step = stride if i == 0 else 1
                    blocks.append(_Block(channels, out, kernel, step, _EXPANSION if blocks else 1))
                    channels, self.stride = out, self.stride * step
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = nn.Conv2d(channels, _HEAD, 1, bias=False) if num_blocks is None else None
        self.bn1 = _norm(_HEAD) if num_blocks is None else None
        self.width = _HEAD if num_blocks is None else channels

    def train(self, mode: bool = True) -> EfficientNetLite0:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.training = False
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the feature map: float (N, C, H / stride, W / stride)."""
        features = F.relu6(self.bn0(_same(self.conv_stem, pixels)))
        for block in self.blocks:
            features = block(features)
        if self.conv_head is None or self.bn1 is None:
            return features
        return F.relu6(self.bn1(self.conv_head(features)))


def convert_pth(path: Path, folder: Path) -> None:
    """Write the published weights of EfficientNet-Lite0 as a safetensors folder.

    Args:
        path: A state dictionary with names like ``_blocks.0._depthwise_conv.weight``; read with ``weights_only=True``,
            so that no code in it runs.
        folder: Target; the classifier ``fc`` is kept in the file, but no backbone loads it.

    Raises:
        SatlightError: Not the weights of EfficientNet-Lite0.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise SatlightError(
            f"{path} cannot be read as a file of tensors ({type(error).__name__}: {error}). Fetch it again, or use a "
            "model folder with safetensors."
        ) from error
    found = content if isinstance(content, dict) else {}
    tensors = {re.sub(r"(^|\.)_", r"\1", name): value for name, value in found.items() if isinstance(value, Tensor)}
    with torch.device("meta"):
        expected = EfficientNetLite0().state_dict()
    wrong = [name for name, one in expected.items() if name not in tensors or tensors[name].shape != one.shape]
    if wrong:
        raise SatlightError(
            f"{path} does not hold the weights of EfficientNet-Lite0: {len(wrong)} of {len(expected)} tensors are "
            f"missing or have another shape, e.g. {wrong[0]!r}. It is the only .pth file that is converted; use a "
            "model folder with safetensors."
        )
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": NAME}, indent=2) + "\n", encoding="utf-8")
