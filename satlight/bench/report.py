"""Everything a bench leaves behind: tables, plots, the HTML report, W&B runs."""

from __future__ import annotations

from pathlib import Path

from satlight.bench.board import Board, boards
from satlight.bench.cells import Cell
from satlight.bench.config import BenchConfig
from satlight.bench.figures import Plot, bench_plots, board_plots
from satlight.bench.report_html import html_report
from satlight.bench.tables import LEGEND, markdown, to_csv, to_json
from satlight.files import atomic_path, write_text

_DPI = 144


def write_report(config: BenchConfig, cells: list[Cell], output: Path, config_text: str) -> list[Board]:
    """Write report.html, results.csv, results.json, results.md and plots/*.png into ``output``.

    Args:
        config: The bench.
        cells: From :func:`satlight.bench.cells.plan`; those without a result are left out.
        output: Folder of the bench.
        config_text: The bench's YAML, shown in the report.

    Returns:
        The leaderboards.
    """
    made = boards(config, cells, output)
    plots: dict[str, list[Plot]] = {f"{b.data}/{b.setting}": board_plots(b) for b in made}
    plots[""] = bench_plots(made)
    with atomic_path(output / "plots") as folder:
        folder.mkdir()
        for plot in (plot for group in plots.values() for plot in group):
            plot.figure.savefig(folder / f"{plot.name}.png", dpi=_DPI)
    write_text(output / "results.csv", to_csv(made))
    write_text(output / "results.json", to_json(made))
    write_text(output / "results.md", f"{markdown(made)}\n{LEGEND}\n")
    write_text(output / "report.html", html_report(config.name, made, plots, config_text))
    if config.wandb is not None:
        from satlight.bench.wandb_runs import log_bench

        log_bench(config, cells, made, [plot for group in plots.values() for plot in group], output)
    return made
