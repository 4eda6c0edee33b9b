"""Choose core tasks and core items: those on which the training candidates differ most.

Shape legend: N instructions, M candidates.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from satlight.errors import SatlightError
from satlight.records.matrix import PerformanceRecords
from satlight.records.split import text_keys

log = logging.getLogger(__name__)

FOREIGN_SPLITS = ("validation", "test", "dropped")


@dataclass(frozen=True)
class ChosenTask:
    """A core task as rows of the records: dataset, task name, rows of its core items, mean item weight."""

    dataset: str
    task: str
    rows: tuple[int, ...]
    weight: float


def item_weights(records: PerformanceRecords) -> np.ndarray:
    """Compute how well each instruction separates candidates: 4 p (1 - p), p = their mean outcome.

    The weight is 1 where half of the zoo succeeds and 0 where all or none do. It is multiplied by the share
    of candidates with a known outcome, so that an item which few have answered does not become a core item.

    Args:
        records: Records of the training candidates, N × M.

    Returns:
        float64 (N,) in [0, 1]; NaN where no candidate has an outcome.

    Reference:
        Zhang et al. 2025 prefer the most discriminative instructions; the parabola is our choice.
    """
    weight_N = np.empty(records.shape[0])
    for rows in records.row_chunks():
        known = records.known[rows]
        count = known.sum(axis=1)
        right = np.where(known, records.outcomes[rows], 0.0).sum(axis=1, dtype=np.float64)
        mean = np.divide(right, count, out=np.full(len(count), np.nan), where=count > 0)
        weight_N[rows] = 4 * mean * (1 - mean) * count / records.shape[1]
    return weight_N


def seed_hash(seed: int, salt: str, names: Sequence[str]) -> np.ndarray:
    """Return a pseudo-random uint64 per name, (n,), determined by seed, salt and name alone."""
    digests = b"".join(hashlib.blake2b(f"{seed}:{salt}:{name}".encode(), digest_size=8).digest() for name in names)
    return np.frombuffer(digests, dtype="<u8")


def choose_tasks(
    records: PerformanceRecords, num_tasks: int, num_shots: int, min_shots: int, max_share: float, seed: int
) -> list[ChosenTask]:
    """Choose the most discriminative tasks with their most discriminative items.

    Every dataset gets its best task before any dataset gets its second. Ties are broken by a hash of seed and name.

    Returns:
        At most ``num_tasks`` tasks, sorted by dataset and name; the rows of each in an order independent of
        their weight, so that the first K are a fair sample for any K.

    Raises:
        SatlightError: Rows of another split than train, or no task with enough core items.
    """
    foreign = np.isin(records.splits, FOREIGN_SPLITS)
    if foreign.any():
        raise SatlightError(
            f"Core items must come from the train split, but {foreign.sum()} of {len(foreign)} instructions belong to "
            f"another split, e.g. '{records.splits[foreign][0]}'. Pass records.filter(splits='train')."
        )
    ids = records.instructions["instruction_id"].to_list()
    weight_N = item_weights(records)
    tie_N, order_N = seed_hash(seed, "tie", ids), seed_hash(seed, "order", ids)
    # Rounding makes near-ties ties, so that the last bit of a sum cannot decide on another machine.
    best_first = np.lexsort((tie_N, -np.round(np.nan_to_num(weight_N, nan=-1.0), 6)))
    members = _members(records, best_first, weight_N)
    eligible: list[ChosenTask] = []
    counts: dict[str, int] = {}
    for (dataset, task), rows in members.items():
        shots = min(num_shots, math.floor(max_share * len(rows)))
        if shots < min_shots:
            counts[task] = len(rows)
            continue
        chosen = np.array(rows[:shots])
        weight = float(weight_N[chosen].mean())
        ordered = chosen[np.argsort(order_N[chosen], kind="stable")]
        eligible.append(ChosenTask(dataset, task, tuple(ordered.tolist()), weight))
    _report(counts, len(eligible), records.name, min_shots, max_share)
    return sorted(_round_robin(eligible, num_tasks, seed), key=lambda t: (t.dataset, t.task))


def _members(
    records: PerformanceRecords, best_first: np.ndarray, weight_N: np.ndarray
) -> dict[tuple[str, str], list[int]]:
    """Map (dataset, task) to its rows with an outcome, best first, each question once."""
    datasets, tasks, keys = records.datasets.tolist(), records.tasks.tolist(), text_keys(records)
    members: dict[tuple[str, str], list[int]] = {
        (dataset, task): [] for dataset, task in sorted(set(zip(datasets, tasks, strict=True)))
    }
    seen: set[tuple[str, str, str]] = set()
    for row in best_first.tolist():
        task = (datasets[row], tasks[row])
        question = (*task, keys[row])
        if not np.isnan(weight_N[row]) and question not in seen:
            seen.add(question)
            members[task].append(row)
    return members


def _round_robin(eligible: list[ChosenTask], num_tasks: int, seed: int) -> list[ChosenTask]:
    """Return the first ``num_tasks`` tasks, with datasets taking turns in order of task weight."""
    tie = seed_hash(seed, "task", [f"{task.dataset}:{task.task}" for task in eligible])
    by_weight = sorted(range(len(eligible)), key=lambda k: (-round(eligible[k].weight, 6), tie[k]))
    turns: dict[str, int] = {}
    turn_of: dict[int, int] = {}
    for k in by_weight:
        turn_of[k] = turns.get(eligible[k].dataset, 0)
        turns[eligible[k].dataset] = turn_of[k] + 1
    if len(turns) > num_tasks:
        log.warning("%d datasets but num_tasks=%d: some datasets get no core task", len(turns), num_tasks)
    # sorted() is stable, so within one turn the more discriminative task stays ahead.
    return [eligible[k] for k in sorted(by_weight, key=turn_of.__getitem__)[:num_tasks]]


def _report(counts: dict[str, int], num_eligible: int, name: str, min_shots: int, max_share: float) -> None:
    """Log which tasks had too few items; raise if no task is left."""
    needed = math.ceil(min_shots / max_share)
    shown = ", ".join(f"'{task}' has {count}" for task, count in sorted(counts.items())[:10])
    shown += f" and {len(counts) - 10} tasks more" if len(counts) > 10 else ""
    if not num_eligible:
        raise SatlightError(
            f"Every task of the records '{name}' is a task with too few core items: {shown}. A core task "
            f"needs {needed} different train instructions with outcomes, of which at least "
            f"min_shots={min_shots} and at most the share max_share={max_share} become core items. Lower "
            "data.aptitude.min_shots, or add train instructions."
        )
    if counts:
        log.info(
            "%d of %d tasks of '%s' have fewer than %d train instructions and do not become core tasks: %s",
            *(len(counts), len(counts) + num_eligible, name, needed, shown),
        )
