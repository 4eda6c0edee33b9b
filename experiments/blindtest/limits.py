"""Compare routers of BlindTest with what the true parameters of the drawings tell. Opens the test split.

    lightning predict -c experiments/blindtest/config.yaml --name blindtest_0 --data.seed 0  # and 1, 2
    python experiments/blindtest/limits.py data/blindtest --scores eyes=runs/blindtest_0/1/scores.parquet,...

Controls are fitted on all train rows of ``split_group``: the candidate that is best overall, within each task, and
within each task and prompt, and random forests that predict the outcome of each candidate from task and prompt, without
and with the parameters that the drawing was made from (distance, diameter, number, thickness, resolution, ...), mean of
three seeds. The parameters are not available to a router; the forest shows what a perfect eye could tell.

``--scores NAME=FILE,...`` adds a router, one file per seed; outcomes are averaged over its seeds. Prints accuracy in
percent, micro mean over test rows, and the difference to each control of ``VERSUS`` and to the routers of ``--versus``
with its 95 % interval: bootstrap over groups, since the rows of a group show one drawing. With all candidates, and
without the strongest one (the same scores).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from satlight.data.stream import codes
from satlight.records import PerformanceRecords, open_records
from satlight.records.split import use_split
from satlight.routing.scores import StoredScores

VERSUS = ("best single", "best of the task")
SEEDS, TREES, LEAF, RESAMPLES = 3, 300, 4, 2000


def parameters(records: PerformanceRecords) -> np.ndarray:
    """Return the numbers that each drawing was made from, -1 where it has none: (N, P). Words become codes."""
    drawn = [json.loads(text) for text in records.instructions["params"]]
    names = sorted({name for one in drawn for name in one} - {"image_index"})  # a number of a file tells nothing
    columns = [[one.get(name, -1) for one in drawn] for name in names]
    columns = [[value[0] if isinstance(value, list) else value for value in column] for column in columns]
    worded = [any(isinstance(value, str) for value in column) for column in columns]
    numbers = [codes(np.array(column, str)) if words else column for column, words in zip(columns, worded, strict=True)]
    return np.array(numbers, dtype=np.float64).T


def best_of(groups: np.ndarray, outcomes: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """Return the mean train outcome of each candidate in the row's group: (N, M)."""
    return np.stack([outcomes[learn & (groups == group)].mean(0) for group in groups])


def forest(inputs: np.ndarray, outcomes: np.ndarray, learn: np.ndarray) -> np.ndarray:
    """Return the predicted outcome of each candidate: (N, M)."""
    predicted = np.zeros_like(outcomes)
    for seed in range(SEEDS):
        for column, outcome in enumerate(outcomes.T):
            model = RandomForestClassifier(TREES, min_samples_leaf=LEAF, random_state=seed)
            probability = model.fit(inputs[learn], outcome[learn] > 0.5).predict_proba(inputs)
            predicted[:, column] += probability[:, -1] / SEEDS
    return predicted


def read_scores(file: str, records: PerformanceRecords) -> np.ndarray:
    """Return the scores of a router on the test rows, 0 on the others: (N, M)."""
    scores, test = np.zeros(records.outcomes.shape), np.flatnonzero(records.splits == "test")
    scores[test] = StoredScores.read(file).of(records.rows(test))
    return scores


def interval(values: np.ndarray, groups: np.ndarray) -> str:
    """Return the mean in percent with its 95 % interval over resampled groups."""
    code, rng = codes(groups), np.random.default_rng(0)
    total, size = np.bincount(code, values), np.bincount(code)
    times = rng.multinomial(len(size), np.full(len(size), 1 / len(size)), RESAMPLES)
    low, high = np.percentile(times @ total / (times @ size), (2.5, 97.5))
    return f"{100 * values.mean():+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def table(
    records: PerformanceRecords, scores: dict[str, list[np.ndarray]], columns: list[int], versus: Sequence[str]
) -> None:
    """Print the routers between the candidates ``columns`` on the test rows; ``scores`` holds (N, M) by seed."""
    test, rows = records.splits == "test", np.arange(len(records.splits))
    outcomes = np.asarray(records.outcomes)[:, columns]
    chosen = {
        name: np.mean([outcomes[rows, seed[:, columns].argmax(1)] for seed in seeds], 0)[test]
        for name, seeds in scores.items()
    }
    chosen["oracle"] = outcomes.max(1)[test]
    groups, tasks = records.instructions["group"].to_numpy()[test], records.instructions["task"].to_numpy()[test]
    print(f"\n{test.sum()} test rows, candidates: {', '.join(records.model_ids[column] for column in columns)}\n")
    print(f"| router | accuracy | {' | '.join(f'− {name}' for name in versus)} | {' | '.join(np.unique(tasks))} |")
    print("|---|---:|" + "---|" * len(versus) + "---:|" * len(np.unique(tasks)))
    for name, got in chosen.items():
        cells = [f"{100 * got.mean():.2f}"]
        cells += ["" if name in (other, "oracle") else interval(got - chosen[other], groups) for other in versus]
        cells += [f"{100 * got[tasks == task].mean():.1f}" for task in np.unique(tasks)]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records")
    parser.add_argument("--scores", nargs="+", default=[], metavar="NAME=FILE,...", help="routers, a file per seed")
    parser.add_argument("--versus", nargs="+", default=[], metavar="NAME", help="routers to compare with")
    parser.add_argument("--without", default="claude-3.5-sonnet", help="the candidate that the second zoo lacks")
    args = parser.parse_args()
    records = use_split(open_records(args.records), "split_group")
    outcomes, learn = np.asarray(records.outcomes, dtype=np.float64), records.splits == "train"
    task, prompt = (records.instructions[name].to_numpy() for name in ("task", "instruction"))
    known = np.stack([codes(task), codes(prompt)], 1)
    scores = {
        "best single": [best_of(np.zeros(len(task)), outcomes, learn)],
        "best of the task": [best_of(task, outcomes, learn)],
        "best of the prompt": [best_of(prompt, outcomes, learn)],
        "forest, task and prompt": [forest(known, outcomes, learn)],
        "forest, true parameters": [forest(np.hstack([parameters(records), known]), outcomes, learn)],
    }
    for name, _, files in (entry.partition("=") for entry in args.scores):
        scores[name] = [read_scores(file, records) for file in files.split(",")]
    everyone = list(range(len(records.model_ids)))
    for columns in (everyone, [column for column in everyone if records.model_ids[column] != args.without]):
        table(records, scores, columns, [*VERSUS, *args.versus])


if __name__ == "__main__":
    main()
