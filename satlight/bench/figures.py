"""The plots of a leaderboard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from matplotlib.figure import Figure

from satlight.bench.board import Board, UnseenTable
from satlight.bench.results import CellResult
from satlight.bench.tables import TEXTS, title
from satlight.evaluation import leaderboard, plots
from satlight.evaluation.outcomes import CANDIDATE, CONTROL, METHOD, UPPER_BOUND
from satlight.evaluation.plots import Estimate
from satlight.metrics.curves import non_decreasing_hull
from satlight.metrics.seeds import seed_interval

SHOWN = 6
"""Maximum number of routers in a plot, the best ones; the tables have all."""

_FEWEST = 10
"""Minimum number of predictions in a bin of the reliability diagram."""


class Plot(NamedTuple):
    """A figure with its caption.

    Args:
        name: Name of the file: letters, digits and ``-``.
        caption: Caption in the report.
        figure: The figure.
    """

    name: str
    caption: str
    figure: Figure


def board_plots(board: Board) -> list[Plot]:
    """Return the plots of one leaderboard, without those that its data do not allow."""
    if not board.methods:
        return []
    makers: list[Callable[[Board], Plot | None]] = [_datasets, _reliability, _heatmap, _quality_cost, _release]
    made = [maker(board) for maker in makers]
    made += [_unseen(table) for table in board.unseen]
    for plot in made:
        if plot is not None:
            kind = plot.name if plot.name in TEXTS["notes"] else "unseen"
            plots.entitle(plot.figure, title(board), TEXTS["notes"][kind])
    prefix = f"{slug(board.data)}-{slug(board.setting)}"
    return [plot._replace(name=f"{prefix}-{plot.name}") for plot in made if plot is not None]


def bench_plots(boards: list[Board]) -> list[Plot]:
    """Return plots of accuracy against zoo size, for all data with several zoo settings."""
    made = []
    for data in dict.fromkeys(board.data for board in boards):
        own = sorted((b for b in boards if b.data == data and b.methods), key=lambda b: len(b.candidates))
        if len({len(board.candidates) for board in own}) > 1:
            made.append(_zoo_size(data, own))
    return made


def slug(name: str) -> str:
    """Return a name for files.

    Example:
        >>> slug("MMLU-Pro, all")
        'MMLU-Pro-all'
    """
    return "-".join(part for part in "".join(c if c.isalnum() else "-" for c in name).split("-") if part)


def _caption(key: str, board: Board, **values: object) -> str:
    caption: str = TEXTS["captions"][key].format(group=board.primary, **values)
    if len(board.methods) > SHOWN:
        caption += f" The {SHOWN} best of {len(board.methods)} routers by {board.primary}."
    return caption


def _datasets(board: Board) -> Plot:
    accuracy = {
        entry.name: {name: _estimate(entry.datasets.get(name)) for name in board.counts}
        for entry in board.methods[:SHOWN]
    }
    controls = {e.name: e for e in board.entries if e.role != METHOD}
    marks = {
        name.replace("_", " "): {d: _estimate(controls[name].datasets.get(d)).value for d in board.counts}
        for name in ("best_single", "dataset_best", "dataset_oracle")
        if name in controls
    }
    return Plot("datasets", _caption("datasets", board), plots.dataset_points(accuracy, marks))


def _reliability(board: Board) -> Plot | None:
    bins = {e.name: rows for e in board.methods if (rows := _pooled_bins(board.results[e.name]))}
    if not bins:
        return None
    shown = dict(list(bins.items())[:SHOWN])
    return Plot("reliability", _caption("reliability", board, fewest=_FEWEST), plots.reliability(shown))


def _pooled_bins(results: list[CellResult]) -> list[tuple[float, float, int]]:
    """Merge the bins of all seeds by their place on the axis, weighted by their predictions."""
    pooled: dict[int, np.ndarray] = {}
    for result in results:
        for confidence, accuracy, count in result.reliability:
            place = min(14, math.floor(confidence * 15 + 1e-9))
            add = np.array([confidence * count, accuracy * count, count])
            pooled[place] = pooled.get(place, np.zeros(3)) + add
    return [(c / n, a / n, int(n)) for _, (c, a, n) in sorted(pooled.items()) if n >= _FEWEST]


def _heatmap(board: Board) -> Plot:
    name, datasets = board.methods[0].name, list(board.counts)
    shares = leaderboard.choice_shares(board.table, name)
    values = [[shares.get((dataset, model), 0.0) for model in board.candidates] for dataset in datasets]
    caption = TEXTS["captions"]["choices"].format(name=name)
    return Plot("choices", caption, plots.choice_heatmap(np.array(values), datasets, board.candidates))


def _quality_cost(board: Board) -> Plot | None:
    curves = {e.name: _mean_curve([r.curve for r in board.results[e.name]]) for e in board.methods}
    priced = {name: curve for name, curve in curves.items() if curve is not None}
    members = board.groups[board.primary]
    points, bounds = (leaderboard.quality_cost_points(board.table, members, role) for role in (CANDIDATE, UPPER_BOUND))
    if not priced or not points or "oracle" not in bounds:
        return None
    hull = non_decreasing_hull(*torch.tensor(list(points.values()), dtype=torch.double).T)
    zero_router = (hull[0].tolist(), hull[1].tolist())
    shown = dict(list(priced.items())[:SHOWN])
    figure = plots.quality_cost(shown, points, zero_router, bounds["oracle"])
    caption = _caption("quality-cost", board)
    if board.table.filter(pl.col("role") == CANDIDATE)["outcome"].null_count():
        caption += " Outcomes are missing: each point is over the instructions that it has outcomes for."
    return Plot("quality-cost", caption, figure)


def _mean_curve(curves: list[list[list[float]] | None]) -> tuple[list[float], list[float]] | None:
    if None in curves:
        return None
    costs, qualities = np.mean(np.array(curves), axis=0)
    return (1000 * costs).tolist(), qualities.tolist()


def _release(board: Board) -> Plot | None:
    if board.release is None:
        return None
    places = [f"{fold['released']} {fold['newest'].rsplit('/', 1)[-1]}" for fold in board.release.folds]
    methods, controls, bounds = (board.release.curves[role] for role in (METHOD, CONTROL, UPPER_BOUND))
    shown = [entry.name for entry in board.methods if entry.name in methods][:SHOWN]
    curves = {name: [_over_seeds(values) for values in zip(*methods[name], strict=True)] for name in shown}
    lines = {name.replace("_", " "): seeds[0] for name, seeds in (controls | bounds).items()}
    curves |= {name: [Estimate(value) for value in values] for name, values in lines.items()}
    figure = plots.curves_over(places, curves, xlabel="newest candidate (release)", controls=list(lines))
    return Plot("release", _caption("release", board), figure)


def _unseen(table: UnseenTable) -> Plot:
    methods = [row for row in table.rows if row.role == METHOD][:SHOWN]
    points = {
        "unseen": {row.name: _estimate(row.figure) for row in methods},
        "trained on all": {row.name: Estimate(math.nan if row.informed is None else row.informed) for row in methods},
    }
    marks = {
        row.name.replace("_", " "): dict.fromkeys(points["unseen"], _estimate(row.figure).value)
        for row in table.rows
        if row.role != METHOD
    }
    caption = TEXTS["captions"]["unseen"].format(title=f"{table.title[:1].upper()}{table.title[1:]}")
    return Plot(table.protocol.replace("_", "-"), caption, plots.dataset_points(points, marks))


def _over_seeds(values: Sequence[float]) -> Estimate:
    mean, half = seed_interval(values)
    return Estimate(mean, mean - half, mean + half, tuple(values) if len(values) > 1 else ())


def _zoo_size(data: str, boards: list[Board]) -> Plot:
    largest = boards[-1]
    names = [entry.name for entry in largest.methods[:SHOWN]]
    controls = {name.replace("_", " "): name for name in ("random", "best_single", "dataset_best", "oracle")}
    found = [{(e.name, e.role == METHOD): e.groups.get(board.primary) for e in board.entries} for board in boards]
    curves = {name: [_estimate(by.get((name, True))) for by in found] for name in names}
    curves |= {label: [_estimate(by.get((name, False))) for by in found] for label, name in controls.items()}
    places = [f"{board.setting}\n({len(board.candidates)})" for board in boards]
    figure = plots.curves_over(places, curves, xlabel="zoo setting (candidates)", controls=list(controls))
    seeds = len(largest.fingerprints)
    plots.entitle(figure, f"{data}: {seeds} seed{'s' if seeds > 1 else ''}", TEXTS["notes"]["zoo-size"])
    return Plot(f"{slug(data)}-zoo-size", _caption("zoo-size", largest, data=data), figure)


def _estimate(figure: leaderboard.Figure | None) -> Estimate:
    """Return an accuracy with its interval over instructions and its seeds, if they differ; NaN = unknown."""
    if figure is None or figure.routed is None or figure.interval is None:
        return Estimate(math.nan)
    seeds = tuple(math.nan if value is None else value for value in figure.per_seed.values())
    low, high = figure.interval
    return Estimate(figure.routed, low, high, seeds if len(set(seeds)) > 1 else ())
