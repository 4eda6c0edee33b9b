"""Train the attentive network on four zoos and route the fifth by K results of each candidate (see README.md).

Zoos, rows, draws, and rivals are those of zero_shot.py. Nothing else is known about the fifth zoo.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from run import routed, single
from run_network import item_means, mixed
from torch import Tensor
from zero_shot import SIZES, Zoo, at_every_size, scores, variances_of

from satlight.backbones.embedding import Embedder
from satlight.baselines.attentive import QUERIES, REGRET, AttentiveNetwork, Episode, train

NAMES = ("routerdc", "mmlu_pro", "bfcl", "routerbench", "simulated")
LEAST_CANDIDATES = 4


def episode(zoo: Zoo, rows: np.ndarray, outcome_KC: np.ndarray, known_KC: np.ndarray, asked: np.ndarray) -> Episode:
    """Return an episode; the mean candidate is the mean of the candidates that are routed, on their K results."""
    mean = float(outcome_KC[known_KC].mean())
    filled_KC = np.where(known_KC, outcome_KC, mean)
    mean_Q = np.full(len(asked), np.clip(mean, 0.02, 0.98))
    mean_K = item_means(filled_KC, mean)
    return Episode.of(zoo.vectors_ND[rows], mean_K, outcome_KC, known_KC, zoo.vectors_ND[asked], mean_Q)


class Episodes:
    """Episodes of several zoos.

    Args:
        zoos: Zoos to train on, drawn with equal probability.
        judged: Split of the fifth zoo; only rows outside the test rows of each zoo are read.
        mixtures: Share of episodes whose candidates are mixtures of two.
    """

    def __init__(self, zoos: Sequence[Zoo], judged: str, mixtures: float = 0.0) -> None:
        self.zoos, self.rows, self.mixtures = zoos, [zoo.sides(judged, 0)[0] for zoo in zoos], mixtures

    def __call__(self, rng: np.random.Generator) -> tuple[Episode, Tensor, Tensor]:
        """Draw a zoo, some of its candidates, K, and rows."""
        number = int(rng.integers(len(self.zoos)))
        zoo, rows = self.zoos[number], self.rows[number]
        candidates = zoo.outcome_NM.shape[1]
        columns = rng.permutation(candidates)[: rng.integers(LEAST_CANDIDATES, candidates + 1)]
        size = int(rng.choice(SIZES))
        row_N = rng.permutation(rows)[: size + QUERIES]
        outcome_NC, known_NC = (one[np.ix_(row_N, columns)] for one in (zoo.outcome_NM, zoo.known_NM))
        outcome_NC = np.where(known_NC, outcome_NC, 0)
        if rng.random() < self.mixtures and known_NC.all():
            outcome_NC = mixed(outcome_NC, zoo.tasks_N[row_N], outcome_NC.shape[1], rng)
        made = episode(zoo, row_N[:size], outcome_NC[:size], known_NC[:size], row_N[size:])
        return made, *(torch.as_tensor(one[size:]) for one in (outcome_NC.astype(np.float32), known_NC))


def routed_by_all(zoo: Zoo, network: AttentiveNetwork, rows: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Return routed outcomes (Q,) of each method by the results on some rows."""
    columns = np.arange(zoo.outcome_NM.shape[1])
    item, query = np.ix_(rows, columns), np.ix_(asked, columns)
    results = np.where(zoo.known_NM[item], zoo.outcome_NM[item], 0), zoo.known_NM[item]
    score = {
        "best_single": single(zoo.vectors_ND[rows], *results, zoo.vectors_ND[asked]),
        "own results": scores(zoo, rows, asked, variances_of(zoo, rows)),
        "network": network(episode(zoo, rows, *results, asked)).double().numpy(),
    }
    return {name: routed(one, zoo.outcome_NM[query], zoo.known_NM[query]) for name, one in score.items()}


def main() -> None:
    """Leave out each zoo in turn; write a row per zoo, K, method, seed, and instruction."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder with the records of the real zoos")
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11])
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--regret", type=float, default=REGRET)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--mixtures", type=float, default=0.0)
    parser.add_argument("--zoos", nargs="+", default=NAMES, help="zoos to leave out")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.split == "test":
        with (Path(__file__).parent / "opened.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%F %T')} network_over_zoos: test rows of {args.zoos}, seeds {args.seeds}\n")
    embed = Embedder()
    zoos, frames = [Zoo(name, args.folder, embed) for name in NAMES], []
    for zoo in (one for one in zoos if one.name in args.zoos):
        start = time.process_time()
        sample = Episodes([one for one in zoos if one is not zoo], args.split, args.mixtures)
        for seed in args.seeds:
            network = train(
                sample, zoo.vectors_ND.shape[1], steps=args.steps, regret=args.regret, seed=seed, rank=args.rank
            )
            rows, asked = zoo.sides(args.split, seed)
            route = partial(routed_by_all, zoo, network, asked=asked)
            frames += at_every_size(zoo.name, seed, rows, asked, route)
            pl.concat(frames).write_parquet(args.output)
        print(f"{zoo.name}: {time.process_time() - start:.0f} CPU seconds", flush=True)


if __name__ == "__main__":
    main()
