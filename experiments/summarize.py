"""Summarize several seeds of one experiment in one table.

    python experiments/summarize.py runs/routerdc_*/1/results.json

Per dataset and group: routed accuracy, mean over seeds, with half its 95 % interval over seeds (Student t),
and the controls, which are means over the train splits of the seeds. Accuracies in percent.
"""

from __future__ import annotations

import argparse
from statistics import mean

from satlight.evaluation import RoutingResults
from satlight.evaluation.text_controls import TEXT_CONTROLS
from satlight.metrics.seeds import seed_interval

CONTROLS = ("random", "best_single", "dataset_best", "task_best", *TEXT_CONTROLS, "dataset_oracle", "oracle")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", help="results.json of each seed")
    runs = [RoutingResults.load(path).to_dict() for path in parser.parse_args().results]
    if len({run["data"]["name"] for run in runs}) != 1:
        raise SystemExit("The results are of different data; pass results of one experiment.")
    first = next(iter(runs[0]["groups"].values()))
    extra = [key for key in ("bayes_optimal", "reachable_gap_closed") if key in first]
    columns = [*CONTROLS, *extra]
    print(f"| {len(runs)} seeds | n | routed | ± over seeds | {' | '.join(columns)} | ECE |")
    print("|---" * (len(columns) + 5) + "|")
    for kind in ("datasets", "groups"):
        for name in runs[0][kind]:
            entries = [run[kind][name] for run in runs]
            routed = seed_interval([entry["routed"] for entry in entries])
            cells = [
                "–" if any(e.get(key) is None for e in entries) else f"{mean(e[key] for e in entries):.2f}"
                for key in columns
            ]
            label = name if kind == "datasets" else f"**mean {name}**"
            ece = mean(entry["ece"] for entry in entries)
            print(
                f"| {label} | {entries[0]['n']} | {routed.mean:.2f} | {routed.half_width:.2f} | "
                f"{' | '.join(cells)} | {ece:.3f} |"
            )


if __name__ == "__main__":
    main()
