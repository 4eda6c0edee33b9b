"""Log a bench to Weights & Biases: a run per cell, grouped by zoo setting, and one summary run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from satlight.bench.board import Board
from satlight.bench.cells import Cell, digest
from satlight.bench.config import KINDS, BenchConfig
from satlight.bench.figures import Plot
from satlight.bench.results import CellResult
from satlight.bench.tables import flat
from satlight.evaluation import RoutingResults
from satlight.files import write_text

_LOGGED = "wandb"
"""File in the folder of a cell that has been logged."""


def log_bench(config: BenchConfig, cells: list[Cell], boards: list[Board], plots: list[Plot], output: Path) -> None:
    """Log cells that have not been logged yet, and the tables and plots as a summary run.

    Without a W&B login, the runs are stored in files below ``output``, for ``wandb sync``.

    Args:
        config: The bench; ``wandb`` is the project.
        cells: Its cells.
        boards: Its leaderboards.
        plots: All of its plots.
        output: Folder of the bench.
    """
    from satlight.callbacks.wandb_tables import offline_without_key

    offline_without_key()
    for cell in cells:
        marker = output / "cells" / cell.key / _LOGGED
        result = CellResult.read(output, cell.key)
        is_method = cell.protocol is None and cell.kind in KINDS
        if result is None or result.failed or not is_method or marker.exists():
            continue
        _log_cell(config, cell, result, output)
        write_text(marker, "logged\n")
    _log_summary(config, boards, plots, output)


def _start(project: str | None, output: Path, **settings: Any) -> Any:
    import wandb

    return wandb.init(project=project, dir=output, resume="allow", reinit="finish_previous", **settings)


def _log_cell(config: BenchConfig, cell: Cell, result: CellResult, output: Path) -> None:
    problem = cell.problem
    run = _start(
        config.wandb,
        output,
        id=cell.key,
        name=cell.title,
        group=f"{problem.data} / {problem.setting}",
        job_type=cell.method,
        config={
            "method": cell.method,
            "kind": cell.kind,
            **cell.spec,
            "data": problem.data,
            "setting": problem.setting,
            "seed": problem.seed,
            "fingerprint": problem.fingerprint,
            "chosen": result.chosen,
        },
    )
    for name, group in RoutingResults.load(output / "cells" / cell.key).groups.items():
        for key in ("routed", "gap_closed", "ece"):
            run.summary[f"test/{name}/{key}"] = getattr(group, key)
    run.summary["fit_seconds"] = result.fit_seconds
    run.summary["decision_ms"] = result.decision_ms
    run.finish()


def _log_summary(config: BenchConfig, boards: list[Board], plots: list[Plot], output: Path) -> None:
    import wandb

    identity = digest([config.name, str(output)])
    run = _start(config.wandb, output, id=identity, name=f"{config.name} summary", job_type="summary")
    if rows := flat(boards):
        table = wandb.Table(columns=[*rows[0]], data=[list(row.values()) for row in rows])
        run.log({"leaderboards": table})
    for plot in plots:
        run.log({f"plots/{plot.name}": wandb.Image(_pixels(plot), caption=plot.caption)})
    run.finish()


def _pixels(plot: Plot) -> np.ndarray:
    """Return the plot as uint8 (height, width, 4)."""
    import matplotlib.image

    buffer = io.BytesIO()
    plot.figure.savefig(buffer, format="png", dpi=110)
    buffer.seek(0)
    return (255 * matplotlib.image.imread(buffer)).astype(np.uint8)
