"""Hard negatives: the nearest instructions that the same candidate fails, as arrays of indices.

Legend: R instructions (rows), C candidates (columns), D features, Q queries, K neighbors,
P pairs of a row and a column. An index of -1 means "none".
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from satlight.errors import SatlightError
from satlight.files import atomic_path

FLAT_ROWS, HNSW_ROWS = 50_000, 300_000
"""Maximum number of rows for which ``auto`` builds an exact index, and a graph; above it, inverted lists."""

SEARCH_CELLS = 1 << 22
"""Maximum number of neighbors (queries × hits) in memory at once."""

TIE = 5
"""Decimals to which cosines must agree to be ties: float32 products differ in the last bits."""

Kind = Literal["auto", "flat", "hnsw", "ivf"]


class InstructionIndex:
    """An index of instruction vectors, searched by cosine.

    ``flat`` compares with every row and is exact; ``hnsw`` (a graph) and ``ivf`` (inverted lists) search a part of the
    rows and may miss a neighbor. All three are deterministic on one machine: they are built and searched on one thread.

    Args:
        index: A faiss index of unit vectors with inner product, see :meth:`build` and :meth:`load`.

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
            vector_RD: R vectors of any length; a row of zeros is never a neighbor.
            kind: ``auto`` chooses by R.

        Raises:
            SatlightError: No rows, not two dimensions, or a value that is not finite.
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
        """Return the ``count`` rows with the highest cosine to each query, ties in row order.

        Args:
            query_QD: Q vectors of the index's width.
            count: K, at least 1.

        Returns:
            Cosines float32 (Q, K) and rows int64 (Q, K); NaN and -1 where the index has fewer than K rows or
            an approximate search found fewer.

        Raises:
            SatlightError: Vectors of another width, or values that are not finite.
        """
        if count < 1:
            raise SatlightError(f"InstructionIndex.search got count {count}; it must be 1 or more")
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
        """Write the index to one file, atomically."""
        import faiss

        with atomic_path(path) as temporary:
            faiss.write_index(self._index, str(temporary))

    @classmethod
    def load(cls, path: Path | str) -> InstructionIndex:
        """Load an index that :meth:`save` wrote.

        Raises:
            SatlightError: The file does not exist or is not an index.
        """
        import faiss

        if not Path(path).is_file():
            raise SatlightError(f"{path} does not exist; write an index with InstructionIndex.save")
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise SatlightError(f"{path} is not an instruction index ({reason}); build it again") from None
        return cls(index)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit faiss to one thread: a graph depends on the order in which threads add to it, and on macOS faiss
    and torch each load an OpenMP."""
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
    """Scale rows to length 1, as a new C-contiguous float32 array; rows of zeros stay zeros.

    Raises:
        SatlightError: No rows, not two dimensions, or a value that is not finite.
    """
    vector_RD = np.asarray(vector_RD)
    if vector_RD.ndim != 2 or 0 in vector_RD.shape:
        raise SatlightError(f"Instruction vectors have shape {vector_RD.shape}; it must be (instructions, features)")
    wrong_R = ~np.isfinite(vector_RD).all(axis=1)
    if wrong_R.any():
        raise SatlightError(
            f"The instruction vector of row {int(wrong_R.argmax())} holds NaN or infinity "
            f"({int(wrong_R.sum())} of {len(wrong_R)} rows do); check the encoder"
        )
    length_R = np.linalg.norm(vector_RD.astype(np.float64), axis=1, keepdims=True)
    return np.ascontiguousarray(vector_RD / np.where(length_R > 0, length_R, 1), dtype=np.float32)


def neighbors(index: InstructionIndex, vector_RD: np.ndarray, count: int, near_duplicate: float = 1.0) -> np.ndarray:
    """Find the nearest other instructions of every instruction: int64 (R, count), nearest first, -1 = none.

    The instruction itself, by row number, and its near-duplicates are excluded. The search is widened until
    ``count`` others are found.

    Args:
        index: Index of the same vectors.
        vector_RD: R vectors; a row of zeros has no neighbors and is never one.
        count: K.
        near_duplicate: Cosine above which an instruction is a near-duplicate, in (-1, 1]; 1 = exclude none.

    Example:
        >>> vector_RD = np.array([[1.0, 0.0], [1.0, 0.01], [0.8, 0.6], [0.0, 1.0]])
        >>> neighbors(InstructionIndex.build(vector_RD), vector_RD, 2, near_duplicate=0.99).tolist()
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
    pending, wide = (np.flatnonzero(has_vector_R), count + 16)  # for itself, near-duplicates, the last hit
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
            # Ties of the last hit may be outside; only hits above it are certain to be the nearest.
            above_QW = good_QW & (_rounded(cosine_QW) > _rounded(cosine_QW[:, -1:]))
            exhausted_Q = (row_QW < 0).any(axis=1) | (wide == index.size)
            unfinished.append(rows[(above_QW.sum(axis=1) < count) & ~exhausted_Q])
        pending, wide = np.concatenate(unfinished), wide * 4
    return found_RK


def first_where(value_PK: np.ndarray, good_PK: np.ndarray, count: int) -> np.ndarray:
    """Return the first ``count`` good values of every row, in order: int64 (P, count), padded with -1.

    Example:
        >>> first_where(np.array([[7, 8, 9]]), np.array([[True, False, True]]), 3).tolist()
        [[7, 9, -1]]
    """
    order_PK = np.argsort(~good_PK, axis=1, kind="stable")[:, :count]
    picked_PK = np.where(np.take_along_axis(good_PK, order_PK, 1), np.take_along_axis(value_PK, order_PK, 1), -1)
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
    """Find the nearest instructions that the candidate of each positive (row, column) fails.

    Args:
        near_RK: The result of :func:`neighbors`, or some of its columns.
        row_P: Instruction of each positive.
        column_P: Candidate of each positive.
        target_RC: Outcomes in [0, 1]; below 0.5 is a failure.
        known_RC: bool, False where no record exists; such a cell is not a failure.
        count: K, negatives per positive.
        margin: Minimum difference between the targets of a positive and its negative, in [0, 1].

    Returns:
        int64 (P, K) rows, nearest first, padded with -1.

    Example:
        >>> near, positive = np.array([[1, 2, 3]]), np.array([0])
        >>> target, known = np.array([[1.0], [1.0], [0.0], [0.4]]), np.ones((4, 1), dtype=bool)
        >>> hard_negatives(near, positive, positive, target, known, 2).tolist()
        [[2, 3]]
    """
    near_PK = near_RK[row_P]
    cell_PK = np.maximum(near_PK, 0), column_P[:, None]  # -1 would index the last row
    target_PK = target_RC[cell_PK]
    gap_PK = target_RC[row_P, column_P][:, None] - target_PK
    failed_PK = (near_PK >= 0) & known_RC[cell_PK] & (target_PK < 0.5) & (gap_PK >= margin)
    return first_where(near_PK, failed_PK, count)


def mean_cosine(vector_RD: np.ndarray, row_P: np.ndarray, other_P: np.ndarray) -> float:
    """Return the mean cosine of P pairs of rows; NaN if P is 0.

    Example:
        >>> vector_RD = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0]])
        >>> mean_cosine(vector_RD, np.array([0, 0]), np.array([1, 2]))
        0.5
    """
    if not len(row_P):
        return float("nan")
    unit_RD = unit_rows(vector_RD)
    return float(np.einsum("pd,pd->p", unit_RD[row_P], unit_RD[other_P]).mean())
