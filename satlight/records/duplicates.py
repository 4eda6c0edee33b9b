"""Find duplicate and near-duplicate instructions by their text.

Shape legend: N instructions, U distinct texts, P pairs of them.
"""

from __future__ import annotations

import numpy as np

from satlight.records.matrix import PerformanceRecords
from satlight.records.split import text_keys


def repeats(records: PerformanceRecords, rows_N: np.ndarray, fixed_N: np.ndarray, similarity: float) -> np.ndarray:
    """Return which of the given rows repeat a fixed row or an earlier given row that is itself kept.

    The similarity of two texts is the Jaccard index of their character 5-grams (within words,
    case-insensitive); 1 requires equal texts up to white space. Instructions with an image are duplicates
    only if both text and image are equal.

    Args:
        records: N instructions.
        rows_N: bool (N,), rows that may be duplicates.
        fixed_N: bool (N,), rows that are always kept.
        similarity: In (0, 1].

    Returns:
        bool (N,), True for duplicates.

    Example:
        >>> import polars as pl
        >>> from satlight.types import Candidate
        >>> table = pl.DataFrame({"instruction_id": list("abc"), "dataset": ["d"] * 3, "task": ["t"] * 3,
        ...     "split": ["test", "train", "train"], "instruction": ["Add 2 to 3.", "Add  2 to 3.", "Sort."]})
        >>> records = PerformanceRecords(table, (Candidate("tiny"),), np.ones((3, 1)), np.ones((3, 1)) > 0)
        >>> repeats(records, records.splits == "train", records.splits == "test", 1.0).tolist()
        [False, True, False]
    """
    keys = text_keys(records)
    rows = np.flatnonzero(rows_N | fixed_N)
    # Fixed rows first, so that every row is compared with the rows before it.
    rows = rows[np.argsort(~fixed_N[rows], kind="stable")]
    first: dict[str, int] = {}
    repeat_N = np.zeros(len(keys), dtype=bool)
    for row in rows.tolist():
        repeat_N[row] = first.setdefault(keys[row], row) != row and rows_N[row] and not fixed_N[row]
    if similarity == 1:
        return repeat_N
    plain = {key.partition("\0")[0]: row for key, row in first.items() if not key.partition("\0")[2]}
    unique = list(plain.values())
    for earlier, later in similar_pairs(list(plain), similarity):
        # Pairs are sorted by the later row, so the state of the earlier row is final.
        one, other = unique[earlier], unique[later]
        if not fixed_N[other] and not repeat_N[one]:
            repeat_N[other] = True
    return repeat_N


def similar_pairs(texts: list[str], similarity: float) -> list[tuple[int, int]]:
    """Return all pairs of texts with a Jaccard index of at least ``similarity``, smaller index first.

    The result is exact without comparing all pairs: two sets of sizes a and b with a Jaccard index of at
    least s share one of the a - ceil(s·a) + 1 rarest elements of the first, and likewise of the second.

    Args:
        texts: U texts.
        similarity: In (0, 1).

    Returns:
        P pairs, sorted by the larger index, then by the smaller one.

    Reference: prefix filtering, Bayardo, Ma, Srikant 2007, "Scaling Up All Pairs Similarity Search", WWW.

    Example:
        >>> similar_pairs(["Add twelve to seven.", "Sort a list.", "add twelve to seven!"], 0.5)
        [(0, 2)]
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    if len(texts) < 2:
        return []
    pieces = CountVectorizer(analyzer="char_wb", ngram_range=(5, 5), binary=True, dtype=np.int32)
    holds = pieces.fit_transform(texts)
    size_U = np.diff(holds.indptr)
    row = np.repeat(np.arange(len(texts)), size_U)
    rarity = np.bincount(holds.indices, minlength=holds.shape[1])
    order = np.lexsort((holds.indices, rarity[holds.indices], row))
    place = np.arange(len(row)) - holds.indptr[row]
    rare = order[place < (size_U - np.ceil(similarity * size_U - 1e-9) + 1)[row]]
    prefix = csr_matrix((np.ones(len(rare), np.int32), (row[rare], holds.indices[rare])), holds.shape)
    pairs = []
    step = 1024
    for start in range(0, len(texts), step):
        shared = (prefix[start : start + step] @ prefix.T).tocoo()
        later, earlier = shared.row + start, shared.col
        later, earlier = later[earlier < later], earlier[earlier < later]
        both = np.asarray(holds[later].multiply(holds[earlier]).sum(axis=1)).ravel()
        near = both >= similarity * (size_U[later] + size_U[earlier] - both) - 1e-9
        found = sorted(zip(later[near].tolist(), earlier[near].tolist(), strict=True))
        pairs += [(one, other) for other, one in found]
    return pairs
