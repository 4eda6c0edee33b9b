"""Fit decision rules on RouterBench and measure on held-out folds whether they meet their targets.

Reads train and validation rows only: ``python experiments/decision_rules/targets.py data/routerbench``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np

from satlight.baselines import build
from satlight.costs import expected_costs
from satlight.evaluation.rule_fit import FittedRule, RuleRows, UnreachableError, cross_fit
from satlight.records import PerformanceRecords, open_records, split_records
from satlight.records.usage import with_log_costs
from satlight.rules import CheapestAtLeast, Rule, WithinBudget

TARGETS = (0.60, 0.70, 0.75, 0.80, 0.85, 0.90)
BUDGETS = (0.0003, 0.0005, 0.001, 0.002, 0.004)  # US dollars per request; the best single candidate costs 0.005


def shown(records: PerformanceRecords) -> PerformanceRecords:
    """Put the question, without the worked examples that all prompts share, in place of the instruction."""
    from dataclasses import replace

    return replace(records, instructions=records.instructions.with_columns(instruction="question"))


def validation_rows(records: PerformanceRecords, method: str, seed: int) -> tuple[RuleRows, PerformanceRecords]:
    """Fit a baseline on train rows, and return its scores and the outcomes on validation rows."""
    split = split_records(records, test_fraction=0.3, validation_fraction=0.4, seed=seed)
    records = records.with_splits(split)
    train, held = records.filter(splits=["train"]), records.filter(splits=["validation"])
    router = build(method, fixed={"k": 50}).fit(train)
    router.candidates = with_log_costs(router.candidates, train)
    assert held.costs is not None
    rows = RuleRows(
        router.score(held.requests()).log_odds_BC,
        expected_costs(router.candidates, held.requests()),
        np.asarray(held.outcomes),
        np.asarray(held.known),
        np.asarray(held.costs, dtype=np.float64),
        temperature=None,
    )
    return rows, held


def results(source: str, method: str, rules: list[Rule], seeds: int) -> Iterator[tuple[Rule, int, FittedRule | str]]:
    """Yield rule, seed and what was measured, or why the rule cannot be fitted."""
    records = shown(open_records(source))
    for seed in range(seeds):
        rows, held = validation_rows(records, method, seed)
        for rule in rules:
            try:
                yield rule, seed, cross_fit(rule, rows, held.model_ids, np.array(held.texts), seed=seed)
            except UnreachableError as error:
                yield rule, seed, str(error)


def main() -> None:
    """Print a Markdown table: one line per rule and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records")
    parser.add_argument("--method", default="tfidf_knn")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    rules = [*map(CheapestAtLeast, TARGETS), *map(WithinBudget, BUDGETS)]
    print("| rule | seed | rows | quality, held out | $ per 1,000, held out | within |\n|---|---|---|---|---|---|")
    for rule, seed, found in sorted(
        results(args.records, args.method, rules, args.seeds), key=lambda x: rules.index(x[0])
    ):
        if isinstance(found, str):
            print(f"| {rule} | {seed} | – | not reachable | – | – |")
            continue
        quality = "{:.3f} ({:.3f} to {:.3f})".format(*found.quality)
        cost = "{:.3f} ({:.3f} to {:.3f})".format(*(1000 * x for x in found.cost))
        goal, (_, low, high) = (
            (rule.target, found.quality) if isinstance(rule, CheapestAtLeast) else (rule.usd, found.cost)
        )
        print(f"| {rule} | {seed} | {found.rows} | {quality} | {cost} | {'yes' if low <= goal <= high else 'no'} |")


if __name__ == "__main__":
    main()
