"""Everything that a bench leaves behind: tables, plots, the HTML report and W&B runs."""

from __future__ import annotations

import io
import re
from pathlib import Path

import jinja2
import matplotlib
from markupsafe import Markup, escape

import satlight
from satlight.bench import tables
from satlight.bench.board import Board, boards
from satlight.bench.cells import Cell
from satlight.bench.config import BenchConfig
from satlight.bench.examples import EXAMPLES, Shown, board_examples
from satlight.bench.figures import Plot, bench_plots, board_plots, slug
from satlight.evaluation.plots import INK
from satlight.files import atomic_path, write_text

_DPI = 144
_PIXELS_PER_INCH = 96
_READABLE = 0.86
"""Minimum scale of a plot; on a narrower screen it scrolls in its box."""


def write_report(config: BenchConfig, cells: list[Cell], output: Path, config_text: str) -> list[Board]:
    """Write report.html, results.csv, results.json, results.md and plots/*.png into ``output``.

    Args:
        config: The bench.
        cells: Cells from :func:`satlight.bench.cells.plan`; those without a result are omitted.
        output: Folder of the bench.
        config_text: The bench's YAML, shown in the report.

    Returns:
        The leaderboards.
    """
    made = boards(config, cells, output)
    plots = {f"{b.data}/{b.setting}": board_plots(b) for b in made} | {"": bench_plots(made)}
    every_plot = [plot for group in plots.values() for plot in group]
    with atomic_path(output / "plots") as folder:
        folder.mkdir()
        for plot in every_plot:
            plot.figure.savefig(folder / f"{plot.name}.png", dpi=_DPI)
    write_text(output / "results.csv", tables.to_csv(made))
    write_text(output / "results.json", tables.to_json(made))
    write_text(output / "results.md", f"{tables.markdown(made)}\n{tables.LEGEND}\n")
    examples: dict[str, list[Shown]] = {}
    for board in made:
        left = EXAMPLES - sum(map(len, examples.values()))
        examples[f"{board.data}/{board.setting}"] = board_examples(board, cells, output, left)
    write_text(output / "report.html", html_report(config.name, made, plots, config_text, examples))
    if config.wandb is not None:
        from satlight.bench.wandb_runs import log_bench

        log_bench(config, cells, made, every_plot, output)
    return made


def html_report(
    name: str,
    boards: list[Board],
    plots: dict[str, list[Plot]],
    config_text: str,
    examples: dict[str, list[Shown]] | None = None,
) -> str:
    """Return the report, one HTML page that refers to no other file.

    Args:
        name: Name of the bench.
        boards: Its leaderboards.
        plots: ``data/setting`` of a leaderboard → its plots; "" → those of the whole bench.
        config_text: The bench's YAML, shown at the end.
        examples: ``data/setting`` of a leaderboard → missed instructions with images; None = none.
    """
    return template("report.html.jinja").render(
        name=name,
        version=satlight.__version__,
        boards=boards,
        plots=plots,
        examples=examples or {},
        config_text=config_text,
        tables=tables,
        headline=_headline,
        anchor=lambda board: f"{slug(board.data)}-{slug(board.setting)}",
        svg=svg,
    )


def template(name: str) -> jinja2.Template:
    """Return a template of this package; what it fills in is escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(name)


def svg(plot: Plot) -> Markup:
    """Return a plot as SVG with the text color of the page; equal plots give equal text."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": plot.name, "svg.fonttype": "path"}):
        plot.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Ids must differ between the plots of a page; matplotlib numbers axes and patches from 1 in each.
    text = re.sub(r'\b(id="|href="#|url\(#)', lambda found: f"{found[1]}{slug(plot.name)}-", text)
    for size in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", text, count=1)
    width = plot.figure.get_size_inches()[0] * _PIXELS_PER_INCH
    style = f"min-width:{_READABLE * width:.0f}px;max-width:{1.15 * width:.0f}px"
    text = text.replace("<svg", f'<svg role="img" aria-label="{escape(plot.caption)}" style="{style}"', 1)
    return Markup(text.replace(INK, "var(--ink)"))  # the only text that is not escaped


def _headline(board: Board) -> str:
    if not board.methods:
        return ": no router has a result"
    best = board.methods[0]
    figure = best.groups[board.primary]
    text = f": {best.name} {tables.mean(figure)} on {board.primary}"
    if figure.versus_best_control is not None:
        control = board.best_control[board.primary]
        text += f", {tables.difference(figure.versus_best_control)} against {control}, the best control"
    return text
