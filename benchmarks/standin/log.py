"""Write a log of the stand-in candidates: which of them got which instruction right, and what it cost.

python benchmarks/standin/log.py log.csv

Each candidate is good at one kind of instruction. With a name that ends in .jsonl, the log is written as JSON lines;
``--items FILE`` writes items of an aptitude test instead, with the name of the right candidate as their answer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import polars as pl

SUBJECTS = {
    "math": ("Compute the sum of the numbers", "Solve the equation for x with the constant"),
    "code": ("Write a Python function that sorts a list of length", "Find the bug in the loop over the array of size"),
    "law": ("Explain the contract clause about liability in paragraph", "Which court hears the appeal of case number"),
    "verse": ("Compose a short poem with rhymes about the year", "Write a sonnet on the theme of the number"),
}
COSTS = {"math": 0.0004, "code": 0.0008, "law": 0.0012}
"""Candidates of the log and the US dollars of a call."""

RIGHT, WRONG = 0.95, 0.25
"""Chance of a right answer to the candidate's own kind of instruction, and to others."""


def instructions(count: int, seed: int) -> list[tuple[str, str]]:
    """Return instructions with their kinds, all kinds in turn."""
    rng = np.random.default_rng(seed)
    kinds = [list(SUBJECTS)[n % len(SUBJECTS)] for n in range(count)]
    numbers = rng.choice(np.arange(1000, 10_000), size=count, replace=False)
    return [(f"{rng.choice(SUBJECTS[kind])} {number}", kind) for kind, number in zip(kinds, numbers, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="file to write: .csv or .jsonl")
    parser.add_argument("--count", type=int, default=600, help="number of instructions (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--items", action="store_true", help="write items with answers, without candidates")
    args = parser.parse_args()
    asked, rng = instructions(args.count, args.seed), np.random.default_rng(args.seed + 1)
    if args.items:
        rows = [
            {"instruction_id": f"item {number}", "task": kind, "instruction": text, "answer": kind}
            for number, (text, kind) in enumerate(asked)
        ]
    else:
        rows = [
            {"instruction": text, "candidate": name, "score": int(rng.random() < chance), "cost_usd": cost}
            for text, kind in asked
            for name, cost in COSTS.items()
            for chance in [RIGHT if kind == name else WRONG]
        ]
    if args.path.suffix == ".csv":
        pl.DataFrame(rows).write_csv(args.path)
    else:
        args.path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
