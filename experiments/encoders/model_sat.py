"""Compare runs of Model-SAT with different encoders on their validation rows. Opens no test row.

    lightning fit -c experiments/routerdc/config.yaml -c experiments/encoders/model_sat.yaml \\
        --model.encoder configs/encoder/minilm_frozen.yaml --name minilm_0 --seed_everything 0 --data.seed 0
    lightning predict --name minilm_0 --data.predict_split validation
    python experiments/encoders/model_sat.py data/routerdc --score_column correct --versus minilm --scores \\
        minilm=runs/minilm_0/1/scores.parquet,runs/minilm_1/1/scores.parquet e5=runs/e5_0/1/scores.parquet,...

``--scores NAME=FILE,...`` adds an encoder, one file per seed in the same order for all. The outcomes of an instruction
are averaged over the seeds that have it in validation. Prints routed accuracy in percent, macro mean over datasets, of
all seeds and of each, and the difference to ``--versus`` with its 95 % interval (paired bootstrap over the instructions
of each dataset).
"""

from __future__ import annotations

import argparse

import numpy as np
import polars as pl
from compare import interval, macro, routed

from satlight.data.stream import codes
from satlight.records import PerformanceRecords, open_records
from satlight.routing.scores import StoredScores


def outcomes(records: PerformanceRecords, file: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (n,) that a file of scores holds, and the outcome (n,) of the routed candidate in percent."""
    rows = np.flatnonzero(np.isin(records.ids, pl.read_parquet(file)["instruction_id"].to_list()))
    if (records.splits[rows] == "test").any():
        raise SystemExit(f"{file} holds test rows; predict with --data.predict_split validation")
    held = records.rows(rows)
    return rows, routed(held, StoredScores.read(file).of(held))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records")
    parser.add_argument("--score_column", default="score")
    parser.add_argument("--scores", nargs="+", required=True, metavar="NAME=FILE,...", help="a file per seed")
    parser.add_argument("--versus", required=True, metavar="NAME", help="encoder to compare with")
    args = parser.parse_args()
    files = {name: paths.split(",") for name, _, paths in (entry.partition("=") for entry in args.scores)}
    candidates = [name for name in pl.read_parquet(files[args.versus][0]).columns if name != "instruction_id"]
    records = open_records(args.records, score_column=args.score_column, candidates=candidates)
    found = {name: [outcomes(records, path) for path in paths] for name, paths in files.items()}
    rows = np.concatenate([seed for seed, _ in found[args.versus]])
    for name, seeds in found.items():
        if not np.array_equal(rows, np.concatenate([seed for seed, _ in seeds])):
            raise SystemExit(
                f"The files of {name} and {args.versus} hold other rows; give the same seeds in one order."
            )
    place = codes(rows)
    datasets = records.datasets[np.unique(rows)]
    mean = {
        name: np.bincount(place, np.concatenate([values for _, values in seeds])) / np.bincount(place)
        for name, seeds in found.items()
    }
    print(f"{len(datasets)} validation rows, {len(files[args.versus])} seeds")
    print(f"| encoder | accuracy | of each seed | difference from {args.versus} (95 %) |\n|---|---:|---|---:|")
    for name, seeds in found.items():
        each = ", ".join(f"{macro(values, records.datasets[seed]):.2f}" for seed, values in seeds)
        cell = "{:+.2f} ({:+.2f} to {:+.2f})".format(*interval(mean[name] - mean[args.versus], datasets))
        print(f"| {name} | {macro(mean[name], datasets):.2f} | {each} | {'' if name == args.versus else cell} |")


if __name__ == "__main__":
    main()
