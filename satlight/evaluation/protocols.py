"""Protocols: what a router may know before it is judged, and between whom it then chooses.

A protocol takes records with splits and yields settings; any router goes through them, here a baseline::

    for setting in unseen_candidates(records, folds=3, probes=64, seed=0):
        baseline.fit(setting.train, embed)
        score_NM = baseline.predict(setting.test.texts, setting.test.model_ids)
        results = evaluate(score_NM, setting.test, setting.train, setting.groups)

A router that has scored everything once, satlight's own after ``lightning predict`` for instance, uses
:meth:`satlight.routing.scores.StoredScores.of` in place of fit and predict.

Shape legend: N instructions and M candidates of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from satlight.errors import SatlightError
from satlight.evaluation.controls import matrices
from satlight.metrics.functional import group_means
from satlight.records import PerformanceRecords
from satlight.records.groups import check_groups
from satlight.records.names import listed

Groups = dict[str, list[str]]


class Setting(NamedTuple):
    """One thing to judge a router on.

    Args:
        name: For tables.
        train: All that may be learned from: rows of the splits train and validation. What must not be known
            is unknown there (mask, outcomes and costs); true probabilities are never in it.
        test: What is judged: test rows, and the candidates to choose between.
        groups: Named groups of its datasets, for macro means; None = one group of all.
        about: Facts of the setting for reports: numbers, and names of candidates or tasks.
    """

    name: str
    train: PerformanceRecords
    test: PerformanceRecords
    groups: Groups | None
    about: dict[str, Any]


def domains(
    records: PerformanceRecords, groups: Groups | None = None, train_datasets: Sequence[str] | None = None
) -> Iterator[Setting]:
    """In-domain and out-of-domain: learn from some datasets, be judged on all that have test rows.

    The same as ``data.train_datasets`` and ``data.test_groups`` of a training run.

    Args:
        records: N × M with splits.
        groups: E.g. ``{"in_domain": ["mmlu"], "out_of_domain": ["mbpp"]}``.
        train_datasets: Datasets to learn from; None = all.

    Yields:
        One setting.

    Raises:
        SatlightError: No train or test rows, an unknown dataset, or a group of unknown datasets.
    """
    train, test, groups = _sides(records, groups, train_datasets)
    yield Setting("domains", train, test, groups, {"train_datasets": sorted(set(train.datasets.tolist()))})


def unseen_candidates(
    records: PerformanceRecords,
    folds: int = 3,
    probes: int = 64,
    seed: int = 0,
    zoo: Literal["unseen", "all"] = "unseen",
    groups: Groups | None = None,
    train_datasets: Sequence[str] | None = None,
) -> Iterator[Setting]:
    """Each candidate is unseen once: of it, only the outcomes on a few probe instructions are known.

    The probes are the same train rows for all folds, see :func:`probe_rows`. On validation rows unseen
    candidates are unknown, so that choices are made with the seen ones.

    Args:
        records: N × M with splits.
        folds: Parts into which the candidates are divided by chance.
        probes: Number K of probe instructions, at least 1.
        seed: Of the division and the probes.
        zoo: Who is chosen between: the ``unseen`` candidates of the fold, or ``all``.
        groups: Groups of test datasets.
        train_datasets: Datasets to learn from; None = all.

    Yields:
        One setting per fold; ``about["unseen"]`` names the unseen candidates.

    Raises:
        SatlightError: Too many folds or probes, or an unseen candidate without an outcome on any probe.
    """
    train, test, groups = _sides(records, groups, train_datasets)
    smallest = 2 if zoo == "unseen" else 1  # one candidate leaves nothing to choose
    _require(folds, "folds", 2, train.shape[1] // smallest, f"{train.shape[1]} candidates, zoo: {zoo}")
    rows = probe_rows(train, probes, seed)
    order = np.random.default_rng(seed).permutation(train.shape[1])
    for fold, columns in enumerate(np.array_split(order, folds), 1):
        unseen = [train.model_ids[column] for column in sorted(columns)]
        about = {"fold": fold, "folds": folds, "probes": probes, "unseen": unseen}
        yield Setting(
            f"unseen {fold}/{folds}",
            _known_on_probes(train, unseen, rows),
            test if zoo == "all" else test.filter(candidates=unseen),
            groups,
            about,
        )


def unseen_tasks(
    records: PerformanceRecords, folds: int = 5, seed: int = 0, level: Literal["task", "dataset"] = "task"
) -> Iterator[Setting]:
    """Each task is unseen once: learn from the other tasks, be judged on the test rows of these.

    Args:
        records: N × M with splits.
        folds: Parts into which the tasks that have test rows are divided by chance.
        seed: Of the division.
        level: Hold out whole datasets instead of tasks.

    Yields:
        One setting per fold; ``about["tasks"]`` names the tasks as "dataset/task", or the datasets.

    Raises:
        SatlightError: Too many folds, or one that leaves no train rows.
    """
    train, test, _ = _sides(records, None, None)
    train_N, test_N = (part.task_keys if level == "task" else part.datasets for part in (train, test))
    names = np.unique(test_N)
    _require(folds, "folds", 2, len(names), f"{len(names)} {level}s with test rows")
    order = np.random.default_rng(seed).permutation(len(names))
    for fold, part in enumerate(np.array_split(order, folds), 1):
        held = names[np.sort(part)]
        kept = ~np.isin(train_N, held)
        if not (train.splits[kept] == "train").any():
            raise SatlightError(
                f"Without the {level}s of fold {fold}, {listed(held.tolist(), 5)}, '{records.name}' has no "
                "train rows left. Raise folds, or hold out tasks instead of datasets."
            )
        about = {"fold": fold, "folds": folds, "tasks": held.tolist()}
        name = f"unseen {level}s {fold}/{folds}"
        yield Setting(name, train.rows(kept), test.rows(np.isin(test_N, held)), None, about)


def incremental_release(
    records: PerformanceRecords,
    best: int = 5,
    founders: int | None = None,
    probes: int = 64,
    seed: int = 0,
    groups: Groups | None = None,
    train_datasets: Sequence[str] | None = None,
) -> Iterator[Setting]:
    """After each release, choose between the historically best and the newest, without training again.

    Candidates are released in the order of their date, then of their name. Best are those of the earlier
    ones with the highest mean over datasets of the mean outcome, on the rows of ``train`` where everyone is
    known (one with outcomes in fewer datasets comes after those with more; equals in order of release).

    ``train`` is one and the same object in all settings. So fit once, and score the test rows once for all
    candidates; each setting takes its columns, e.g. by :class:`satlight.routing.scores.StoredScores`. That is
    exact for routers whose score of one candidate does not depend on the others they are asked about. A
    method that fits candidates jointly also sees the probe outcomes of later releases.

    Args:
        records: N × M with splits; every candidate with a release date.
        best: How many of the earlier ones stay, at least 1.
        founders: The first so many releases are what the router is trained on: of all later ones only the
            outcomes on probes are known, and settings begin with the first of those. None = everyone is known
            on all train rows, for scores of a router that was trained elsewhere.
        probes: Number K of probe instructions; without founders there are none.
        seed: Of the probes.
        groups: Groups of test datasets.
        train_datasets: Datasets to learn from; None = all.

    Yields:
        One setting per release, from the second on; ``about`` has ``newest``, ``released`` and ``best``.

    Raises:
        SatlightError: A candidate without a release date, or a number out of range.

    Reference:
        [Zhang et al. 2025, Figure 5]
    """
    train, test, groups = _sides(records, groups, train_datasets)
    _require(train.shape[1], "the number of candidates", 2, None, f"records '{records.name}'")
    _require(best, "best", 1, None, "the earlier candidates that stay")
    released = _by_release(train)
    rows = np.arange(train.shape[0])
    if founders is not None:
        _require(founders, "founders", 1, len(released) - 1, f"{len(released)} candidates")
        rows = probe_rows(train, probes, seed)
        train = _known_on_probes(train, [model_id for model_id, _ in released[founders:]], rows)
    standing = _standing(train.rows(rows))
    for place in range(founders or 1, len(released)):
        newest, date = released[place]
        earlier = [model_id for model_id, _ in released[:place]]
        stay = sorted(earlier, key=standing.__getitem__)[:best]  # stable: equals in order of release
        about = {"newest": newest, "released": date, "best": stay, "release": place + 1}
        zoo = test.filter(candidates=[*stay, newest])
        yield Setting(f"{date} {newest}", train, zoo, groups, about)


PROTOCOLS: dict[str, Callable[..., Iterator[Setting]]] = {
    "domains": domains,
    "unseen_candidates": unseen_candidates,
    "unseen_tasks": unseen_tasks,
    "incremental_release": incremental_release,
}
"""Every protocol by name, for configs."""


def probe_rows(train: PerformanceRecords, count: int, seed: int) -> np.ndarray:
    """Rows of probe instructions: drawn by chance from the split train, evenly over datasets.

    The first so many of a longer list, so that fewer probes are a part of more.

    Args:
        train: What may be learned from.
        count: How many, at least 1.
        seed: Of the draw.

    Returns:
        int64 (count,), ascending.

    Raises:
        SatlightError: More than there are train rows.
    """
    rows = np.flatnonzero(train.splits == "train")
    _require(count, "probes", 1, len(rows), f"{len(rows)} train rows")
    drawn = np.random.default_rng(seed).permutation(rows)
    turn = np.zeros(len(drawn), dtype=np.int64)  # which of its dataset's rows it is
    for dataset in np.unique(train.datasets[drawn]):
        own = train.datasets[drawn] == dataset
        turn[own] = np.arange(own.sum())
    return np.sort(drawn[np.argsort(turn, kind="stable")[:count]])


# -- parts -------------------------------------------------------------------------------------------------


def _sides(
    records: PerformanceRecords, groups: Groups | None, train_datasets: Sequence[str] | None
) -> tuple[PerformanceRecords, PerformanceRecords, Groups | None]:
    """What may be learned from, what is judged, and the groups after a check."""
    learned = np.isin(records.splits, ["train", "validation"])
    if train_datasets is not None:
        if unknown := sorted(set(train_datasets) - set(records.datasets.tolist())):
            raise SatlightError(
                f"train_datasets names {listed(unknown)}; '{records.name}' has "
                f"{listed(sorted(set(records.datasets.tolist())))}."
            )
        learned &= np.isin(records.datasets, list(train_datasets))
    tested = records.splits == "test"
    if not (tested.any() and (records.splits[learned] == "train").any()):
        raise SatlightError(
            f"A protocol needs train and test rows; '{records.name}' has the splits "
            f"{listed(sorted(set(records.splits.tolist())))}"
            + (f" and is to learn from {listed(list(train_datasets))}" if train_datasets is not None else "")
            + ". Use records.with_splits(split_records(records))."
        )
    test = records.rows(tested)
    if groups is not None:
        groups = check_groups(groups, sorted(set(test.datasets.tolist())))
    return replace(records.rows(learned), expected=None), test, groups


def _known_on_probes(train: PerformanceRecords, unseen: list[str], rows: np.ndarray) -> PerformanceRecords:
    """The records with the unseen candidates unknown everywhere but on the probe rows."""
    hidden = np.ones(train.shape[0], dtype=bool)
    hidden[rows] = False
    known = np.array(train.known)
    known[np.ix_(hidden, np.isin(train.model_ids, unseen))] = False
    silent = [name for name in unseen if not known[:, train.model_ids.index(name)].any()]
    if silent:
        raise SatlightError(
            f"None of the {len(rows)} probes has an outcome of {listed(silent)}. Raise probes, or leave "
            f"{'it' if len(silent) == 1 else 'them'} out."
        )
    return replace(
        train,
        known=known,
        outcomes=np.where(known, train.outcomes, np.float32(0)),
        costs=None if train.costs is None else np.where(known, train.costs, np.float32(np.nan)),
    )


def _by_release(records: PerformanceRecords) -> list[tuple[str, str]]:
    """(candidate, date), in order of release."""
    if undated := [one.model_id for one in records.candidates if one.release_date is None]:
        raise SatlightError(
            f"The order of release needs every candidate's release_date; it is unknown of {listed(undated)}. "
            "Fill it in in models.json, or leave them out."
        )
    dates = [(one.model_id, str(one.release_date)) for one in records.candidates]
    return sorted(dates, key=lambda pair: (pair[1], pair[0]))


def _standing(records: PerformanceRecords) -> dict[str, tuple[int, float]]:
    """What sorts candidates from best to worst: datasets without outcomes, then the negative mean."""
    _, group_N = np.unique(records.datasets, return_inverse=True)
    outcome_NM, known_NM = matrices(records)
    mean_GM = group_means(outcome_NM, known_NM, torch.from_numpy(group_N), int(group_N.max()) + 1)
    lacking_M, mean_M = mean_GM.isnan().sum(0).tolist(), mean_GM.nanmean(0).tolist()
    pairs = zip(records.model_ids, lacking_M, mean_M, strict=True)
    return {name: (lacking, -mean if mean == mean else 0.0) for name, lacking, mean in pairs}


def _require(value: int, name: str, low: int, high: int | None, what: str) -> None:
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None or high < low else f"{low} to {high}"
        raise SatlightError(f"Got {name}={value} for {what}; allowed: {allowed}.")
