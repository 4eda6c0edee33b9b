"""Performance records: which candidate answered which instruction correctly, on disk and in memory.

Names are imported on first use, so that ``satlight --help`` loads neither polars nor NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satlight.files import lazy

if TYPE_CHECKING:
    from satlight.records.folder import *  # noqa: F403
    from satlight.records.matrix import *  # noqa: F403
    from satlight.records.sources import *  # noqa: F403
    from satlight.records.split import *  # noqa: F403

__getattr__, __all__ = lazy(
    __name__,
    folder="save_records",
    matrix="PerformanceRecords",
    sources="SimulatedSpec open_records",
    split="split_records use_split",
)
