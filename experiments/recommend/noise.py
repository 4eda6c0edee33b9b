"""How often `satlight recommend` recommends to route on logs of pure noise, where it never pays.

    python experiments/recommend/noise.py --seeds 100
    python experiments/recommend/noise.py --seeds 100 --costs

Outcomes do not depend on the instruction: every candidate is right with its own probability, 0.45 to 0.55, and with
--equal all with 0.5. With --costs the calls cost 0.0001 to 0.01 US dollars. Texts are random words. Each seed has its
own log, splits and folds. Only routers on words are fitted, in this process.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from satlight.bench.recommend import Request, development_bench, open_log
from satlight.bench.recommend_report import reason
from satlight.bench.recommendation import Recommendation, conclude
from satlight.bench.worker import run_cell


def noise_log(path: Path, seed: int, instructions: int, candidates: int, *, costs: bool, equal: bool) -> None:
    """Write a log of noise as CSV."""
    rng = np.random.default_rng(seed)
    words = np.array([f"word{i}" for i in range(300)])
    texts = [" ".join(rng.choice(words, 12)) + f" {i}" for i in range(instructions)]
    skill = np.full(candidates, 0.5) if equal else np.linspace(0.45, 0.55, candidates)
    price = np.geomspace(0.0001, 0.01, candidates)[rng.permutation(candidates)]
    rows = {
        "instruction": np.repeat(texts, candidates),
        "candidate": np.tile([f"candidate-{m}" for m in range(candidates)], instructions),
        "score": (rng.random((instructions, candidates)) < skill).astype(int).ravel(),
    }
    if costs:
        rows["cost_usd"] = (price * rng.uniform(0.5, 1.5, (instructions, candidates))).ravel()
    pl.DataFrame(rows).write_csv(path)


def recommended(seed: int, args: argparse.Namespace) -> Recommendation:
    """Return the recommendation for the log of a seed."""
    with tempfile.TemporaryDirectory() as temporary:
        path, output = Path(temporary, "log.csv"), Path(temporary, "out")
        noise_log(path, seed, args.instructions, args.candidates, costs=args.costs, equal=args.equal)
        request = Request(str(path), output, embedder=None, seed=seed)
        log = open_log(request)
        cells = development_bench(request, log)
        for cell in cells:
            folder = output / "cells" / cell.key
            folder.mkdir(parents=True)
            run_cell(cell, folder, output).write(folder)
        return conclude(request, log, cells, [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=100, help="number of seeds")
    parser.add_argument("--instructions", type=int, default=800)
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--costs", action="store_true", help="give calls a cost")
    parser.add_argument("--equal", action="store_true", help="all candidates have the same skill")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    wrong = 0
    for done, seed in enumerate(range(args.first, args.first + args.seeds), start=1):
        found = recommended(seed, args)
        wrong += found.route
        if found.route:
            print(f"seed {seed}: {found.policy}, {reason(found)}", flush=True)
        if done % 10 == 0:
            print(f"{wrong} of {done} seeds recommend to route", flush=True)


if __name__ == "__main__":
    main()
