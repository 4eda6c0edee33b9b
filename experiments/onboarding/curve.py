"""Measure how many items a new candidate needs: MMLU-Pro, each of the 17 candidates onboarded once.

    python experiments/onboarding/curve.py data/mmlu_pro

Opens test; nothing is chosen on it. The candidates are in three random folds. Model-SAT is trained without a fold, with
mixed candidates. Then each candidate of the fold is admitted alone, by its outcomes on the first N core items in the
order of ``satlight onboard --shots N``, and the router chooses between it and the candidates of the other folds. The
kNN baselines, with k tuned on validation rows, and the two for few results are fitted on the same candidates, and admit
the candidate by the same items. Best single is the candidate with the highest mean on the same N items. Figures are
means over the candidates, with intervals (95 %, paired bootstrap over test rows). A seed stands for folds, training and
validation rows; the sample of test rows is the same for all. Scores of finished folds are kept in ``--output``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch

from satlight import Router
from satlight.backbones.embedding import Embedder
from satlight.baselines import build
from satlight.evaluation.controls import matrices
from satlight.evaluation.protocols import unseen_candidates
from satlight.metrics import functional
from satlight.metrics.bootstrap import paired_bootstrap_difference
from satlight.records import PerformanceRecords, open_records, split_records
from satlight.routing.onboarding.items import Item, core_items
from satlight.routing.onboarding.profile import results_of
from satlight.types import Candidate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

CONFIG = Path(__file__).parents[1] / "unseen" / "config.yaml"
SIZES = (16, 32, 64, 128, 256, 960)
FOLDS, SMALL_B, BATCH = 3, 10.0, 64
BASELINES = ("knn", "aptitude_knn", "gaussian_process", "few_results")
METHODS = ("model_sat", *BASELINES, "best_single")
Zoos = dict[str, list[int]]


def train(records: str, unseen: list[str], folder: Path, seed: int, more: list[str]) -> Router:
    """Train Model-SAT without some candidates, or load the router of an earlier call."""
    if not (folder / "1" / "router").is_dir():
        options = {"runs": folder.parent, "name": folder.name, "seed_everything": seed, "data.seed": seed}
        options |= {"data.records": records, "data.aptitude.mixtures": 1.0, "trainer.enable_progress_bar": "false"}
        argv = ["fit", "-c", str(CONFIG), *(f"--{key}={value}" for key, value in options.items()), *more]
        subprocess.run([sys.executable, "-m", "satlight", *argv, f"--data.unseen_candidates={unseen}"], check=True)
    router = Router.from_pretrained(folder / "1" / "router")
    router.module.encoder.store = Embedder("minilm").store  # frozen, so cached vectors are valid
    return router


def scores(router: Router, texts: list[str]) -> np.ndarray:
    """Return the scores of all candidates, (N, M)."""
    parts = [router.score(texts[i : i + BATCH]).log_odds_BC for i in range(0, len(texts), BATCH)]
    return np.concatenate(parts)


def shots(records: PerformanceRecords, items: list[Item], name: str) -> dict[int, list[Item]]:
    """Return the first items, for each size, that a candidate has answered."""
    known = set(records.rows(records.filter(candidates=name).known[:, 0]).ids)
    kept = [item for item in items if item.item_id in known]
    return {size: kept[:size] for size in SIZES}


def onboard(router: Router, records: PerformanceRecords, items: list[Item], unseen: list[str]) -> Router:
    """Admit each unseen candidate once per size, as candidates of their own: they do not influence each other."""
    row_of = {name: row for row, name in enumerate(records.ids)}
    for name in unseen:
        outcomes = records.outcomes[:, records.model_ids.index(name)]
        for size, kept in shots(records, items, name).items():
            grades = [float(outcomes[row_of[item.item_id]]) for item in kept]
            router = router.admit(Candidate(f"{name} {size}"), results_of(kept, grades))
    return router


def test_rows(records: PerformanceRecords, count: int | None) -> PerformanceRecords:
    """Return a random sample of the test rows."""
    test = records.filter(splits=["test"])
    order = np.random.default_rng(0).permutation(test.shape[0])
    return test.rows(np.sort(order[:count]))


def fold_scores(
    args: argparse.Namespace, records: PerformanceRecords, seed: int, number: int, unseen: list[str]
) -> dict:
    """Return the scores of each method for the known candidates and every admission, and the items."""
    folder = args.output / f"seed{seed}"
    kept = folder / f"scores{number}.npz"
    test = test_rows(records, args.rows)
    learned = records.filter(splits=["train", "validation"])
    router = train(args.records, unseen, folder / f"fold{number}", seed, args.fit)
    items = core_items(router.test)
    for name in unseen:  # the exported router knows them by their results on all items
        router = router.remove(name)
    seen, embed = learned.filter(candidates=router.model_ids), Embedder("minilm")
    found = dict(np.load(kept)) if kept.is_file() else {}
    for name in ("model_sat", *BASELINES):
        if name in found:
            continue
        one = router if name == "model_sat" else build(name).fit(seen, embed)
        admitted = onboard(one, learned, items, unseen)
        assert list(admitted.model_ids[: len(router.model_ids)]) == list(seen.model_ids)
        found[name] = scores(admitted, test.texts)
        own = len({item.item_id for item in items} & set(getattr(one, "row_ids", ())))
        print(f"seed {seed}, fold {number}: {name}, {own} of {len(items)} items are its own", flush=True)
        np.savez(kept, **found)
    return {"items": items, "known": list(router.model_ids), **found}


def best_single(records: PerformanceRecords, items: list[Item], zoo: list[str]) -> int:
    """Return the column of the candidate with the highest mean on some items."""
    row_of = {name: row for row, name in enumerate(records.ids)}
    rows = records.filter(candidates=zoo).rows([row_of[item.item_id] for item in items])
    order = [list(rows.model_ids).index(name) for name in zoo]
    count = np.maximum(rows.known.sum(axis=0), 1)
    return int(((rows.outcomes * rows.known).sum(axis=0) / count)[order].argmax())


def tally(args: argparse.Namespace, seed: int) -> dict[tuple[str, str, int], np.ndarray]:
    """Return zoo, method, and size → outcomes of the choices of one seed, a row per onboarded candidate."""
    records = open_records(args.records)
    records = records.with_splits(split_records(records, seed=seed))
    learned, test = records.filter(splits=["train", "validation"]), test_rows(records, args.rows)
    outcome_NM, known_NM = matrices(test)
    complete = known_NM.all(dim=1)  # else a candidate without an outcome would drop the rows on which it is chosen
    outcome_NM, known_NM = outcome_NM[complete], known_NM[complete]
    print(f"{int(complete.sum())} of {len(complete)} test rows have the outcomes of all candidates")
    names = list(records.model_ids)
    small = {one.model_id for one in records.candidates if one.params_b is not None and one.params_b < SMALL_B}
    found: dict[tuple[str, str, int], list[np.ndarray]] = {}
    settings = unseen_candidates(records, folds=FOLDS, probes=960, seed=seed, zoo="all")
    for number, unseen in enumerate([setting.about["unseen"] for setting in settings][: args.folds]):
        fold = fold_scores(args, records, seed, number, unseen)
        known = fold["known"]
        fold |= {name: fold[name][complete.numpy()] for name in METHODS if name in fold}
        for place, name in enumerate(unseen):
            for zoo_name, allowed in (("all", set(names)), ("below 10B", small)):
                if name not in allowed:
                    continue
                columns = [column for column, one in enumerate(known) if one in allowed]
                zoo = [*(known[column] for column in columns), name]
                target = np.array([names.index(one) for one in zoo])
                for number_of_size, (size, items) in enumerate(shots(learned, fold["items"], name).items()):
                    new = len(known) + place * len(SIZES) + number_of_size
                    for method in METHODS:
                        if method == "best_single":
                            choice = np.full(len(outcome_NM), best_single(learned, items, zoo))
                        else:
                            choice = fold[method][:, [*columns, new]].argmax(axis=1)
                        add(found, (zoo_name, method, size), target[choice], outcome_NM, known_NM)
                        if size == SIZES[-1] and method != "best_single":
                            without = target[fold[method][:, columns].argmax(axis=1)]
                            add(found, (zoo_name, method, 0), without, outcome_NM, known_NM)
    return {key: np.stack(rows) for key, rows in found.items()}


def add(found: dict, key: tuple, choice: np.ndarray, outcome_NM: torch.Tensor, known_NM: torch.Tensor) -> None:
    """Add the outcomes of some choices; NaN where unknown."""
    outcome, known = functional.outcomes_of(torch.from_numpy(choice), outcome_NM, known_NM)
    found.setdefault(key, []).append(np.where(known.numpy(), outcome.numpy(), np.nan))


def difference(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
    """Return the mean difference over candidates and rows with its interval, in points."""
    a, b = np.nanmean(one, axis=0), np.nanmean(other, axis=0)
    known = torch.from_numpy(np.isfinite(a) & np.isfinite(b))
    first, second = (torch.from_numpy(np.nan_to_num(values)).float() for values in (a, b))
    found = paired_bootstrap_difference(first, second, known, torch.zeros(len(a), dtype=torch.long))
    return tuple(100 * float(value) for value in (found.mean, found.low, found.high))


def report(found: dict[tuple[str, str, int], np.ndarray], plot: Path) -> None:
    """Print a table for each zoo and draw the curves."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
    for axis, zoo in zip(axes, dict.fromkeys(key[0] for key in found), strict=True):
        print(f"\n{zoo}: {len(found[zoo, 'model_sat', 16])} admissions")
        others = [name for name in METHODS if name != "model_sat"]
        header = ["items", *METHODS, *(f"model_sat − {name}" for name in others)]
        print("\n| " + " | ".join(header) + " |")
        print("|---:|" + "---:|" * len(METHODS) + "---|" * len(others))
        for size in (0, *SIZES):
            own = {method: found.get((zoo, method, size)) for method in METHODS}
            cells = ["–" if rows is None else f"{100 * np.nanmean(rows):.2f}" for rows in own.values()]
            for other in others:
                cells.append(
                    "–"
                    if own[other] is None or own["model_sat"] is None
                    else "{:+.2f} ({:+.2f} to {:+.2f})".format(*difference(own["model_sat"], own[other]))
                )
            print(f"| {size or 'without it'} | {' | '.join(cells)} |")
        for method in METHODS:
            axis.plot(SIZES, [100 * np.nanmean(found[zoo, method, size]) for size in SIZES], "o-", label=method)
        axis.set(xscale="log", xticks=SIZES, xticklabels=SIZES, xlabel="items", title=f"zoo: {zoo}")
        axis.minorticks_off()
    axes[0].set_ylabel("routed accuracy on test rows, %")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(plot, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", help="records folder of MMLU-Pro")
    parser.add_argument("--output", type=Path, default=Path("runs/onboarding"), help="folder of runs and scores")
    parser.add_argument("--rows", type=int, help="number of test rows, a random sample (default: all)")
    parser.add_argument("--folds", type=int, default=FOLDS, help="folds to run (default: all three)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to average over (default: 0)")
    parser.add_argument("--fit", nargs="*", default=[], metavar="OPTION", help="further options of fit")
    parser.add_argument("--plot", type=Path, default=Path(__file__).with_name("curve.png"), help="file of the plot")
    args = parser.parse_args()
    tallies = [tally(args, seed) for seed in args.seeds]
    report({key: np.concatenate([one[key] for one in tallies]) for key in tallies[0]}, args.plot)


if __name__ == "__main__":
    main()
