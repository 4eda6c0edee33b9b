"""The aptitude test and the capability representation that is written from its results.

Names are loaded on first use, so that importing the package waits for neither polars nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satlight.files import lazy

if TYPE_CHECKING:
    from satlight.capability.aptitude import *  # noqa: F403
    from satlight.capability.core_tasks import *  # noqa: F403
    from satlight.capability.keywords import *  # noqa: F403
    from satlight.capability.text import *  # noqa: F403

__getattr__, __all__ = lazy(
    __name__,
    aptitude="AptitudeTest",
    core_tasks="CoreTask",
    keywords="load_keywords task_keywords",
    text="PERFORMANCE_INQUIRY PROMPT_PREFIX CapabilityText perturbations represent statements",
)
