"""Use a trained router: load, score, route, export."""

from __future__ import annotations

from typing import TYPE_CHECKING

from satlight.files import lazy
from satlight.types import Choice, Ranking

if TYPE_CHECKING:
    from satlight.routers import Router
    from satlight.routing.router import CapabilityRouter
    from satlight.routing.scores import StoredScores

__all__ = ["CapabilityRouter", "Choice", "Ranking", "Router", "StoredScores"]

# On first use: `satlight --help` reads the verbs and must not wait for torch.
__getattr__, _ = lazy(__name__, router="CapabilityRouter", scores="Router StoredScores")
