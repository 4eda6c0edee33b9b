"""Route a whole zoo by K results of each candidate, with prior variances from other zoos (see README.md).

Nothing else is known about the zoo: no training candidate, no other outcome. Variances are learned on the K results
of the zoo itself, on the other zoos (geometric mean), or left at their starting values.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from run import routed, single

from satlight.backbones.embedding import Embedder
from satlight.baselines.gaussian_process import START, posterior_weights
from satlight.baselines.kernel_parts import Episode, Landmarks, fit_variances
from satlight.records import open_records
from satlight.records.sources import SimulatedSpec

SIZES = (8, 16, 32, 64, 128, 256)
ROWS = {"routerdc": 2000, "routerbench": 1000}
"""Random rows of the larger zoos, by their seed 0."""

COLUMNS = {"routerdc": "correct"}
DRAWS = 3


class Zoo:
    """Outcomes and embeddings of a zoo, with the parts of the kernel that need no training candidates."""

    def __init__(self, name: str, folder: Path, embed: Embedder) -> None:
        if name == "simulated":
            records = open_records("simulated", simulated=SimulatedSpec(num_instructions=1500))
        else:
            records = open_records(folder / name, COLUMNS.get(name, "score"))
        if name in ROWS:
            records = records.rows(np.random.default_rng(0).permutation(records.shape[0])[: ROWS[name]])
        self.name = name
        self.known_NM, self.outcome_NM = np.asarray(records.known), np.asarray(records.outcomes, dtype=float)
        self.vectors_ND = embed(records.texts).astype(float)
        self.split_N, self.tasks_N = records.splits, np.asarray(records.task_keys)

    def sides(self, judged: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return rows for results, and rows to evaluate on.

        Test rows are those of the source, 30 % at random where it has none; validation rows are a fifth of the others.
        """
        rng = np.random.default_rng(0)
        test_N = self.split_N == "test" if (self.split_N == "test").any() else rng.random(len(self.split_N)) < 0.3
        if judged == "test":
            return np.flatnonzero(~test_N), np.flatnonzero(test_N)
        rest = np.random.default_rng(seed).permutation(np.flatnonzero(~test_N))
        return rest[len(rest) // 5 :], rest[: len(rest) // 5]

    def features(self, rows: np.ndarray, landmarks: Landmarks) -> list[np.ndarray]:
        """Return the features of ability and text."""
        return [np.ones((len(rows), 1)), landmarks(self.vectors_ND[rows])]

    def episode(self, rows: np.ndarray, landmarks: Landmarks) -> Episode:
        """Return the outcomes of all candidates on some rows, around the mean over candidates."""
        known, count = self.known_NM[rows], self.known_NM[rows].sum(axis=1)
        mean = item_means(self.outcome_NM[rows], known)
        slope = mean * (1 - mean)
        kernels = [(slope[:, None] * block) @ (slope[:, None] * block).T for block in self.features(rows, landmarks)]
        # The mean contains the candidate itself: residuals are scaled to the variance of a candidate apart from it.
        scale = np.sqrt(count / (count - 1).clip(1))[:, None]
        return Episode(np.array(kernels), slope, np.where(known, self.outcome_NM[rows] - mean[:, None], 0) * scale)

    def landmarks(self, rows: np.ndarray) -> Landmarks:
        """Place landmarks on some rows."""
        return Landmarks.at(self.vectors_ND[rows[:256]])


def item_means(outcome_KM: np.ndarray, known_KM: np.ndarray) -> np.ndarray:
    """Return the mean over candidates of each result, shrunk toward the mean of all by eight candidates."""
    sums, count = np.where(known_KM, outcome_KM, 0).sum(axis=1), known_KM.sum(axis=1)
    return ((sums + 8 * sums.sum() / count.sum()) / (count + 8)).clip(0.02, 0.98)


def variances_of(zoo: Zoo, rows: np.ndarray) -> dict[str, float]:
    """Learn the variances of ability, text, and noise on some rows of a zoo."""
    start = {name: START[name] for name in ("ability", "near", "noise")}
    return fit_variances([zoo.episode(rows, zoo.landmarks(rows))], start)


def scores(zoo: Zoo, rows: np.ndarray, asked: np.ndarray, variances: dict[str, float]) -> np.ndarray:
    """Return the latent deviations of all candidates, (Q, M)."""
    landmarks = zoo.landmarks(rows)
    scale = np.sqrt([variances["ability"], variances["near"]])
    feature_KF, feature_QF = (
        np.hstack([size * block for size, block in zip(scale, zoo.features(some, landmarks), strict=True)])
        for some in (rows, asked)
    )
    mean_K = item_means(zoo.outcome_NM[rows], zoo.known_NM[rows])
    columns = []
    for column in range(zoo.outcome_NM.shape[1]):
        known = zoo.known_NM[rows, column]
        weight_F = posterior_weights(
            feature_KF[known], mean_K[known], zoo.outcome_NM[rows[known], column], variances["noise"]
        )
        columns.append(feature_QF @ weight_F)
    return np.array(columns).T


def routed_by_all(
    zoo: Zoo, transferred: dict[str, float], rows: np.ndarray, asked: np.ndarray
) -> dict[str, np.ndarray]:
    """Return routed outcomes (Q,) of each method by the results on some rows."""
    item, query = (np.ix_(part, np.arange(zoo.outcome_NM.shape[1])) for part in (rows, asked))
    methods = {"start": START, "transferred": transferred, "own results": variances_of(zoo, rows)}
    found = {name: scores(zoo, rows, asked, variances) for name, variances in methods.items()}
    found["best_single"] = single(zoo.vectors_ND[rows], zoo.outcome_NM[item], zoo.known_NM[item], zoo.vectors_ND[asked])
    return {name: routed(score_QM, zoo.outcome_NM[query], zoo.known_NM[query]) for name, score_QM in found.items()}


def at_every_size(
    zoo: str, seed: int, rows: np.ndarray, asked: np.ndarray, route: Callable[[np.ndarray], dict[str, np.ndarray]]
) -> list[pl.DataFrame]:
    """Return the outcomes of each method at every K, means over draws; ``route`` gets K of the rows."""
    frames = []
    for size in SIZES:
        total: dict[str, np.ndarray] = {}
        for draw in range(DRAWS):
            drawn = np.random.default_rng([seed, draw]).permutation(rows)[:size]
            for name, value_Q in route(drawn).items():
                total[name] = total.get(name, 0.0) + value_Q / DRAWS
        frames += [
            pl.DataFrame({"zoo": zoo, "k": size, "method": name, "seed": seed, "row": asked})
            .with_columns(pl.Series("value", value_Q))
            for name, value_Q in total.items()
        ]  # fmt: skip
    return frames


def main() -> None:
    """Leave out each zoo in turn; write a row per zoo, K, method, seed, and instruction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with the records of the real zoos")
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    embed, names = Embedder(), ("routerdc", "mmlu_pro", "bfcl", "routerbench", "simulated")
    zoos = [Zoo(name, args.folder, embed) for name in names]
    if args.split == "test":
        with (Path(__file__).parent / "opened.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%F %T')} zero_shot: test rows of {', '.join(names)}, seeds {args.seeds}\n")
    own = {zoo.name: variances_of(zoo, np.random.default_rng(1).permutation(zoo.sides(args.split, 0)[0])[:500])
           for zoo in zoos}  # fmt: skip
    for name, found in own.items():
        print(name, {part: round(value, 3) for part, value in found.items()}, flush=True)
    frames = []
    for zoo in zoos:
        others = [found for name, found in own.items() if name != zoo.name]
        transferred = {part: float(np.exp(np.mean([np.log(one[part]) for one in others]))) for part in others[0]}
        for seed in args.seeds:
            rows, asked = zoo.sides(args.split, seed)
            route = partial(routed_by_all, zoo, transferred, asked=asked)
            frames += at_every_size(zoo.name, seed, rows, asked, route)
        print(zoo.name, "done", flush=True)
        pl.concat(frames).write_parquet(args.output)


if __name__ == "__main__":
    main()
