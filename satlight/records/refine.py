"""Refine training rows: circle test, duplicates, caps. Validation and test rows never change.

Shape legend: N instructions, M candidates, K rotations.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from satlight.errors import SatlightError
from satlight.records.duplicates import repeats
from satlight.records.matrix import PerformanceRecords
from satlight.records.rotation import is_hard
from satlight.records.split import rotations, unit_hash

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Refinement:
    """Settings of the refinement of training rows, applied in this order.

    Args:
        circle_share: Apply the circle test to instructions on which the mean outcome of the candidates is
            at most this, in (0, 1]; see :func:`circle_test`. None = no circle test.
        near_duplicates: Drop training rows whose similarity to a validation row, a test row or an earlier
            training row is at least this, in (0, 1]; 1 = equal texts, None = keep them. See
            :func:`satlight.records.duplicates.repeats`.
        max_per_dataset: Maximum number of training rows per dataset, drawn by a hash of the ids; None = all.

    Raises:
        SatlightError: A number out of range.

    Reference: circle test and about 100 instructions per dataset, [Zhang et al. 2025, §4].
    """

    circle_share: float | None = None
    near_duplicates: float | None = None
    max_per_dataset: int | None = None

    def __post_init__(self) -> None:
        for key in ("circle_share", "near_duplicates"):
            value = getattr(self, key)
            if value is not None and not 0 < value <= 1:
                raise SatlightError(f"{key} is {value}; it must lie in (0, 1], or be null")
        if self.max_per_dataset is not None and self.max_per_dataset < 1:
            raise SatlightError(f"max_per_dataset is {self.max_per_dataset}; it must be 1 or more, or null")

    def apply(
        self, records: PerformanceRecords, train_N: np.ndarray, *, candidates: list[str] | None = None, seed: int = 0
    ) -> tuple[PerformanceRecords, np.ndarray]:
        """Refine the rows ``train_N``.

        Args:
            records: N instructions with their splits, rotations included where there are any.
            train_N: bool (N,), the rows to refine.
            candidates: Names of the candidates that define which instructions are hard; None = all.
            seed: Seed of the cap.

        Returns:
            The N instructions with refined outcomes, and bool (N,): the rows of ``train_N`` to keep.

        Raises:
            SatlightError: A circle test without rotations, or an unknown ``rotation_of``.
        """
        if self.circle_share is not None:
            records = circle_test(records, train_N, self.circle_share, candidates)
        keep_N = train_N.copy()
        if self.near_duplicates is not None:
            fixed_N = np.isin(records.splits, ["validation", "test"])
            keep_N &= ~repeats(records, train_N, fixed_N, self.near_duplicates)
            log.info(
                "duplicates: %d of %d training instructions of %s are left out (similarity from %g on)",
                *(train_N.sum() - keep_N.sum(), train_N.sum(), records.name, self.near_duplicates),
            )
            if not keep_N.any():
                raise SatlightError(
                    f"near_duplicates={self.near_duplicates} leaves no training instruction of "
                    f"'{records.name}': all are as similar as that to a validation or test row; raise it"
                )
        if self.max_per_dataset is not None:
            before = int(keep_N.sum())
            keep_N = cap_per_dataset(records, keep_N, self.max_per_dataset, seed)
            log.info(
                "max_per_dataset=%d: %d of %d training instructions of %s are left out",
                *(self.max_per_dataset, before - keep_N.sum(), before, records.name),
            )
        return records, keep_N


def circle_test(
    records: PerformanceRecords, rows_N: np.ndarray, hard_share: float, candidates: list[str] | None = None
) -> PerformanceRecords:
    """Keep a candidate's success on a hard instruction only if it holds in every rotation.

    The refined outcome is the minimum over the instruction and its rotations (rows whose ``rotation_of`` is its id). If
    some outcomes on the rotations are unknown, a minimum of 0 is certain; otherwise the cell becomes unknown. A
    candidate without outcomes on the rotations keeps its outcome; the log counts such successes.

    Args:
        records: N instructions, rotations among them.
        rows_N: bool (N,), rows that may be refined.
        hard_share: Maximum mean outcome of the candidates on a hard instruction, in (0, 1].
        candidates: Names of the candidates to average over; None = all.

    Returns:
        New records, N × M.

    Raises:
        SatlightError: There are no rotations, or a rotation of an unknown instruction.
    """
    original_K, rotation_K = _pairs(records)
    columns = None if candidates is None else np.flatnonzero(np.isin(records.model_ids, candidates))
    tested_N = rows_N & is_hard(records, hard_share, columns)
    tested_N &= np.isin(np.arange(len(tested_N)), original_K)
    of_tested = tested_N[original_K]
    rows, place_K = np.unique(original_K[of_tested], return_inverse=True)
    known_KM = records.known[rotation_K[of_tested]]
    outcome_KM = np.where(known_KM, records.outcomes[rotation_K[of_tested]], 1)
    lowest = np.array(records.outcomes[rows])
    np.minimum.at(lowest, place_K, outcome_KM)
    answered = np.zeros(lowest.shape, dtype=np.int64)
    np.add.at(answered, place_K, known_KM)
    complete = answered == np.bincount(place_K, minlength=len(rows))[:, None]
    known = records.known[rows] & ((answered == 0) | complete | (lowest == 0))
    before = np.where(records.known[rows], records.outcomes[rows], 0)
    outcomes, all_known = np.array(records.outcomes), np.array(records.known)
    outcomes[rows], all_known[rows] = np.where(known, lowest, 0), known
    log.info(
        "circle test: of %d successes on %d hard instructions of %s, %d do not survive, %d are unknown now "
        "(a rotation has no outcome), %d were not tested again",
        *((before > 0).sum(), len(rows), records.name, (known & (lowest < before)).sum()),
        *((records.known[rows] & ~known).sum(), ((before > 0) & (answered == 0)).sum()),
    )
    return replace(records, outcomes=outcomes, known=all_known)


def _pairs(records: PerformanceRecords) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the originals and of the rotations, int64 (K,) each."""
    rotation_K = np.flatnonzero(rotations(records))
    if not len(rotation_K):
        raise SatlightError(
            f"The circle test needs instructions with rotated options, and '{records.name}' has none; make "
            "them with `satlight data rotate`, let the candidates answer them, or remove circle_share"
        )
    ids = records.instructions["instruction_id"].to_list()
    row_of = {instruction_id: row for row, instruction_id in enumerate(ids)}
    names = records.instructions["rotation_of"].to_list()
    rotation_rows = set(rotation_K.tolist())
    for row in rotation_K.tolist():
        original = row_of.get(str(names[row]))
        if original is None or original in rotation_rows:
            what = "which is not in the records" if original is None else "which is a rotation itself"
            raise SatlightError(
                f"The instruction '{ids[row]}' of '{records.name}' is a rotation of '{names[row]}', {what}; "
                "correct its rotation_of or remove the row"
            )
    return np.array([row_of[str(names[row])] for row in rotation_K.tolist()]), rotation_K


def cap_per_dataset(records: PerformanceRecords, rows_N: np.ndarray, limit: int, seed: int = 0) -> np.ndarray:
    """Select at most ``limit`` of the given rows of every dataset: bool (N,).

    The selection depends on seed and ids only, and a larger limit selects a superset.

    Args:
        records: N instructions.
        rows_N: bool (N,), rows to choose from.
        limit: At least 1.
        seed: Seed of the selection.
    """
    keep_N = np.zeros(len(rows_N), dtype=bool)
    ids = records.instructions["instruction_id"]
    for dataset in np.unique(records.datasets[rows_N]):
        rows = np.flatnonzero(rows_N & (records.datasets == dataset))
        draw = np.array([unit_hash(f"{seed}\0cap\0{ids[row]}") for row in rows.tolist()])
        keep_N[rows[np.argsort(draw, kind="stable")[:limit]]] = True
    return keep_N
