"""Print the main job's results, one row per run, as Markdown.

    python experiments/main_job/table.py runs/main_*/1/results.json

Per run: routed accuracy and share of the reachable gap closed, then each control's accuracy with the 95 % interval of
the paired difference router − control, over the test instructions of that run. The last row holds the lowest and the
highest accuracy, the number of runs whose interval is above 0, and the smallest lower bound.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from satlight.evaluation import RoutingResults

CONTROLS = ("best_single", "aptitude_knn", "tfidf_knn", "inferred_dataset", "dataset_best", "task_best")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="results.json of each run")
    paths = parser.parse_args().results
    runs = [RoutingResults.load(path).to_dict()["groups"]["all"] for path in paths]
    print(f"| run | n | routed | reach % | Bayes | ECE | {' | '.join(CONTROLS)} |")
    print("|---" * (6 + len(CONTROLS)) + "|")
    for path, run in zip(paths, runs, strict=True):
        name, reach = path.resolve().parents[1].name, 100 * run["reachable_gap_closed"]
        cells = [name, f"{run['n']}", f"{run['routed']:.1f}", f"{reach:.0f}", f"{run['bayes_optimal']:.1f}"]
        cells.append(f"{run['ece_calibrated']:.3f}")
        for control in CONTROLS:
            low, high = run[f"versus_{control}"]
            cells.append(f"{run[control]:.1f} ({low:+.1f} to {high:+.1f})")
        print(f"| {' | '.join(cells)} |")
    cells = [_range([run["routed"] for run in runs]), _range([100 * run["reachable_gap_closed"] for run in runs], 0)]
    cells += [_range([run["bayes_optimal"] for run in runs]), _range([run["ece_calibrated"] for run in runs], 3)]
    for control in CONTROLS:
        lows = [run[f"versus_{control}"][0] for run in runs]
        above = f"{sum(low > 0 for low in lows)} of {len(runs)}, lowest bound {min(lows):+.1f}"
        cells.append(f"{_range([run[control] for run in runs])} ({above})")
    print(f"| **range** | | {' | '.join(cells)} |")


def _range(values: list[float], decimals: int = 1) -> str:
    """Return "low–high", or one number if both are printed alike."""
    ends = [f"{value:.{decimals}f}" for value in (min(values), max(values))]
    return ends[0] if ends[0] == ends[1] else "–".join(ends)


if __name__ == "__main__":
    main()
