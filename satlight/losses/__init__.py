"""Objectives: equations in :mod:`satlight.losses.functional`, modules for YAML here."""

from satlight.losses.objectives import (
    CandidateContrastive,
    InstructionContrastive,
    Objective,
    Pointwise,
    RoutingRegret,
    WeightedSum,
)

__all__ = [
    "CandidateContrastive",
    "InstructionContrastive",
    "Objective",
    "Pointwise",
    "RoutingRegret",
    "WeightedSum",
]
