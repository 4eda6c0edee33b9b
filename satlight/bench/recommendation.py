"""Pick a router on validation rows, judge it once on test rows, and say whether routing pays.

Shape legend: N instructions, M candidates.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

import satlight
from satlight.bench.cells import CONTROLS, EMBEDDING, Cell
from satlight.bench.methods import build_method
from satlight.bench.recommend import Log, Request
from satlight.bench.results import CellResult
from satlight.bench.worker import split_up
from satlight.costs import expected_costs
from satlight.errors import SatlightError
from satlight.evaluation.rule_fit import RuleRows, UnreachableError, fit_rule
from satlight.evaluation.verdict import QUALITY, SAVING, Comparison, Judge, KindGain, without_nan
from satlight.records import open_records
from satlight.records.usage import with_log_costs
from satlight.routing.scores import StoredScores
from satlight.rules import BestQuality, CheapestAtLeast, Rule, WithinBudget

if TYPE_CHECKING:
    from pathlib import Path

    from satlight.records import PerformanceRecords
    from satlight.routers import Router
    from satlight.types import Temperature

_BATCH = 64

_ROWS_PER_KIND = 10
"""Minimum mean number of test rows per task; with fewer, datasets are the kinds of instructions."""


@dataclass(frozen=True)
class Measured:
    """A router on the validation rows.

    Args:
        name: Its name.
        cell: Its cell; None = it failed or did not run.
        gain: Mean over its policies of the gain in quality, over the blind mixture at equal cost or, without costs,
            over the best single candidate; in [-1, 1]. NaN = unknown.
        seconds: Time to fit.
        error: Why there is no result.
    """

    name: str
    cell: Cell | None
    gain: float = float("nan")
    seconds: float | None = None
    error: str | None = None


@dataclass(frozen=True)
class Recommendation:
    """The answer for a log.

    Args:
        route: Whether to route.
        policy: The policy that pays, or ``quality`` if none does.
        single: The best single candidate.
        method: The router that was picked.
        rule: Text form of the rule saved with it.
        comparisons: Policies of this router on the test rows.
        kinds: Its gain on each kind of instructions.
        needed: Test rows at which a gain of one point can be told from zero; None = unknown.
        more: The same as further instructions to log, with the present shares of the splits.
        measured: All routers on the validation rows, the best first.
        validation_gain: Gain of the picked one on the validation rows.
        facts: The log: name, fingerprint, rows per split, clusters, seed, level of the intervals.
        notes: Sentences for the reader.
        router: Router folder.
    """

    route: bool
    policy: str
    single: str
    method: str
    rule: str
    comparisons: list[Comparison]
    kinds: list[KindGain]
    needed: int | None
    more: int | None
    measured: list[Measured]
    validation_gain: float
    facts: dict[str, Any]
    notes: list[str]
    router: Path

    @property
    def main(self) -> Comparison:
        """The comparison that the verdict is about."""
        return next(one for one in self.comparisons if one.policy == self.policy)

    def to_dict(self) -> dict[str, Any]:
        """Return the recommendation as JSON."""
        kinds = [asdict(one) | {"gain": one.gain and one.gain._asdict()} for one in self.kinds]
        measured = [
            {"name": one.name, "gain": one.gain, "seconds": one.seconds, "error": one.error} for one in self.measured
        ]
        content = {
            "route": self.route,
            "policy": self.policy,
            "best_single": self.single,
            "method": self.method,
            "rule": self.rule,
            "test": [one.facts() for one in self.comparisons],
            "kinds": kinds,
            "test_rows_needed_for_one_point": self.needed,
            "further_instructions_for_one_point": self.more,
            "validation": measured,
            "log": self.facts,
            "notes": self.notes,
            "router": str(self.router),
            "satlight": satlight.__version__,
        }
        cleaned: dict[str, Any] = without_nan(content)
        return cleaned


@dataclass(frozen=True)
class _Policies:
    """Rules fitted to validation rows, with the calibration of their probabilities."""

    rules: dict[str, Rule]
    calibration: Temperature

    def choices(self, rows: RuleRows) -> dict[str, np.ndarray]:
        """Return the choices of each rule, int64 (N,)."""
        probability_NM = rows.probability(self.calibration)
        return {name: rule.choose(probability_NM, rows.expected_NM) for name, rule in self.rules.items()}


def conclude(request: Request, log: Log, cells: list[Cell], notes: list[str]) -> Recommendation:
    """Pick a router on the validation rows, save it with its rule, and judge it on the test rows.

    Raises:
        SatlightError: No router has a result.
    """
    records = log.records
    train, validation, test = (records.rows(records.splits == name) for name in ("train", "validation", "test"))
    zoo = with_log_costs(records.candidates, train) if log.has_costs else records.candidates
    train, validation, test = (replace(one, candidates=zoo) for one in (train, validation, test))
    judge = Judge(validation, train, seed=request.seed)
    measured = [_measure(request, cell, judge, log) for cell in cells if cell.kind not in (CONTROLS, EMBEDDING)]
    measured.sort(key=lambda one: -one.gain if one.gain == one.gain else 2.0)
    picked = measured[0]
    if picked.cell is None:
        failed = "; ".join(f"{one.name}: {one.error}" for one in measured)
        raise SatlightError(f"No router has a result ({failed}); raise --minutes, or see {request.output}/cells")

    router = _fitted(request, picked.cell)
    router.candidates = tuple(next(c for c in zoo if c.model_id == name) for name in router.model_ids)
    rows = _rows(_scores(router, validation), validation, log)
    policies = _fit_policies(rows, judge.single, log)

    # From here on test rows are read, by one router whose rules are fixed.
    final = Judge(
        test, records.rows(np.isin(records.splits, ["train", "validation"])), len(policies.rules), request.seed
    )
    choices = policies.choices(_rows(_scores(router, test), test, log))
    comparisons = [final.compare(name, policies.rules[name].text, choice_N) for name, choice_N in choices.items()]
    paying = [one.policy for one in comparisons if one.pays and picked.gain > 0]
    policy = paying[0] if paying else QUALITY
    keys = test.task_keys if len(np.unique(test.task_keys)) * _ROWS_PER_KIND <= len(test.texts) else test.datasets
    needed = final.needed(choices[policy])
    rows_of = {name: int((records.splits == name).sum()) for name in ("train", "validation", "test")}
    facts = records.facts() | {
        "candidates": records.model_ids,
        "rows": rows_of,
        "clusters": {one.name: one.train for one in log.clusters},
        "seed": request.seed,
        "level": 1 - final.alpha,
    }
    compared = max(1, next(one.rows for one in comparisons if one.policy == policy))
    more = None if needed is None else max(0, round((needed / compared - 1) * sum(rows_of.values())))
    found = Recommendation(
        bool(paying),
        policy,
        test.model_ids[final.single],
        picked.name,
        policies.rules[policy].text,
        comparisons,
        final.kinds(choices[policy], keys),
        needed,
        more,
        measured,
        picked.gain,
        facts,
        [*log.notes, *notes],
        request.output / "router",
    )
    router.rule, router.calibration = policies.rules[policy], policies.calibration
    router.about = {**router.about, "recommendation": {"route": found.route, **found.main.facts()}}
    if log.clusters:
        router.about["task_clusters"] = facts["clusters"]
    router.save(found.router)
    return found


# -- on validation -----------------------------------------------------------------------------------------


def _measure(request: Request, cell: Cell, judge: Judge, log: Log) -> Measured:
    result = CellResult.read(request.output, cell.key)
    if result is None or result.failed or not result.probabilistic:
        error = "not run" if result is None else result.error or "its scores are not probabilities"
        return Measured(cell.method, None, error=error)
    stored = StoredScores.read(request.output / "cells" / cell.key / "scores.parquet")
    rows = _rows(stored.of(judge.held), judge.held, log)
    choices = _fit_policies(rows, judge.single, log).choices(rows)
    found = [judge.compare(name, "", choice_N) for name, choice_N in choices.items()]
    gains = [one.gain.mean if one.mixture_gain is None else one.mixture_gain.mean for one in found]
    return Measured(cell.method, cell, float(np.mean(gains)), result.fit_seconds)


def _rows(score_NM: np.ndarray, records: PerformanceRecords, log: Log) -> RuleRows:
    known_NM = np.asarray(records.known)
    paid_NM = expected_NM = np.full(records.shape, np.nan)
    if log.has_costs:
        assert records.costs is not None
        expected_NM = expected_costs(records.candidates, records.requests())
        cost_NM = np.asarray(records.costs, dtype=np.float64)
        paid_NM = np.where(np.isfinite(cost_NM), cost_NM, expected_NM)
    return RuleRows(score_NM.astype(np.float32), expected_NM, np.asarray(records.outcomes), known_NM, paid_NM, None)


def _fit_policies(rows: RuleRows, single: int, log: Log) -> _Policies:
    """Fit the rules: the best quality at the cost of the best single candidate, and its quality at the lowest cost."""
    if not log.has_costs:
        return _Policies({QUALITY: BestQuality()}, rows.calibration)
    quality, cost = (float(f"{np.nanmean(one):.4g}") for one in rows.realized(np.full(len(rows.score_NM), single)))
    wanted: dict[str, Rule] = {
        QUALITY: WithinBudget(cost) if cost > 0 else BestQuality(),
        SAVING: CheapestAtLeast(quality),
    }
    fitted = {}
    for name, rule in wanted.items():
        try:
            fitted[name] = fit_rule(rule, rows)
        except UnreachableError as error:
            fitted[name] = error.rule
    return _Policies(fitted, rows.calibration)


# -- the picked router -------------------------------------------------------------------------------------


def _fitted(request: Request, cell: Cell) -> Router:
    """Return the router of a cell: a baseline is fitted again to the same rows, a training run has its folder."""
    from satlight.routers import Router

    if cell.kind == "config":
        runs = sorted((request.output / "runs" / cell.key).glob("*/router"))
        return Router.from_pretrained(runs[-1])
    embed = None
    if (embedder := cell.spec.get("embedder")) is not None:
        from satlight.backbones.embedding import build_embedder

        embed = build_embedder(embedder)
    rows, _ = split_up(open_records(request.output / "problems" / cell.problem.key), None)
    method = build_method(cell.spec["baseline"], dict(cell.spec["options"]), cell.problem.seed)
    return method.fit(rows, embed)


def _scores(router: Router, records: PerformanceRecords) -> np.ndarray:
    requests = records.requests() if router.reads_images else records.texts
    starts = range(0, len(requests), _BATCH)
    parts = [router.score(requests[i : i + _BATCH], records.model_ids).log_odds_BC for i in starts]
    return np.concatenate(parts)


def clear(output: Path) -> None:
    """Remove what a former recommendation wrote, except the cells that it can reuse."""
    for name in ("recommendation.json", "recommendation.html"):
        (output / name).unlink(missing_ok=True)
    shutil.rmtree(output / "router", ignore_errors=True)
