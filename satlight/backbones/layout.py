"""Memory layout of weights for scoring on a CPU."""

from __future__ import annotations

from torch import nn


def column_major(module: nn.Module) -> None:
    """Store the weights of all linear layers by columns; values and shapes stay the same.

    CPU matrix products of a few rows are faster with this layout (``benchmarks/decisions.py``), and exact up to the
    order of float32 sums. Training writes gradients by rows, so this is for scoring only.

    Args:
        module: Changed in place.

    Example:
        >>> linear = nn.Linear(3, 2)
        >>> column_major(linear)
        >>> tuple(linear.weight.shape), linear.weight.stride()
        ((2, 3), (1, 2))
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.weight.data = part.weight.data.t().contiguous().t()
