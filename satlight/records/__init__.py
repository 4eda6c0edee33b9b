"""Performance records: which candidate got which instruction right, on disk and in memory.

Names are loaded on first use, so that ``satlight --help`` waits for neither polars nor numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satlight.records.matrix import PerformanceRecords
    from satlight.records.sources import open_records
    from satlight.records.split import split_records

_HOME = {
    "PerformanceRecords": "satlight.records.matrix",
    "open_records": "satlight.records.sources",
    "split_records": "satlight.records.split",
}

__all__ = ["PerformanceRecords", "open_records", "split_records"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
