"""Using a trained router."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satlight.routing.router import Choice, Ranking, Router

__all__ = ["Choice", "Ranking", "Router"]


def __getattr__(name: str) -> Any:
    # On first use: `satlight --help` reads the verbs beside this file and must not wait for torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from satlight.routing import router

    return getattr(router, name)
