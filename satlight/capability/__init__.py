"""The aptitude test and the capability representation that is written from its results.

Names are loaded on first use, so that importing the package waits for neither polars nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satlight.capability.aptitude import AptitudeTest, CoreTask
    from satlight.capability.keywords import load_keywords, task_keywords
    from satlight.capability.text import (
        PERFORMANCE_INQUIRY,
        PROMPT_PREFIX,
        CapabilityText,
        perturbations,
        represent,
        statements,
    )

_HOME = {
    "AptitudeTest": "aptitude",
    "CoreTask": "aptitude",
    "load_keywords": "keywords",
    "task_keywords": "keywords",
    "PERFORMANCE_INQUIRY": "text",
    "PROMPT_PREFIX": "text",
    "CapabilityText": "text",
    "perturbations": "text",
    "represent": "text",
    "statements": "text",
}

__all__ = [
    "PERFORMANCE_INQUIRY",
    "PROMPT_PREFIX",
    "AptitudeTest",
    "CapabilityText",
    "CoreTask",
    "load_keywords",
    "perturbations",
    "represent",
    "statements",
    "task_keywords",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"satlight.capability.{_HOME[name]}"), name)
