"""Protocols: what a router may be trained on, and which candidates and instructions it is evaluated on.

A protocol takes records with splits and yields settings for any router, here a baseline::

    for setting in unseen_candidates(records, folds=3, probes=64, seed=0):
        baseline.fit(setting.train, embed)
        score_NM = baseline.predict(baseline.inputs(setting.test), setting.test.model_ids)
        results = evaluate(score_NM, setting.test, setting.train, setting.groups)

For a router that has already scored all test instructions, e.g. by ``lightning predict``, use
:meth:`satlight.routing.scores.StoredScores.of` in place of fit and predict.

Shape legend: N instructions and M candidates of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple, TypedDict

import numpy as np

from satlight.errors import SatlightError
from satlight.evaluation.controls import matrices, numbered
from satlight.metrics.functional import group_means
from satlight.records import PerformanceRecords
from satlight.records.groups import check_groups
from satlight.records.names import listed

Groups = dict[str, list[str]]


class Facts(TypedDict, total=False):
    """Facts of a setting for reports; each protocol sets some of them."""

    train_datasets: list[str]
    fold: int  # from 1
    folds: int
    probes: int
    unseen: list[str]  # candidates known on probes only
    tasks: list[str]  # held-out tasks as "dataset/task", or held-out datasets
    newest: str
    released: str  # date of the newest
    best: list[str]  # best earlier candidates, best first
    release: int  # from 1


class Setting(NamedTuple):
    """One training and evaluation setting.

    Args:
        name: Name, for tables.
        train: Rows of the splits train and validation, without true probabilities. Outcomes and costs that
            the router must not know are masked.
        test: Test rows, with the candidates to choose between.
        groups: Dataset groups by name, for macro means; None = one group of all datasets.
        about: Facts for reports.
    """

    name: str
    train: PerformanceRecords
    test: PerformanceRecords
    groups: Groups | None
    about: Facts


def domains(
    records: PerformanceRecords, groups: Groups | None = None, train_datasets: Sequence[str] | None = None
) -> Iterator[Setting]:
    """Train on some datasets and evaluate on all datasets with test rows (in-domain and out-of-domain).

    Equivalent to ``data.train_datasets`` and ``data.test_groups`` of a training run.

    Args:
        records: N × M with splits.
        groups: E.g. ``{"in_domain": ["mmlu"], "out_of_domain": ["mbpp"]}``.
        train_datasets: Datasets to train on; None = all.

    Yields:
        One setting.

    Raises:
        SatlightError: There are no train or test rows, or a dataset is unknown.
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
    """Hold out each candidate once: only its outcomes on a few probe instructions are known.

    The probes are the same train rows in all folds, see :func:`probe_rows`. Unseen candidates are unknown on
    validation rows, so that hyperparameters are chosen with the seen candidates.

    Args:
        records: N × M with splits.
        folds: Number of random folds of the candidates.
        probes: Number K of probe instructions, at least 1.
        seed: Seed of the folds and the probes.
        zoo: Candidates to choose between: the ``unseen`` candidates of the fold, or ``all``.
        groups: Groups of test datasets.
        train_datasets: Datasets to train on; None = all.

    Yields:
        One setting per fold; ``about["unseen"]`` names the unseen candidates.

    Raises:
        SatlightError: Too many folds or probes, or an unseen candidate has no outcome on any probe.
    """
    train, test, groups = _sides(records, groups, train_datasets)
    smallest = 2 if zoo == "unseen" else 1  # with one candidate there is no choice
    _require(folds, "folds", 2, train.shape[1] // smallest, f"{train.shape[1]} candidates, zoo: {zoo}")
    rows = probe_rows(train, probes, seed)
    order = np.random.default_rng(seed).permutation(train.shape[1])
    for fold, columns in enumerate(np.array_split(order, folds), 1):
        unseen = [train.model_ids[column] for column in sorted(columns)]
        about = Facts(fold=fold, folds=folds, probes=probes, unseen=unseen)
        judged = test if zoo == "all" else test.filter(candidates=unseen)
        yield Setting(f"unseen {fold}/{folds}", _known_on_probes(train, unseen, rows), judged, groups, about)


def unseen_tasks(
    records: PerformanceRecords, folds: int = 5, seed: int = 0, level: Literal["task", "dataset"] = "task"
) -> Iterator[Setting]:
    """Hold out each task once: train on the other tasks, evaluate on the test rows of the held-out tasks.

    Args:
        records: N × M with splits.
        folds: Number of random folds of the tasks with test rows.
        seed: Seed of the folds.
        level: Hold out tasks, or whole datasets.

    Yields:
        One setting per fold; ``about["tasks"]`` names the tasks as "dataset/task", or the datasets.

    Raises:
        SatlightError: There are too many folds, or one leaves no train rows.
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
        about = Facts(fold=fold, folds=folds, tasks=held.tolist())
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
    """After each release, choose between the best earlier candidates and the newest, without retraining.

    Candidates are released in the order of date, then name. The best earlier candidates have the highest
    macro mean outcome on the probes, or without founders on all rows of ``train`` (candidates with outcomes
    in fewer datasets rank lower; ties are in order of release).

    All settings share the same ``train`` object, so fit once and score the test rows once for all candidates;
    each setting selects its columns, e.g. by :class:`satlight.routing.scores.StoredScores`. This is exact for
    routers whose score of a candidate does not depend on the other candidates. A method that fits candidates
    jointly also sees the probe outcomes of later releases.

    Args:
        records: N × M with splits; every candidate with a release date.
        best: Number of earlier candidates to keep, at least 1.
        founders: Number of first releases that the router is trained on. Later candidates are known on the
            probes only, and settings start with the first of them. None = all candidates are known on all
            train rows, for scores of a router that was trained elsewhere.
        probes: Number K of probe instructions; ignored without founders.
        seed: Seed of the probes.
        groups: Groups of test datasets.
        train_datasets: Datasets to train on; None = all.

    Yields:
        One setting per release, from the second on; ``about`` has ``newest``, ``released`` and ``best``.

    Raises:
        SatlightError: A candidate has no release date, or a number is out of range.

    Reference:
        [Zhang et al. 2025, Figure 5]
    """
    train, test, groups = _sides(records, groups, train_datasets)
    _require(train.shape[1], "the number of candidates", 2, None, f"records '{records.name}'")
    _require(best, "best", 1, None, "the earlier candidates that stay")
    if undated := [one.model_id for one in train.candidates if one.release_date is None]:
        raise SatlightError(
            f"Incremental release needs the release_date of every candidate; missing for {listed(undated)}. "
            "Add it in models.json, or remove the candidates."
        )
    released = sorted((str(one.release_date), one.model_id) for one in train.candidates)
    rows = np.arange(train.shape[0])
    if founders is not None:
        _require(founders, "founders", 1, len(released) - 1, f"{len(released)} candidates")
        rows = probe_rows(train, probes, seed)
        train = _known_on_probes(train, [model_id for _, model_id in released[founders:]], rows)
    standing = _standing(train.rows(rows))
    for place in range(founders or 1, len(released)):
        date, newest = released[place]
        earlier = [model_id for _, model_id in released[:place]]
        stay = sorted(earlier, key=standing.__getitem__)[:best]  # stable: ties in order of release
        about = Facts(newest=newest, released=date, best=stay, release=place + 1)
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
    """Draw the rows of probe instructions at random from the split train, evenly over datasets.

    With the same seed, fewer probes are a subset of more probes.

    Args:
        train: Training records of a setting.
        count: Number of probes, at least 1.
        seed: Seed of the draw.

    Returns:
        int64 (count,), ascending.

    Raises:
        SatlightError: There are fewer train rows than ``count``.
    """
    rows = np.flatnonzero(train.splits == "train")
    _require(count, "probes", 1, len(rows), f"{len(rows)} train rows")
    drawn = np.random.default_rng(seed).permutation(rows)
    turn = np.zeros(len(drawn), dtype=np.int64)  # position among the rows of its dataset
    for dataset in np.unique(train.datasets[drawn]):
        own = train.datasets[drawn] == dataset
        turn[own] = np.arange(own.sum())
    return np.sort(drawn[np.argsort(turn, kind="stable")[:count]])


# -- parts -------------------------------------------------------------------------------------------------


def _sides(
    records: PerformanceRecords, groups: Groups | None, train_datasets: Sequence[str] | None
) -> tuple[PerformanceRecords, PerformanceRecords, Groups | None]:
    """Return the training records, the test records and the checked groups."""
    learned, names = np.isin(records.splits, ["train", "validation"]), set(records.datasets.tolist())
    if train_datasets is not None:
        if unknown := sorted(set(train_datasets) - names):
            raise SatlightError(
                f"train_datasets names {listed(unknown)}; '{records.name}' has {listed(sorted(names))}."
            )
        learned &= np.isin(records.datasets, list(train_datasets))
    tested = records.splits == "test"
    if not (tested.any() and (records.splits[learned] == "train").any()):
        raise SatlightError(
            f"A protocol needs train and test rows; '{records.name}' has the splits "
            f"{listed(sorted(set(records.splits.tolist())))}"
            + (f" and trains on {listed(list(train_datasets))}" if train_datasets is not None else "")
            + ". Use records.with_splits(split_records(records))."
        )
    test = records.rows(tested)
    if groups is not None:
        groups = check_groups(groups, sorted(set(test.datasets.tolist())))
    return replace(records.rows(learned), expected=None), test, groups


def _known_on_probes(train: PerformanceRecords, unseen: list[str], rows: np.ndarray) -> PerformanceRecords:
    """Mask the unseen candidates everywhere except on the probe rows."""
    hidden = np.ones(train.shape[0], dtype=bool)
    hidden[rows] = False
    known = np.array(train.known)
    known[np.ix_(hidden, np.isin(train.model_ids, unseen))] = False
    silent = [name for name in unseen if not known[:, train.model_ids.index(name)].any()]
    if silent:
        raise SatlightError(
            f"None of the {len(rows)} probes has an outcome of {listed(silent)}. Raise probes, or remove "
            f"{'this candidate' if len(silent) == 1 else 'these candidates'}."
        )
    return replace(
        train,
        known=known,
        outcomes=np.where(known, train.outcomes, np.float32(0)),
        costs=None if train.costs is None else np.where(known, train.costs, np.float32(np.nan)),
    )


def _standing(records: PerformanceRecords) -> dict[str, tuple[int, float]]:
    """Return keys that sort candidates best first: datasets without outcomes, then the negative mean."""
    (group_N,) = numbered(records.datasets)
    mean_GM = group_means(*matrices(records), group_N, int(group_N.max()) + 1)
    lacking_M, mean_M = mean_GM.isnan().sum(0).tolist(), mean_GM.nanmean(0).tolist()
    pairs = zip(records.model_ids, lacking_M, mean_M, strict=True)
    return {name: (lacking, -mean if mean == mean else 0.0) for name, lacking, mean in pairs}


def _require(value: int, name: str, low: int, high: int | None, what: str) -> None:
    if value < low or (high is not None and value > high):
        allowed = f"at least {low}" if high is None or high < low else f"{low} to {high}"
        raise SatlightError(f"Got {name}={value} for {what}; allowed: {allowed}.")
