"""Hashes of the texts and groups that a router was trained on, so that it is never tested on them."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satlight.errors import SatlightError
from satlight.files import atomic_path, write_table

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

_TEXT = "instruction"


@dataclass(frozen=True)
class TrainedOn:
    """Hashes of the texts and group values of training and validation rows.

    Args:
        hashes: Column name to the hashes of its values; ``instruction`` holds the texts, with normalized white
            space.

    Example:
        >>> from satlight.records import open_records
        >>> from satlight.records.sources import SimulatedSpec
        >>> records = open_records("simulated", simulated=SimulatedSpec(100, 3))
        >>> known = TrainedOn.of(records.rows(range(10)))
        >>> int(known.holds(records.rows(range(5, 20))).sum())
        5
    """

    hashes: dict[str, frozenset[str]]

    @classmethod
    def of(cls, records: PerformanceRecords, group_column: str | None = None) -> TrainedOn:
        """Hash the texts and the values of ``group_column`` of all rows."""
        hashes = {_TEXT: frozenset(_texts(records))}
        if group_column is not None:
            hashes[f"group {group_column}"] = frozenset(filter(None, _groups(records, group_column)))
        return cls(hashes)

    @classmethod
    def load(cls, path: Path) -> TrainedOn:
        """Read what :meth:`save` wrote.

        Raises:
            SatlightError: The file is missing or damaged.
        """
        import polars as pl

        try:
            table = pl.read_parquet(path, columns=["column", "hash"])
            rows = table.group_by("column").agg("hash").rows()
            return cls({str(column): frozenset(values) for column, values in rows})
        except (OSError, pl.exceptions.PolarsError, TypeError) as error:
            raise SatlightError(
                f"{path} cannot be read ({error}). It holds what the router was trained on, so that no such row is "
                "tested; restore it, or train again"
            ) from error

    def save(self, path: Path) -> None:
        """Write a Parquet file of columns ``column`` and ``hash``; what an earlier file lists is kept."""
        import polars as pl

        hashes = dict(self.hashes)
        if path.is_file():
            earlier = TrainedOn.load(path).hashes
            hashes = {key: hashes.get(key, frozenset()) | earlier.get(key, frozenset()) for key in {*hashes, *earlier}}
        rows = [(column, value) for column in sorted(hashes) for value in sorted(hashes[column])]
        with atomic_path(path) as temporary:
            write_table(pl.DataFrame(rows, {"column": pl.String, "hash": pl.String}, orient="row"), temporary)

    def holds(self, records: PerformanceRecords) -> np.ndarray:
        """Return which rows have a text or a group value that was trained on: bool (N,)."""
        held = np.array([value in self.hashes.get(_TEXT, ()) for value in _texts(records)], dtype=bool)
        for key, known in self.hashes.items():
            column = key.removeprefix("group ")
            if key != _TEXT and column in records.instructions.columns:
                held |= np.array([value in known for value in _groups(records, column)], dtype=bool)
        return held


def _texts(records: PerformanceRecords) -> list[str]:
    from satlight.records.split import text_keys

    return [_hash(key) for key in text_keys(records)]


def _groups(records: PerformanceRecords, column: str) -> list[str | None]:
    values = records.instructions[column].to_list()
    return [None if value is None else _hash(str(value)) for value in values]


def _hash(text: str) -> str:
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).hexdigest()
