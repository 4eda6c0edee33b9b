"""satlight: LLM routing by capability instruction tuning (Model-SAT) on PyTorch Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords
    from satlight.routers import Router

__version__ = "0.1.0"
__all__ = ["PerformanceRecords", "Router", "__version__"]


def __getattr__(name: str) -> Any:
    # On first use, so that `import satlight` is instant.
    if name == "Router":
        from satlight.routers import Router

        return Router
    if name == "PerformanceRecords":
        from satlight.records import PerformanceRecords

        return PerformanceRecords
    raise AttributeError(f"module 'satlight' has no attribute {name!r}")
