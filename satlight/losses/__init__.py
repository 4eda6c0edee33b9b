"""Objectives: modules for configs here, their equations in :mod:`satlight.losses.functional`."""

from satlight.losses.objectives import (
    CandidateContrastive,
    InstructionContrastive,
    Objective,
    Pointwise,
    RoutingRegret,
    WeightedSum,
)

__all__ = ["CandidateContrastive", "InstructionContrastive", "Objective", "Pointwise", "RoutingRegret", "WeightedSum"]
