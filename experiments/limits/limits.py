"""Measure closed-form routers, cross-validated on train rows: what can be predicted from an instruction?

    python experiments/limits/limits.py data/mmlu_pro --column category --task_prior 58 --candidates ...
    python experiments/limits/limits.py data/routerdc --score_column correct --datasets mmlu gsm8k ...

Told: the candidate with the best mean on the instruction's dataset, its group (``--column``), or its task,
whose mean is shrunk as in ``data.targets.task_prior``. Named: the task is predicted from MiniLM's vector by
logistic regression; task means are weighted by its probabilities. Linear: ridge regression on the same
vectors, of outcomes or of outcomes shrunk toward task means by 0.9. Named + residual: the named prediction
plus a ridge regression of the residual outcomes after subtracting the mean of the task.

Prints the routed accuracy in percent, macro mean over datasets, of five folds, with the 95 % interval over
three repetitions. With ``--test GROUP=DATASET,...`` all routers are also fitted once on all train rows and
evaluated on the test rows of each group.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from satlight.backbones.embedding import Embedder
from satlight.data.stream import codes
from satlight.data.targets import shrunk_means
from satlight.metrics.seeds import seed_interval
from satlight.records import PerformanceRecords, open_records, split_records

SHRINKAGE = 0.9
PENALTIES = (30, 100, 300)
REPETITIONS, FOLDS = 3, 5


def routers(
    records: PerformanceRecords, vectors: np.ndarray, learn: np.ndarray, prior: float, column: str | None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield name and scores (N, M) on all rows of each router, fitted on the rows ``learn`` only."""
    outcomes = np.asarray(records.outcomes, dtype=np.float64)
    known = np.asarray(records.known) & learn[:, None]
    tasks = records.task_keys

    def means(groups: np.ndarray, base: np.ndarray, strength: float) -> np.ndarray:
        return shrunk_means(outcomes, known, groups, base, strength)

    dataset = means(records.datasets, np.zeros_like(outcomes), 0.0)
    task = means(tasks, dataset, prior)
    yield "told the dataset", dataset
    if column is not None:
        groups = records.instructions[column].cast(str).to_numpy()
        yield f"told the {column}", means(groups, dataset, 20.0)
    yield "told the task", task

    code = codes(tasks)
    classifier = LogisticRegression(C=10.0, max_iter=300).fit(vectors[learn], code[learn])
    first = [np.flatnonzero(code == label)[0] for label in classifier.classes_]
    named = classifier.predict_proba(vectors) @ task[first]
    yield "named from the text", named

    def linear(target: np.ndarray, penalty: float) -> np.ndarray:
        filled = np.where(known, target, task)  # unknown outcomes are replaced by the mean of their task
        return Ridge(penalty).fit(vectors[learn], filled[learn]).predict(vectors)

    yield "linear on outcomes", linear(outcomes, 10.0)
    yield "linear on shrunk outcomes", linear((1 - SHRINKAGE) * outcomes + SHRINKAGE * task, 10.0)
    for penalty in PENALTIES:
        rest = linear(outcomes, penalty) - linear(task, penalty)
        yield f"named + residual, penalty {penalty}", named + rest


def accuracy(records: PerformanceRecords, scores: np.ndarray, judged: np.ndarray) -> float:
    """Return the macro mean over datasets of the routed outcome on the rows ``judged``, in percent."""
    rows, choice = np.arange(len(scores)), scores.argmax(axis=1)
    outcome, known = np.asarray(records.outcomes)[rows, choice], np.asarray(records.known)[rows, choice]
    parts = [judged & known & (records.datasets == name) for name in np.unique(records.datasets[judged])]
    return 100 * float(np.mean([outcome[part].mean() for part in parts]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records")
    parser.add_argument("--score_column", default="score")
    parser.add_argument("--datasets", nargs="+", help="datasets to learn from; default: all")
    parser.add_argument("--candidates", nargs="+")
    parser.add_argument("--task_prior", type=float, default=20.0)
    parser.add_argument("--column", help="a column of the instructions that a router is told")
    parser.add_argument("--test", nargs="+", default=[], metavar="GROUP=DATASET,...")
    args = parser.parse_args()
    everything = open_records(args.records, score_column=args.score_column, candidates=args.candidates)
    # Train rows with the text of a test row are dropped.
    everything = everything.with_splits(split_records(everything, validation_fraction=0.0))
    fitting = everything.splits == "train"
    if args.datasets:
        fitting &= np.isin(everything.datasets, args.datasets)
    embed = Embedder()

    train = everything.rows(fitting)
    vectors = embed(train.texts)
    found: dict[str, list[float]] = {}
    for repetition in range(REPETITIONS):
        fold = np.random.default_rng(repetition).integers(0, FOLDS, len(vectors))
        scores: dict[str, np.ndarray] = {}
        for held in range(FOLDS):
            for name, score in routers(train, vectors, fold != held, args.task_prior, args.column):
                scores.setdefault(name, np.zeros_like(score))[fold == held] = score[fold == held]
        for name, score in scores.items():
            found.setdefault(name, []).append(accuracy(train, score, np.ones(len(score), dtype=bool)))
    tests: dict[str, list[float]] = {}
    groups = dict(entry.split("=") for entry in args.test)
    if groups:
        judged = {key: np.isin(everything.datasets, names.split(",")) for key, names in groups.items()}
        kept = fitting | ((everything.splits == "test") & np.logical_or.reduce(list(judged.values())))
        records = everything.rows(kept)
        for name, score in routers(records, embed(records.texts), fitting[kept], args.task_prior, args.column):
            test = records.splits == "test"
            tests[name] = [
                # The mean of a dataset that was not in training is unknown.
                float("nan")
                if name.startswith("told") and set(records.datasets[test & rows[kept]]) - set(train.datasets)
                else accuracy(records, score, test & rows[kept])
                for rows in judged.values()
            ]
    print("| router | train rows, cross-validated |" + "".join(f" test, {key} |" for key in groups))
    print("|---|---:|" + "---:|" * len(groups))
    for name, values in found.items():
        mean, half = seed_interval(values)
        cells = "".join(f" {value:.2f} |" for value in tests.get(name, [])).replace("nan", "–")
        print(f"| {name} | {mean:.2f} ± {half:.2f} |{cells}")


if __name__ == "__main__":
    main()
