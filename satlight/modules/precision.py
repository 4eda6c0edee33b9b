"""Small parts in float32, whatever the precision of the trainer.

``trainer.precision`` is the precision of the pretrained networks. Projector, terms, score head and scores stay in
float32: they cost next to nothing, half precision would round their small updates to zero, and scores that are equal
after rounding cannot be ranked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn


class Float32(nn.Module):
    """Keep the floating-point tensors of a module in float32 when the module is converted.

    Example:
        >>> class Scale(Float32):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.scale = nn.Parameter(torch.ones(2))
        >>> nn.Sequential(Scale(), nn.Linear(2, 2)).bfloat16()[0].scale.dtype
        torch.float32
    """

    _own_only = False
    """True if submodules are converted as usual."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if not moved.is_floating_point() or moved.dtype == torch.float32:
                return moved
            return (moved if tensor.is_meta else tensor).to(moved.device, torch.float32)

        if recurse and self._own_only:
            for child in self.children():
                child._apply(fn)
        super()._apply(keep, recurse and not self._own_only)
        return self


def without_autocast(device: torch.device) -> Any:
    """Return a context in which mixed precision is off."""
    return torch.autocast(device.type, enabled=False)
