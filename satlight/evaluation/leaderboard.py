"""Leaderboards: group-bys and joins on outcome tables (:mod:`satlight.evaluation.outcomes`).

Shape legend: E entries (methods and controls), N test instructions of a dataset, R bootstrap resamples.

Accuracies, their intervals and differences are in percent.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import torch

from satlight.evaluation.comparison import comparable, left_out
from satlight.evaluation.outcomes import CONTROL, INFORMED, KEY, METHOD, UPPER_BOUND, ZERO_ROUTER
from satlight.evaluation.results import LEAST_GAP
from satlight.evaluation.spending import PER
from satlight.metrics.bootstrap import part_draws, percentile_interval
from satlight.metrics.functional import gap_closed
from satlight.metrics.seeds import seed_interval

Key = tuple[str, str]
BySeed = dict[tuple[str, str, str, str], dict[int, tuple[float | None, float | None]]]

_RESAMPLED = (METHOD, INFORMED, CONTROL, UPPER_BOUND)
"""Roles that get intervals."""


@dataclass
class Figure:
    """Accuracy of an entry on one dataset or group.

    Args:
        routed: Mean over seeds; None = not every dataset has a known outcome.
        seed_half_width: Half of its 95 % interval over seeds; None with one seed.
        interval: 95 % bootstrap interval over instructions, of the mean over seeds.
        per_seed: Accuracy for each seed.
        versus_best_single: Difference to ``best_single`` on the same instructions, with its interval.
        versus_best_control: Difference to the best control that is no upper bound, likewise.
        gap_closed: Share of the distance from ``best_single`` to ``oracle``; None if that is below
            :data:`~satlight.evaluation.results.LEAST_GAP`.
    """

    routed: float | None
    seed_half_width: float | None
    interval: list[float] | None
    per_seed: dict[int, float | None]
    versus_best_single: list[float] | None = None
    versus_best_control: list[float] | None = None
    gap_closed: float | None = None


@dataclass
class Entry:
    """A method or control on a leaderboard.

    Args:
        name: Its name.
        role: :data:`METHOD`, :data:`CONTROL` or :data:`UPPER_BOUND`.
        seeds: Seeds with results.
        failed_seeds: Seeds for which it failed.
        datasets: Figures per dataset.
        groups: Figures per group.
        means: Figure (``ece``, ``brier``, ``cost``, ``zero_router``, ``aiq``) → group → mean over seeds.
        fit_seconds: Time to fit, mean over seeds; None = unknown.
        decision_ms: Milliseconds per instruction, mean over seeds; None = unknown.
    """

    name: str
    role: str
    seeds: list[int] = field(default_factory=list)
    failed_seeds: list[int] = field(default_factory=list)
    datasets: dict[str, Figure] = field(default_factory=dict)
    groups: dict[str, Figure] = field(default_factory=dict)
    means: dict[str, dict[str, float]] = field(default_factory=dict)
    fit_seconds: float | None = None
    decision_ms: float | None = None


@dataclass
class UnseenRow:
    """An entry in the table of a protocol with unseen candidates or tasks.

    Args:
        name: Name of the method or control.
        role: :data:`METHOD`, :data:`CONTROL` or :data:`UPPER_BOUND`.
        figure: Its accuracy, mean over the folds that judge an instruction.
        informed: Accuracy of the same method trained on everything; None for a control.
        loss: ``figure`` minus ``informed``, with its paired bootstrap interval.
    """

    name: str
    role: str
    figure: Figure
    informed: float | None = None
    loss: list[float] | None = None


class Means:
    """Mean outcomes of all entries: for each seed, and over bootstrap resamples of the instructions.

    Args:
        table: Rows of one data and zoo setting under one protocol. Where outcomes are missing, all means are over the
            instructions of :func:`satlight.evaluation.comparison.comparable`.
        groups: Datasets of each group.
        resamples: R.
        seeds: Seed of the draws for each dataset; None = derived from its name.
    """

    def __init__(
        self, table: pl.DataFrame, groups: dict[str, list[str]], resamples: int, seeds: dict[str, int] | None = None
    ) -> None:
        self.counts = dict(table.group_by("dataset", maintain_order=True).agg(pl.col("row").n_unique()).iter_rows())
        table, self.compared, self.left_out = comparable(table)
        self.parts = {("dataset", name): [name] for name in self.counts}
        self.parts |= {("group", name): members for name, members in groups.items()}
        # One value per entry, seed and instruction: the mean over the folds that judge it.
        by_row = [*KEY, "seed", "dataset", "row"]
        values = table.group_by(by_row, maintain_order=True).agg(_mean("outcome"), _mean("cost"))
        self.by_seed = _macro(values, self.parts)
        values = values.filter(pl.col("role").is_in(_RESAMPLED))
        self.keys: list[Key] = values.select(KEY).unique(maintain_order=True).rows()
        wide = (
            values.with_columns(entry=pl.concat_str(KEY, separator=" "))
            .group_by("entry", "dataset", "row")
            .agg(pl.col("outcome").cast(pl.Float32).sum().cast(pl.Float64) / pl.col("outcome").count())
            .pivot(on="entry", index=["dataset", "row"], values="outcome")
            .sort("row")
        )
        value_EN = wide.select(" ".join(key) for key in self.keys).to_numpy()
        draws_PER = part_draws(
            torch.from_numpy(np.ascontiguousarray(value_EN.T)).float(),
            parts=[torch.from_numpy((wide["dataset"] == name).to_numpy()) for name in self.counts],
            seeds=[zlib.crc32(name.encode()) if seeds is None else seeds[name] for name in self.counts],
            resamples=resamples,
        )
        place = {name: p for p, name in enumerate(self.counts)}
        self.draws = {
            part: 100 * draws_PER[[place[member] for member in members]].double().mean(0)
            for part, members in self.parts.items()
        }

    def values(self, key: Key, part: Key, column: str = "outcome") -> dict[int, float | None]:
        """Return the mean outcome or cost of an entry on a dataset or group, for each seed."""
        found = self.by_seed.get((*key, *part), {})
        return {seed: pair[column == "cost"] for seed, pair in sorted(found.items())}

    def figures(self, part: Key) -> dict[Key, Figure]:
        """Return the figures of all entries on a dataset or group, and their differences."""
        figures = {key: self._figure(key, part) for key in self.keys}
        best, single = self.best_control(figures), (CONTROL, "best_single")
        low, high = (figures[key].routed if key in figures else None for key in (single, (UPPER_BOUND, "oracle")))
        for key, figure in figures.items():
            figure.versus_best_single = self.difference(figures, part, key, single)
            figure.versus_best_control = self.difference(figures, part, key, best)
            if figure.routed is not None and low is not None and high is not None:
                figure.gap_closed = _finite(gap_closed(figure.routed, low, high, LEAST_GAP))
        return figures

    def best_control(self, figures: dict[Key, Figure]) -> Key | None:
        """Return the control with the highest accuracy that is no upper bound."""
        controls = [key for key in figures if key[0] == CONTROL and figures[key].routed is not None]
        return max(controls, key=lambda key: figures[key].routed or 0.0, default=None)

    def difference(self, figures: dict[Key, Figure], part: Key, key: Key, other: Key | None) -> list[float] | None:
        """Return the difference between two entries and its interval over the same resamples."""
        if other is None or key == other or other not in figures:
            return None
        mine, theirs = figures[key].routed, figures[other].routed
        if mine is None or theirs is None:
            return None
        draw_R, other_R = (self.draws[part][self.keys.index(one)] for one in (key, other))
        return [mine - theirs, *percentile_interval(draw_R - other_R)]

    def _figure(self, key: Key, part: Key) -> Figure:
        values = self.values(key, part).items()
        per_seed = {seed: None if value is None else _finite(100 * value) for seed, value in values}
        known = [value for value in per_seed.values() if value is not None]
        if len(known) < len(per_seed) or not known:
            return Figure(None, None, None, per_seed)
        over_seeds = seed_interval(known)
        interval = percentile_interval(self.draws[part][self.keys.index(key)])
        return Figure(over_seeds.mean, _finite(over_seeds.half_width), [*interval], per_seed)


def entries(means: Means, groups: Iterable[str]) -> tuple[list[Entry], dict[str, str]]:
    """Return the entries of a leaderboard, and the best control of each dataset and group.

    Args:
        means: Over rows of the ordinary protocol.
        groups: Names of the groups; the first one sorts the entries.
    """
    made = {key: Entry(key[1], key[0]) for key in means.keys}
    best_control: dict[str, str] = {}
    for part in means.parts:
        kind, name = part
        figures = means.figures(part)
        if (best := means.best_control(figures)) is not None:
            best_control[name] = best[1]
        for key, entry in made.items():
            (entry.datasets if kind == "dataset" else entry.groups)[name] = figures[key]
            entry.seeds = sorted(figures[key].per_seed)
            if kind == "group":
                _set_mean(entry, "cost", name, means.values(key, part, "cost"), PER)
                zero = means.values((ZERO_ROUTER, entry.name), part) if entry.role == METHOD else {}
                _set_mean(entry, "zero_router", name, zero, 100)
    return sorted(made.values(), key=lambda entry: rank(entry, next(iter(groups)))), best_control


def rank(entry: Entry, group: str) -> tuple[bool, float, str]:
    """Return the sorting key of an entry: best first, those without a figure last."""
    return _rank(entry.groups.get(group), entry.name)


def _rank(figure: Figure | None, name: str) -> tuple[bool, float, str]:
    routed = None if figure is None else figure.routed
    return routed is None, -(routed or 0.0), name


def unseen_rows(
    table: pl.DataFrame, group: str, members: list[str], resamples: int
) -> tuple[list[UnseenRow], list[str]]:
    """Return the table of a protocol with unseen candidates or tasks, best first, and what it leaves out.

    Args:
        table: Rows of the protocol.
        group: Name of a group.
        members: Its datasets.
        resamples: R.
    """
    rows_of_group, part = table.filter(pl.col("dataset").is_in(members)), ("group", group)
    means = Means(rows_of_group, {group: members}, resamples, seeds={name: n for n, name in enumerate(members)})
    figures = means.figures(part)
    rows = [UnseenRow(name, role, figure) for (role, name), figure in figures.items() if role != INFORMED]
    for row in rows:
        if row.role == METHOD:
            row.informed = figures[INFORMED, row.name].routed
            row.loss = means.difference(figures, part, (METHOD, row.name), (INFORMED, row.name))
    return sorted(rows, key=lambda row: _rank(row.figure, row.name)), left_out(means.left_out, means.compared)


def release_curves(table: pl.DataFrame, members: list[str]) -> dict[str, dict[str, list[list[float]]]]:
    """Return role → router → for each seed the accuracies after each release; NaN = cannot be compared.

    Args:
        table: Rows of the release protocol, a fold per release.
        members: Datasets of the macro mean.
    """
    rows = comparable(table.filter(pl.col("dataset").is_in(members)), ("dataset", "fold")).table
    by_dataset = rows.group_by(*KEY, "seed", "fold", "dataset", maintain_order=True).agg(_mean("outcome"))
    mean = pl.when(pl.col("outcome").is_not_null().all()).then(pl.col("outcome").mean()).otherwise(float("nan"))
    by_fold = by_dataset.group_by(*KEY, "seed", "fold", maintain_order=True).agg((mean * 100).alias("outcome"))
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for (role, router, _), curve in by_fold.sort("seed", "fold").group_by(*KEY, "seed", maintain_order=True):
        curves.setdefault(str(role), {}).setdefault(str(router), []).append(curve["outcome"].to_list())
    return curves


def quality_cost_points(table: pl.DataFrame, members: list[str], role: str) -> dict[str, tuple[float, float]]:
    """Return router → cost in US dollars per 1,000 instructions and accuracy, macro means over datasets.

    Args:
        table: Rows of the ordinary protocol.
        members: Datasets of the macro mean.
        role: Role of the routers, e.g. :data:`CANDIDATE`.
    """
    rows = table.filter((pl.col("role") == role) & pl.col("dataset").is_in(members))
    by_dataset = rows.group_by("router", "dataset", maintain_order=True).agg(_mean("cost"), _mean("outcome"))
    means = by_dataset.group_by("router", maintain_order=True).agg(
        pl.col("cost").mean() * PER, pl.col("outcome").mean() * 100
    )
    return {name: (cost, outcome) for name, cost, outcome in means.drop_nulls().iter_rows()}


def choice_shares(table: pl.DataFrame, router: str) -> dict[tuple[str, str], float]:
    """Return (dataset, candidate) → share of the dataset's instructions that a method sends there.

    Args:
        table: Rows of the ordinary protocol.
        router: Name of the method.
    """
    rows = table.filter((pl.col("role") == METHOD) & (pl.col("router") == router))
    counts = rows.group_by("dataset", "candidate").len()
    shares = counts.with_columns(pl.col("len") / pl.col("len").sum().over("dataset"))
    return {(dataset, candidate): share for dataset, candidate, share in shares.iter_rows()}


# -- parts -------------------------------------------------------------------------------------------------


def _mean(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64).mean()


def _macro(values: pl.DataFrame, parts: dict[Key, list[str]]) -> BySeed:
    """Return role, router, kind, name → seed → mean outcome and cost; None if a dataset has none."""
    listed = [(kind, name, member) for (kind, name), members in parts.items() for member in members]
    members = pl.DataFrame(listed, ["kind", "name", "dataset"], orient="row")
    by_dataset = values.group_by(*KEY, "seed", "dataset").agg(_mean("outcome"), _mean("cost"))
    macro = (
        members.join(by_dataset, on="dataset")
        .group_by(*KEY, "kind", "name", "seed")
        .agg(pl.when(pl.col(column).is_not_null().all()).then(pl.col(column).mean()) for column in ("outcome", "cost"))
    )
    found: BySeed = {}
    for role, router, kind, name, seed, outcome, cost in macro.iter_rows():
        found.setdefault((role, router, kind, name), {})[seed] = (outcome, cost)
    return found


def _set_mean(entry: Entry, figure: str, group: str, by_seed: dict[int, float | None], factor: float) -> None:
    """Store the mean over seeds of one figure, unless a seed lacks it."""
    values = [value for value in by_seed.values() if value is not None]
    if values and len(values) == len(by_seed):
        entry.means.setdefault(figure, {})[group] = float(np.mean([round(factor * value, 6) for value in values]))


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None
