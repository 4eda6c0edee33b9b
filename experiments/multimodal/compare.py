"""Compare routers on the simulated multimodal zoo by true success probabilities, with and without images.

    lightning predict --name eyes0   # and the other runs; opens the test split, unless --data.predict_split validation
    python experiments/multimodal/compare.py --versus "without images" \
        --scores "without images=runs/noeyes0/1/scores.parquet,..." "with images=runs/eyes0/1/scores.parquet,..."

``--scores NAME=FILE,...`` adds a router, one file per seed in the order 0, 1, .... Prints, for all instructions, those
with images, and those without: accuracy by true probabilities in percent; the share of the gap from best single (chosen
on the train and validation rows of the seed) to Bayes-optimal, mean over seeds and by seed, with equal weight for each
instruction, and for each dataset; and the difference to the router ``--versus`` with its 95 % interval: bootstrap over
instructions of the mean over seeds. "best of the texts" is the bound for routers that read the texts alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch

from satlight.data import CapabilityInstructionDataModule
from satlight.data.base import SimulatedSpec
from satlight.evaluation.controls import matrices
from satlight.metrics import functional
from satlight.metrics.bootstrap import paired_bootstrap_difference
from satlight.records import PerformanceRecords
from satlight.records.simulated import best_without_images
from satlight.routing.scores import StoredScores

ZOO = SimulatedSpec(num_instructions=3000, num_candidates=12)  # as in configs/multimodal.yaml

Rows = tuple[PerformanceRecords, int]
"""The judged instructions of a seed and the column of best single."""


def judged(split: str, seed: int) -> Rows:
    """Return the rows of a split under a seed, and the best single candidate on what routers may learn from."""
    data = CapabilityInstructionDataModule("simulated-multimodal", simulated=ZOO, seed=seed)
    data.setup("test" if split == "test" else "fit")
    train = data.control_records()
    datasets = torch.as_tensor(np.unique(train.datasets, return_inverse=True)[1])
    return data.eval_view(split).records, functional.best_single(*matrices(train), datasets)


def gained(records: PerformanceRecords, score_NM: np.ndarray) -> np.ndarray:
    """Return the true probability that the chosen candidate succeeds: (N,)."""
    choice = functional.choose(torch.as_tensor(score_NM)).numpy()
    return np.take_along_axis(expected(records), choice[:, None], axis=1)[:, 0]


def expected(records: PerformanceRecords) -> np.ndarray:
    """Return the true probabilities of simulated records: (N, M)."""
    assert records.expected is not None
    return records.expected.astype(np.float64)


def compare(
    parts: list[Rows],
    value: dict[str, list[np.ndarray]],
    versus: str,
    shown: Callable[[PerformanceRecords], list[bool]],
) -> None:
    """Print the routers on the rows that ``shown`` selects; ``value`` holds (N,) by seed."""
    keep = [np.array(shown(records)) for records, _ in parts]
    chosen = [(records.rows(rows), single) for (records, single), rows in zip(parts, keep, strict=True)]
    bounds = [(expected(records)[:, single], expected(records).max(1)) for records, single in chosen]
    single, best = (100 * np.mean([value.mean() for value in values]) for values in zip(*bounds, strict=True))
    print(f"{len(chosen[0][0].ids)} instructions (seed 0): best single {single:.2f}, Bayes-optimal {best:.2f}")
    blind = [
        (best_without_images(records) - low.mean()) / (high - low).mean()
        for (records, _), (low, high) in zip(chosen, bounds, strict=True)
    ]
    print(f"| best of the texts | | {listed(blind)} | | |")
    own = {name: [v[rows] for v, rows in zip(seeds, keep, strict=True)] for name, seeds in value.items()}
    ids = np.concatenate([np.array(records.ids) for records, _ in chosen])
    for name, seeds in own.items():
        plain = [(v.mean() - low.mean()) / (high - low).mean() for v, (low, high) in zip(seeds, bounds, strict=True)]
        macro = [
            macro_mean(v - low, records.datasets) / macro_mean(high - low, records.datasets)
            for v, (low, high), (records, _) in zip(seeds, bounds, chosen, strict=True)
        ]
        less = "" if name == versus else difference(*map(np.concatenate, (seeds, own[versus])), ids)
        print(f"| {name} | {100 * np.mean(np.concatenate(seeds)):.2f} | {listed(plain)} | {listed(macro)} | {less} |")


def macro_mean(value_N: np.ndarray, dataset_N: np.ndarray) -> float:
    """Return the mean over datasets of the means within them."""
    return float(np.mean([value_N[dataset_N == dataset].mean() for dataset in np.unique(dataset_N)]))


def listed(shares: list[float]) -> str:
    """Return the mean of shares in percent, and each."""
    return f"{100 * np.mean(shares):.0f} ({', '.join(f'{100 * share:.0f}' for share in shares)})"


def difference(value: np.ndarray, other: np.ndarray, ids: np.ndarray) -> str:
    """Return the mean paired difference in points with its interval; values of one instruction are averaged."""
    _, place = np.unique(ids, return_inverse=True)
    one, two = (np.bincount(place, v) / np.bincount(place) for v in (value, other))
    found = paired_bootstrap_difference(torch.as_tensor(one), torch.as_tensor(two))
    return f"{100 * found.mean:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scores", nargs="+", required=True, metavar="NAME=FILE,...", help="routers, a file per seed")
    parser.add_argument("--versus", required=True, metavar="NAME", help="router to compare with")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    args = parser.parse_args()
    files = {name: paths.split(",") for name, _, paths in (entry.partition("=") for entry in args.scores)}
    parts = [judged(args.split, seed) for seed in range(len(files[args.versus]))]
    value = {
        name: [
            gained(records, StoredScores.read(path).of(records))
            for (records, _), path in zip(parts, paths, strict=True)
        ]
        for name, paths in files.items()
    }
    for title, shown in (
        ("all", lambda records: [True] * len(records.ids)),
        ("with images", lambda records: [bool(images) for images in records.images]),
        ("text only", lambda records: [not images for images in records.images]),
    ):
        print(f"\n{title}: ", end="")
        compare(parts, value, args.versus, shown)


if __name__ == "__main__":
    main()
