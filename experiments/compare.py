"""Compare trained routers with baselines and a best-of-group control, paired by instruction.

    lightning predict -c experiments/routerdc/config.yaml --name routerdc_0 --data.seed 0  # and 1, 2
    python experiments/compare.py experiments/routerdc/config.yaml runs/routerdc_{0,1,2}/1/scores.parquet

The i-th file is the router of seed i. Baselines (default: MiniLM kNN) are fitted separately for each seed
on its train and validation rows. ``--best_of COLUMN`` adds the candidate that is best on train within each
value of a column of the instructions; this control knows the value. With several routers, ``ensemble``
chooses by their mean score. Prints accuracy in percent, mean over seeds, and the difference router − other
with its 95 % interval: bootstrap over instructions, within datasets, of the mean over seeds.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
import yaml

from satlight.backbones.embedding import Embedder
from satlight.baselines import build
from satlight.data import CapabilityInstructionDataModule
from satlight.evaluation.controls import matrices
from satlight.metrics import functional
from satlight.metrics.bootstrap import paired_bootstrap_difference
from satlight.routing.scores import StoredScores

OPTIONS = ("records", "score_column", "candidates", "datasets", "train_datasets", "test_groups")


def choices(config: dict, seed: int, path: str, baselines: list[str], best_of: str | None) -> tuple:
    """Return the test records and, by method, the outcome of its choice per row and whether it is known."""
    options = {key: config[key] for key in OPTIONS if key in config}
    data = CapabilityInstructionDataModule(**options, seed=seed)
    data.setup("test")
    test, train = data.eval_view("test").records, data.control_records()
    score = {"router": StoredScores.read(path).of(test)}
    for name in baselines:
        score[name] = build(name).fit(train, Embedder()).predict(test.texts, test.model_ids)
    choice = {name: functional.choose(torch.as_tensor(matrix)) for name, matrix in score.items()}
    if best_of is not None:
        values = [records.instructions[best_of].cast(str).to_numpy() for records in (train, test)]
        _, code = np.unique(np.concatenate(values).astype(str), return_inverse=True)
        train_code, test_code = torch.as_tensor(code).split([len(values[0]), len(values[1])])
        choice[f"best of {best_of}"] = functional.group_best(*matrices(train), train_code, test_code)
    outcome = matrices(test)
    return test, {name: functional.outcomes_of(picked, *outcome) for name, picked in choice.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("scores", nargs="+")
    parser.add_argument("--baselines", nargs="*", default=["knn"])
    parser.add_argument("--best_of")
    args = parser.parse_args()
    with open(args.config, encoding="utf-8") as file:
        config = yaml.safe_load(file)["data"]["init_args"]
    runs = [choices(config, seed, path, args.baselines, args.best_of) for seed, path in enumerate(args.scores)]
    test = runs[0][0]
    if len(runs) > 1:
        scores = [torch.as_tensor(StoredScores.read(path).of(test)) for path in args.scores]
        together = functional.choose(torch.stack(scores).mean(0))
        for _, found in runs:
            found["ensemble"] = functional.outcomes_of(together, *matrices(test))
    datasets = sorted(set(test.datasets.tolist()))
    for group, members in (config.get("test_groups") or {"all": datasets}).items():
        rows = torch.from_numpy(np.isin(test.datasets, members))
        code = torch.as_tensor(np.unique(test.datasets[rows.numpy()], return_inverse=True)[1])
        mean, known = {}, {}
        for name in runs[0][1]:
            mean[name] = torch.stack([run[1][name][0] for run in runs]).mean(0)[rows]
            known[name] = torch.stack([run[1][name][1] for run in runs]).all(0)[rows]
        for name, values in mean.items():
            both = known[name] & known["router"]
            accuracy = np.mean([float(values[both & (code == g)].mean()) for g in code.unique()])
            line = f"{group:14s} {name:20s} {100 * accuracy:.2f}"
            if name != "router":
                result = paired_bootstrap_difference(mean["router"], values, both, code)
                difference, low, high = (100 * x for x in (result.mean, result.low, result.high))
                line += f"   router − it: {difference:+.2f} ({low:+.2f} to {high:+.2f})"
            print(line)


if __name__ == "__main__":
    main()
