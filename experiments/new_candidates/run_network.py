"""Route between new candidates of a zoo by the attentive network and by blends with best single (see README.md).

The protocol and the rows are those of run.py; the output can be read by table.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from run import Fold, admitted_scores, learned, run_folds, single
from torch import Tensor

from satlight.baselines.attentive import QUERIES, REGRET, SIZES, STEPS, AttentiveNetwork, Episode, train
from satlight.baselines.kernel_parts import fit_text

TEXT_FOLDS = 4
BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Weights of best single to choose from."""

BLEND_DRAWS = 2


def item_means(outcome_KM: np.ndarray, expected_K: np.ndarray | float, prior: float = 8.0) -> np.ndarray:
    """Return the mean outcome of each instruction, shrunk toward its expectation by ``prior`` candidates."""
    return ((outcome_KM.sum(axis=1) + prior * expected_K) / (outcome_KM.shape[1] + prior)).clip(0.02, 0.98)


def mixed(outcome_NC: np.ndarray, group_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Make candidates that are one of the given ones on each group of rows, (N, count)."""
    names, group_N = np.unique(group_N, return_inverse=True)
    parent_GC = rng.integers(outcome_NC.shape[1], size=(len(names), count))
    return np.take_along_axis(outcome_NC, parent_GC[group_N], axis=1)


class NetworkOfFold:
    """Network trained on the training candidates of a fold.

    Args:
        fold: Rows and candidates.
        mixtures: Share of episodes whose new candidates are mixtures by task.
        options: Of :func:`network.train`.
    """

    def __init__(self, fold: Fold, mixtures: float = 0.0, **options) -> None:
        self.fold, self.mixtures = fold, mixtures
        self.rows, rng = fold.probe_rows, np.random.default_rng(fold.seed)
        cells = np.ix_(self.rows, fold.trained)
        self.known_NT, self.tasks_N = fold.known_NM[cells], np.asarray(fold.records.task_keys)[self.rows]
        outcome_NT, self.vectors_ND = np.where(self.known_NT, fold.outcome_NM[cells], 0), fold.vectors_ND[self.rows]
        text = fit_text(
            self.vectors_ND.astype(float), self.tasks_N, outcome_NT, self.known_NT,
            rng.permutation(np.arange(len(self.rows)) % TEXT_FOLDS),
        )  # fmt: skip
        self.expected_NT = text.expected_NT
        self.outcome_NT = np.where(self.known_NT, outcome_NT, text.expected_NT)
        asked_QD = fold.vectors_ND[fold.judged_rows].astype(float)
        self.mean_Q = text.ridge(np.hstack([asked_QD, text.tasks(asked_QD)])).mean(axis=1)
        self.network: AttentiveNetwork = train(self.sample, self.vectors_ND.shape[1], seed=fold.seed, **options)

    def sample(self, rng: np.random.Generator) -> tuple[Episode, Tensor, Tensor]:
        """Let a quarter to a half of the families play new candidates."""
        names = rng.permutation(np.unique(self.fold.family_M[self.fold.trained]))
        count = rng.integers(max(2, len(names) // 4), max(3, len(names) // 2 + 1))
        new_T = np.isin(self.fold.family_M[self.fold.trained], names[:count])
        size = min(int(rng.choice(SIZES)), len(self.rows) - QUERIES)
        row_N = rng.permutation(len(self.rows))[: size + QUERIES]
        outcome_NC, known_NC = self.outcome_NT[row_N][:, new_T], self.known_NT[row_N][:, new_T]
        if rng.random() < self.mixtures:
            outcome_NC = mixed(outcome_NC, self.tasks_N[row_N], outcome_NC.shape[1], rng)
            known_NC = np.ones_like(known_NC)
        episode = self.episode(row_N[:size], ~new_T, outcome_NC[:size], known_NC[:size], row_N[size:])
        return episode, *(torch.as_tensor(one[size:]) for one in (outcome_NC.astype(np.float32), known_NC))

    def episode(self, item_K, rest_T, outcome_KC, known_KC, asked_Q=None) -> Episode:
        """Return an episode on training rows; without ``asked_Q``, with the judged rows as instructions to route."""
        mean_K = item_means(self.outcome_NT[item_K][:, rest_T], self.expected_NT[item_K][:, rest_T].mean(axis=1))
        if asked_Q is None:
            query_QD, mean_Q = self.fold.vectors_ND[self.fold.judged_rows], self.mean_Q
        else:
            query_QD, mean_Q = self.vectors_ND[asked_Q], self.expected_NT[asked_Q][:, rest_T].mean(axis=1)
        return Episode.of(self.vectors_ND[item_K], mean_K, outcome_KC, known_KC, query_QD, mean_Q.clip(0.02, 0.98))

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """Score the judged rows by the results of the new candidates on some rows, (Q, C)."""
        place = {row: number for number, row in enumerate(self.rows)}
        cells = np.ix_(rows, self.fold.new)
        everyone = np.ones(len(self.fold.trained), dtype=bool)
        item_K = np.array([place[row] for row in rows])
        episode = self.episode(item_K, everyone, self.fold.outcome_NM[cells], self.fold.known_NM[cells])
        return self.network(episode).double().numpy()


class Blend:
    """Gaussian process blended with best single; the weight for every K is chosen on candidates that play new ones.

    Each half of the families is new in turn, known by results on the rows to fit on, and routed on the rows to tune on.
    """

    def __init__(self, fold: Fold, embed) -> None:
        names = np.random.default_rng([fold.seed, 7]).permutation(np.unique(fold.family_M[fold.trained]))
        records = fold.records.filter(candidates=[fold.records.model_ids[column] for column in fold.trained])
        split_N = np.asarray(records.splits).copy()
        split_N[split_N == "test"] = "dropped"
        split_N[split_N == "validation"] = "test"
        records, family_T = records.with_splits(split_N), fold.family_M[fold.trained]
        self.folds = [
            Fold(records, fold.vectors_ND, np.isin(family_T, half), family_T, fold.seed)
            for half in np.array_split(names, 2)
        ]
        self.routers = [learned(one, "gaussian_process", embed) for one in self.folds]

    def weight(self, size: int) -> float:
        """Return the weight of best single with the highest routed accuracy."""
        total = dict.fromkeys(BLENDS, 0.0)
        for one, router in zip(self.folds, self.routers, strict=True):
            for draw in range(BLEND_DRAWS):
                rows = one.draw(size, draw)
                process_QC = admitted_scores(router, one, rows)
                ability_QC = one.votes(single, rows, one.new, one.judged_rows)
                for weight in BLENDS:
                    score_QC = weight * ability_QC + (1 - weight) * process_QC
                    total[weight] += one.accuracy(score_QC, one.judged_rows, one.new).mean()
        return max(total, key=total.__getitem__)


def run_fold(fold: Fold, embed, args: argparse.Namespace) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield K, method and routed outcomes (Q,), averaged over the draws of the results."""
    network = (
        NetworkOfFold(fold, args.mixtures, steps=args.steps, regret=args.regret, rank=args.rank)
        if "network" in args.methods
        else None
    )
    process = learned(fold, "gaussian_process", embed) if "gaussian_process" in args.methods else None
    blend = Blend(fold, embed) if process is not None and "blend" in args.methods else None
    for size in args.sizes:
        total: dict[str, np.ndarray] = {}
        chosen: dict[str, Callable] = fold.tuned(size) if "rivals" in args.methods else {"best_single": single}
        weight = blend.weight(size) if blend else 0.0
        for draw in range(args.draws):
            rows = fold.draw(size, draw)
            scores = {name: fold.votes(one, rows, fold.new, fold.judged_rows) for name, one in chosen.items()}
            if network is not None:
                scores["network"] = network.scores(rows)
            if process is not None:
                scores["gaussian_process"] = admitted_scores(process, fold, rows)
            if blend:
                scores["blend"] = weight * scores["best_single"] + (1 - weight) * scores["gaussian_process"]
            for name, score_QC in scores.items():
                total[name] = total.get(name, 0.0) + fold.accuracy(score_QC, fold.judged_rows, fold.new) / args.draws
        if blend:
            print(f"  K = {size}: weight of best single {weight}", flush=True)
        for name, value_Q in total.items():
            yield size, name, value_Q


def main() -> None:
    """Run seeds, folds, and sizes; write ``FILE`` with a row per method, K, seed, and instruction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path)
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11, 12])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--methods", nargs="+", default=["rivals", "gaussian_process", "blend", "network"])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--regret", type=float, default=REGRET)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--mixtures", type=float, default=0.0)
    parser.add_argument("--output", type=Path, required=True)
    torch.set_num_threads(1)
    run_folds(parser.parse_args(), run_fold, "run_network")


if __name__ == "__main__":
    main()
