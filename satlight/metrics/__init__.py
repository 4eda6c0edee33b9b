"""Metrics on (N, M) matrices; the torchmetrics classes are here, plain functions in the submodules.

The classes are loaded on first use, because torchmetrics imports transformers, and who only evaluates
scores should not wait for either.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satlight.metrics.modules import CalibrationError, RoutedAccuracy

__all__ = ["CalibrationError", "RoutedAccuracy"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from satlight.metrics import modules

    return getattr(modules, name)
