"""Print the table of zero_shot.py or network_over_zoos.py: differences to the rivals by the same results, in points."""

from __future__ import annotations

import argparse
from pathlib import Path

import polars as pl
from table import by_row

from satlight.metrics.bootstrap import paired_bootstrap_difference


def main() -> None:
    """Print a Markdown table per zoo, and differences to variances learned on the K results and to best single."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--own", default="transferred")
    args = parser.parse_args()
    frame = pl.read_parquet(args.results)
    sizes = sorted(frame["k"].unique().to_list())
    print("| zoo | router |", " | ".join(f"K = {k}" for k in sizes), "|")
    print("|---|---|" + "---:|" * len(sizes))
    for zoo in frame["zoo"].unique(maintain_order=True):
        part = frame.filter(zoo=zoo)
        for method in (m for m in ("best_single", "start", "own results", args.own) if m in set(part["method"])):
            means = [100 * part.filter(k=k, method=method)["value"].mean() for k in sizes]
            print(f"| {zoo} | {method} |", " | ".join(f"{mean:.2f}" for mean in means), "|")
        for rival in ("own results", "best_single"):
            cells = []
            for k in sizes:
                one, other = (by_row(part.filter(k=k, method=method)) for method in (args.own, rival))
                found = paired_bootstrap_difference(one, other)
                cells.append(f"{100 * found.mean:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})")
            print(f"| {zoo} | {args.own} − {rival} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
