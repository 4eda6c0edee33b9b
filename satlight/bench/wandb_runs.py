"""Log a bench to Weights & Biases: a run per cell, grouped by zoo setting, and one summary run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

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
        plots: All of its plots; their files are in ``output``/plots.
        output: Folder of the bench.
    """
    import wandb

    from satlight.callbacks.wandb_run import offline_without_key

    offline_without_key()
    start = partial(wandb.init, project=config.wandb, dir=output, resume="allow", reinit="finish_previous")
    for cell in cells:
        marker = output / "cells" / cell.key / _LOGGED
        result = CellResult.read(output, cell.key)
        is_method = cell.protocol is None and cell.kind in KINDS
        if result is None or result.failed or not is_method or marker.exists():
            continue
        _log_cell(start, cell, result, output)
        write_text(marker, "logged\n")
    identity = digest([config.name, str(output)])
    run = start(id=identity, name=f"{config.name} summary", job_type="summary")
    if rows := flat(boards):
        table = wandb.Table(columns=[*rows[0]], data=[list(row.values()) for row in rows])
        run.log({"leaderboards": table})
    for plot in plots:
        image = wandb.Image(str(output / "plots" / f"{plot.name}.png"), caption=plot.caption)
        run.log({f"plots/{plot.name}": image})
    run.finish()


def _log_cell(start: Callable[..., Any], cell: Cell, result: CellResult, output: Path) -> None:
    problem = cell.problem
    run = start(
        id=cell.key,
        name=cell.title,
        group=f"{problem.data} / {problem.setting}",
        job_type=cell.method,
        config={
            "method": cell.method,
            "kind": cell.kind,
            **cell.spec,
            **cell.place,
            "fingerprint": problem.fingerprint,
            "chosen": result.chosen,
        },
    )
    for name, group in RoutingResults.load(output / "cells" / cell.key).groups.items():
        for key in ("routed", "gap_closed", "ece"):
            run.summary[f"test/{name}/{key}"] = getattr(group, key)
    run.summary.update(fit_seconds=result.fit_seconds, decision_ms=result.decision_ms)
    run.finish()
