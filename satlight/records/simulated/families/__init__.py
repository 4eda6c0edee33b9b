"""All task families of the simulated zoo, dataset by dataset."""

from __future__ import annotations

from satlight.records.simulated.families import (
    code,
    knowledge,
    language,
    mathematics,
    professional,
    reasoning,
    science,
    writing,
)
from satlight.records.simulated.family import Family

FAMILIES: tuple[Family, ...] = (
    *mathematics.FAMILIES,
    *code.FAMILIES,
    *language.FAMILIES,
    *knowledge.FAMILIES,
    *science.FAMILIES,
    *reasoning.FAMILIES,
    *professional.FAMILIES,
    *writing.FAMILIES,
)
