"""Performance records in memory: a dense N × M matrix of outcomes.

Shape legend: N instructions (rows), M candidates (columns).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from satlight.errors import SatlightError
from satlight.images import content_keys
from satlight.records.names import listed, select_names
from satlight.types import SPLITS, Candidate, Request, task_key

CHUNK_CELLS = 1 << 24
"""Number of cells to process at once while a matrix is hashed."""


@dataclass(eq=False)
class PerformanceRecords:
    """Outcomes of M candidates on N instructions; treat it as read-only.

    Args:
        instructions: N rows with columns ``instruction_id``, ``dataset``, ``task``, ``split`` (may be null),
            ``instruction``, ``images`` (a list of files, where there are images) and any further columns of the
            source.
        candidates: M candidates, in column order.
        outcomes: float32 (N, M) in [0, 1], 0 where unknown.
        known: bool (N, M), False where no record exists. Such cells are ignored, not counted as wrong.
        costs: float32 (N, M) cost of the call in US dollars, NaN = unknown; None = no costs.
        expected: float32 (N, M) true success probabilities; None unless simulated.
        name: Short name for tables and logs.
        score_column: Column of the source that the outcomes come from.
        simulated: True if the outcomes were drawn from a model instead of measured.

    Raises:
        SatlightError: No instruction, no candidate, or a repeated id.

    Example:
        >>> records = PerformanceRecords(
        ...     instructions=pl.DataFrame({"instruction_id": ["a", "b"], "dataset": ["math", "code"],
        ...         "task": ["sums", "code"], "split": ["train", "test"], "instruction": ["1+1?", "Sort."]}),
        ...     candidates=(Candidate("tiny"), Candidate("large")),
        ...     outcomes=np.array([[1, 1], [0, 1]], dtype=np.float32),
        ...     known=np.array([[True, True], [False, True]]),
        ... )
        >>> records.shape, records.model_ids
        ((2, 2), ['tiny', 'large'])
        >>> records.filter(candidates="l*", splits="train").texts
        ['1+1?']
    """

    instructions: pl.DataFrame
    candidates: tuple[Candidate, ...]
    outcomes: np.ndarray
    known: np.ndarray
    costs: np.ndarray | None = None
    expected: np.ndarray | None = None
    name: str = "records"
    score_column: str = "score"
    simulated: bool = False

    def __post_init__(self) -> None:
        self.candidates = tuple(self.candidates)
        shape = (self.instructions.height, len(self.candidates))
        for label in ("outcomes", "known", "costs", "expected"):
            matrix = getattr(self, label)
            assert matrix is None or matrix.shape == shape, f"{label} is {matrix.shape}, not {shape}"
        if 0 in shape:
            raise SatlightError(
                f"The records '{self.name}' have {shape[0]} instructions and {shape[1]} candidates; "
                "at least one of each is needed. Relax the filter or check the source."
            )
        repeated = self.instructions["instruction_id"].is_first_distinct().not_().arg_true()
        if len(repeated):
            row = repeated[0]
            instruction_id = self.instructions["instruction_id"][row]
            raise SatlightError(
                f"The records '{self.name}' repeat instruction_id '{instruction_id}' in row {row} "
                "(counting from 0); every instruction needs its own id."
            )
        if len(set(self.model_ids)) < len(self.candidates):
            raise SatlightError(f"The records '{self.name}' name a candidate twice: {listed(self.model_ids)}.")

    def __repr__(self) -> str:
        size = f"{self.shape[0]} instructions × {self.shape[1]} candidates"
        return f"PerformanceRecords({self.name}{' (simulated)' if self.simulated else ''}: {size})"

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M)."""
        return self.instructions.height, len(self.candidates)

    @property
    def model_ids(self) -> list[str]:
        """M candidate names, in column order."""
        return [candidate.model_id for candidate in self.candidates]

    @cached_property
    def ids(self) -> list[str]:
        """N instruction ids."""
        return self.instructions["instruction_id"].to_list()

    @cached_property
    def texts(self) -> list[str]:
        """N instruction texts."""
        return self.instructions["instruction"].to_list()

    @cached_property
    def images(self) -> list[tuple[str, ...]]:
        """N tuples of image files, empty for an instruction without images."""
        if "images" not in self.instructions.columns:
            return [()] * self.shape[0]
        return [tuple(images or ()) for images in self.instructions["images"].to_list()]

    def requests(self) -> list[Request]:
        """Return the N instructions as what routers read: texts with their images."""
        return [Request(text, tuple(map(Path, files))) for text, files in zip(self.texts, self.images, strict=True)]

    @cached_property
    def datasets(self) -> np.ndarray:
        """str (N,), dataset of each instruction."""
        return self._strings("dataset")

    @cached_property
    def tasks(self) -> np.ndarray:
        """str (N,), task of each instruction."""
        return self._strings("task")

    @cached_property
    def splits(self) -> np.ndarray:
        """str (N,), split of each instruction; "" if the source has none."""
        return self._strings("split")

    @cached_property
    def task_keys(self) -> np.ndarray:
        """str (N,), :func:`~satlight.types.task_key` of each instruction."""
        return np.array([task_key(*pair) for pair in zip(self.datasets, self.tasks, strict=True)])

    def _strings(self, column: str) -> np.ndarray:
        if column not in self.instructions.columns:
            return np.full(self.shape[0], "", dtype=np.str_)
        return np.array(self.instructions[column].cast(pl.String).fill_null("").to_list(), dtype=np.str_)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of ids, texts, contents of images, splits, outcomes and known: 16 hex digits, equal on all machines."""
        digest = hashlib.blake2b(digest_size=8)
        images = [["\0".join(content_keys(own)) for own in self.images]] if any(self.images) else []
        ids = self.instructions["instruction_id"].to_list()
        for strings in (self.model_ids, ids, self.texts, self.splits.tolist(), *images):
            digest.update(len(strings).to_bytes(8, "little"))
            for text in strings:
                encoded = text.encode("utf-8", "surrogatepass")
                digest.update(len(encoded).to_bytes(8, "little"))
                digest.update(encoded)
        for matrix, kind in ((self.outcomes, "<f4"), (self.known, "u1")):
            for rows in self.row_chunks():
                digest.update(np.ascontiguousarray(matrix[rows], dtype=kind).data)
        return digest.hexdigest()

    def facts(self) -> dict[str, str | bool]:
        """Return what identifies these records, for routers that were trained on them."""
        names = ("name", "fingerprint", "simulated", "score_column")
        return {name: getattr(self, name) for name in names}

    def row_chunks(self, cells: int = CHUNK_CELLS) -> Iterable[slice]:
        """Return slices of rows of about ``cells`` cells each, to process a matrix larger than memory."""
        step = max(1, cells // self.shape[1])
        return (slice(start, start + step) for start in range(0, self.shape[0], step))

    def filter(
        self,
        *,
        datasets: str | Sequence[str] | None = None,
        tasks: str | Sequence[str] | None = None,
        candidates: str | Sequence[str] | None = None,
        splits: str | Sequence[str] | None = None,
    ) -> PerformanceRecords:
        """Select rows and columns that match every given condition; their order is kept.

        Args:
            datasets: One or several names or patterns such as ``"arc_*"``, like the other arguments.
            tasks: Task names.
            candidates: Candidate names, e.g. ``["gpt-4*", "gemma-7b"]`` (case-sensitive).
            splits: Some of :data:`satlight.types.SPLITS`.

        Returns:
            New records, n × m; copies that do not keep the original in memory.

        Raises:
            SatlightError: A name or pattern matches nothing, or no instruction is left.
        """
        mask = np.ones(self.shape[0], dtype=bool)
        for kind, wanted, column in (
            ("dataset", datasets, self.datasets),
            ("task", tasks, self.tasks),
            ("split", splits, self.splits),
        ):
            if wanted is not None:
                mask &= np.isin(column, select_names(wanted, np.unique(column).tolist(), kind, self.name))
        columns = np.arange(self.shape[1])
        if candidates is not None:
            kept = set(select_names(candidates, self.model_ids, "candidate", self.name))
            columns = np.flatnonzero([model_id in kept for model_id in self.model_ids])
        if not mask.any():
            raise SatlightError(
                f"No instruction of '{self.name}' is in datasets={datasets}, tasks={tasks} and "
                f"splits={splits} at once. Each name exists, but no row matches all conditions; remove one."
            )
        return self._subset(np.flatnonzero(mask), columns)

    def rows(self, mask_or_indices: np.ndarray | Sequence[int] | Sequence[bool]) -> PerformanceRecords:
        """Select instructions.

        Args:
            mask_or_indices: bool (N,), or int (n,) row indices in the desired order.

        Returns:
            New records, n × M.

        Raises:
            SatlightError: No row is selected.
        """
        selected = np.asarray(mask_or_indices)
        if selected.dtype == bool:
            assert selected.shape == (self.shape[0],), f"mask of {selected.shape} for {self.shape[0]} rows"
            selected = np.flatnonzero(selected)
        if not selected.size:
            raise SatlightError(
                f"The selection leaves none of the {self.shape[0]} instructions of '{self.name}'. Relax it."
            )
        return self._subset(selected, np.arange(self.shape[1]))

    def with_splits(self, split: np.ndarray | Sequence[str]) -> PerformanceRecords:
        """Replace the ``split`` column.

        Args:
            split: str (N,), each one of :data:`satlight.types.SPLITS`, e.g. from
                :func:`satlight.records.split_records`.

        Returns:
            New records that share the matrices.

        Raises:
            SatlightError: Not an allowed split.
        """
        values = np.asarray(split, dtype=np.str_)
        assert values.shape == (self.shape[0],), f"{values.shape} splits for {self.shape[0]} rows"
        if wrong := set(values.tolist()) - set(SPLITS):
            raise SatlightError(f"Got the split '{sorted(wrong)[0]}'; allowed: {', '.join(SPLITS)}.")
        column = pl.Series("split", values.tolist(), dtype=pl.String)
        return replace(self, instructions=self.instructions.with_columns(column))

    def describe(self) -> list[dict[str, Any]]:
        """Summarize each dataset and, if there are several, all of them.

        Returns:
            Dictionaries with ``dataset`` (``all`` for the last, ``(all)`` where a dataset has that name),
            ``instructions``, one count per split, ``filled`` (fraction of known cells), ``random`` (mean over
            candidates), ``best_single`` (highest mean among candidates that answered at least half of the
            instructions), ``best_single_mean``, ``oracle`` (best known outcome), and ``compared``: the fraction of the
            instructions, answered by the best single candidate, that these three means are over.
        """
        names = list(dict.fromkeys(self.datasets.tolist()))
        lines = [self._describe(name, np.flatnonzero(self.datasets == name)) for name in names]
        if len(names) > 1:
            every = "(all)" if "all" in names else "all"
            lines.append(self._describe(every, np.arange(self.shape[0])))
        return lines

    def _describe(self, dataset: str, rows: np.ndarray) -> dict[str, Any]:
        right, count, answered = np.zeros(self.shape[1]), np.zeros(self.shape[1]), 0
        for outcomes, known in self._chunks(rows):
            right += outcomes.sum(0, dtype=np.float64)  # unknown cells hold 0
            count += known.sum(0)
            answered += int(known.any(1).sum())
        eligible = count >= max(1.0, min(answered / 2, count.max()))
        means = np.divide(right, count, out=np.full(self.shape[1], np.nan), where=count > 0)
        best = int(np.nanargmax(np.where(eligible, means, np.nan))) if answered else None
        random, oracle = 0.0, 0.0
        for outcomes, known in self._chunks(rows) if best is not None else ():
            outcomes, known = outcomes[known[:, best]], known[known[:, best]]
            random += float((outcomes.sum(1, dtype=np.float64) / known.sum(1)).sum())
            oracle += float(outcomes.max(1, initial=0.0).sum(dtype=np.float64))
        return {
            "dataset": dataset,
            "instructions": len(rows),
            **{split: int((self.splits[rows] == split).sum()) for split in SPLITS},
            "filled": float(count.sum() / (len(rows) * self.shape[1])),
            "random": float("nan") if best is None else random / count[best],
            "best_single": None if best is None else self.model_ids[best],
            "best_single_mean": float("nan") if best is None else float(means[best]),
            "oracle": float("nan") if best is None else oracle / count[best],
            "compared": 0.0 if best is None else float(count[best] / len(rows)),
        }

    def _chunks(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield outcomes and known mask of some rows, a few megabytes at a time."""
        step = max(1, CHUNK_CELLS // self.shape[1])
        for start in range(0, len(rows), step):
            chunk = rows[start : start + step]
            yield self.outcomes[chunk], self.known[chunk]

    def _subset(self, rows: np.ndarray, columns: np.ndarray) -> PerformanceRecords:
        every_column = np.array_equal(columns, np.arange(self.shape[1]))

        def cut(matrix: np.ndarray | None) -> np.ndarray | None:
            if matrix is None:
                return None
            return np.asarray(matrix[rows] if every_column else matrix[np.ix_(rows, columns)])

        outcomes, known = cut(self.outcomes), cut(self.known)
        assert outcomes is not None
        assert known is not None
        return replace(
            self,
            instructions=self.instructions[rows],
            candidates=tuple(self.candidates[int(column)] for column in columns),
            outcomes=outcomes,
            known=known,
            costs=cut(self.costs),
            expected=cut(self.expected),
        )
