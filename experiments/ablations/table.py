"""Print and plot the result of an ablation bench: each variant against the base, paired by instruction.

    satlight bench experiments/ablations/mmlu_pro.yaml
    python experiments/ablations/table.py experiments/ablations/mmlu_pro.yaml --plot mmlu_pro.png

Choices are made on validation rows: each trained router scores them once, and the scores are kept in its
run folder. Test figures are macro means over the datasets of a group. Intervals are 95 % bootstrap
intervals over instructions within datasets of the difference to the first method of the bench; with several
seeds, of the mean difference.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import torch

from satlight import Router
from satlight.backbones.embedding import Embedder
from satlight.bench.cells import Cell, plan
from satlight.bench.config import load_config
from satlight.bench.results import CellResult
from satlight.bench.worker import split_up
from satlight.evaluation.controls import matrices
from satlight.evaluation.plots import CONTROL_COLOR, INK, PALETTE
from satlight.metrics import functional
from satlight.metrics.bootstrap import paired_bootstrap_difference
from satlight.records import open_records

BATCH = 256


def validation_outcomes(cell: Cell, output: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the outcomes of a router's choices on the validation rows, and the datasets of the rows."""
    run = sorted((output / "runs" / cell.key).glob("*/router"))[-1].parent
    records = open_records(output / "problems" / cell.problem.key)
    learning, _ = split_up(records, cell.problem.train_datasets)
    rows = learning.rows(learning.splits == "validation")
    kept = run / "validation.npy"
    if not kept.is_file():
        router = Router.from_pretrained(run / "router")
        encoder = router.module.encoder
        encoder.store = Embedder("minilm").store  # frozen in both experiments, so cached vectors are valid
        texts = rows.texts
        scores = [router.score(texts[i : i + BATCH], rows.model_ids).log_odds_BC for i in range(0, len(texts), BATCH)]
        np.save(kept, np.concatenate(scores))
    choice_N = functional.choose(torch.from_numpy(np.load(kept)))
    outcome_N, known_N = functional.outcomes_of(choice_N, *matrices(rows))
    return np.where(known_N, outcome_N, np.nan), rows.datasets


def against(mine: np.ndarray, base: np.ndarray, groups: np.ndarray | None) -> list[float]:
    """Return mean, difference to the base, and its bounds, in percent; macro means if groups are given."""
    known = np.isfinite(mine) & np.isfinite(base)
    code = np.zeros(len(mine), dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    mean = np.mean([mine[known & (code == g)].mean() for g in np.unique(code)])
    tensors = [torch.from_numpy(np.nan_to_num(values)).float() for values in (mine, base)]
    found = paired_bootstrap_difference(*tensors, torch.from_numpy(known), torch.from_numpy(code))
    return [100 * float(value) for value in (mean, found.mean, found.low, found.high)]


def lines(path: str) -> tuple[list[str], dict[str, dict[str, list[float]]]]:
    """Return the columns, and for each variant the figures of :func:`against` in each column."""
    config = load_config(path)
    output = Path(config.output)
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    datasets: dict[str, np.ndarray] = {}
    columns = ["validation"]
    for cell in plan(config):
        result = CellResult.read(output, cell.key)
        if cell.kind != "config" or result is None or result.failed:
            continue
        own = found.setdefault(cell.method, {})
        outcome_N, _ = validation_outcomes(cell, output)
        own.setdefault("validation", []).append(outcome_N)
        table = pl.read_parquet(output / "cells" / cell.key / "outcomes.parquet")
        routed = table.filter(pl.col("role") == "method").sort("row")
        test, dataset_N = routed["outcome"].to_numpy(), routed["dataset"].to_numpy()
        for group, members in cell.problem.groups.items():
            name = f"test, {group}" if len(cell.problem.groups) > 1 else "test"
            if name not in columns:
                columns.append(name)
            rows = np.isin(dataset_N, members)
            datasets[name] = dataset_N[rows]
            own.setdefault(name, []).append(test[rows])
    base = next(iter(found))
    table = {}
    for method, own in found.items():
        seeds = min(len(own["validation"]), len(found[base]["validation"]))
        # Validation rows differ between seeds and are concatenated; test rows are the same and are averaged.
        table[method] = {
            name: against(*(_over(found[m][name][:seeds], name) for m in (method, base)), datasets.get(name))
            for name in columns
        }
    return columns, table


def _over(outcomes: list[np.ndarray], column: str) -> np.ndarray:
    return np.concatenate(outcomes) if column == "validation" else np.mean(outcomes, axis=0)


def plot(data: str, columns: list[str], table: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Plot the differences to the base with their intervals on one scale, one panel per column."""
    from matplotlib.figure import Figure

    names = [name for name in table if any(table[name][column][1] for column in columns)]
    figure = Figure(figsize=(2.2 + 2.4 * len(columns), 1.2 + 0.27 * len(names)), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(columns), sharex=True, sharey=True))
    for axes, column, color in zip(panels, columns, PALETTE, strict=False):
        axes.axvline(0, color=CONTROL_COLOR, linewidth=1)
        for place, name in enumerate(names):
            _, difference, low, high = table[name][column]
            axes.plot([low, high], [place, place], color=color)
            axes.plot(difference, place, "o", color=color, markersize=4)
        axes.set_title(column, loc="left", fontsize=9, color=INK)
        axes.set_xlabel("points against the base", fontsize=8)
        axes.tick_params(labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    panels[0].invert_yaxis()
    note = f"{data}: difference to the base, paired\n95 % bootstrap intervals over instructions, of the mean over seeds"
    figure.suptitle(note, x=0.01, ha="left", fontsize=9, color=INK)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    columns, table = lines(args.bench)
    print("| variant |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for method, own in table.items():
        cells = [f"{mean:.2f}: {d:+.2f} ({low:+.2f} to {high:+.2f})" for mean, d, low, high in own.values()]
        if method == next(iter(table)):
            cells = [f"{mean:.2f}" for mean, *_ in own.values()]
        print(f"| {method.replace('_', ' ')} |", " | ".join(cells), "|")
    if args.plot is not None:
        plot(Path(args.bench).stem, columns, table, args.plot)


if __name__ == "__main__":
    main()
