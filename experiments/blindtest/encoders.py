"""Compare routers of BlindTest on their validation rows, e.g. to choose an image encoder. Opens no test row.

    lightning predict --name conv0 --data.predict_split validation   # and the other runs and seeds
    python experiments/blindtest/encoders.py data/blindtest --versus "without images" \
        --scores "without images=runs/blind0/1/scores.parquet,..." "small_conv=runs/conv0/1/scores.parquet,..."

``--scores NAME=FILE,...`` adds a router, one file per seed in the same order for all; routers with fewer seeds are
compared on those. Each seed has its own validation rows, and the best candidate of each task is chosen on its other
train rows. Prints accuracy in percent, micro mean over the validation rows of all seeds, and differences with their
95 % interval: bootstrap over groups.
"""

from __future__ import annotations

import argparse

import numpy as np
import polars as pl
from limits import best_of, interval

from satlight.records import PerformanceRecords, open_records
from satlight.records.split import use_split
from satlight.routing.scores import StoredScores

CONTROL = "best of the task"


def judged(records: PerformanceRecords, file: str) -> np.ndarray:
    """Return the rows that a file of scores holds, all of the train split: int64 (n,)."""
    rows = np.flatnonzero(np.isin(records.ids, pl.read_parquet(file)["instruction_id"].to_list()))
    if (records.splits[rows] == "test").any():
        raise SystemExit(f"{file} holds test rows; predict with --data.predict_split validation")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records")
    parser.add_argument("--scores", nargs="+", required=True, metavar="NAME=FILE,...", help="routers, a file per seed")
    parser.add_argument("--versus", required=True, metavar="NAME", help="router to compare with, with all seeds")
    args = parser.parse_args()
    files = {name: paths.split(",") for name, _, paths in (entry.partition("=") for entry in args.scores)}
    candidates = [name for name in pl.read_parquet(files[args.versus][0]).columns if name != "instruction_id"]
    records = use_split(open_records(args.records).filter(candidates=candidates), "split_group")
    outcomes, task = np.asarray(records.outcomes, dtype=np.float64), records.instructions["task"].to_numpy()
    group = records.instructions["group"].to_numpy()
    parts = [judged(records, file) for file in files[args.versus]]
    got: dict[str, list[np.ndarray]] = {CONTROL: [], **{name: [] for name in files}}
    for seed, rows in enumerate(parts):
        learn = records.splits == "train"
        learn[rows] = False
        got[CONTROL].append(outcomes[rows, best_of(task, outcomes, learn)[rows].argmax(1)])
        for name, paths in files.items():
            if seed < len(paths):
                score = StoredScores.read(paths[seed]).of(records.rows(rows))
                got[name].append(outcomes[rows, score.argmax(1)])
    print(f"{sum(map(len, parts))} rows of {len(parts)} seeds, candidates: {', '.join(records.model_ids)}\n")
    tasks = np.unique(task)
    print(f"| router | seeds | accuracy | − {CONTROL} | − {args.versus} | {' | '.join(tasks)} |")
    print("|---|---:|---:|---|---|" + "---:|" * len(tasks))
    for name, seeds in got.items():
        own, place = np.concatenate(seeds), np.concatenate(parts[: len(seeds)])
        cells = [str(len(seeds)), f"{100 * own.mean():.2f}"]
        for other in (CONTROL, args.versus):
            than = np.concatenate(got[other][: len(seeds)])
            cells.append("" if name in (other, CONTROL) else interval(own - than, group[place]))
        print(f"| {name} | {' | '.join(cells + [f'{100 * own[task[place] == one].mean():.1f}' for one in tasks])} |")


if __name__ == "__main__":
    main()
