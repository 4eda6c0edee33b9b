"""Performance records: which candidate answered which instruction correctly, on disk and in memory.

Names are imported on first use, so that ``satlight --help`` loads neither polars nor NumPy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satlight.records.folder import save_records
    from satlight.records.matrix import PerformanceRecords
    from satlight.records.sources import SimulatedSpec, open_records
    from satlight.records.split import split_records

_HOME = {
    "PerformanceRecords": "satlight.records.matrix",
    "SimulatedSpec": "satlight.records.sources",
    "open_records": "satlight.records.sources",
    "save_records": "satlight.records.folder",
    "split_records": "satlight.records.split",
}

__all__ = ["PerformanceRecords", "SimulatedSpec", "open_records", "save_records", "split_records"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
