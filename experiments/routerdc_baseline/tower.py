"""Measure RouterDC's loss on a frozen text tower and on a tower that is told the dataset.

    python experiments/routerdc_baseline/tower.py data/routerdc

Trains the baseline ``routerdc`` with its own grid, selected on each seed's validation rows, once on MiniLM
vectors and once on vectors that encode only the dataset of a text (in domain only, because it learns
nothing about other datasets). Prints routed accuracy on test in percent per dataset and the macro means.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from satlight.backbones.embedding import Embedder
from satlight.baselines import build
from satlight.baselines.tuning import macro_accuracy
from satlight.records import PerformanceRecords, open_records, split_records

IN_DOMAIN = ["mmlu", "gsm8k", "cmmlu", "arc_challenge", "humaneval"]
OUT_OF_DOMAIN = ["math_prealgebra", "mbpp", "ceval"]


def told(records: PerformanceRecords) -> Callable[[Sequence[str]], np.ndarray]:
    """Return an embedder that encodes the dataset of each text."""
    number = {text: IN_DOMAIN.index(name) for text, name in zip(records.texts, records.datasets, strict=True)}
    return lambda texts: np.eye(len(IN_DOMAIN), dtype=np.float32)[[number[text] for text in texts]]


def measure(tower: str, records: PerformanceRecords, embed: Callable[[Sequence[str]], np.ndarray], seed: int) -> None:
    """Train and test one router and print its row."""
    split = records.with_splits(split_records(records, seed=seed))
    router = build("routerdc", seed=seed).fit(split.filter(splits=["train", "validation"]), embed)
    test = split.filter(splits="test")
    score_NM = router.predict(test.texts, test.model_ids)
    cells = []
    for names in (IN_DOMAIN, OUT_OF_DOMAIN):
        figures = []
        for name in names:
            rows = test.datasets == name
            figures.append(100 * macro_accuracy(score_NM[rows], test.rows(rows)) if rows.any() else np.nan)
        cells += [*figures, sum(figures) / len(figures)]
    print(tower, seed, *("–" if np.isnan(x) else f"{x:.2f}" for x in cells), router.chosen, sep=" | ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", help="records folder of RouterDC's data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    records = open_records(given.records, "correct").filter(datasets=IN_DOMAIN + OUT_OF_DOMAIN)
    inside = records.filter(datasets=IN_DOMAIN)
    print("tower", "seed", *IN_DOMAIN, "in domain", *OUT_OF_DOMAIN, "out of domain", "chosen", sep=" | ")
    for seed in given.seeds:
        measure("MiniLM", records, Embedder(), seed)
    for seed in given.seeds:
        measure("told the dataset", inside, told(inside), seed)


if __name__ == "__main__":
    main()
