"""Use a trained router: load, score, route, export."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satlight.routers import Router
    from satlight.routing.router import CapabilityRouter
    from satlight.routing.scores import StoredScores
    from satlight.types import Choice, Ranking

_HOME = {
    "CapabilityRouter": "satlight.routing.router",
    "StoredScores": "satlight.routing.scores",
    "Router": "satlight.routers",
    "Choice": "satlight.types",
    "Ranking": "satlight.types",
}

__all__ = ["CapabilityRouter", "Choice", "Ranking", "Router", "StoredScores"]


def __getattr__(name: str) -> Any:
    # On first use: `satlight --help` reads the verbs and must not wait for torch.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
