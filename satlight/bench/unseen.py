"""Unseen candidates and unseen tasks: a method is trained fold by fold without what it is then judged on.

Shape legend: N test instructions, M candidates of the problem, S seeds, E entries, R resamples.

Accuracies and differences are percent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from satlight.bench.cells import Cell
from satlight.bench.methods import predict
from satlight.evaluation.controls import matrices
from satlight.evaluation.protocols import PROTOCOLS, Setting
from satlight.metrics import functional

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

REFERENCES = ("random", "best_single", "oracle")
"""Controls of these protocols. Best single is the best on what is known of the fold's candidates."""

ENTRIES = ("routed", "informed", *REFERENCES)
"""Arrays of a cell; ``informed`` is the same method trained on everything, asked the same."""


def run_unseen(cell: Cell, records: PerformanceRecords, folder: Path, output: Path) -> dict[str, Any]:
    """Train without each fold, and choose where nothing or little was known.

    Args:
        cell: A cell whose spec has ``unseen_candidates`` or ``unseen_tasks``, the options of
            :data:`satlight.evaluation.protocols.PROTOCOLS`, and ``informed``, the key of the method's
            ordinary cell.
        records: The problem's records.
        folder: The cell's folder; ``unseen.npz`` goes there: for each of :data:`ENTRIES` the outcomes of the
            choices, float32 (N,), mean over the folds that judge the row, NaN where unknown.
        output: Folder of the bench.

    Returns:
        ``folds``: per fold what was unseen, and ``fit_seconds`` of all folds together.

    Raises:
        SatlightError: Folds or probes that the records do not allow, or what the method raises.
    """
    problem = cell.problem
    kind = str(cell.protocol)
    settings: Iterator[Setting] = PROTOCOLS[kind](records, seed=problem.seed, **_options(cell, kind))
    test = records.rows(records.splits == "test")
    row = {name: n for n, name in enumerate(_ids(test))}
    informed_NM = np.load(output / "cells" / cell.spec["informed"] / "scores.npy")
    found: dict[str, list[np.ndarray]] = {name: [] for name in ENTRIES}
    folds: list[dict[str, Any]] = []
    seconds: list[float] = []
    for setting in settings:
        rows = np.array([row[name] for name in _ids(setting.test)])
        columns = [test.model_ids.index(name) for name in setting.test.model_ids]
        everyone = test.rows(rows)
        prediction = predict(
            cell,
            setting.train,
            everyone,
            output,
            unseen=setting.about.get("unseen", ()),
            fold=len(folds) + 1,
        )
        scores = {
            "routed": prediction.scores[:, columns],
            "informed": informed_NM[rows][:, columns],
        }
        for name, outcome_n in _outcomes(scores, setting).items():
            outcome_N = np.full(test.shape[0], np.nan, dtype=np.float32)
            outcome_N[rows] = outcome_n
            found[name].append(outcome_N)
        folds.append(dict(setting.about))
        seconds.append(prediction.fit_seconds or 0.0)
    arrays: dict[str, Any] = {name: _mean(np.stack(values)) for name, values in found.items()}
    np.savez(folder / "unseen.npz", **arrays)
    return {"folds": folds, "fit_seconds": sum(seconds)}


def _ids(records: PerformanceRecords) -> list[str]:
    return records.instructions["instruction_id"].to_list()


def _options(cell: Cell, kind: str) -> dict[str, Any]:
    options = dict(cell.spec[kind])
    if kind == "unseen_candidates":
        options["train_datasets"] = cell.problem.train_datasets
    return options


def _outcomes(scores: dict[str, np.ndarray], setting: Setting) -> dict[str, np.ndarray]:
    """Outcomes of everybody's choices on the test rows of a setting, NaN where unknown."""
    outcome_NM, known_NM = matrices(setting.test)
    choices = {name: functional.choose(torch.from_numpy(score)) for name, score in scores.items()}
    single = _best_known(setting)
    choices["best_single"] = torch.full((setting.test.shape[0],), setting.test.model_ids.index(single))
    pairs = {name: functional.outcomes_of(choice, outcome_NM, known_NM) for name, choice in choices.items()}
    pairs["random"] = functional.random_outcomes(outcome_NM, known_NM)
    pairs["oracle"] = functional.outcomes_of(functional.oracle(outcome_NM, known_NM), outcome_NM, known_NM)
    return {name: np.where(k.numpy(), o.numpy(), np.nan) for name, (o, k) in pairs.items()}


def _best_known(setting: Setting) -> str:
    """The candidate in the test zoo with the best macro mean on what is known of it."""
    train = setting.train.filter(candidates=list(setting.test.model_ids))
    outcome_NM, known_NM = matrices(train)
    _, group_N = np.unique(train.datasets, return_inverse=True)
    means = functional.group_means(outcome_NM, known_NM, torch.from_numpy(group_N), int(group_N.max()) + 1)
    return train.model_ids[int(means.nanmean(0).nan_to_num(-1.0).argmax())]


def _mean(values_SN: np.ndarray) -> np.ndarray:
    """(N,), the mean of what is known; NaN where nothing is."""
    known = np.isfinite(values_SN)
    with np.errstate(invalid="ignore"):
        return (np.where(known, values_SN, 0).sum(0) / known.sum(0)).astype(np.float32)


# -- tables ------------------------------------------------------------------------------------------------


@dataclass
class UnseenRow:
    """What an entry reached.

    Args:
        name: Of the method or control.
        role: ``method`` or ``control``.
        routed: Mean over seeds, half its 95 % interval over seeds (None with one seed), and the bounds of the
            bootstrap over instructions.
        informed: Mean over seeds of the method trained on everything; None for a control.
        loss: Routed minus informed, with its paired bootstrap interval.
        versus_best_single: Difference to best single, likewise.
    """

    name: str
    role: str
    routed: tuple[float, float | None, float, float]
    informed: float | None = None
    loss: tuple[float, float, float] | None = None
    versus_best_single: tuple[float, float, float] | None = None


@dataclass
class UnseenTable:
    """A protocol's table, on the primary group of a leaderboard.

    Args:
        protocol: ``unseen_candidates`` or ``unseen_tasks``.
        group: The group whose macro mean is shown.
        rows: Best first.
        folds: What was unseen in each fold, of the first seed.
    """

    protocol: str
    group: str
    rows: list[UnseenRow] = field(default_factory=list)
    folds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def title(self) -> str:
        """In one line."""
        first = self.folds[0] if self.folds else {}
        probes = f", {first['probes']} probe instructions" if "probes" in first else ""
        return f"{self.protocol.replace('_', ' ')}: {len(self.folds)} folds{probes}, {self.group}"


def unseen_table(
    protocol: str,
    group: str,
    parts: list[np.ndarray],
    found: dict[str, list[dict[str, np.ndarray]]],
    folds: list[dict[str, Any]],
    resamples: int,
) -> UnseenTable:
    """Put the cells of a protocol together.

    Args:
        protocol: Its name.
        group: Of datasets.
        parts: bool (N,) for each dataset of the group.
        found: Method → for every seed the arrays of :data:`ENTRIES`.
        folds: Of any cell.
        resamples: Of the bootstrap.

    Returns:
        The table.
    """
    from satlight.metrics.bootstrap import bootstrap_means, percentile_interval
    from satlight.metrics.seeds import seed_interval

    entries = {(method, "routed"): [one["routed"] for one in runs] for method, runs in found.items()}
    entries |= {(method, "informed"): [one["informed"] for one in runs] for method, runs in found.items()}
    # The controls depend on the seed's folds, not on the method.
    longest = max(found.values(), key=len)
    entries |= {(name, "control"): [one[name] for one in longest] for name in REFERENCES}
    mean_EN = np.stack([_mean(np.stack(values)) for values in entries.values()])
    draws = []
    for d, rows in enumerate(parts):
        value_EN = torch.from_numpy(mean_EN[:, rows])
        known_EN = value_EN.isfinite()
        draws.append(bootstrap_means(value_EN.nan_to_num(), known_EN, resamples=resamples, seed=d))
    draw_ER = 100 * torch.stack(draws).double().mean(0)
    place = {key: e for e, key in enumerate(entries)}
    seeds = {
        key: seed_interval([100 * float(np.mean([np.nanmean(v[rows]) for rows in parts])) for v in values])
        for key, values in entries.items()
    }

    def difference(key: tuple[str, str], other: tuple[str, str]) -> tuple[float, float, float]:
        low, high = percentile_interval(draw_ER[place[key]] - draw_ER[place[other]])
        return seeds[key].mean - seeds[other].mean, low, high

    table = UnseenTable(protocol, group, folds=folds)
    for key in entries:
        name, kind = key
        if kind == "informed":
            continue
        half = seeds[key].half_width
        routed = (
            seeds[key].mean,
            half if np.isfinite(half) else None,
            *percentile_interval(draw_ER[place[key]]),
        )
        row = UnseenRow(name, "method" if kind == "routed" else "control", routed)
        if kind == "routed":
            row.informed = seeds[name, "informed"].mean
            row.loss = difference(key, (name, "informed"))
            row.versus_best_single = difference(key, ("best_single", "control"))
        table.rows.append(row)
    table.rows.sort(key=lambda row: (-row.routed[0], row.name))
    return table
