"""Hard negatives: the nearest instructions that the same candidate fails. Arrays in, indices out.

Legend: R instructions (rows), C candidates (columns), D features, Q queries, K neighbours,
P pairs of a row and a column. An index of -1 means "none" everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from satlight.errors import SatlightError
from satlight.files import atomic_path

FLAT_ROWS, HNSW_ROWS = 50_000, 300_000
"""Up to so many rows ``auto`` takes an exact index, then a graph; beyond, inverted lists."""

SEARCH_CELLS = 1 << 22
"""Neighbours (queries x hits) that are in memory at once."""

TIE = 5
"""Cosines that agree in so many decimals are ties: float32 products differ in the last bits."""

Kind = Literal["auto", "flat", "hnsw", "ivf"]


class InstructionIndex:
    """An index over instruction vectors that is searched by cosine.

    ``flat`` compares with every row and is exact; ``hnsw`` (a graph) and ``ivf`` (inverted lists) look at a
    part of the rows and may miss a neighbour. All three repeat themselves exactly on one machine: they are
    built and searched on one thread.

    Args:
        index: A faiss index of unit vectors with inner product; :meth:`build` or :meth:`load` makes one.

    Example:
        >>> index = InstructionIndex.build(np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]]))
        >>> cosine_QK, row_QK = index.search(np.array([[1.0, 0.0]]), 2)
        >>> row_QK.tolist(), [f"{cosine:.1f}" for cosine in cosine_QK[0]]
        ([[0, 1]], ['1.0', '0.6'])
    """

    def __init__(self, index: Any) -> None:
        self._index = index

    @classmethod
    def build(cls, vector_RD: np.ndarray, kind: Kind = "auto") -> InstructionIndex:
        """Index the rows of ``vector_RD``.

        Args:
            vector_RD: R vectors of any length; a row of zeros is nobody's neighbour.
            kind: ``auto`` chooses by R.

        Raises:
            SatlightError: No row, not two dimensions, or a number that is not finite.
        """
        import faiss

        unit_RD = unit_rows(vector_RD)
        size, width = unit_RD.shape
        if kind == "auto":
            kind = "flat" if size <= FLAT_ROWS else "hnsw" if size <= HNSW_ROWS else "ivf"
        index: Any
        if kind == "flat":
            index = faiss.IndexFlatIP(width)
        elif kind == "hnsw":
            index = faiss.IndexHNSWFlat(width, 32, faiss.METRIC_INNER_PRODUCT)
            index.hnsw.efConstruction, index.hnsw.efSearch = 80, 256
        else:
            lists = max(1, min(round(4 * size**0.5), size // 39))  # faiss wants 39 training rows a list
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, lists, faiss.METRIC_INNER_PRODUCT)
            index.nprobe = max(1, min(lists, round(lists**0.5)))
        with _one_thread():
            index.train(unit_RD)
            index.add(unit_RD)
        return cls(index)

    @property
    def size(self) -> int:
        """R, rows in the index."""
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """D, features of a vector."""
        return int(self._index.d)

    def search(self, query_QD: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The ``count`` rows with the highest cosine to each query, ties in the order of the rows.

        Args:
            query_QD: Q vectors of the index's width.
            count: K, at least 1.

        Returns:
            Cosines float32 (Q, K), NaN where there is none, and rows int64 (Q, K), -1 where there is none:
            the index holds fewer than K rows, or an approximate one found fewer.

        Raises:
            SatlightError: Vectors of another width, or numbers that are not finite.
        """
        if count < 1:
            raise SatlightError(f"The index was asked for {count} neighbours; it must be 1 or more")
        unit_QD = unit_rows(query_QD)
        if unit_QD.shape[1] != self.width:
            raise SatlightError(
                f"The index holds vectors of {self.width} features, but the query has {unit_QD.shape[1]}; "
                "both must come from the same encoder"
            )
        with _one_thread():
            cosine_QK, row_QK = self._index.search(unit_QD, count)
        cosine_QK = np.where(row_QK >= 0, cosine_QK, np.nan)
        order_QK = np.lexsort((np.where(row_QK < 0, self.size, row_QK), -_rounded(cosine_QK)), axis=1)
        return np.take_along_axis(cosine_QK, order_QK, 1), np.take_along_axis(row_QK, order_QK, 1)

    def save(self, path: Path | str) -> None:
        """Write the index to one file, whole or not at all."""
        import faiss

        with atomic_path(path) as temporary:
            faiss.write_index(self._index, str(temporary))

    @classmethod
    def load(cls, path: Path | str) -> InstructionIndex:
        """Read what :meth:`save` wrote.

        Raises:
            SatlightError: There is no such file, or it is no index.
        """
        import faiss

        if not Path(path).is_file():
            raise SatlightError(f"There is no index at {path}; InstructionIndex.save writes one")
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise SatlightError(f"{path} is no index of instructions ({reason}); build it anew") from None
        return cls(index)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Hold faiss to one thread: a graph depends on the order in which threads add to it, and on macOS faiss
    and torch bring an OpenMP each."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def _rounded(cosine: np.ndarray) -> np.ndarray:
    return np.round(np.nan_to_num(cosine, nan=-2.0), TIE)


def unit_rows(vector_RD: np.ndarray) -> np.ndarray:
    """The rows scaled to length 1 as a new float32 array in the layout faiss needs; zeros stay zeros.

    Raises:
        SatlightError: No row, not two dimensions, or a number that is not finite.
    """
    vector_RD = np.asarray(vector_RD)
    if vector_RD.ndim != 2 or 0 in vector_RD.shape:
        raise SatlightError(
            f"Instruction vectors have the shape {vector_RD.shape}; it must be (instructions, features)"
        )
    wrong_R = ~np.isfinite(vector_RD).all(axis=1)
    if wrong_R.any():
        raise SatlightError(
            f"The instruction vector of row {int(wrong_R.argmax())} holds NaN or infinity "
            f"({int(wrong_R.sum())} of {len(wrong_R)} rows do); check what made the vectors"
        )
    length_R = np.linalg.norm(vector_RD.astype(np.float64), axis=1, keepdims=True)
    return np.ascontiguousarray(vector_RD / np.where(length_R > 0, length_R, 1), dtype=np.float32)


def neighbours(
    index: InstructionIndex, vector_RD: np.ndarray, count: int, near_duplicate: float = 1.0
) -> np.ndarray:
    """The nearest other instructions of every instruction: int64 (R, count), nearest first, -1 = none.

    Left out are the instruction itself, by its row number, and near-duplicates of it. More is searched until
    ``count`` are found, so that neither takes a place.

    Args:
        index: Index of these very vectors.
        vector_RD: R vectors; a row of zeros has no neighbours and is none.
        count: K.
        near_duplicate: A cosine above it makes a near-duplicate, in (-1, 1]; 1 = none is left out.

    Example:
        >>> vector_RD = np.array([[1.0, 0.0], [1.0, 0.01], [0.8, 0.6], [0.0, 1.0]])
        >>> neighbours(InstructionIndex.build(vector_RD), vector_RD, 2, near_duplicate=0.99).tolist()
        [[2, 3], [2, 3], [1, 0], [2, 1]]
    """
    unit_RD = unit_rows(vector_RD)
    if index.size != len(unit_RD):
        raise SatlightError(
            f"The index holds {index.size} instructions, but {len(unit_RD)} vectors were given; "
            "build it from the same vectors"
        )
    has_vector_R = np.asarray(unit_RD.any(axis=1))
    found_RK = np.full((len(unit_RD), count), -1, dtype=np.int64)
    pending, wide = np.flatnonzero(has_vector_R), count + 16  # itself, a few near-duplicates, the last hit
    while len(pending):
        wide = min(wide, index.size)
        unfinished = []
        step = max(1, SEARCH_CELLS // wide)
        for rows in (pending[i : i + step] for i in range(0, len(pending), step)):
            cosine_QW, row_QW = index.search(unit_RD[rows], wide)
            good_QW = (row_QW >= 0) & (row_QW != rows[:, None]) & has_vector_R[row_QW]
            with np.errstate(invalid="ignore"):
                good_QW &= _rounded(cosine_QW) <= near_duplicate
            found_RK[rows] = first_where(row_QW, good_QW, count)
            # Ties of the last hit may lie outside; only hits above it are sure to be the nearest.
            above_QW = good_QW & (_rounded(cosine_QW) > _rounded(cosine_QW[:, -1:]))
            exhausted_Q = (row_QW < 0).any(axis=1) | (wide == index.size)
            unfinished.append(rows[(above_QW.sum(axis=1) < count) & ~exhausted_Q])
        pending, wide = np.concatenate(unfinished), wide * 4
    return found_RK


def first_where(value_PK: np.ndarray, good_PK: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` good values of every row, in their order: int64 (P, count), -1 where none is left.

    Example:
        >>> first_where(np.array([[7, 8, 9]]), np.array([[True, False, True]]), 3).tolist()
        [[7, 9, -1]]
    """
    order_PK = np.argsort(~good_PK, axis=1, kind="stable")[:, :count]
    picked_PK = np.where(
        np.take_along_axis(good_PK, order_PK, 1), np.take_along_axis(value_PK, order_PK, 1), -1
    )
    short = count - picked_PK.shape[1]
    return np.pad(picked_PK.astype(np.int64), ((0, 0), (0, max(0, short))), constant_values=-1)


def hard_negatives(
    near_RK: np.ndarray,
    row_P: np.ndarray,
    column_P: np.ndarray,
    target_RC: np.ndarray,
    known_RC: np.ndarray,
    count: int,
    margin: float = 0.0,
) -> np.ndarray:
    """For positives (row, column), the nearest instructions that the same candidate fails.

    Args:
        near_RK: What :func:`neighbours` returns, or a window of its columns.
        row_P: Instruction of each positive.
        column_P: Candidate of each positive.
        target_RC: Outcomes in [0, 1]; below 0.5 is a failure.
        known_RC: bool, False where no record exists; such a cell is no failure.
        count: K, negatives wanted.
        margin: A negative's target lies at least so far below the positive's, in [0, 1].

    Returns:
        int64 (P, K) rows, nearest first, -1 where the neighbourhood holds no more.

    Example:
        >>> near, positive = np.array([[1, 2, 3]]), np.array([0])
        >>> target, known = np.array([[1.0], [1.0], [0.0], [0.4]]), np.ones((4, 1), dtype=bool)
        >>> hard_negatives(near, positive, positive, target, known, 2).tolist()
        [[2, 3]]
    """
    near_PK = near_RK[row_P]
    cell_PK = np.maximum(near_PK, 0), column_P[:, None]  # -1 would read the last row
    target_PK = target_RC[cell_PK]
    gap_PK = target_RC[row_P, column_P][:, None] - target_PK
    failed_PK = (near_PK >= 0) & known_RC[cell_PK] & (target_PK < 0.5) & (gap_PK >= margin)
    return first_where(near_PK, failed_PK, count)


@dataclass(frozen=True)
class Hardness:
    """How hard mined negatives are.

    Args:
        mined: Mean cosine of an instruction and its mined negatives; NaN if there are none.
        random: The same for as many random negatives of its task.
        negatives: Negatives in all.
        filled: How many of them come from the task, since the neighbourhood held too few.
    """

    mined: float
    random: float
    negatives: int
    filled: int

    @property
    def share_filled(self) -> float:
        """``filled`` as a share of all, in [0, 1]."""
        return self.filled / max(1, self.negatives)

    def __str__(self) -> str:
        return (
            f"mean cosine {self.mined:.3f} (random negatives of the same task {self.random:.3f}), "
            f"{self.filled} of {self.negatives} filled from the same task ({self.share_filled:.1%})"
        )


def mean_cosine(vector_RD: np.ndarray, row_P: np.ndarray, other_P: np.ndarray) -> float:
    """Mean cosine of P pairs of rows; NaN where there is no pair.

    Example:
        >>> vector_RD = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
        >>> mean_cosine(vector_RD, np.array([0, 0]), np.array([1, 2]))
        0.5
    """
    if not len(row_P):
        return float("nan")
    unit_RD = unit_rows(vector_RD)
    return float(np.einsum("pd,pd->p", unit_RD[row_P], unit_RD[other_P]).mean())
