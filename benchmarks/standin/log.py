"""Write a log of candidates: which of them got which instruction right, and what it cost.

python benchmarks/standin/log.py log.csv
python benchmarks/standin/log.py fleet.csv --fleet --count 2000

The stand-in candidates of the tutorial are each good at one kind of instruction, which its words tell. With ``--fleet``
there are four candidates, costs that vary by call, and six kinds of instructions that mix their words; an instruction
also has a difficulty that its words do not tell. With a name that ends in .jsonl, the log is written as JSON lines;
``--items`` writes items of an aptitude test instead, with the name of the right candidate as their answer.
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

WORDS = {
    "math": "integral matrix prime fraction angle limit vector proof ratio polynomial sum graph",
    "code": "loop function compiler array thread pointer query index cache graph test branch",
    "law": "contract clause appeal court liability statute tenant verdict index evidence party claim",
    "medicine": "dose symptom artery vaccine test fever enzyme diagnosis limit nerve trial tissue",
    "travel": "train border hotel harbor branch visa route museum ticket island season claim",
    "verse": "rhyme sonnet stanza party meter season image line ballad refrain tone proof",
}
"""Words of each kind of instruction in the fleet's log; some belong to two kinds."""

OPENINGS = ("Explain", "Compare", "Write about", "Check", "Summarize", "Give an example with")
OWN_WORDS, LENGTH = 0.6, 8
"""Share of the words that come from the kind of the instruction, the others from any kind; and their number."""

FLEET = {
    "large": (0.004, dict.fromkeys(WORDS, 1.3)),
    "coder": (0.0012, dict.fromkeys(WORDS, -0.3) | {"code": 2.4, "math": 1.7}),
    "jurist": (0.001, dict.fromkeys(WORDS, -0.4) | {"law": 2.4, "medicine": 1.4}),
    "small": (0.0002, dict.fromkeys(WORDS, -0.2) | {"travel": 0.9}),
}
"""Candidate → mean US dollars of a call and log-odds of a right answer to an instruction of medium difficulty."""


def instructions(count: int, seed: int) -> list[tuple[str, str]]:
    """Return instructions with their kinds, all kinds in turn."""
    rng = np.random.default_rng(seed)
    kinds = [list(SUBJECTS)[n % len(SUBJECTS)] for n in range(count)]
    numbers = rng.choice(np.arange(1000, 10_000), size=count, replace=False)
    return [(f"{rng.choice(SUBJECTS[kind])} {number}", kind) for kind, number in zip(kinds, numbers, strict=True)]


def fleet_instructions(count: int, rng: np.random.Generator) -> dict[str, str]:
    """Return different instructions and their kinds, all kinds in turn."""
    words, kinds = {kind: text.split() for kind, text in WORDS.items()}, list(WORDS)
    every = [word for kind in kinds for word in words[kind]]
    found: dict[str, str] = {}
    while len(found) < count:
        kind = kinds[len(found) % len(kinds)]
        own = rng.random(LENGTH) < OWN_WORDS
        chosen = [rng.choice(words[kind] if inside else every) for inside in own]
        found[f"{rng.choice(OPENINGS)} {' '.join(chosen)}"] = kind
    return found


def fleet_rows(count: int, seed: int) -> list[dict[str, object]]:
    """Return the rows of the fleet's log."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for text, kind in fleet_instructions(count, rng).items():
        difficulty = rng.normal()
        for name, (cost, skill) in FLEET.items():
            chance = 1 / (1 + np.exp(difficulty - skill[kind]))
            paid = cost * rng.lognormal(sigma=0.4) / np.exp(0.08)  # mean: cost
            rows.append(
                {
                    "instruction": text,
                    "candidate": name,
                    "score": int(rng.random() < chance),
                    "cost_usd": float(f"{paid:.4g}"),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="file to write: .csv or .jsonl")
    parser.add_argument("--count", type=int, default=600, help="number of instructions (default: 600)")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--items", action="store_true", help="write items with answers, without candidates")
    what.add_argument("--fleet", action="store_true", help="four candidates, costs by call, mixed kinds, noise")
    args = parser.parse_args()
    asked, rng = instructions(args.count, args.seed), np.random.default_rng(args.seed + 1)
    if args.items:
        rows = [
            {"instruction_id": f"item {number}", "task": kind, "instruction": text, "answer": kind}
            for number, (text, kind) in enumerate(asked)
        ]
    elif args.fleet:
        rows = fleet_rows(args.count, args.seed)
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
