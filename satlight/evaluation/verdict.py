"""Decide on held-out rows whether routing pays: one test of policies that were fixed before.

A policy is a router with a decision rule. It is compared with the best single candidate and with the blind mixture
(zero router), by paired differences. Means are over instructions, as for a stream of requests, not macro means over
datasets: a small dataset would decide the latter, and with them the choice of a router, by a few rows.

Shape legend: N instructions, M candidates, R resamples, V corners of the hull of the single candidates.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from satlight.evaluation.controls import matrices
from satlight.evaluation.spending import Spending
from satlight.metrics import functional
from satlight.metrics.bootstrap import Difference, bootstrap_means, paired_bootstrap_difference
from satlight.metrics.curves import non_decreasing_hull

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

QUALITY, SAVING = "quality", "saving"
"""Policies: the best quality at the cost of the best single candidate, and the lowest cost at its quality."""

ALPHA = 0.05
"""Chance that routing is recommended on a log where it does not pay, over all policies."""

MARGIN = 0.01
"""Loss of quality that still counts as equal where the claim is a lower cost."""

POWER, GAIN = 0.8, 0.01
"""Chance to tell a gain of :data:`GAIN` from zero, for the number of instructions that are needed."""

_RESAMPLES, _FLIPS, _FEWEST = 4000, 20_000, 10


@dataclass(frozen=True)
class Comparison:
    """One policy on the test rows.

    Args:
        policy: :data:`QUALITY` or :data:`SAVING`.
        rule: Text form of its decision rule.
        rows: Number of test rows on which policy and best single candidate both have an outcome.
        share: The same as a share of all test rows.
        quality: Mean outcome of the policy on these rows.
        single_quality: That of the best single candidate.
        gain: Quality minus that of the best single candidate.
        gain_p: p-value of the gain by random flips of the signs of the paired differences.
        cost: US dollars per instruction; None without costs, like all that follow.
        single_cost: That of the best single candidate.
        cost_change: Relative difference of the costs; -0.2 = 20 % cheaper.
        mixture_gain: Quality minus that of the blind mixture at equal cost.
        mixture_p: p-value of it.
        mixture_cost_change: Cost relative to that of the blind mixture at equal quality, minus 1.
        pays: Whether the claim of the policy holds.
    """

    policy: str
    rule: str
    rows: int
    share: float
    quality: float
    single_quality: float
    gain: Difference
    gain_p: float
    cost: float | None = None
    single_cost: float | None = None
    cost_change: Difference | None = None
    mixture_gain: Difference | None = None
    mixture_p: float | None = None
    mixture_cost_change: Difference | None = None
    pays: bool = False

    def facts(self) -> dict[str, Any]:
        """Return the comparison as JSON, unknown values as None."""
        flat = asdict(self) | {
            name: None if value is None else value._asdict()
            for name in ("gain", "cost_change", "mixture_gain", "mixture_cost_change")
            for value in [getattr(self, name)]
        }
        return without_nan(flat)


@dataclass(frozen=True)
class KindGain:
    """Gain on one kind of instructions, a dataset or task.

    Args:
        name: Its name.
        rows: Test rows.
        gain: Mean difference to the best single candidate, and its interval at 95 %, not adjusted for the number of
            kinds; None with fewer than ten rows.
        chosen: The candidate chosen most often.
        chosen_share: Its share of the choices.
    """

    name: str
    rows: int
    gain: Difference | None
    chosen: str
    chosen_share: float


def without_nan(value: Any) -> Any:
    """Return a JSON-like value with None in place of NaN and infinity."""
    if isinstance(value, dict):
        return {key: without_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Judge:
    """Compare policies on held-out rows.

    Args:
        held: Held-out records, N × M.
        train: Records from which the best single candidate and the corners of the blind mixture are chosen.
        policies: Number of policies to test, among which :data:`ALPHA` is divided.
        seed: Seed of bootstrap and sign flips.

    Attributes:
        single: Column of the best single candidate.
    """

    def __init__(self, held: PerformanceRecords, train: PerformanceRecords, policies: int = 1, seed: int = 0) -> None:
        self.held, self.seed, self.alpha = _pooled(held), seed, ALPHA / policies
        self.outcome_NM, self.known_NM = matrices(held)
        self.spending = Spending.of(self.held, _pooled(train))
        outcome_NM, known_NM = matrices(train, held.model_ids)
        self.single = functional.best_single(outcome_NM, known_NM, torch.zeros(len(known_NM), dtype=torch.long))

    def compare(self, policy: str, rule: str, choice_N: np.ndarray) -> Comparison:
        """Compare one policy, given its choices int64 (N,), with the best single candidate and the blind mixture."""
        chosen_N, single_N = torch.from_numpy(choice_N), torch.full((len(choice_N),), self.single)
        value_N, known_N = functional.outcomes_of(chosen_N, self.outcome_NM, self.known_NM)
        other_N, other_known_N = functional.outcomes_of(single_N, self.outcome_NM, self.known_NM)
        both_N = known_N & other_known_N
        gain, gain_p = self._difference(value_N, other_N, both_N)
        figures: dict[str, Any] = {}
        if self.spending is not None and self.spending.price_M.isfinite().all():
            figures = self._costs(chosen_N, single_N, value_N, both_N)
        found = Comparison(
            policy,
            rule,
            int(both_N.sum()),
            float(both_N.double().mean()),
            functional.masked_mean(value_N.double(), both_N).item(),
            functional.masked_mean(other_N.double(), both_N).item(),
            gain,
            gain_p,
            **figures,
        )
        return Comparison(**{**vars(found), "pays": self._pays(found)})

    def _pays(self, one: Comparison) -> bool:
        better = _above(one.gain, one.gain_p, self.alpha)
        if one.cost is None:
            return better
        assert one.mixture_gain is not None
        assert one.mixture_p is not None
        assert one.cost_change is not None
        beats_blind = _above(one.mixture_gain, one.mixture_p, self.alpha)
        if one.policy == QUALITY:
            return better and beats_blind
        return beats_blind and one.cost_change.high < 0 and one.gain.low > -MARGIN

    def _difference(self, value_N: Tensor, other_N: Tensor, known_N: Tensor) -> tuple[Difference, float]:
        """Return the paired difference at the level of the verdict, and the p-value of random sign flips."""
        if not known_N.any():
            return Difference(math.nan, math.nan, math.nan, 1.0, False), 1.0
        value_N, other_N = value_N[known_N].double(), other_N[known_N].double()
        difference = paired_bootstrap_difference(
            value_N, other_N, resamples=_RESAMPLES, level=1 - self.alpha, seed=self.seed
        )
        return difference, sign_flip_p((value_N - other_N).numpy(), self.seed)

    def _costs(self, chosen_N: Tensor, single_N: Tensor, value_N: Tensor, both_N: Tensor) -> dict[str, Any]:
        """Compare costs on the rows where the policy, the best single candidate and the blind mixture are known."""
        spending = self.spending
        assert spending is not None
        corner_V = self.corners()
        rows_N = both_N & self.known_NM[:, corner_V].all(1)
        if not rows_N.any():
            return {}
        paid_N = functional.outcomes_of(chosen_N, spending.cost_NM, self.known_NM)[0].double()
        single_paid_N = functional.outcomes_of(single_N, spending.cost_NM, self.known_NM)[0].double()
        stacked = torch.stack([value_N.double(), paid_N, single_paid_N])
        corner_VN = self.outcome_NM[:, corner_V].T.double()
        entries = torch.cat([stacked, corner_VN, spending.cost_NM[:, corner_V].T])[:, rows_N]
        scale_E1 = entries.abs().mean(1, keepdim=True).clamp(min=1e-30)  # small costs, drawn in single precision
        drawn_ER = bootstrap_means(entries / scale_E1, resamples=_RESAMPLES, seed=self.seed) * scale_E1
        whole_E1 = entries.mean(1, keepdim=True)
        figures = [_cost_figures(whole_E1, len(corner_V)), _cost_figures(drawn_ER, len(corner_V))]
        level = 1 - self.alpha
        mixture, change, mixture_change = (
            Difference.of(one.item(), draws_R, level) for one, draws_R in zip(*figures, strict=True)
        )
        # At a fixed cost the mixture is one share per corner, so that its outcomes are paired with the policy's.
        share_V = _shares_at(whole_E1[3 + len(corner_V) :, 0], whole_E1[1, 0].item())
        mixed_N = (corner_VN[:, rows_N] * share_V[:, None]).sum(0)
        p = sign_flip_p((value_N[rows_N].double() - mixed_N).numpy(), self.seed)
        return {
            "cost": whole_E1[1, 0].item(),
            "single_cost": whole_E1[2, 0].item(),
            "cost_change": change,
            "mixture_gain": mixture,
            "mixture_p": p,
            "mixture_cost_change": mixture_change,
        }

    def corners(self) -> Tensor:
        """Return the columns of the blind mixture, cheapest first: the hull of the single candidates on train."""
        assert self.spending is not None
        price_M, quality_M = self.spending.price_M, self.spending.quality_M
        cost_H, quality_H = non_decreasing_hull(price_M, quality_M)
        columns = [
            int(((price_M - cost).abs() + (quality_M - quality).abs()).argmin())
            for cost, quality in zip(cost_H.tolist(), quality_H.tolist(), strict=True)
        ]
        return torch.tensor(columns)

    def kinds(self, choice_N: np.ndarray, names: np.ndarray) -> list[KindGain]:
        """Return the gain over the best single candidate for each kind of instructions, the largest kind first.

        Args:
            choice_N: Choices of the policy.
            names: str (N,), the kind of each instruction.
        """
        chosen_N, single_N = torch.from_numpy(choice_N), torch.full((len(choice_N),), self.single)
        value_N, known_N = functional.outcomes_of(chosen_N, self.outcome_NM, self.known_NM)
        other_N, other_known_N = functional.outcomes_of(single_N, self.outcome_NM, self.known_NM)
        found = []
        for name in np.unique(names):
            inside = names == name
            count = np.bincount(choice_N[inside], minlength=len(self.held.model_ids))
            rows = torch.from_numpy(inside) & known_N & other_known_N
            gain = None
            if rows.sum() >= _FEWEST:
                gain = paired_bootstrap_difference(value_N[rows].double(), other_N[rows].double(), seed=self.seed)
            top = int(count.argmax())
            share = float(count[top] / count.sum())
            found.append(KindGain(str(name), int(inside.sum()), gain, self.held.model_ids[top], share))
        return sorted(found, key=lambda one: (-one.rows, one.name))

    def needed(self, choice_N: np.ndarray) -> int | None:
        """Return how many test rows tell a gain of :data:`GAIN` from zero with probability :data:`POWER`.

        The variance is that of the paired differences on the test rows, the test two-sided at 5 %.

        Returns:
            A number of rows; None where all differences are equal, e.g. because
            the policy always chooses the best single candidate.
        """
        from scipy.stats import norm

        chosen_N, single_N = torch.from_numpy(choice_N), torch.full((len(choice_N),), self.single)
        value_N, known_N = functional.outcomes_of(chosen_N, self.outcome_NM, self.known_NM)
        other_N, other_known_N = functional.outcomes_of(single_N, self.outcome_NM, self.known_NM)
        both_N = known_N & other_known_N
        difference_N = (value_N - other_N)[both_N].double()
        if not len(difference_N) or (variance := difference_N.var(correction=0).item()) == 0:
            return None
        z = norm.ppf(1 - 0.05 / 2) + norm.ppf(POWER)
        return math.ceil(variance * (z / GAIN) ** 2)


def sign_flip_p(difference_N: np.ndarray, seed: int = 0) -> float:
    """Compute the two-sided p-value of a mean of paired differences by random flips of their signs.

    Bootstrap intervals of few differences that are not 0 are too narrow; this test is not: it is exact up to the number
    of random flips where the signs are symmetric.

    Args:
        difference_N: Paired differences (N,).
        seed: Seed of the flips.

    Returns:
        p in (0, 1]; 1 where all differences are 0.

    Example:
        >>> sign_flip_p(np.array([1.0] * 4 + [0.0] * 96)) > 0.1
        True
        >>> sign_flip_p(np.array([1.0] * 12 + [0.0] * 88)) < 0.01
        True

    Reference: [Fisher 1935, "The Design of Experiments", §21]
    """
    term = difference_N[difference_N != 0].astype(np.float64)
    if not len(term):
        return 1.0
    rng, extreme = np.random.default_rng(seed), 0
    chunk = max(1, 2_000_000 // len(term))
    for start in range(0, _FLIPS, chunk):
        sign = rng.integers(0, 2, (min(chunk, _FLIPS - start), len(term)), dtype=np.int8) * 2.0 - 1
        extreme += int((np.abs(sign @ term) >= abs(term.sum()) * (1 - 1e-9)).sum())
    return (extreme + 1) / (_FLIPS + 1)


def _above(difference: Difference, p: float, alpha: float) -> bool:
    return difference.low > 0 and p <= alpha


def _cost_figures(mean_ER: Tensor, corners: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return gain over the mixture, relative cost change to the single candidate and to the mixture, (R,) each.

    Args:
        mean_ER: Means of outcome and cost of the policy, cost of the single candidate, outcomes and costs of corners.
        corners: V.
    """
    quality_R, cost_R, single_R = mean_ER[:3].double()
    quality_VR, cost_VR = mean_ER[3 : 3 + corners].double(), mean_ER[3 + corners :].double()
    gain_R = quality_R - _interpolated(cost_VR, quality_VR, cost_R)
    return gain_R, cost_R / single_R - 1, cost_R / _interpolated(quality_VR, cost_VR, quality_R) - 1


def _interpolated(x_VR: Tensor, y_VR: Tensor, x_R: Tensor) -> Tensor:
    """Interpolate y at x (R,) between adjacent corners, in each resample; flat beyond the first and last corner."""
    reached_VR = x_VR >= x_R
    above_R = torch.where(reached_VR.any(0), reached_VR.int().argmax(0), len(x_VR) - 1)
    below_R = torch.where(reached_VR.any(0), (above_R - 1).clamp(min=0), above_R)
    low_R, high_R = (x_VR.gather(0, place_R[None])[0] for place_R in (below_R, above_R))
    share_R = torch.where(high_R > low_R, (x_R - low_R) / (high_R - low_R), 1.0)
    y_low_R, y_high_R = (y_VR.gather(0, place_R[None])[0] for place_R in (below_R, above_R))
    return share_R * y_high_R + (1 - share_R) * y_low_R


def _shares_at(cost_V: Tensor, cost: float) -> Tensor:
    """Return the shares of adjacent corners that cost as much; those of the end beyond the cheapest or last corner."""
    share_V = torch.zeros(len(cost_V), dtype=torch.double)
    above = next((v for v in range(len(cost_V)) if cost_V[v] >= cost), None)
    if above is None or above == 0:
        share_V[-1 if above is None else 0] = 1
        return share_V
    low, high = cost_V[above - 1].item(), cost_V[above].item()
    share = (cost - low) / (high - low) if high > low else 1.0
    share_V[above], share_V[above - 1] = share, 1 - share
    return share_V


def _pooled(records: PerformanceRecords) -> PerformanceRecords:
    """Return records as one dataset, so that macro means are means over instructions."""
    return replace(records, instructions=records.instructions.with_columns(dataset=pl.lit("all")))
