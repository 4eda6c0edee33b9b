"""Kill commands, damage inputs, and fill the disk; fail if work is lost, misread, or half-written.

Three parts, each with a table:

- kills: real subprocesses get SIGKILL at random moments and are resumed with the same command;
- mutations: every reader of files gets damaged inputs;
- disk: commands write to a file system that is full.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from common import show
from faults import disk, jobs, kills, mutations

PARTS = ("kills", "mutations", "disk")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts and print their tables.

    Returns:
        0 if there is no fault, otherwise 1.
    """
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="few kills and mutations, for the tests")
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run")
    options.add_argument("--kills", type=int, default=54, help="number of kills (default 54)")
    options.add_argument("--mutations", type=int, default=5000, help="number of damaged inputs (default 5000)")
    options.add_argument("--seed", type=int, default=0, help="of moments and damage (default 0)")
    options.add_argument("--workers", type=int, default=2, help="processes at a time (default 2)")
    args = options.parse_args(argv)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    place = Path(tempfile.mkdtemp(prefix="satlight-reliability-"))
    cache = os.environ.get("SATLIGHT_CACHE")
    os.environ["SATLIGHT_CACHE"] = str(place / "cache")
    begin, faults = time.monotonic(), []
    try:
        run = None if args.quick else _train(place / "run")
        if "kills" in args.only:
            faults += _kills(args, run, place / "kills")
        if "mutations" in args.only:
            faults += _mutations(args, run and run / jobs.RUN, place / "mutations")
        if "disk" in args.only and not args.quick:
            faults += _disk(run, place / "disk")
    finally:
        shutil.rmtree(place, ignore_errors=True)
        torch.set_num_threads(threads)
        os.environ.pop("SATLIGHT_CACHE")
        os.environ |= {} if cache is None else {"SATLIGHT_CACHE": cache}
    for fault in faults:
        print(f"FAULT {fault}")
    print(f"{len(faults)} faults; seed {args.seed}, {args.workers} workers, {time.monotonic() - begin:.0f} s")
    return int(bool(faults))


def _train(folder: Path) -> Path:
    """Train the run that is exported and whose checkpoint is damaged."""
    folder.mkdir(parents=True)
    kills.complete(jobs.jobs(None)[0], folder)
    return folder


def _kills(args: argparse.Namespace, run: Path | None, place: Path) -> list[str]:
    made, count, length = jobs.jobs(run), args.kills, 3
    if args.quick:
        made, count, length = [replace(job, share=1) for job in made if job.name in ("fit", "data import")], 3, 2
        made[0].moments = made[0].moments[1:]  # while last.ckpt is written
        made[1].share = 2
    rows = kills.run(made, place, count, args.seed, args.workers, length)
    cells = [[f"{row.job}: {row.moment}", row.kills, row.resumed, len(row.faults)] for row in rows]
    total = sum(row.kills for row in rows)
    cells.append(["all", total, sum(row.resumed for row in rows), sum(len(row.faults) for row in rows)])
    notes = f"Resumed: the same results as uninterrupted (weights and metrics within {kills.TOLERANCE}), nothing left."
    show("Kills", ["killed", "kills", "resumed", "faults"], cells, notes)
    missed = [] if total >= 0.9 * count else [f"only {total} of {count} processes were alive when they were killed"]
    return [fault for row in rows for fault in row.faults] + missed


def _mutations(args: argparse.Namespace, run: Path | None, place: Path) -> list[str]:
    place.mkdir()
    names = mutations.QUICK if args.quick else None
    rows = mutations.run(run, names, place, 300 if args.quick else args.mutations, args.seed, args.workers)
    columns = ["reader", "inputs", "read", "refused", *mutations.KINDS]
    cells = [[row.reader, row.inputs, row.read, row.refused, *row.faults.values()] for row in rows]
    cells.append(["all", *(sum(row[place] for row in cells) for place in range(1, len(columns)))])
    notes = "Refused: one sentence that names the file. The other inputs were still valid after the damage."
    show("Damaged inputs", columns, cells, notes)
    return [example for row in rows for example in row.examples]


def _disk(run: Path | None, place: Path) -> list[str]:
    rows = disk.run(run, place)
    if rows is None:
        print("Full disk: not tried, since this system does not let a user mount a tmpfs (`unshare -rm`).")
        return []
    cells = [[row.name, row.code, row.sentence, row.fault or "intact"] for row in rows]
    show("Full disk (a tmpfs)", ["command", "exit code", "message", "old files"], cells, "")
    return [f"full disk, {row.name}: {row.fault}" for row in rows if row.fault]


if __name__ == "__main__":
    sys.exit(main())
