"""Assign rows to train, validation and test so that no text and no group is in two splits."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np

from satlight.errors import SatlightError
from satlight.images import content_keys
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import as_text, require_split

log = logging.getLogger(__name__)

DEFAULT_TEST_FRACTION = 0.3


def split_records(
    records: PerformanceRecords,
    *,
    validation_fraction: float = 0.1,
    seed: int = 0,
    group_column: str | None = None,
    test_fraction: float | None = None,
) -> np.ndarray:
    """Return the split of every instruction.

    *Test* rows are those of the ``split`` column. If the records have no split, or if ``test_fraction`` is
    given and there are no test rows, they are drawn by a hash of the group (or id), independent of the seed.
    Training and validation rows whose text (ignoring white space, including the image) or group also occurs
    in the test split are marked *dropped*. Rotations of other rows (:func:`rotations`) are dropped as well.

    *Validation* rows are drawn from the remaining rows of each dataset and share no text and no group with
    training rows. The draw within a dataset does not depend on the candidates or on other datasets (unless a
    group spans datasets). If there are validation rows already, they are kept and no more are drawn, so
    splitting twice changes nothing.

    Args:
        records: N instructions.
        validation_fraction: Fraction of the rows that are neither test nor dropped, in [0, 1).
        seed: Seed of the validation draw; test rows do not depend on it.
        group_column: Instructions with equal values in this column stay in one split, e.g. "cluster_id"; null
            = no group.
        test_fraction: Fraction of test rows to draw, in (0, 1); None = 0.3 if the records have no split.

    Returns:
        str (N,): "train", "validation", "test" or "dropped".

    Raises:
        SatlightError: A fraction out of range, an unknown group column, a test fraction for records that mark
            their own test rows, or an empty split.

    Example:
        >>> import polars as pl
        >>> from satlight.types import Candidate
        >>> table = pl.DataFrame({"instruction_id": list("abcd"), "dataset": ["d"] * 4, "task": ["t"] * 4,
        ...     "split": ["train", "train", "train", "test"],
        ...     "instruction": ["1 + 1", "2 + 2", "3 +  3", "3 + 3"]})
        >>> ones = np.ones((4, 1))
        >>> split_records(PerformanceRecords(table, (Candidate("tiny"),), ones, ones > 0),
        ...               validation_fraction=0.5).tolist()
        ['validation', 'train', 'dropped', 'test']
    """
    _check_fractions(validation_fraction, test_fraction)
    texts = _codes(text_keys(records))
    groups = _group_codes(records, group_column)
    split = _with_test(records, group_column, test_fraction)
    split[rotations(records)] = "dropped"
    _drop_shared(split, "test", ("train", "validation"), texts, groups)
    if (split == "validation").any():
        _drop_shared(split, "validation", ("train",), texts, groups)
    elif validation_fraction > 0 and (split == "train").any():
        _draw_validation(records, split, _components(texts, groups), validation_fraction, seed)
        if not (split == "validation").any():
            raise SatlightError(
                f"No validation rows can be drawn from '{records.name}': every dataset is a single text or "
                "group. Add instructions, choose another group_column, or set validation_fraction to 0."
            )
    _report_dropped(records, split)
    return split


def use_split(records: PerformanceRecords, column: str = "split") -> PerformanceRecords:
    """Take the given splits from another column of the instructions.

    Benchmarks may have several: BlindTest's ``split`` separates copies of one drawing, its ``split_group`` does not.

    Args:
        records: N instructions.
        column: Column of texts out of :data:`satlight.types.SPLITS`, in every row or in none.

    Returns:
        Records whose column ``split`` holds the values of ``column``.

    Raises:
        SatlightError: No such column, or other values; names the first instruction.

    Example:
        >>> import polars as pl
        >>> from satlight.types import Candidate
        >>> table = pl.DataFrame({"instruction_id": ["a", "b"], "dataset": ["d"] * 2, "task": ["t"] * 2,
        ...     "split": ["test", "train"], "instruction": ["1?", "2?"], "split_group": ["train", "test"]})
        >>> records = PerformanceRecords(table, (Candidate("tiny"),), np.ones((2, 1)), np.ones((2, 1)) > 0)
        >>> use_split(records, "split_group").splits.tolist()
        ['train', 'test']
    """
    if column == "split":
        return records
    if column not in records.instructions.columns:
        raise SatlightError(
            f"The instructions of '{records.name}' have no column '{column}' to take the split from. "
            f"Available: {listed(records.instructions.columns)}."
        )
    where = f"The instructions of '{records.name}'"
    frame = records.instructions.with_columns(as_text(records.instructions[column], where))
    require_split(frame, column, where)
    return replace(records, instructions=frame.with_columns(frame[column].alias("split")))


def rotations(records: PerformanceRecords) -> np.ndarray:
    """Return which rows are another row with its options rotated (column ``rotation_of``): bool (N,)."""
    if "rotation_of" not in records.instructions.columns:
        return np.zeros(records.shape[0], dtype=bool)
    return records.instructions["rotation_of"].is_not_null().to_numpy()


def _report_dropped(records: PerformanceRecords, split: np.ndarray) -> None:
    dropped = int((split == "dropped").sum())
    if dropped and not (split == "train").any():
        raise SatlightError(
            f"No training rows are left in '{records.name}': all share a text or group with another split "
            f"({dropped} rows dropped). Choose another group_column or split."
        )
    if dropped:
        _say_once(
            f"{dropped} of {len(split)} rows of {records.name} repeat another split, or are rotations of "
            "other rows, and are left out"
        )


@lru_cache(maxsize=100)
def _say_once(message: str) -> None:
    """Log a message once; a bench splits the same records for every seed and zoo setting."""
    log.info(message)


def _check_fractions(validation_fraction: float, test_fraction: float | None) -> None:
    if not 0 <= validation_fraction < 1:
        raise SatlightError(f"Got validation_fraction {validation_fraction}; it must be in [0, 1).")
    if test_fraction is not None and not 0 < test_fraction < 1:
        raise SatlightError(f"Got test_fraction {test_fraction}; it must be in (0, 1), or null.")


def text_keys(records: PerformanceRecords) -> list[str]:
    """Return keys that are equal for equal questions: the text with normalized white space, and what images hold."""
    return [
        question_key(text, content_keys(images)) for text, images in zip(records.texts, records.images, strict=True)
    ]


def question_key(text: str, image_keys: Sequence[str] = ()) -> str:
    """Return the key of :func:`text_keys` of one question, given the content keys of its images."""
    return " ".join(text.split()) + "".join(f"\0{key}" for key in image_keys)


def _codes(keys: list[str]) -> np.ndarray:
    """Return codes that are equal for equal keys, numbered by first occurrence: int64 (N,)."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)


def _group_values(records: PerformanceRecords, column: str) -> list[str | None]:
    if column not in records.instructions.columns:
        raise SatlightError(
            f"The instructions of '{records.name}' have no column '{column}' to group by. "
            f"Available: {listed(records.instructions.columns)}."
        )
    values = records.instructions[column].to_list()
    return [None if value is None or value != value else str(value) for value in values]  # NaN: no group


def _group_codes(records: PerformanceRecords, column: str | None) -> np.ndarray | None:
    if column is None:
        return None
    values = _group_values(records, column)
    ids = records.instructions["instruction_id"].to_list()
    # A row without a group is a group of its own.
    return _codes([f"\0{ids[row]}" if value is None else value for row, value in enumerate(values)])


def _with_test(records: PerformanceRecords, group_column: str | None, fraction: float | None) -> np.ndarray:
    """Return the split column, with test rows drawn if necessary."""
    split = records.splits.astype("<U10")
    absent = bool((split == "").all())
    if not absent and fraction is not None and (split == "test").any():
        raise SatlightError(
            f"Got test_fraction {fraction}, but '{records.name}' already marks {(split == 'test').sum()} "
            "test rows. Remove test_fraction."
        )
    if not absent and fraction is None:
        return split
    split[split == ""] = "train"
    keys = records.instructions["instruction_id"].to_list()
    if group_column is not None:
        groups = _group_values(records, group_column)
        keys = [key if group is None else group for key, group in zip(keys, groups, strict=True)]
    drawn = np.array([unit_hash(key) for key in keys]) >= 1 - (fraction or DEFAULT_TEST_FRACTION)
    split[drawn & (split != "dropped")] = "test"
    if not (split == "test").any():
        raise SatlightError(
            f"No test rows were drawn from the {len(split)} instructions of '{records.name}' "
            f"(share {fraction or DEFAULT_TEST_FRACTION}). Add instructions, or mark test rows in the column 'split'."
        )
    if not (split == "train").any():
        raise SatlightError(
            f"All {len(split)} instructions of '{records.name}' were drawn as test rows. Add "
            "instructions, or mark the rows in the column 'split'."
        )
    return split


def unit_hash(key: str) -> float:
    """Return a pseudo-random number in [0, 1) that depends only on ``key``."""
    return int(hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) / 2**32


def _drop_shared(
    split: np.ndarray, keep: str, leave: tuple[str, ...], texts: np.ndarray, groups: np.ndarray | None
) -> None:
    """Mark rows of the splits ``leave`` that share a text or group with the split ``keep`` as dropped."""
    for codes in (texts, groups):
        if codes is not None:
            split[np.isin(split, leave) & np.isin(codes, codes[split == keep])] = "dropped"


def _components(texts: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Return components connected by equal texts or groups, directly or through other rows: int (N,)."""
    if groups is None:
        return texts
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    # Graph with one node per text and one per group; every row is an edge between its text and its group.
    offset = int(texts.max()) + 1
    size = offset + int(groups.max()) + 1
    edges = coo_matrix((np.ones(len(texts), dtype=bool), (texts, groups + offset)), shape=(size, size))
    return connected_components(edges, directed=False)[1][texts]


def _draw_validation(
    records: PerformanceRecords, split: np.ndarray, components: np.ndarray, fraction: float, seed: int
) -> None:
    """Turn about ``fraction`` of each dataset's training rows into validation rows, in whole components."""
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(split == "train").tolist():
        members.setdefault(int(components[row]), []).append(row)
    keys = text_keys(records)
    strata: dict[str, list[tuple[float, list[int]]]] = {}
    for rows in members.values():
        # The place in the draw depends on the texts only, not on other datasets or the row order.
        place = min(unit_hash(f"{seed}\0{keys[row]}") for row in rows)
        strata.setdefault(min(str(records.datasets[row]) for row in rows), []).append((place, rows))
    for stratum in strata.values():
        if len(stratum) < 2:
            continue  # the only text or group is needed for training
        stratum.sort(key=lambda item: (item[0], item[1]))
        wanted = max(1, round(fraction * sum(len(rows) for _, rows in stratum)))
        taken = 0
        for _, rows in stratum[:-1]:
            if taken + len(rows) <= wanted:
                split[rows] = "validation"
                taken += len(rows)
        if not taken:  # every component is too large; take the smallest
            split[min((rows for _, rows in stratum), key=len)] = "validation"
