"""The simulated zoo: built-in data with a known best possible router, always labeled as simulated."""

from __future__ import annotations

from satlight.records.simulated.families import FAMILIES
from satlight.records.simulated.family import SKILLS, Family, Neutral, Numbers
from satlight.records.simulated.multimodal import SimulatedMultimodalZoo
from satlight.records.simulated.response import bayes_optimal, best_without_images
from satlight.records.simulated.zoo import SimulatedZoo

__all__ = [
    "FAMILIES",
    "SKILLS",
    "Family",
    "Neutral",
    "Numbers",
    "SimulatedMultimodalZoo",
    "SimulatedZoo",
    "bayes_optimal",
    "best_without_images",
]
