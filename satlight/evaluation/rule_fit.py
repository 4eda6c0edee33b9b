"""Fit the threshold of a decision rule on validation rows, and measure by cross-fitting what it will keep.

Shape legend: N validation instructions, M candidates, T thresholds.

Means are over instructions, as for a stream of requests, not macro means over datasets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from satlight.errors import SatlightError
from satlight.metrics.bootstrap import bootstrap_means, percentile_interval
from satlight.metrics.calibration import fit_candidates, fit_temperature
from satlight.rules import BestQuality, CheapestAtLeast, Rule, WithinBudget
from satlight.types import Temperature

STEPS = 400
"""Maximum number of thresholds to choose from; quantiles of those at which a choice changes."""

_PAIRS = 2_000_000


class UnreachableError(SatlightError):
    """Raise where no threshold reaches the target or budget.

    Attributes:
        rule: The rule with the threshold that comes closest.
    """

    def __init__(self, message: str, rule: Rule) -> None:
        super().__init__(message)
        self.rule = rule


@dataclass(frozen=True)
class RuleRows:
    """Validation rows of a router: its scores, and what each candidate would have brought and cost.

    Args:
        score_NM: Log-odds (N, M).
        expected_NM: Expected costs (N, M) in US dollars, NaN = unknown.
        outcome_NM: Outcomes (N, M) in [0, 1].
        known_NM: bool (N, M); a choice without a record counts nowhere.
        paid_NM: Costs (N, M) of the recorded calls in US dollars; the expected ones where a record has none.
        temperature: Calibration of the scores; None = fit it to the rows that the threshold is fitted to.
        candidates: M names, to calibrate each candidate; () = one calibration for all.
    """

    score_NM: np.ndarray
    expected_NM: np.ndarray
    outcome_NM: np.ndarray
    known_NM: np.ndarray
    paid_NM: np.ndarray
    temperature: Temperature | None
    candidates: tuple[str, ...] = ()

    def at(self, rows: np.ndarray) -> RuleRows:
        """Return some rows."""
        names = ("score_NM", "expected_NM", "outcome_NM", "known_NM", "paid_NM")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    @cached_property
    def calibration(self) -> Temperature:
        """The given temperature, or the one fitted to these rows."""
        if self.temperature is not None:
            return self.temperature
        score, outcome, known = map(torch.from_numpy, (self.score_NM, self.outcome_NM, self.known_NM))
        if self.candidates:
            return fit_candidates(score[known], outcome[known], known.nonzero()[:, 1], self.candidates)
        return fit_temperature(score, outcome, known)

    def probability(self, calibration: Temperature) -> np.ndarray:
        """Return Pr(correct), float32 (N, M), as :meth:`satlight.routers.Router.score` does."""
        logit_NM = calibration.apply(self.score_NM.astype(np.float64), self.candidates)
        return (0.5 * (1 + np.tanh(logit_NM / 2))).astype(np.float32)

    def choices(self, rule: Rule, calibration: Temperature) -> np.ndarray:
        """Return the choices of a rule, int64 (N,), as :meth:`satlight.routers.Router.route` makes them."""
        ranked_by_score = isinstance(rule, BestQuality)
        return rule.choose(self.score_NM if ranked_by_score else self.probability(calibration), self.expected_NM)

    def realized(self, choice_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return outcome and cost of a choice, (N,) each; NaN where the chosen candidate has no record."""
        rows = np.arange(len(choice_N))
        known_N = self.known_NM[rows, choice_N]
        return tuple(np.where(known_N, m[rows, choice_N], np.nan) for m in (self.outcome_NM, self.paid_NM))  # type: ignore[return-value]


@dataclass(frozen=True)
class FittedRule:
    """A rule fitted to validation rows, and its outcomes on rows that it was not fitted to.

    Args:
        rule: With the threshold fitted to all rows.
        calibration: Temperature of the probabilities, fitted to all rows if asked for.
        folds: Number of folds.
        rows: N.
        unknown: Share of the choices without a record, which count nowhere.
        quality: Mean outcome in [0, 1] over all rows, each judged by the threshold fitted to the other folds, and its
            95 % bootstrap interval: (mean, low, high).
        cost: The same of the cost in US dollars per request; NaN without costs.
        shares: Share of the choices per candidate, by the rule fitted to all rows.
    """

    rule: Rule
    calibration: Temperature
    folds: int
    rows: int
    unknown: float
    quality: tuple[float, float, float]
    cost: tuple[float, float, float]
    shares: dict[str, float]

    def facts(self) -> dict[str, Any]:
        """Return the figures as JSON, NaN as None."""
        cost = None if np.isnan(self.cost[0]) else list(self.cost)
        figures = {"quality": list(self.quality), "cost_usd": cost, "rows": self.rows, "folds": self.folds}
        return {"rule": self.rule.text, **figures, "unknown": self.unknown, "shares": self.shares}


def fit_rule(rule: Rule, rows: RuleRows) -> Rule:
    """Fit the threshold of a rule; rules without one are returned as they are.

    :class:`~satlight.rules.CheapestAtLeast` gets the threshold of the lowest mean cost at which the mean outcome meets
    the target, :class:`~satlight.rules.WithinBudget` the lowest one at which the mean cost meets the budget.

    Args:
        rule: A rule; its threshold does not matter.
        rows: Validation rows.

    Raises:
        UnreachableError: No threshold meets the target or budget.
    """
    probability_NM = rows.probability(rows.calibration)
    rules: list[Rule]
    if isinstance(rule, CheapestAtLeast):
        rules = [CheapestAtLeast(rule.target, t) for t in _probabilities(probability_NM)]
    elif isinstance(rule, WithinBudget):
        rules = [WithinBudget(rule.usd, t) for t in _multipliers(probability_NM, rows.expected_NM)]
    else:
        return rule
    choices = [one.choose(probability_NM, rows.expected_NM) for one in rules]
    means = np.array([[_mean(side) for side in rows.realized(choice_N)] for choice_N in choices])
    quality_T, cost_T = np.nan_to_num(means[:, 0], nan=-1), np.nan_to_num(means[:, 1], nan=np.inf)
    if isinstance(rule, WithinBudget):
        meets_T, place = cost_T <= rule.usd, int((cost_T <= rule.usd).argmax())
        if not meets_T.any():
            cheapest = int(cost_T.argmin())
            raise UnreachableError(
                f"The budget of {rule.usd:g} US dollars per request cannot be met on the {len(probability_NM)} "
                f"validation rows: the least that this zoo can cost is {cost_T[cheapest]:.3g}. "
                "Raise the budget, or admit cheaper candidates",
                rules[cheapest],
            )
        return rules[place]
    if not (quality_T >= rule.target).any():
        best = int(quality_T.argmax())
        raise UnreachableError(
            f"The target {rule.target:g} cannot be reached on the {len(probability_NM)} validation rows: the best is "
            f"{quality_T[best]:.3f}, at {1000 * cost_T[best]:.3g} US dollars per 1,000 requests. Set a lower target, "
            "or admit better candidates",
            rules[best],
        )
    place = int(np.where(quality_T >= rule.target, cost_T, np.inf).argmin())
    return rules[place]


def _mean(value_N: np.ndarray) -> float:
    known = value_N[~np.isnan(value_N)]
    return float(known.mean()) if len(known) else float("nan")


def _probabilities(probability_NM: np.ndarray) -> list[float]:
    """Return thresholds from "always the cheapest" to "always the best", ascending."""
    values = np.unique(np.quantile(probability_NM, np.linspace(0, 1, STEPS), method="lower"))
    return [*values.tolist(), float(np.nextafter(values[-1], np.float32(2)))]


def _multipliers(probability_NM: np.ndarray, cost_NM: np.ndarray) -> list[float]:
    """Return 0 and multipliers at which choices between two candidates change, ascending."""
    step = max(1, probability_NM.size * probability_NM.shape[1] // _PAIRS)
    p_NM, c_NM = probability_NM[::step].astype(np.float64), cost_NM[::step]
    dearer_NMM = c_NM[:, :, None] > c_NM[:, None, :]
    gain, price = ((x_NM[:, :, None] - x_NM[:, None, :])[dearer_NMM] for x_NM in (p_NM, c_NM))
    ratio = (gain / price)[gain > 0]
    if not len(ratio):
        return [0.0]
    values = np.unique(np.quantile(ratio, np.linspace(0, 1, STEPS)))
    return [0.0, *values.tolist(), 2 * float(values[-1])]


def cross_fit(
    rule: Rule, rows: RuleRows, model_ids: list[str], groups: np.ndarray, folds: int = 5, seed: int = 0
) -> FittedRule:
    """Fit a rule to all rows, and measure it on held-out folds.

    Every fold is judged by the threshold (and temperature) fitted to the other folds, so the figures are those of rows
    that played no part in the fit. A fold for which the target is out of reach on the others is judged by the closest
    threshold.

    Args:
        rule: A rule; its threshold does not matter.
        rows: N validation rows.
        model_ids: M names.
        groups: (N,), rows with the same value stay in one fold, e.g. their texts.
        folds: Number of folds, at least 2.
        seed: Seed of folds and bootstrap.

    Raises:
        UnreachableError: No threshold meets the target or budget on all rows.
        SatlightError: Fewer groups than folds, or a rule that needs unknown costs.
    """
    group_N = np.unique(groups, return_inverse=True)[1]
    count = int(group_N.max(initial=-1)) + 1
    if folds < 2 or count < folds:
        raise SatlightError(
            f"got {folds} folds; there must be 2 or more, and not more than different instructions ({count})"
        )
    fitted = fit_rule(rule, rows)
    fold_N = (np.random.default_rng(seed).permutation(count) % folds)[group_N]
    realized_2N = np.full((2, len(fold_N)), np.nan)
    for fold in range(folds):
        inside, outside = rows.at(fold_N != fold), rows.at(fold_N == fold)
        try:
            of_fold = fit_rule(rule, inside)
        except UnreachableError as error:
            of_fold = error.rule
        choice_N = outside.choices(of_fold, inside.calibration)
        realized_2N[:, fold_N == fold] = outside.realized(choice_N)
    draws_2R = bootstrap_means(torch.from_numpy(realized_2N), seed=seed)
    quality, cost = (
        (_mean(value_N), *percentile_interval(draws_R)) for value_N, draws_R in zip(realized_2N, draws_2R, strict=True)
    )
    choice_N = rows.choices(fitted, rows.calibration)
    share_M = np.bincount(choice_N, minlength=len(model_ids)) / len(choice_N)
    unknown = float(np.isnan(realized_2N[0]).mean())
    shares = dict(zip(model_ids, share_M.tolist(), strict=True))
    return FittedRule(fitted, rows.calibration, folds, len(fold_N), unknown, quality, cost, shares)
