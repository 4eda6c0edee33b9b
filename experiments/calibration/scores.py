"""Store the scores of a router on validation and test rows, for compare.py.

A baseline is fitted on train rows only, so that its validation scores are as honest as its test scores; its
hyper-parameters are chosen on validation rows. A run of Model-SAT is exported first. Scores of test rows are computed
here but judged by ``compare.py --open_test`` only.

    python experiments/calibration/scores.py experiments/mmlu_pro/config.yaml --router linear --seed 0 --to scores
    python experiments/calibration/scores.py runs/mmlu_pro_0/1/config.yaml --router runs/mmlu_pro_0/1/router --to scores
    python experiments/calibration/scores.py data/routerbench --router knn --to scores
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from satlight.backbones.embedding import Embedder
from satlight.baselines import build
from satlight.costs import expected_costs
from satlight.data import CapabilityInstructionDataModule
from satlight.records import PerformanceRecords, open_records, split_records
from satlight.records.usage import with_log_costs
from satlight.routers import Router

OPTIONS = ("records", "score_column", "candidates", "datasets", "train_datasets", "test_groups")


def opened(source: str, seed: int) -> PerformanceRecords:
    """Return records with splits: those of an experiment's config, or RouterBench as its bench reads it."""
    if source.endswith(".yaml"):
        config = yaml.safe_load(Path(source).read_text(encoding="utf-8"))["data"]["init_args"]
        data = CapabilityInstructionDataModule(**{key: config[key] for key in OPTIONS if key in config}, seed=seed)
        data.setup("test")
        return data.records
    records = open_records(source)
    records = replace(records, instructions=records.instructions.with_columns(instruction="question"))
    return records.with_splits(split_records(records, test_fraction=0.3, seed=seed))


def fitted(name: str, records: PerformanceRecords) -> Router:
    """Fit a baseline on train rows with the hyper-parameters that validation rows choose, or load a router folder."""
    if Path(name).is_dir():
        return Router.from_pretrained(name)
    train = records.filter(splits=["train"])
    chosen = build(name).fit(records.filter(splits=["train", "validation"]), Embedder()).chosen
    router = build(name, fixed=chosen).fit(train, Embedder())
    if train.costs is not None:
        router.candidates = with_log_costs(router.candidates, train)
    return router


def scored(router: Router, records: PerformanceRecords, batch_size: int = 32) -> dict[str, np.ndarray]:
    """Return scores, outcomes, and what calibration and decision rules need, by name."""
    requests = records.requests()
    score_NM = np.empty(records.shape, dtype=np.float32)
    order = np.argsort([len(text) for text in records.texts])
    for rows in np.array_split(order, -(-len(order) // batch_size)):
        score_NM[rows] = router.score([requests[row] for row in rows], records.model_ids).log_odds_BC
    found = {
        "score": score_NM,
        "outcome": np.asarray(records.outcomes),
        "known": np.asarray(records.known),
        "dataset": records.datasets.astype(str),
        "text": np.array(records.texts),
    }
    if records.costs is not None:
        columns = [router.model_ids.index(name) for name in records.model_ids]
        found["paid"] = np.asarray(records.costs, dtype=np.float64)
        found["expected"] = np.broadcast_to(
            expected_costs(router.candidates, requests), (len(requests), len(router.model_ids))
        )[:, columns]
    return found


def drawn(records: PerformanceRecords, most: int | None) -> PerformanceRecords:
    """Return random rows, at most ``most``."""
    size = records.shape[0]
    kept = np.random.default_rng(0).permutation(size) < (most or size)
    return records.rows(kept)


def main() -> None:
    """Score validation and test rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="config of an experiment, or the records folder of RouterBench")
    parser.add_argument("--router", required=True, help="name of a baseline, or a router folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=Path("scores"))
    parser.add_argument("--max_rows", type=int, help="draw this many rows of each split")
    args = parser.parse_args()
    records = opened(args.data, args.seed)
    router = fitted(args.router, records)
    content = {
        f"{split}_{key}": value
        for split in ("validation", "test")
        for key, value in scored(router, drawn(records.filter(splits=[split]), args.max_rows)).items()
    }
    args.to.mkdir(parents=True, exist_ok=True)
    name = "model_sat" if Path(args.router).is_dir() else args.router
    np.savez_compressed(args.to / f"{records.name}-{name}-{args.seed}.npz", **content)


if __name__ == "__main__":
    main()
