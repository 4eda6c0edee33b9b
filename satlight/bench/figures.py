"""The plots of a leaderboard."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from satlight.bench.board import Board, Entry, estimate
from satlight.bench.unseen import UnseenTable
from satlight.evaluation import plots
from satlight.evaluation.plots import Estimate
from satlight.metrics.seeds import seed_interval

SHOWN = 6
"""Routers in one plot; more cannot be told apart. The best ones are taken, and the tables have all."""


_FEWEST = 10
"""Cells of a bin whose share of right answers says anything."""


class Plot(NamedTuple):
    """A figure with what it shows.

    Args:
        name: For the file: letters, digits and ``-``.
        caption: Sentences for the report.
        figure: The figure.
    """

    name: str
    caption: str
    figure: Figure


def board_plots(board: Board) -> list[Plot]:
    """Plots of one leaderboard; those that its data do not allow are left out."""
    if not board.methods:
        return []
    makers: list[Callable[[Board], Plot | None]] = [_bars, _reliability, _heatmap, _quality_cost, _release]
    made = [maker(board) for maker in makers]
    made += [_unseen(table) for table in board.unseen]
    prefix = f"{slug(board.data)}-{slug(board.setting)}"
    return [plot._replace(name=f"{prefix}-{plot.name}") for plot in made if plot is not None]


def bench_plots(boards: list[Board]) -> list[Plot]:
    """Accuracy against zoo size, for every data with several zoo settings."""
    made = []
    for data in dict.fromkeys(board.data for board in boards):
        own = sorted((b for b in boards if b.data == data and b.methods), key=lambda b: len(b.candidates))
        if len({len(board.candidates) for board in own}) > 1:
            made.append(_zoo_size(data, own))
    return made


def slug(name: str) -> str:
    """A name for files.

    Example:
        >>> slug("MMLU-Pro, all")
        'MMLU-Pro-all'
    """
    return "-".join(part for part in "".join(c if c.isalnum() else "-" for c in name).split("-") if part)


def _said(board: Board) -> str:
    more = len(board.methods) - SHOWN
    return f" The {SHOWN} best of {len(board.methods)} routers by {board.primary}." if more > 0 else ""


def _bars(board: Board) -> Plot:
    accuracy = {
        entry.name: {name: estimate(entry.datasets.get(name)) for name in board.counts}
        for entry in board.methods[:SHOWN]
    }
    controls = {e.name: e for e in board.entries if e.role != "method"}
    marks = {
        name.replace("_", " "): {d: estimate(controls[name].datasets.get(d)).value for d in board.counts}
        for name in ("best_single", "dataset_best", "dataset_oracle")
        if name in controls
    }
    caption = (
        "Routed accuracy per dataset, mean over seeds, with 95 % bootstrap intervals over instructions; "
        "lines are controls. The axis does not begin at 0 where that would hide the differences."
    )
    return Plot("datasets", caption + _said(board), plots.dataset_bars(accuracy, marks))


def _reliability(board: Board) -> Plot | None:
    bins = {e.name: rows for e in board.methods if (rows := _pooled_bins(e))}
    if not bins:
        return None
    shown = dict(list(bins.items())[:SHOWN])
    caption = (
        "Reliability: the share of answers that are right, over what the router predicted, all test cells of "
        "all seeds in 15 bins; marker size is the number of cells, and bins of fewer than "
        f"{_FEWEST} are left out. Routers whose scores are no probabilities "
        "are left out."
    )
    return Plot("reliability", caption + _said(board), plots.reliability(shown))


def _pooled_bins(entry: Entry) -> list[tuple[float, float, int]]:
    """Bins of all seeds, put together by their place on the axis and weighed by their cells."""
    pooled: dict[int, np.ndarray] = {}
    for result in entry.results:
        for confidence, accuracy, count in result["reliability"]:
            place = min(14, math.floor(confidence * 15 + 1e-9))
            add = np.array([confidence * count, accuracy * count, count])
            pooled[place] = pooled.get(place, np.zeros(3)) + add
    return [(c / n, a / n, int(n)) for _, (c, a, n) in sorted(pooled.items()) if n >= _FEWEST]


def _heatmap(board: Board) -> Plot:
    entry = board.methods[0]
    names = list(board.counts)
    shares = np.array(
        [
            np.mean(
                [
                    [r["results"]["datasets"][name]["share"][m] for m in board.candidates]
                    for r in entry.results
                ],
                axis=0,
            )
            for name in names
        ]
    )
    caption = f"Who is chosen where by the best router, {entry.name}: share of each dataset's instructions."
    return Plot("choices", caption, plots.choice_heatmap(shares, names, board.candidates))


def _quality_cost(board: Board) -> Plot | None:
    priced = [e for e in board.methods if e.results[0].get("cost")]
    if not priced:
        return None
    curves = {e.name: _mean_curve([r["cost"]["curve"] for r in e.results]) for e in priced[:SHOWN]}
    facts = priced[0].results[0]["cost"]
    singles = {name: (1000 * cost, quality) for name, (cost, quality) in facts["singles"].items()}
    zero = [1000 * cost for cost in facts["zero_router"][0]], facts["zero_router"][1]
    oracle = (1000 * facts["oracle"][0], facts["oracle"][1])
    caption = (
        f"Quality against cost on {board.primary}, macro means over its datasets. Marker: the router minds "
        "quality alone; line: it trades Pr(correct) for the candidates' mean price on train rows. Dashed: "
        "the zero router, which mixes single candidates blindly (hull of the test points, so optimistic)."
    )
    figure = plots.quality_cost(curves, singles, zero, oracle)
    return Plot("quality-cost", caption + _said(board), figure)


def _mean_curve(curves: list[list[list[float]]]) -> tuple[list[float], list[float]]:
    costs, qualities = np.mean(np.array(curves), axis=0)
    return (1000 * costs).tolist(), qualities.tolist()


def _release(board: Board) -> Plot | None:
    if not board.releases:
        return None
    first = next(iter(board.releases.values()))[0]
    places = [f"{line['released']} {line['newest'].rsplit('/', 1)[-1]}" for line in first]
    curves: dict[str, list[Estimate]] = {}
    for name in [entry.name for entry in board.methods if entry.name in board.releases][:SHOWN]:
        runs = [[line["routed"] for line in curve] for curve in board.releases[name]]
        curves[name] = [_over_seeds(values) for values in zip(*runs, strict=True)]
    controls = {name: name.replace("_", " ") for name in ("random", "best_single", "oracle")}
    for key, name in controls.items():
        curves[name] = [Estimate(line[key]) for line in first]
    caption = (
        "Incremental release: after each release the zoo is the historically best candidates and the newest, "
        f"without training again. Accuracy on {board.primary}; bands are 95 % intervals over seeds."
    )
    figure = plots.curves_over(
        places, curves, xlabel="newest candidate (release)", controls=[*controls.values()]
    )
    return Plot("release", caption + _said(board), figure)


def _unseen(table: UnseenTable) -> Plot:
    methods = [row for row in table.rows if row.role == "method"][:SHOWN]
    level = {row.name: row.routed[0] for row in table.rows if row.role == "control"}
    bars = {
        "unseen": {row.name: Estimate(row.routed[0], *row.routed[2:]) for row in methods},
        "trained on all": {row.name: Estimate(row.informed or math.nan) for row in methods},
    }
    marks = {name.replace("_", " "): dict.fromkeys(bars["unseen"], level[name]) for name in level}
    caption = (
        f"{table.title[:1].upper()}{table.title[1:]}: accuracy where a method was trained without what it "
        "routes, beside the same method trained on everything; 95 % bootstrap intervals over instructions; "
        "lines are controls. The axis does not begin at 0 where that would hide the differences."
    )
    return Plot(table.protocol.replace("_", "-"), caption, plots.dataset_bars(bars, marks))


def _over_seeds(values: Sequence[float]) -> Estimate:
    mean, half = seed_interval(values)
    return Estimate(mean, mean - half, mean + half)


def _zoo_size(data: str, boards: list[Board]) -> Plot:
    largest = boards[-1]
    names = [entry.name for entry in largest.methods[:SHOWN]]
    controls = ["random", "best_single", "dataset_best", "oracle"]
    found: list[dict[tuple[str, bool], Any]] = [
        {(e.name, e.role == "method"): e.groups.get(board.primary) for e in board.entries} for board in boards
    ]
    curves = {name: [estimate(by.get((name, True))) for by in found] for name in names}
    curves |= {n.replace("_", " "): [estimate(by.get((n, False))) for by in found] for n in controls}
    places = [f"{board.setting}\n({len(board.candidates)})" for board in boards]
    caption = (
        f"Accuracy against zoo size on {data}, {largest.primary}; bands are 95 % bootstrap intervals over "
        f"instructions. In brackets the number of candidates."
    )
    figure = plots.curves_over(
        places, curves, xlabel="zoo setting (candidates)", controls=[n.replace("_", " ") for n in controls]
    )
    return Plot(f"{slug(data)}-zoo-size", caption + _said(largest), figure)
