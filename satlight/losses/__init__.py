"""Objectives: equations in :mod:`satlight.losses.functional`, modules for YAML here."""

from satlight.losses.objectives import (
    CandidateContrastive,
    InstructionContrastive,
    Objective,
    Pointwise,
    WeightedSum,
)

__all__ = ["CandidateContrastive", "InstructionContrastive", "Objective", "Pointwise", "WeightedSum"]
