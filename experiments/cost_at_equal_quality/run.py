"""Compare Model-SAT with the baselines of a bench by quality and cost (see README.md).

    python experiments/cost_at_equal_quality/run.py configs/bench/routerbench.yaml --split test --scores scores

Scores are computed once and kept in the folder ``--scores``. Test outcomes are read to judge them, which opened.log
records.

Shape legend: N instructions, M candidates, P policies of a quality-cost curve, R resamples, S seeds. Entry 0 of a
vector (1 + R,) is the value on all instructions.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from satlight.backbones.embedding import build_embedder
from satlight.baselines import Baseline
from satlight.bench.cells import open_data
from satlight.bench.config import BenchConfig, DataSpec, MethodSpec, load_config
from satlight.bench.methods import build_method
from satlight.costs import expected_costs
from satlight.evaluation.controls import matrices
from satlight.evaluation.rule_fit import RuleRows, UnreachableError, fit_rule
from satlight.evaluation.spending import PER, Spending
from satlight.files import atomic_path
from satlight.metrics import curves, functional
from satlight.metrics.bootstrap import Difference, bootstrap_means, part_draws, percentile_interval
from satlight.metrics.calibration import fit_candidates
from satlight.metrics.cost import trade_off_weights
from satlight.metrics.forecast import expected_calibration_error
from satlight.metrics.seeds import seed_interval
from satlight.records import PerformanceRecords, split_records
from satlight.records.usage import with_log_costs
from satlight.routers import Router
from satlight.routing import StoredScores
from satlight.rules import BestQuality, CheapestAtLeast, Rule, Utility
from satlight.types import Temperature

OWN, RAW, CALIBRATED, REFERENCE = "model_sat", "as in the bench", "calibrated", "reference"
RULED = (OWN, "gaussian_process", "knn", "inferred_dataset")
"""Routers whose decision rules are measured."""

TARGETS = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
BATCH = 64

Scores = dict[str, np.ndarray]
"""Log-odds: ``validation`` and ``test`` by a router that learned from train rows, ``bench`` (test rows) by the bench's,
whose baselines learn from validation rows too."""

Found = dict[tuple[str, str], dict[str, Tensor]]
"""Router and variant → ``aiq``, ``qnc`` and ``qnc alone`` (S, 1 + R), ``ece`` (S,), ``curve`` (S, 2, P)."""


class Problem(NamedTuple):
    """Records with the splits of a seed."""

    seed: int
    records: PerformanceRecords

    @classmethod
    def of(cls, data: DataSpec, seed: int) -> Problem:
        """Split as the bench does."""
        records = open_data(data)
        split = split_records(
            records,
            validation_fraction=data.validation_fraction,
            seed=seed,
            group_column=data.group_column,
            test_fraction=data.test_fraction,
        )
        return cls(seed, records.with_splits(split))

    def rows(self, *splits: str) -> PerformanceRecords:
        """Return the rows of some splits."""
        return self.records.filter(splits=list(splits))


# -- scores ------------------------------------------------------------------------------------------------


def scored(router: Router, records: PerformanceRecords) -> np.ndarray:
    """Return log-odds (N, M), in batches of similar length."""
    requests, score_NM = records.requests(), np.empty(records.shape, dtype=np.float32)
    order = np.argsort([len(text) for text in records.texts], kind="stable")
    for rows in np.array_split(order, -(-len(order) // BATCH)):
        score_NM[rows] = router.score([requests[row] for row in rows], records.model_ids).log_odds_BC
    return score_NM


def scores_of(method: MethodSpec, problem: Problem, config: BenchConfig, split: str) -> Scores:
    """Score validation rows, and test rows where these are judged; no test outcome is read."""
    judged = ("validation", "test") if split == "test" else ("validation",)
    if method.scores is not None:
        path = Path(method.scores.format(seed=problem.seed))
        scores = {"validation": scored(Router.from_pretrained(path.parent / "router"), problem.rows("validation"))}
        if split == "test":
            scores["test"] = scores["bench"] = StoredScores.read(path).of(problem.rows("test"))
        return scores

    def fitted(records: PerformanceRecords, options: dict[str, Any]) -> Baseline:
        baseline = build_method(str(method.baseline), options, problem.seed)
        needed = baseline.needs_embeddings if method.embeddings is None else method.embeddings
        return baseline.fit(records, build_embedder(config.embedder_of(method)) if needed else None)

    in_bench = fitted(problem.rows("train", "validation"), dict(method.options))
    router = fitted(problem.rows("train"), method.options | {"fixed": in_bench.chosen})
    scores = {name: scored(router, problem.rows(name)) for name in judged}
    return scores if split == "validation" else scores | {"bench": scored(in_bench, problem.rows("test"))}


def kept_scores(method: MethodSpec, problem: Problem, config: BenchConfig, args: argparse.Namespace) -> Scores:
    """Return the scores of a method from the folder, after computing them if they are not there."""
    path: Path = args.scores / problem.records.name / args.split / f"{method.name}-{problem.seed}.npz"
    if not path.is_file():
        start = time.process_time()
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **scores_of(method, problem, config, args.split))
        print(f"{method.name}, seed {problem.seed}: {time.process_time() - start:.0f} CPU seconds", flush=True)
    with np.load(path) as content:
        return dict(content)


def calibration_of(score_NM: np.ndarray, records: PerformanceRecords) -> Temperature:
    """Fit the calibration of each candidate, as a Model-SAT router has it."""
    outcome_NM, known_NM = matrices(records)
    column_K = known_NM.nonzero()[:, 1]
    return fit_candidates(torch.from_numpy(score_NM)[known_NM], outcome_NM[known_NM], column_K, records.model_ids)


def variants(scores: Scores, problem: Problem, split: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yield log-odds on the judged rows: as in the bench, and calibrated on validation rows."""
    if split == "validation":
        yield RAW, scores["validation"]
        return
    yield RAW, scores["bench"]
    validation = problem.rows("validation")
    temperature = calibration_of(scores["validation"], validation)
    yield CALIBRATED, temperature.apply(scores["test"].astype(np.float64), validation.model_ids)


# -- quality and cost --------------------------------------------------------------------------------------


class Judge:
    """Quality and cost of policies on the judged rows, on all of them and in each resample.

    Args:
        test: Judged rows, every outcome and cost known.
        train: What prices are known from.
        resamples: R.
    """

    def __init__(self, test: PerformanceRecords, train: PerformanceRecords, resamples: int) -> None:
        spending = Spending.of(test, train)
        if spending is None or not spending.known_NM.all():
            raise SystemExit(f"{test.name}: an outcome or a cost is missing; the comparison needs all of them")
        self.spending, self.resamples = spending, resamples
        self.best = functional.best_single(*matrices(train, test.model_ids), _codes(train.datasets))
        self.parts = [torch.from_numpy(np.flatnonzero(test.datasets == name)) for name in np.unique(test.datasets)]
        every = torch.arange(test.shape[1])
        self.single_2MR = self.means([every[column].expand(test.shape[0]) for column in every])

    def means(self, choices: Sequence[Tensor]) -> Tensor:
        """Return mean cost and outcome, macro means over datasets, of P choices (N,) each: (2, P, 1 + R)."""
        choice_PN = torch.stack(list(choices))
        rows = torch.arange(choice_PN.shape[1])
        sides = []
        for value_NM in (self.spending.cost_NM, self.spending.outcome_NM):
            value_PN = value_NM.double()[rows, choice_PN]
            draw_PR = part_draws(value_PN, parts=self.parts, seeds=range(len(self.parts)), resamples=self.resamples)
            mean_P = torch.stack([value_PN[:, part].mean(1) for part in self.parts]).mean(0)
            sides.append(torch.cat([mean_P[:, None], draw_PR.double().mean(0)], dim=1))
        return torch.stack(sides)

    def curve(self, score_NM: np.ndarray) -> Tensor:
        """Measure the policies of a router, from quality alone to price alone: (2, P, 1 + R)."""
        probability_NM = torch.from_numpy(score_NM).double().sigmoid().numpy()
        price_M = self.spending.price_M
        rules = [Utility(weight) if weight else BestQuality() for weight in trade_off_weights(price_M)]
        return self.means([torch.from_numpy(rule.choose(probability_NM, price_M.numpy())) for rule in rules])

    def areas(self, curve_2PR: Tensor) -> dict[str, Tensor]:
        """Return AIQ (percent) and QNC (1 + R,), as :func:`satlight.evaluation.spending.areas` defines them.

        ``qnc`` counts the best single candidate among the policies of every router, so that it is at most 1 and
        always defined; ``qnc alone`` does not.
        """
        found: dict[str, list[float]] = {"aiq": [], "qnc": [], "qnc alone": []}
        for draw in range(curve_2PR.shape[2]):
            cost_M, quality_M = self.single_2MR[:, :, draw]
            cheapest = cost_M.argmin()
            cost_P, quality_P = torch.cat([curve_2PR[:, :, draw], self.single_2MR[:, cheapest, draw, None]], dim=1)
            aiq = curves.aiq(cost_P, quality_P, float(cost_M[cheapest]), float(cost_M.max()))
            found["aiq"].append(100 * aiq.item())
            qnc = curves.qnc(cost_P, quality_P, float(quality_M[self.best]), float(cost_M[self.best])).item()
            found["qnc alone"].append(qnc)
            found["qnc"].append(min(qnc, 1.0) if qnc == qnc else 1.0)
        return {name: torch.tensor(values, dtype=torch.double) for name, values in found.items()}


def _codes(names: np.ndarray) -> Tensor:
    return torch.from_numpy(np.unique(names, return_inverse=True)[1])


def judged(config: BenchConfig, data: DataSpec, args: argparse.Namespace) -> Found:
    """Measure every router and variant in every seed, the blind mixture, and on simulated records the truth."""
    found: dict[tuple[str, str], list[dict[str, Tensor]]] = {}
    for seed in config.seeds:
        problem = Problem.of(data, seed)
        rows = problem.rows(args.split)
        judge = Judge(rows, problem.rows("train", *(["validation"] if args.split == "test" else [])), args.resamples)
        cells = matrices(rows)

        def add(name: str, variant: str, curve_2PR: Tensor, ece: float, judge: Judge = judge) -> None:
            facts = judge.areas(curve_2PR) | {"ece": torch.tensor(ece), "curve": curve_2PR[:, :, 0]}
            found.setdefault((name, variant), []).append(facts)

        for method in config.methods:
            for variant, score_NM in variants(kept_scores(method, problem, config, args), problem, args.split):
                ece = expected_calibration_error(torch.from_numpy(score_NM), *cells).item()
                add(method.name, variant, judge.curve(score_NM), ece)
        add("zero router", REFERENCE, judge.single_2MR, float("nan"))
        if rows.expected is not None:
            truth_NM = np.log(rows.expected) - np.log1p(-rows.expected)
            add("true probabilities", REFERENCE, judge.curve(truth_NM.astype(np.float64)), float("nan"))
        print(f"seed {seed}: judged {rows.shape[0]} {args.split} rows", flush=True)
    return {key: {name: torch.stack([f[name] for f in facts]) for name in facts[0]} for key, facts in found.items()}


# -- decision rules ----------------------------------------------------------------------------------------


def rule_rows(score_NM: np.ndarray, records: PerformanceRecords, cost_NM: np.ndarray) -> RuleRows:
    """Return what a rule reads of some rows; the calibration of each candidate is fitted to them."""
    paid_NM = np.asarray(records.costs, dtype=np.float64)
    known, names = (np.asarray(records.outcomes), np.asarray(records.known)), tuple(records.model_ids)
    return RuleRows(score_NM, cost_NM, *known, paid_NM, None, names)


def rule_lines(config: BenchConfig, data: DataSpec, args: argparse.Namespace) -> Iterator[str]:
    """Yield rows of a table: realized quality and cost of ``cheapest`` on test rows, by threshold."""
    problems = [Problem.of(data, seed) for seed in config.seeds]
    for method in (one for one in config.methods if one.name in RULED):
        sides = []
        for problem in problems:
            scores, train = kept_scores(method, problem, config, args), problem.rows("train")
            zoo = with_log_costs(problem.records.candidates, train)
            sides.append([
                rule_rows(scores[name], rows := problem.rows(name), expected_costs(zoo, rows.requests()))
                for name in ("validation", "test")
            ])  # fmt: skip
        for target in TARGETS:
            cells = [_realized(sides, kind, target, args.resamples) for kind in ("raw", "calibrated", "fitted")]
            yield f"| {method.name} | {target:.2f} | " + " | ".join(cells) + " |"


def _realized(sides: list[list[RuleRows]], kind: str, target: float, resamples: int) -> str:
    """Return "quality (interval) at cost", means over seeds; "*" where validation rows do not reach the target."""
    values, missed = [], False
    for validation, test in sides:
        rule: Rule = CheapestAtLeast(target)
        if kind == "fitted":
            try:
                rule = fit_rule(rule, validation)
            except UnreachableError as error:
                rule, missed = error.rule, True
        calibration = Temperature() if kind == "raw" else validation.calibration
        values.append(test.realized(test.choices(rule, calibration)))
    quality_N, cost_N = np.mean(values, axis=0)
    low, high = percentile_interval(bootstrap_means(torch.from_numpy(quality_N)[None], resamples=resamples)[0])
    star = "*" if missed else ""
    return f"{quality_N.mean():.3f}{star} ({low:.3f} to {high:.3f}), ${PER * cost_N.mean():.2f}"


# -- tables ------------------------------------------------------------------------------------------------


def difference(own: Tensor, other: Tensor) -> Difference:
    """Return own − other, means over seeds (S, 1 + R)."""
    apart = (own - other).mean(0)
    return Difference.of(apart[0].item(), apart[1:])


def area_lines(found: Found) -> Iterator[str]:
    """Yield a table of AIQ and QNC per variant, with Model-SAT of the same variant minus the router."""
    for variant in (one for one in (RAW, CALIBRATED) if (OWN, one) in found):
        yield f"\n{variant.capitalize()}:\n"
        yield f"| router | AIQ | QNC | reaches best single | ECE | {OWN} − it, AIQ | QNC |"
        yield "|---|---:|---:|---|---:|---|---|"
        shown = {name: facts for (name, other), facts in found.items() if other in (variant, REFERENCE)}
        for name, facts in sorted(shown.items(), key=lambda item: -item[1]["aiq"][:, 0].mean()):
            aiq = seed_interval(facts["aiq"][:, 0].tolist())
            reached = int((~facts["qnc alone"][:, 0].isnan()).sum())
            cells = [
                f"{aiq.mean:.2f}" + (f" ± {aiq.half_width:.2f}" if len(facts["aiq"]) > 1 else ""),
                f"{facts['qnc'][:, 0].mean():.3f}",
                f"{reached} of {len(facts['aiq'])}",
                f"{facts['ece'].mean():.3f}",
            ]
            for key, digits in (("aiq", 2), ("qnc", 3)):
                apart = difference(found[OWN, variant][key], facts[key])
                cells.append(f"{apart.mean:+.{digits}f} ({apart.low:+.{digits}f} to {apart.high:+.{digits}f})")
            yield f"| {name} | " + " | ".join("–" if "nan" in cell else cell for cell in cells) + " |"


def plot(found: Found, path: Path) -> None:
    """Draw the mean curves of a few routers, and the single candidates."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    keys = [(OWN, CALIBRATED), *((name, RAW) for name in RULED), ("true probabilities", REFERENCE)]
    for name, variant in (key for key in keys if key in found):
        cost_P, quality_P = found[name, variant]["curve"].mean(0)
        label = name if variant == REFERENCE else f"{name}, {variant}"
        axes.plot(PER * cost_P, 100 * quality_P, label=label, linewidth=2.5 if name == OWN else 1)
    cost_M, quality_M = found["zero router", REFERENCE]["curve"].mean(0)
    axes.scatter(PER * cost_M, 100 * quality_M, color="gray", s=14, label="single candidates")
    hull = curves.non_decreasing_hull(cost_M, quality_M)
    cost_X = np.geomspace(float(hull[0][0]), float(hull[0][-1]), 200)
    height_X = [100 * curves.quality_at(hull, cost) for cost in cost_X]
    axes.plot(PER * cost_X, height_X, "--", color="gray", linewidth=1, label="zero router")
    axes.set(xscale="log", xlabel="US dollars per 1,000 instructions", ylabel="accuracy in percent")
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Print Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", type=Path, help="config of a bench with one data entry and a method model_sat")
    parser.add_argument("--split", choices=["validation", "test"], default="validation")
    parser.add_argument("--scores", type=Path, required=True, help="folder that keeps the scores")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--log", type=Path, default=Path(__file__).parent / "opened.log")
    args = parser.parse_args()
    config = load_config(args.bench)
    (data,) = config.data
    for seed in config.seeds:
        for method in config.methods:
            kept_scores(method, Problem.of(data, seed), config, args)
    if args.split == "test":
        with args.log.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%F %T')} test split of {data.name}, seeds {config.seeds}\n")
    found = judged(config, data, args)
    print(*area_lines(found), sep="\n")
    if args.split == "test":
        print("\n| router | target | raw probabilities | calibrated | fitted threshold |\n|---|---:|---|---|---|")
        print(*rule_lines(config, data, args), sep="\n")
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
