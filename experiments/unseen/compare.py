"""Extend the table of the unseen bench by validation rows and paired differences of one method to the others.

    satlight bench experiments/unseen/mmlu_pro.yaml
    python experiments/unseen/compare.py experiments/unseen/mmlu_pro.yaml --method model_sat_mixtures

Validation: each router trained without a fold chooses between the candidates of that fold on the validation
rows. Prints accuracy in percent for the three folds of each seed and the mean over all; choices between
variants are made on it. For comparison, it prints the best candidate of each fold, selected on the same
rows. Test: the method minus each other method, mean over seeds, with its interval (95 %, paired bootstrap
over instructions), and the same for each seed.
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
from satlight.evaluation.controls import matrices
from satlight.metrics import functional
from satlight.metrics.bootstrap import paired_bootstrap_difference
from satlight.records import open_records

BATCH = 256


def validation(cell: Cell, output: Path, folds: list[dict]) -> list[tuple[float, float]]:
    """Return per fold the validation accuracy of the router and of the fold's best candidate, in percent."""
    records = open_records(output / "problems" / cell.problem.key)
    found = []
    for number, fold in enumerate(folds, 1):
        rows = records.rows(records.splits == "validation").filter(candidates=fold["unseen"])
        run = sorted((output / "runs" / f"{cell.key}-{number}").glob("*/router"))[-1].parent
        kept = run / "validation.npy"
        if not kept.is_file():
            router = Router.from_pretrained(run / "router")
            router.module.encoder.store = Embedder("minilm").store  # frozen, so cached vectors are valid
            texts = rows.texts
            parts = [
                router.score(texts[i : i + BATCH], rows.model_ids).log_odds_BC for i in range(0, len(texts), BATCH)
            ]
            np.save(kept, np.concatenate(parts))
        choice = functional.choose(torch.from_numpy(np.load(kept)))
        outcome_NM, known_NM = matrices(rows)
        outcome, known = functional.outcomes_of(choice, outcome_NM, known_NM)
        best = ((outcome_NM * known_NM).sum(0) / known_NM.sum(0)).max()
        found.append((100 * float(outcome[known].mean()), 100 * float(best)))
    return found


def against(mine: list[np.ndarray], other: list[np.ndarray]) -> str:
    """Return the difference of the means over seeds with its interval, in points."""
    a, b = np.mean(mine, axis=0), np.mean(other, axis=0)
    known = np.isfinite(a) & np.isfinite(b)
    tensors = [torch.from_numpy(np.nan_to_num(values)).float() for values in (a, b)]
    one_group = torch.zeros(len(known), dtype=torch.long)
    found = paired_bootstrap_difference(*tensors, torch.from_numpy(known), one_group)
    mean, low, high = (100 * float(value) for value in (found.mean, found.low, found.high))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench")
    parser.add_argument("--method", required=True)
    args = parser.parse_args()
    config = load_config(args.bench)
    output = Path(config.output)
    routed: dict[str, list[np.ndarray]] = {}
    shown: dict[str, list[list[tuple[float, float]]]] = {}
    for cell in plan(config):
        result = CellResult.read(output, cell.key)
        if cell.protocol != "unseen_candidates" or result is None or result.failed:
            continue
        table = pl.read_parquet(output / "cells" / cell.key / "outcomes.parquet")
        choices = table.filter(pl.col("role") == "method").group_by("row").agg(pl.col("outcome").mean())
        routed.setdefault(cell.method, []).append(choices.sort("row")["outcome"].to_numpy())
        if (output / "runs" / f"{cell.key}-1").is_dir():
            shown.setdefault(cell.method, []).append(validation(cell, output, result.folds))
    rows = {method: [[own for own, _ in folds] for folds in seeds] for method, seeds in shown.items()}
    rows["best candidate"] = [[best for _, best in folds] for folds in next(iter(shown.values()))]
    print("| validation | folds of each seed | mean |\n|---|---|---:|")
    for method, seeds in rows.items():
        cells = "; ".join(", ".join(f"{accuracy:.1f}" for accuracy in folds) for folds in seeds)
        print(f"| {method} | {cells} | {np.mean(seeds):.2f} |")
    if args.method not in routed:
        raise SystemExit(f"No results of '{args.method}' in {output}. Available: {', '.join(routed)}.")
    mine = routed[args.method]
    print(f"\n| test, {args.method} minus | all seeds | each seed |\n|---|---|---|")
    for method, other in routed.items():
        if method == args.method or len(other) != len(mine):
            continue
        each = ", ".join(against([a], [b]) for a, b in zip(mine, other, strict=True))
        print(f"| {method} | {against(mine, other)} | {each} |")


if __name__ == "__main__":
    main()
