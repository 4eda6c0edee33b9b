"""The results of a sweep: a table, a CSV file, and a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from satlight.escaping import csv_text
from satlight.files import atomic_path, write_text
from satlight.metrics.seeds import seed_interval
from satlight.sweeps.definition import Sweep
from satlight.sweeps.trials import COMPLETE, FAILED, Trial

SEED = "seed_everything"
_PREFIXES = ("model.", "data.", "configs/", "objective/", "encoder/", "router_llm/", "overlay/", "zoo/", "init_args.")
_SHOWN = ("val_gap_closed", "val_best_single", "val_oracle", "val_loss", "val_ece")
"""Metrics of the best epoch that the table shows if they were logged."""


@dataclass(frozen=True)
class Row:
    """The trials of one point with all seeds.

    Args:
        label: The options that vary, shortened.
        trials: Its trials.
    """

    label: str
    trials: tuple[Trial, ...]

    def values(self, metric: str | None = None) -> list[float]:
        """Return the sweep's metric, or another one, of the complete trials."""
        done = [trial for trial in self.trials if trial.state == COMPLETE and trial.value is not None]
        if metric is None:
            return [trial.value for trial in done if trial.value is not None]
        return [trial.metrics[metric] for trial in done if metric in trial.metrics]


def rows_of(sweep: Sweep, trials: Sequence[Trial]) -> list[Row]:
    """Return the points, the best mean first and those without a value last."""
    varied = [key for key, one in sweep.parameters.items() if key != SEED and len(one.values) != 1]
    grouped: dict[str, list[Trial]] = {}
    for trial in trials:
        grouped.setdefault(label(trial.point, varied), []).append(trial)
    rows = [Row(name, tuple(found)) for name, found in grouped.items()]
    sign = -1 if sweep.maximize else 1
    return sorted(rows, key=lambda row: sign * seed_interval(row.values()).mean if row.values() else math.inf)


def label(point: dict[str, Any], varied: Sequence[str]) -> str:
    """Return a short name of a point.

    Example:
        >>> label({"config": "model.objective=configs/objective/sum.yaml + data.sampler=TaskBlocks"}, ["config"])
        'sum + sampler=TaskBlocks'
        >>> label({"model.optimizer.lr": 0.00123456}, ["model.optimizer.lr"])
        'optimizer.lr=0.001235'
    """
    words = []
    for key in varied:
        value = point[key]
        if not isinstance(value, str):
            words.append(f"{_short(key)}={value:.4g}" if isinstance(value, float) else f"{_short(key)}={value}")
            continue
        for part in value.split(" + "):
            option, _, content = part.rpartition("=")
            is_file = content.endswith((".yaml", ".yml"))
            name = Path(content).stem if is_file else content
            words.append(name if is_file or not (option or key) else f"{_short(option or key)}={name}")
    return " + ".join(words) or "all options constant"


def _short(option: str) -> str:
    for prefix in _PREFIXES:
        option = option.removeprefix(prefix)
    return option


def save_report(sweep: Sweep, trials: Sequence[Trial], folder: Path) -> list[Path]:
    """Write ``trials.csv`` and ``trials.png`` into the folder of the sweep, and return their paths."""
    from satlight.evaluation.plots import Estimate, ranked

    metrics = sorted({name for trial in trials for name in trial.metrics})
    lines = [
        {
            "trial": trial.key,
            "state": trial.state,
            **{key: _cell(value) for key, value in trial.point.items()},
            f"best {sweep.metric}": trial.value,
            "epoch": trial.epoch,
            **{name: trial.metrics.get(name) for name in metrics},
            "seconds": trial.seconds,
            "run": trial.run,
            "error": trial.error,
        }
        for trial in trials
    ]
    paths = [folder / "trials.csv"]
    write_text(paths[0], csv_text(lines))
    points = {}
    for row in rows_of(sweep, trials):
        if values := row.values():
            mean, half = seed_interval(values)
            points[row.label] = Estimate(mean, mean - half, mean + half, tuple(values) if len(values) > 1 else ())
    if points:
        paths.append(folder / "trials.png")
        with atomic_path(paths[1]) as temporary:
            ranked(points, xlabel=f"{sweep.metric} (validation)").savefig(temporary, dpi=150)
    return paths


def _cell(value: Any) -> str | float | int:
    return value if isinstance(value, str | int | float) else str(value)


def print_report(sweep: Sweep, trials: Sequence[Trial], console: Console) -> None:
    """Print one row per point, means over seeds."""
    logged = {name for trial in trials for name in trial.metrics}
    shown = [name for name in _SHOWN if name in logged and name != sweep.metric]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    table.add_column(sweep.name, overflow="fold")
    headings = ("seeds", sweep.metric.removeprefix("val_"), "95 %", *(name.removeprefix("val_") for name in shown))
    for heading in (*headings, "seconds", "state"):
        table.add_column(heading.replace("_", "\n"), justify="right", vertical="bottom")
    for row in rows_of(sweep, trials):
        values = row.values()
        mean, half = seed_interval(values) if values else (math.nan, math.nan)
        others = [row.values(name) for name in shown]
        seconds = [trial.seconds for trial in row.trials if trial.seconds is not None]
        cells = [f"{len(values)}", _number(mean), "–" if math.isnan(half) else f"±{half:.4f}"]
        cells += [_number(sum(found) / len(found) if found else math.nan) for found in others]
        cells += [f"{sum(seconds) / len(seconds):.0f}" if seconds else "–", _states(row)]
        table.add_row(*map(Text, [row.label, *cells]))
    goal = "largest" if sweep.maximize else "smallest"
    console.print(
        Text(f"Sweep {sweep.name}: {sweep.metric} of the validation split, {goal} over epochs, mean over seeds")
    )
    console.print(table)
    for trial in trials:
        if trial.state == FAILED:
            console.print(Text(f"failed: {label(trial.point, list(trial.point))}: {trial.error}"), soft_wrap=True)


def _states(row: Row) -> str:
    states = [trial.state for trial in row.trials]
    others = [f"{states.count(state)} {state}" for state in dict.fromkeys(states) if state != COMPLETE]
    return ", ".join(others) or "complete"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.4f}"
