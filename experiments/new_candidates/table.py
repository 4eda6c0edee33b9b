"""Print the table of run.py's results: accuracy at every K, and differences to the best rival of that K."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl
import torch

from satlight.metrics.bootstrap import paired_bootstrap_difference
from satlight.metrics.seeds import seed_interval

OWN = "few_results"
RIVALS = ("best_single", "knn", "cluster", "hierarchy", "irt")
"""Routers to be at least as good as, at every K."""


def by_row(frame: pl.DataFrame) -> torch.Tensor:
    """Return the mean of each instruction over seeds and folds, in the order of rows."""
    return torch.tensor(frame.group_by("row").agg(pl.col("value").mean()).sort("row")["value"].to_list())


def by_seed(one: pl.DataFrame, other: pl.DataFrame) -> list[float]:
    """Return the difference of the mean outcomes in each seed."""
    means = [part.group_by("seed").agg(pl.col("value").mean()).sort("seed")["value"] for part in (one, other)]
    return (means[0] - means[1]).to_list()


def plot(frame: pl.DataFrame, path: Path) -> None:
    """Draw the difference of each router to best single at every K."""
    import matplotlib.pyplot as plt

    sizes = sorted(frame["k"].unique().to_list())
    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    for method in frame["method"].unique(maintain_order=True):
        points = [
            100
            * (
                frame.filter(k=k, method=method)["value"].mean()
                - frame.filter(k=k, method="best_single")["value"].mean()
            )
            for k in sizes
        ]
        own = method == OWN
        axes.plot(sizes, points, marker="o", label=method, linewidth=2.5 if own else 1, zorder=3 if own else 2)
    axes.set(xscale="log", xticks=sizes, xticklabels=sizes, xlabel="K results of each new candidate")
    axes.set_ylabel("points above best single")
    axes.minorticks_off()
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--own", default=OWN)
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    frame = pl.read_parquet(args.results)
    if args.plot:
        plot(frame, args.plot)
    sizes = sorted(frame["k"].unique().to_list())
    methods = frame["method"].unique(maintain_order=True).to_list()
    if args.own not in methods:
        parser.error(f"--own is {args.own}; {args.results} has {', '.join(methods)}")
    mean = {(k, method): 100 * part["value"].mean() for (k, method), part in frame.group_by(["k", "method"])}
    print("| router |", " | ".join(f"K = {k}" for k in sizes), "|")
    print("|---|" + "---:|" * len(sizes))
    for method in methods:
        cells = []
        for k in sizes:
            part = frame.filter(k=k, method=method)
            seeds = part.group_by("seed").agg(pl.col("value").mean())["value"].to_list()
            cells.append(f"{mean[k, method]:.2f} ± {100 * seed_interval(seeds).half_width:.2f}")
        print(f"| {method} |", " | ".join(cells), "|")
    for title, wanted in (("vs best rival", None), *((f"vs {m}", m) for m in methods if m != args.own)):
        cells = []
        for k in sizes:
            rival = wanted or max((m for m in methods if m in RIVALS), key=lambda m: mean[k, m])
            one, other = (frame.filter(k=k, method=method) for method in (args.own, rival))
            found = paired_bootstrap_difference(by_row(one), by_row(other))
            spread = 100 * seed_interval(by_seed(one, other)).half_width
            name = "" if wanted else f"{rival} "
            interval = f"({100 * found.low:+.2f} to {100 * found.high:+.2f}; ± {spread:.2f})"
            cells.append(f"{name}{100 * found.mean:+.2f} {interval}")
        print(f"| {title} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
