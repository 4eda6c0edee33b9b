"""Plots of routing results as matplotlib figures, for the caller to save.

The palette is that of Okabe and Ito, which is distinguishable with color blindness; markers and line styles
differ as well. All text and axes have the color :data:`INK`, so that a page can replace it in an SVG.
"""

from __future__ import annotations

import functools
import itertools
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

P = ParamSpec("P")

INK = "#23272e"
"""Color of text, axes and reference lines."""

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d00", "#7f7f7f")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = ("-", "--", "-.", ":")
CONTROL_COLOR = "#9aa0a6"
"""Color of single candidates and controls."""

_STYLE = Path(__file__).with_name("plots.mplstyle")


class Estimate(NamedTuple):
    """Value with its interval; NaN bounds draw no error bar.

    Args:
        value: In the unit of the axis.
        low: Lower bound.
        high: Upper bound.
        seeds: Value of each seed, drawn as small points; empty with one seed.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    seeds: tuple[float, ...] = ()


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.subplots()


def _finished(figure: Figure, columns: int = 4, **labels: str) -> Figure:
    """Add the labels of the axes and the legend."""
    figure.axes[0].set(**labels)
    figure.legend(loc="outside lower center", ncols=columns)
    return figure


def _styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the style of ``plots.mplstyle``, independent of the caller's matplotlib settings."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(fname=_STYLE):
            return draw(*args, **kwargs)

    return wrapper


def _bounds(estimates: Sequence[Estimate]) -> np.ndarray:
    """Return values, lower and upper bounds (3, n)."""
    return np.array([estimate[:3] for estimate in estimates], dtype=float).T


def _draw_seeds(axes: Axes, places: Sequence[float], estimates: Sequence[Estimate], color: str) -> None:
    """Draw a small point for each seed."""
    points = [(x, value) for x, one in zip(places, estimates, strict=True) for value in one.seeds if np.isfinite(value)]
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, 8, color, alpha=0.55, lw=0, zorder=2.5)


@_styled
def dataset_points(
    accuracy: Mapping[str, Mapping[str, Estimate]], marks: Mapping[str, Mapping[str, float]] | None = None
) -> Figure:
    """Plot routed accuracy per dataset, with a point, its interval and the points of the seeds for each router.

    Points, unlike bars, are compared by their position alone, so the axis need not start at 0.

    Args:
        accuracy: Router → dataset → accuracy in percent; datasets in the order of the first router.
        marks: Control → dataset → accuracy in percent, drawn as a line across the dataset's points.

    Returns:
        The figure.

    Example:
        >>> figure = dataset_points({"knn": {"math": Estimate(60, 55, 65), "code": Estimate(40, 30, 50)}})
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [60.0, 40.0]
    """
    datasets = list(next(iter(accuracy.values())))
    figure, axes = _figure(max(6.4, 0.9 + len(datasets) * (0.35 + 0.16 * len(accuracy))), 4.0)
    width = 0.8 / len(accuracy)
    place = np.arange(len(datasets))
    for i, (name, values) in enumerate(accuracy.items()):
        estimates = [values.get(dataset, Estimate(float("nan"))) for dataset in datasets]
        value, low, high = _bounds(estimates)
        x = place - 0.4 + (i + 0.5) * width
        color, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        errors = np.array([value - low, high - value]).clip(min=0)
        axes.errorbar(x, value, errors, fmt=marker, color=color, ms=5, elinewidth=1, capsize=2, label=name)
        _draw_seeds(axes, (x + 0.28 * width).tolist(), estimates, color)
    for (name, levels), line in zip((marks or {}).items(), itertools.cycle(LINES), strict=False):
        heights = [levels.get(dataset, float("nan")) for dataset in datasets]
        axes.hlines(heights, place - 0.45, place + 0.45, colors=INK, linestyles=line, lw=1.1, label=name)
    rotation, ha = (25, "right") if len(datasets) > 4 else (0, "center")
    axes.set_xticks(place, datasets, rotation=rotation, ha=ha)
    axes.grid(visible=False, axis="x")
    return _finished(figure, ylabel="accuracy (%)")


def entitle(figure: Figure, title: str, note: str) -> None:
    """Write the name of the data and what the intervals mean above a figure.

    Example:
        >>> figure = reliability({"knn": [(0.2, 0.3, 10)]})
        >>> entitle(figure, "RouterDC, 3 seeds", "all seeds together")
        >>> figure.get_suptitle()
        'RouterDC, 3 seeds\\nall seeds together'
    """
    width = int(figure.get_size_inches()[0] * 15)
    lines = [*textwrap.wrap(title, width), *textwrap.wrap(note, width)]
    figure.suptitle("\n".join(lines), x=0.01, ha="left", fontsize=8.5, color=INK)


@_styled
def quality_cost(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    singles: Mapping[str, tuple[float, float]],
    zero_router: tuple[Sequence[float], Sequence[float]],
    oracle: tuple[float, float],
) -> Figure:
    """Plot quality against cost of each router as it trades one for the other.

    Args:
        curves: Router → (costs in US dollars per 1,000 instructions, accuracies in percent); the first point,
            quality alone, is drawn as a marker.
        singles: Candidate → (cost, accuracy).
        zero_router: Corners of the hull of the single candidates, in order of cost.
        oracle: Cost and accuracy of the oracle.

    Returns:
        The figure, with cost on a logarithmic axis. Candidate names that would overlap others are left out.

    Example:
        >>> figure = quality_cost({"knn": ([2, 1], [80, 70])}, {"small": (1, 70)}, ([1], [70]), (1, 90))
        >>> figure.axes[0].get_xscale()
        'log'
    """
    figure, axes = _figure(7.2, 4.6)
    for i, (name, (costs, qualities)) in enumerate(curves.items()):
        color, marker = PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)]
        order = np.argsort(costs, kind="stable")
        axes.plot(np.array(costs)[order], np.array(qualities)[order], color=color, lw=1.4, alpha=0.85)
        axes.plot(costs[0], qualities[0], marker, color=color, ms=7, label=name)
    costs_M, qualities_M = zip(*singles.values(), strict=True)
    axes.scatter(costs_M, qualities_M, 26, CONTROL_COLOR, label="single candidate", zorder=3)
    axes.plot(*zero_router, color=INK, ls="--", lw=1.1, label="zero router (hull of singles)")
    axes.plot(*oracle, "*", color=INK, ms=11, label="oracle", ls="none")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(_few_minor_labels)
    _label_apart(figure, axes, singles, set(zip(*zero_router, strict=True)))
    return _finished(figure, xlabel="cost (US dollars per 1,000 instructions)", ylabel="accuracy (%)")


@_styled
def ranked(estimates: Mapping[str, Estimate], *, xlabel: str) -> Figure:
    """Plot one value per row, in the order given from the top, with intervals and the points of the seeds.

    Args:
        estimates: Name of the row → value.
        xlabel: Label of the axis, with its unit.

    Returns:
        The figure.

    Example:
        >>> figure = ranked({"a": Estimate(0.8), "b": Estimate(0.7, 0.6, 0.8)}, xlabel="accuracy")
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['a', 'b']
    """
    figure, axes = _figure(7.2, 1.2 + 0.34 * len(estimates))
    value, low, high = _bounds(list(estimates.values()))
    place = np.arange(len(estimates))
    errors = np.nan_to_num(np.array([value - low, high - value]).clip(min=0))
    axes.errorbar(value, place, xerr=errors, fmt="o", color=PALETTE[0], ms=5, elinewidth=1, capsize=2)
    for row, one in enumerate(estimates.values()):
        axes.scatter(one.seeds, [row + 0.2] * len(one.seeds), 8, PALETTE[0], alpha=0.55, lw=0)
    axes.set_yticks(place, [textwrap.fill(name, 44) for name in estimates], fontsize=7)
    axes.set(xlabel=xlabel, ylim=(len(estimates) - 0.5, -0.5))
    return figure


def _few_minor_labels(value: float, place: float = 0.0) -> str:
    """Label only 2 and 5 between the powers of ten of a logarithmic axis, so that labels do not overlap."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def _label_apart(
    figure: Figure, axes: Axes, points: Mapping[str, tuple[float, float]], first: set[tuple[float, float]]
) -> None:
    """Label the points, those in ``first`` before others, and leave out labels that would overlap."""
    figure.draw_without_rendering()  # makes the positions on the axes known
    taken: list[np.ndarray] = []
    for name, point in sorted(points.items(), key=lambda item: item[1] not in first):
        place = axes.transAxes.inverted().transform(axes.transData.transform(point))
        if any(abs(place - other)[0] < 0.16 and abs(place - other)[1] < 0.045 for other in taken):
            continue
        taken.append(place)
        short = name.rsplit("/", 1)[-1]
        side = "right" if place[0] > 0.85 else "left" if place[0] < 0.1 else "center"
        axes.annotate(short, point, (0, -10), textcoords="offset points", fontsize=6.5, ha=side)


@_styled
def curves_over(
    places: Sequence[str], curves: Mapping[str, Sequence[Estimate]], *, xlabel: str, controls: Sequence[str] = ()
) -> Figure:
    """Plot accuracy over releases or zoo sizes, with a band for each interval and the points of the seeds.

    Args:
        places: Names of the points, drawn evenly spaced.
        curves: Name → one accuracy in percent per place; NaN leaves a gap.
        xlabel: Label of the axis, with its unit.
        controls: Names among ``curves`` that are controls, drawn in gray.

    Returns:
        The figure.

    Example:
        >>> figure = curves_over(["small", "large"], {"knn": [Estimate(50), Estimate(60)]}, xlabel="candidates")
        >>> figure.axes[0].lines[0].get_ydata().tolist()
        [50.0, 60.0]
    """
    figure, axes = _figure(max(6.4, 0.24 * len(places)), 4.0)
    x = np.arange(len(places))
    colors, grays = iter(itertools.cycle(PALETTE)), iter(itertools.cycle(LINES))
    for i, (name, estimates) in enumerate(curves.items()):
        control = name in controls
        color = CONTROL_COLOR if control else next(colors)
        y, low, high = _bounds(estimates)
        line, marker = (next(grays), None) if control else ("-", MARKERS[i % len(MARKERS)])
        axes.plot(x, y, color=color, label=name, lw=1.4, ls=line, marker=marker, ms=4.5)
        _draw_seeds(axes, x.tolist(), estimates, color)
        if not control and np.isfinite(low).any():
            axes.fill_between(x, low, high, color=color, alpha=0.13, lw=0)
    rotation, ha = (45, "right") if len(places) > 3 else (0, "center")
    axes.set_xticks(x, places, rotation=rotation, ha=ha)
    return _finished(figure, xlabel=xlabel, ylabel="accuracy (%)")


@_styled
def reliability(bins: Mapping[str, Sequence[tuple[float, float, int]]]) -> Figure:
    """Plot a reliability diagram: the share of right answers over the predicted Pr(correct).

    Args:
        bins: Router → bins of mean Pr(correct), share of right answers, and number of cells (marker size).

    Returns:
        The figure; a calibrated router lies on the diagonal.

    Example:
        >>> figure = reliability({"knn": [(0.2, 0.3, 10), (0.8, 0.7, 5)]})
        >>> figure.axes[0].lines[0].get_label()
        'calibrated'
    """
    figure, axes = _figure(5.2, 5.2)
    axes.plot([0, 1], [0, 1], color=INK, ls="--", lw=1, label="calibrated")
    most = max((count for rows in bins.values() for _, _, count in rows), default=1)
    for i, (name, rows) in enumerate(bins.items()):
        confidence, accuracy, count = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
        color = PALETTE[i % len(PALETTE)]
        axes.plot(confidence, accuracy, color=color, lw=1.2, ls=LINES[i // len(PALETTE) % len(LINES)])
        size, marker = 8 + 60 * count / most, MARKERS[i % len(MARKERS)]
        axes.scatter(confidence, accuracy, size, color=color, marker=marker, label=name, alpha=0.85)
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    return _finished(figure, columns=3, xlabel="Pr(correct), predicted", ylabel="share correct")


@_styled
def gains(estimates: Mapping[str, Estimate], xlabel: str) -> Figure:
    """Plot differences with their intervals, one line each, around a line at 0.

    Args:
        estimates: Name → difference.
        xlabel: Label of the axis, with its unit.

    Returns:
        The figure.

    Example:
        >>> gains({"law": Estimate(1.0, -1.0, 3.0)}, "points").axes[0].get_xlabel()
        'points'
    """
    names, (value, low, high) = list(estimates), _bounds(list(estimates.values()))
    figure, axes = _figure(5.6, 1.3 + 0.28 * len(names))
    place = np.arange(len(names))
    axes.axvline(0, color=INK, lw=1)
    axes.errorbar(value, place, xerr=[value - low, high - value], fmt="o", color=PALETTE[0], ms=5, capsize=2, lw=1.2)
    axes.set_yticks(place, [textwrap.shorten(name, 34, placeholder="…") for name in names])
    axes.set(xlabel=xlabel, ylim=(len(names) - 0.5, -0.5))
    return figure


@_styled
def choice_heatmap(share_DM: np.ndarray, datasets: Sequence[str], candidates: Sequence[str]) -> Figure:
    """Plot the share of each dataset's instructions that is routed to each candidate.

    Args:
        share_DM: Shares in [0, 1], datasets × candidates.
        datasets: Names of the rows.
        candidates: Names of the columns.

    Returns:
        The figure, with the share of each cell in percent unless it is 0.

    Example:
        >>> figure = choice_heatmap(np.array([[0.25, 0.75]]), ["math"], ["org/a", "org/b"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['25', '75']
    """
    rows, columns = share_DM.shape
    figure, axes = _figure(max(5.0, 2.2 + 0.52 * columns), 2.3 + 0.34 * rows)
    mesh = axes.pcolormesh(share_DM * 100, cmap="cividis", vmin=0, vmax=100, edgecolors="none")
    for row, column in itertools.product(range(rows), range(columns)):
        share = share_DM[row, column]
        if share >= 0.005:  # zeros would clutter the plot
            color = "#ffffff" if share < 0.5 else "#000000"
            axes.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(np.arange(columns) + 0.5, [name.rsplit("/", 1)[-1] for name in candidates], rotation=40, ha="right")
    axes.set_yticks(np.arange(rows) + 0.5, list(datasets))
    axes.invert_yaxis()
    axes.grid(visible=False)
    figure.colorbar(mesh, ax=axes, shrink=0.9).set_label("chosen (%)")
    return figure
