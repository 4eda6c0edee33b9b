"""Rotate the options of multiple-choice instructions, to distinguish knowledge from lucky guesses.

Shape legend: N instructions, M candidates, K rotations.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase, ascii_uppercase
from typing import Any

import numpy as np
import polars as pl

from satlight.errors import SatlightError
from satlight.records.matrix import PerformanceRecords
from satlight.records.split import rotations, split_records

LABELS = (ascii_uppercase, ascii_lowercase, "123456789")
"""Supported labels of options."""


@dataclass(frozen=True)
class Options:
    """Positions of the options in the text of an instruction.

    Args:
        spans: Start and end of each option's text, without its label.
        labels: Label of each option, e.g. "A", "B", "C".
    """

    spans: tuple[tuple[int, int], ...]
    labels: tuple[str, ...]


def find_options(text: str, choices: Sequence[str]) -> Options | None:
    """Find the last occurrence of all labeled options ("A. red", "(b) red", "1: red") in a text.

    The last one, because worked examples may precede the question.

    Returns:
        None if the options are not labeled, not in this order or not contiguous.

    Example:
        >>> find_options("Which? A) red B) blue", ["red", "blue"]).labels
        ('A', 'B')
    """
    if len(choices) < 2 or not all(choice.strip() for choice in choices):
        return None
    words = [r"\s+".join(map(re.escape, choice.split())) for choice in choices]
    found: list[tuple[int, Options]] = []
    for labels in LABELS:
        marks = [rf"(?<!\w)[(\[]?{label}[.):\]．、：]+\s*" for label in labels[: len(choices)]]
        # Few texts contain all kinds of labels; compiling the whole pattern costs more than this check.
        if len(marks) < len(choices) or not all(re.search(mark, text) for mark in (marks[0], marks[-1])):
            continue
        parts = [f"{mark}({option})" + r"(?!\w)" for mark, option in zip(marks, words, strict=True)]
        for match in re.finditer(r"\s+".join(parts), text):
            spans = tuple(match.span(number + 1) for number in range(len(choices)))
            found.append((match.start(), Options(spans, tuple(labels[: len(choices)]))))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def refers_to_others(choices: Sequence[str], labels: Sequence[str]) -> bool:
    """Return True if an option refers to others by position or label, so that moving it changes its meaning.

    Example:
        >>> refers_to_others(["red", "Both A and C"], "AB"), refers_to_others(["red", "a reddish blue"], "ab")
        (True, False)
        >>> refers_to_others(["red", "None of the above"], "AB")
        True
    """
    one = f"(?:{'|'.join(ascii_uppercase[: max(3, len(labels))])})"
    pattern = rf"\bof the (?:above|below)\b|\b[(]?{one}[)]?\s*(?:,|&|and|or|nor)\s*[(]?{one}\b|\([A-H]\)"
    return any(re.search(pattern, choice) for choice in choices)


def rotate_text(text: str, options: Options, shift: int) -> str:
    """Move every option ``shift`` places down, the last ones to the top; labels stay in place.

    Example:
        >>> rotate_text("Which? A) red B) blue C) green", find_options(
        ...     "Which? A) red B) blue C) green", ["red", "blue", "green"]), 1)
        'Which? A) green B) red C) blue'
    """
    pieces, end = [], 0
    for place, span in enumerate(options.spans):
        start, stop = options.spans[(place - shift) % len(options.spans)]
        pieces += [text[end : span[0]], text[start:stop]]
        end = span[1]
    return "".join([*pieces, text[end:]])


def rotate_records(
    records: PerformanceRecords, hard_share: float = 0.3, group_column: str | None = None
) -> tuple[PerformanceRecords, list[str]]:
    """Add rotations of hard multiple-choice instructions, without outcomes.

    An instruction with n options gets n - 1 rotations; rotation s moves every option s places down. Rotations
    follow the original row and have the id ``ID-rotation-s``, the original id in the column ``rotation_of``
    and no outcomes. ``choices`` and ``answer`` are adapted, other columns are copied.

    Only training instructions that some, but few candidates answer correctly are rotated.

    Args:
        records: N instructions with a column ``choices`` (lists of texts) and optionally ``answer``: label or
            text of an option.
        hard_share: Maximum mean outcome of the candidates on a hard instruction, in (0, 1].
        group_column: As in :func:`satlight.records.split_records`.

    Returns:
        N + K instructions, and notes, one sentence each.

    Raises:
        SatlightError: No choices, an answer that is not an option, nothing to rotate, or rotations exist.
    """
    if not 0 < hard_share <= 1:
        raise SatlightError(f"The share of a hard instruction is {hard_share}; it must lie in (0, 1]")
    table = records.instructions
    if "choices" not in table.columns or not isinstance(table["choices"].dtype, pl.List):
        raise SatlightError(
            f"The instructions of '{records.name}' have no column 'choices' with lists of texts, "
            "which rotation needs. See docs/data_format.md."
        )
    if rotations(records).any():
        raise SatlightError(f"'{records.name}' holds rotations already (column 'rotation_of').")
    split = split_records(records, validation_fraction=0.0, group_column=group_column)
    hard_N = (split == "train") & is_hard(records, hard_share)
    rows, source, skipped = [], [], Counter[str]()
    for row in np.flatnonzero(hard_N).tolist():
        made = _rotations_of(table.row(row, named=True), skipped)
        rows += made
        source += [row] * len(made)
    if not rows:
        raise SatlightError(
            f"No instruction of '{records.name}' can be rotated: {int(hard_N.sum())} are training "
            f"instructions that some candidate, but at most {hard_share:.0%} of them get right"
            + "".join(f", {count} of them {reason}" for reason, count in skipped.items())
            + ". Raise --circle-share, or see docs/refinement.md for what can be rotated."
        )
    notes = [f"{len(set(source))} hard instructions have {len(rows)} rotations, which have no outcomes yet."]
    notes += [f"{count} hard instructions are not rotated: they {what}." for what, count in skipped.items()]
    return _with_rows(records, rows, np.array(source)), notes


def is_hard(records: PerformanceRecords, share: float, columns: np.ndarray | None = None) -> np.ndarray:
    """Return which instructions have a mean outcome above 0 and at most ``share``: bool (N,).

    Args:
        records: N instructions.
        share: In (0, 1].
        columns: Candidates to average over; None = all.
    """
    outcomes = records.outcomes if columns is None else records.outcomes[:, columns]
    known = records.known if columns is None else records.known[:, columns]
    count_N = known.sum(axis=1)
    right_N = np.where(known, outcomes, 0).sum(axis=1, dtype=np.float64)
    return (right_N > 0) & (right_N <= share * count_N + 1e-9)


def _rotations_of(row: dict[str, Any], skipped: Counter[str]) -> list[dict[str, Any]]:
    """Return the rotated rows of one instruction; if it cannot be rotated, none, and count the reason."""
    choices = row["choices"]
    if choices is None:
        skipped["have no choices"] += 1
        return []
    if any(choice is None for choice in choices) or (options := find_options(row["instruction"], choices)) is None:
        skipped["do not show their choices, labeled and in order, in the text"] += 1
        return []
    if refers_to_others(choices, options.labels):
        skipped["have an option that refers to others (such as 'none of the above')"] += 1
        return []
    return [
        {
            **row,
            "instruction_id": f"{row['instruction_id']}-rotation-{shift}",
            "instruction": rotate_text(row["instruction"], options, shift),
            "choices": choices[-shift:] + choices[:-shift],
            "answer": _answer(row, options, shift),
            "rotation_of": row["instruction_id"],
        }
        for shift in range(1, len(choices))
    ]


def _answer(row: dict[str, Any], options: Options, shift: int) -> str | None:
    answer = row.get("answer")
    if answer in options.labels:
        return options.labels[(options.labels.index(answer) + shift) % len(options.labels)]
    if answer is None or answer in row["choices"]:
        return answer  # the text of an option stays correct in every position
    raise SatlightError(
        f"The instruction '{row['instruction_id']}' has the answer {answer!r}, which is neither a label of "
        f"its options ({', '.join(options.labels)}) nor one of its choices; correct it, or make it null"
    )


def _with_rows(records: PerformanceRecords, rows: list[dict[str, Any]], source: np.ndarray) -> PerformanceRecords:
    """Insert rows without outcomes, each after its source row."""
    table = records.instructions.with_columns(pl.lit(None, pl.String).alias("rotation_of"))
    if "answer" not in table.columns:
        rows = [{key: value for key, value in row.items() if key != "answer"} for row in rows]
    table = pl.concat([table, pl.DataFrame(rows, schema=table.schema)])
    origin = np.concatenate([np.arange(records.shape[0]), source])
    order = np.argsort(origin, kind="stable")

    def add(matrix: np.ndarray | None, empty: float | bool) -> np.ndarray | None:
        if matrix is None:
            return None
        added = np.full((len(source), records.shape[1]), empty, dtype=matrix.dtype)
        return np.concatenate([matrix, added])[order]

    outcomes, known = add(records.outcomes, 0), add(records.known, False)
    assert outcomes is not None
    assert known is not None
    return replace(
        records,
        instructions=table[order],
        outcomes=outcomes,
        known=known,
        costs=add(records.costs, np.nan),
        expected=add(records.expected, np.nan),
    )
