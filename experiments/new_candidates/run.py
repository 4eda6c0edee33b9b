"""Route between candidates that were not in training, known by K results each (see README.md).

Shape legend: N instructions, T training candidates, C new candidates, K results of each, Q instructions to route.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from satlight.backbones.embedding import Embedder
from satlight.baselines import build
from satlight.baselines.cluster import fit_kmeans
from satlight.baselines.tuning import column_means, membership, weighted_means
from satlight.records import PerformanceRecords, open_records, split_records
from satlight.types import AptitudeResults, Candidate

SIZES = (8, 16, 32, 64, 128, 256, 960)
FOLDS = 3
TUNING_DRAWS = 4

Votes = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Vectors and outcomes (K, C) of the results, whether they are known, vectors of Q instructions → scores (Q, C)."""


def families(folder: Path, names: Sequence[str]) -> np.ndarray:
    """Return the family of each candidate by ``models.json``; a candidate without one is its own."""
    models = json.loads((folder / "models.json").read_text(encoding="utf-8"))
    family = {model["model_id"]: model.get("family") or model["model_id"] for model in models}
    return np.array([family[name] for name in names])


def candidate_folds(family_M: np.ndarray, seed: int, folds: int = FOLDS) -> Iterator[np.ndarray]:
    """Yield the mask of the new candidates of each fold; families stay together."""
    names = np.random.default_rng(seed).permutation(np.unique(family_M))
    for part in np.array_split(names, folds):
        yield np.isin(family_M, part)


def routed(score_QC: np.ndarray, outcome_QC: np.ndarray, known_QC: np.ndarray) -> np.ndarray:
    """Return the outcome of the routed candidate among the known ones; candidates that tie count equally."""
    score_QC = np.where(known_QC, score_QC, -np.inf)
    best_QC = score_QC >= score_QC.max(axis=1, keepdims=True) - 1e-9
    return (best_QC * np.where(known_QC, outcome_QC, 0)).sum(axis=1) / best_QC.sum(axis=1)


# -- rivals: the results of the new candidates alone ----------------------------------------------------------


def single(vectors_KD: np.ndarray, outcome_KC: np.ndarray, known_KC: np.ndarray, asked_QD: np.ndarray) -> np.ndarray:
    """Score by the mean result."""
    return np.tile(_means(outcome_KC, known_KC), (len(asked_QD), 1))


def knn(k: int) -> Votes:
    """Score by the mean of the k nearest results, with the candidate's mean as one more."""

    def votes(vectors_KD, outcome_KC, known_KC, asked_QD):
        near_QK = np.argsort(-(asked_QD @ vectors_KD.T), axis=1, kind="stable")[:, :k]
        weight_QK = np.zeros((len(asked_QD), len(vectors_KD)))
        np.put_along_axis(weight_QK, near_QK, 1.0, axis=1)
        return weighted_means(weight_QK, outcome_KC, known_KC)

    return votes


def cluster(kmeans, prior: float = 1.0) -> Votes:
    """Score by the mean result in the cluster, shrunk toward the candidate's mean."""

    def votes(vectors_KD, outcome_KC, known_KC, asked_QD):
        groups = membership(kmeans.predict(vectors_KD), kmeans.n_clusters)
        return weighted_means(groups, outcome_KC, known_KC, prior)[kmeans.predict(asked_QD)]

    return votes


def hierarchy(coarse, fine, strength: float) -> Votes:
    """Shrink the mean result in a fine cluster toward the coarse cluster's, and that toward the candidate's."""

    def votes(vectors_KD, outcome_KC, known_KC, asked_QD):
        coarse_QC = cluster(coarse, strength)(vectors_KD, outcome_KC, known_KC, asked_QD)
        groups = membership(fine.predict(vectors_KD), fine.n_clusters)
        count_GC = groups @ known_KC.astype(float)
        sum_GC = groups @ np.where(known_KC, outcome_KC, 0)
        asked = fine.predict(asked_QD)
        return (sum_GC[asked] + strength * coarse_QC) / (count_GC[asked] + strength)

    return votes


def _means(outcome_KC: np.ndarray, known_KC: np.ndarray) -> np.ndarray:
    """Return mean results; the mean over candidates for one without a result."""
    some_C = known_KC.any(axis=0)
    mean_C = np.full(len(some_C), np.where(known_KC, outcome_KC, 0).sum() / known_KC.sum())
    mean_C[some_C] = column_means(outcome_KC[:, some_C], known_KC[:, some_C])
    return mean_C


def rivals(vectors_ND: np.ndarray, seed: int) -> dict[str, list[Votes]]:
    """Return the rivals with the settings to choose from; clusters are those of all training instructions."""
    kmeans = {size: fit_kmeans(vectors_ND, size, seed) for size in (4, 8, 16, 32, 20, 100)}
    return {
        "best_single": [single],
        "knn": [knn(k) for k in (2, 4, 8, 16, 32, 64, 128, 256)],
        "cluster": [cluster(kmeans[size], prior) for size in (4, 8, 16, 32) for prior in (1.0, 10.0)],
        "hierarchy": [hierarchy(kmeans[20], kmeans[100], strength) for strength in (3.0, 8.0, 24.0, 72.0)],
    }


class Fold:
    """Training and new candidates of one fold, with the rows to fit, to tune and to evaluate on.

    Args:
        records: With splits: train, validation (to tune on), and test (to evaluate on).
        vectors_ND: Embeddings.
        new_M: Mask of the new candidates.
        family_M: Family of each candidate.
        seed: Seed of clusters and draws.
    """

    def __init__(
        self, records: PerformanceRecords, vectors_ND: np.ndarray, new_M: np.ndarray, family_M: np.ndarray,
        seed: int,
    ) -> None:  # fmt: skip
        self.records, self.vectors_ND, self.seed = records, vectors_ND, seed
        self.new, self.trained = np.flatnonzero(new_M), np.flatnonzero(~new_M)
        self.family_M = family_M
        self.fit_rows = np.flatnonzero(records.splits == "train")
        self.tune_rows = np.flatnonzero(records.splits == "validation")
        self.judged_rows = np.flatnonzero(records.splits == "test")
        self.probe_rows = np.concatenate([self.fit_rows, self.tune_rows])
        self.outcome_NM, self.known_NM = np.asarray(records.outcomes, dtype=float), np.asarray(records.known)

    @cached_property
    def rivals(self) -> dict[str, list[Votes]]:
        """Rivals with the settings to choose from."""
        return rivals(self.vectors_ND[self.probe_rows], self.seed)

    def draw(self, size: int, draw: int) -> np.ndarray:
        """Draw the rows of the results, the same for all new candidates."""
        return np.random.default_rng([self.seed, *self.new, draw]).permutation(self.probe_rows)[:size]

    def votes(self, votes: Votes, rows: np.ndarray, columns: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Score instructions by the results of some candidates on some rows."""
        cells = np.ix_(rows, columns)
        return votes(self.vectors_ND[rows], self.outcome_NM[cells], self.known_NM[cells], self.vectors_ND[asked])

    def accuracy(self, score_QC: np.ndarray, asked: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return routed outcomes (Q,)."""
        cells = np.ix_(asked, columns)
        return routed(score_QC, self.outcome_NM[cells], self.known_NM[cells])

    def tuned(self, size: int) -> dict[str, Votes]:
        """Choose the setting of each rival for K results on training candidates that play new ones."""
        rng, total = np.random.default_rng([self.seed, size]), {name: 0.0 for name in self.rivals}
        episodes = []
        for _ in range(TUNING_DRAWS):
            names = rng.permutation(np.unique(self.family_M[self.trained]))
            for part in np.array_split(names, 2):
                columns = self.trained[np.isin(self.family_M[self.trained], part)]
                episodes.append((rng.permutation(self.fit_rows)[:size], columns))
        chosen = {}
        for name, settings in self.rivals.items():
            total = [
                sum(
                    self.accuracy(self.votes(one, rows, columns, self.tune_rows), self.tune_rows, columns).mean()
                    for rows, columns in episodes
                )
                for one in (settings if len(settings) > 1 else [])
            ]
            chosen[name] = settings[int(np.argmax(total))] if total else settings[0]
        return chosen

    def results(self, column: int, rows: np.ndarray) -> AptitudeResults:
        """Return the results of a new candidate."""
        rows = rows[self.known_NM[rows, column]]
        ids = self.records.instructions["instruction_id"]
        texts = self.records.texts
        return AptitudeResults(
            tuple(ids[int(row)] for row in rows), tuple(texts[row] for row in rows), self.records.outcomes[rows, column]
        )


def learned(fold: Fold, name: str, embed, **options):
    """Fit a baseline on the training candidates."""
    records = fold.records.rows(fold.probe_rows)
    return build(name, seed=fold.seed, **options).fit(
        records.filter(candidates=[records.model_ids[column] for column in fold.trained]), embed
    )


def admitted_scores(router, fold: Fold, rows: np.ndarray) -> np.ndarray:
    """Admit every new candidate by its results on some rows, and score the judged rows."""
    names = [f"new {column}" for column in fold.new]
    for name, column in zip(names, fold.new, strict=True):
        router = router.admit(Candidate(name), fold.results(column, rows))
    return router.predict([fold.records.texts[row] for row in fold.judged_rows], names)


def run_fold(fold: Fold, embed, args: argparse.Namespace) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield K, method and routed outcomes (Q,), averaged over the draws of the results."""
    routers = {name: learned(fold, name, embed, **options) for name, options in METHODS.items() if name in args.methods}
    if (router := routers.get("gaussian_process")) is not None:
        print("  variances", {name: round(value, 4) for name, value in router.variances.items()}, flush=True)
    for size in args.sizes:
        chosen = fold.tuned(size)
        total: dict[str, np.ndarray] = {}
        for draw in range(args.draws):
            rows = fold.draw(size, draw)
            scores = {name: fold.votes(one, rows, fold.new, fold.judged_rows) for name, one in chosen.items()}
            scores |= {name: admitted_scores(router, fold, rows) for name, router in routers.items()}
            for name, score_QC in scores.items():
                total[name] = total.get(name, 0.0) + fold.accuracy(score_QC, fold.judged_rows, fold.new) / args.draws
        for name, value_Q in total.items():
            yield size, name, value_Q


METHODS = {"irt": {"fixed": {"abilities": 8, "decay": 1.0, "steps": 750}}, "gaussian_process": {}, "few_results": {}}
"""Baselines that admit a candidate by its results, with their options."""


def main() -> None:
    """Run seeds, folds, and sizes; write ``FILE`` with a row per method, K, seed, and instruction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--output", type=Path, required=True)
    run_folds(parser.parse_args(), run_fold)


def run_folds(args: argparse.Namespace, run: Callable, name: str = "run") -> None:
    """Write the outcomes of a script's ``run_fold`` for every seed and fold; keep a log of uses of the test split."""
    if args.split == "test":
        with (Path(__file__).parent / "opened.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%F %T')} {name}: test split of {args.records.name}, seeds {args.seeds}\n")
    whole = open_records(args.records)
    family_M, embed = families(args.records, whole.model_ids), cached(Embedder(), whole.texts)
    vectors_ND = embed(whole.texts)
    frames = []
    for seed in args.seeds:
        for number, new_M in enumerate(candidate_folds(family_M, seed)):
            start = time.process_time()
            fold = Fold(split(whole, args.split, seed), vectors_ND, new_M, family_M, seed)
            for size, method, value_Q in run(fold, embed, args):
                frames.append(
                    pl.DataFrame({"k": size, "method": method, "seed": seed, "fold": number, "row": fold.judged_rows})
                    .with_columns(pl.Series("value", value_Q), pl.lit(len(fold.new)).alias("new"))
                )  # fmt: skip
            print(f"seed {seed}, fold {number}: {time.process_time() - start:.0f} CPU seconds", flush=True)
            pl.concat(frames).write_parquet(args.output)


def split(records: PerformanceRecords, judged: str, seed: int) -> PerformanceRecords:
    """Mark rows to fit on, to tune on (validation), and to evaluate on.

    Where validation rows are evaluated, a fifth of the train rows serves to tune.
    """
    split_N = split_records(records, seed=seed, validation_fraction=0.3 if judged == "validation" else 0.2)
    if judged == "test":
        return records.with_splits(split_N)
    split_N[split_N == "test"] = "dropped"
    split_N[split_N == "validation"] = "test"
    train = np.random.default_rng(seed).permutation(np.flatnonzero(split_N == "train"))
    split_N[train[: len(train) // 5]] = "validation"
    return records.with_splits(split_N)


def cached(embedder: Embedder, texts: Sequence[str]) -> Callable[[Sequence[str]], np.ndarray]:
    """Embed texts once; the function looks vectors up in memory."""
    vector = dict(zip(texts, embedder(texts), strict=True))
    return lambda asked: np.array([vector[text] for text in asked])


if __name__ == "__main__":
    main()
