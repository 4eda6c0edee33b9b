"""What routing costs, for reports on records with costs.

Shape legend: N instructions and M candidates of the test records, P policies of a quality-cost curve.

Costs in results are US dollars per 1,000 instructions; areas under curves are percent like accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satlight.evaluation.controls import Control, matrices, numbered
from satlight.metrics import cost, curves, functional, selection

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

PER = 1000
"""Instructions that a reported cost is for; a single one costs too little to read."""

Parts = dict[str, Tensor]


def cost_state(records: PerformanceRecords) -> str:
    """Whether costs can be reported: "complete", "none", or "incomplete", where some records have no cost.

    An unknown price is never taken for $0, so nothing is said of costs unless they are complete.
    """
    if records.costs is None or np.isnan(records.costs[records.known]).all():
        return "none"
    priced = np.isfinite(records.costs) & (records.costs >= 0)
    return "complete" if bool(priced[records.known].all()) else "incomplete"


@dataclass(frozen=True)
class Spending:
    """Outcomes and costs on the test records, and what train says of each candidate.

    Args:
        outcome_NM: float32 (N, M) outcomes.
        known_NM: bool (N, M).
        cost_NM: float64 (N, M) US dollars, 0 where there is no record.
        dataset_N: int64 (N,), number of each instruction's dataset.
        price_M: float64 (M,) mean cost of each candidate on train, mean over datasets; NaN = unknown.
        quality_M: float64 (M,) mean outcome, likewise.
    """

    outcome_NM: Tensor
    known_NM: Tensor
    cost_NM: Tensor
    dataset_N: Tensor
    price_M: Tensor
    quality_M: Tensor

    @classmethod
    def of(cls, test: PerformanceRecords, train: PerformanceRecords | None) -> Spending | None:
        """None where the test records have no complete costs."""
        if cost_state(test) != "complete":
            return None
        outcome_NM, known_NM = matrices(test)
        cost_NM = cost.checked_costs(torch.from_numpy(np.array(test.costs)), known_NM)
        (dataset_N,) = numbered(test.datasets)
        price_M = quality_M = torch.full((test.shape[1],), float("nan"), dtype=torch.double)
        if train is not None and cost_state(train) == "complete":
            train_outcome_NM, train_known_NM = matrices(train, test.model_ids)
            paid_NM = matrices(train, test.model_ids, train.costs)[0]
            (group_N,) = numbered(train.datasets)
            price_M = functional.macro_means(paid_NM, train_known_NM, group_N)
            quality_M = functional.macro_means(train_outcome_NM, train_known_NM, group_N)
        return cls(outcome_NM, known_NM, cost_NM, dataset_N, price_M, quality_M)

    def zero_router(self, choice_N: Tensor) -> Control:
        """The mixture of single candidates that costs on train what the router costs on test.

        Both are means over datasets of the means within them.

        Args:
            choice_N: The router's choices on the test records.

        Returns:
            What to expect of the mixture on the test records; unknown where one of its candidates is.
        """
        paid_N, known_N = functional.outcomes_of(choice_N, self.cost_NM, self.known_NM)
        target = functional.macro_means(paid_N[:, None], known_N[:, None], self.dataset_N).item()
        share_M = curves.zero_router_shares(self.price_M, self.quality_M, target)
        return Control(*self._mixed(self.outcome_NM, share_M), shares=share_M)

    def paid(self, control: Control) -> tuple[Tensor, Tensor]:
        """What a control pays for each instruction, (N,), and where that is known."""
        if control.choices is not None:
            return functional.outcomes_of(control.choices, self.cost_NM, self.known_NM)
        if control.shares is not None:
            return self._mixed(self.cost_NM, control.shares)
        return functional.random_outcomes(self.cost_NM, self.known_NM)

    def _mixed(self, value_NM: Tensor, share_M: Tensor) -> tuple[Tensor, Tensor]:
        if share_M.isnan().any():
            return torch.zeros(len(value_NM)), torch.zeros(len(value_NM), dtype=torch.bool)
        used = share_M > 0
        known_N = self.known_NM[:, used].all(1)
        mixed_N = (value_NM[:, used].double() * share_M[used]).sum(1)
        return torch.where(known_N, mixed_N, 0.0).float(), known_N

    def costs(self, columns: dict[str, Control], rows: Tensor) -> dict[str, float]:
        """Mean costs of the router and the controls on some rows, and the router's collapse index.

        Args:
            columns: ``routed`` and the controls, on all rows.
            rows: int64, of one dataset.

        Returns:
            ``cost_<name>`` in US dollars per :data:`PER` instructions, and ``rci``.
        """
        entry = {}
        for name, control in columns.items():
            paid_N, known_N = self.paid(control)
            entry[f"cost_{name}"] = PER * functional.masked_mean(paid_N[rows].double(), known_N[rows]).item()
        choice_N = columns["routed"].choices
        assert choice_N is not None
        cells = (self.outcome_NM[rows], self.known_NM[rows], self.cost_NM[rows])
        entry["rci"] = selection.routing_collapse(choice_N[rows], *cells).item()
        return entry

    def parts(self, score_NM: Tensor, rows: Tensor) -> Parts:
        """What the areas under the curves of some rows need; means of parts are parts of a macro mean.

        Args:
            score_NM: Log-odds (N, M) of the router.
            rows: int64, of one dataset.
        """
        cells = (self.outcome_NM[rows], self.known_NM[rows], self.cost_NM[rows])
        single = cost.single_points(*cells)
        cheapest = cost.policy_point(cost.cheapest_choices(cells[2], cells[1]), *cells)
        low, high = cost.cost_bounds(cells[2], cells[1])
        curve = (torch.full((1,), torch.nan), torch.full((1,), torch.nan))
        if self.price_M.isfinite().all():
            curve = cost.trade_off_curve(score_NM[rows].double().sigmoid(), self.price_M, *cells)
        return {
            "single_cost": single[0],
            "single_quality": single[1],
            "cheapest_cost": cheapest[0],
            "cheapest_quality": cheapest[1],
            "low": torch.tensor(low, dtype=torch.double),
            "high": torch.tensor(high, dtype=torch.double),
            "curve_cost": curve[0],
            "curve_quality": curve[1],
        }


def mean_parts(parts: list[Parts]) -> Parts:
    """Key by key the mean over datasets."""
    return {key: torch.stack([part[key] for part in parts]).mean(0) for key in parts[0]}


def areas(parts: Parts, best_single: int) -> dict[str, Any]:
    """Areas under the quality-cost curves.

    Args:
        parts: From :meth:`Spending.parts`.
        best_single: Column of the best single candidate, -1 = none.

    Returns:
        ``aiq``, ``zero_router_aiq`` and ``nauc`` in percent, ``qnc`` a share; NaN where the candidates have
        no prices on train.
    """
    single = (parts["single_cost"], parts["single_quality"])
    priced_M = single[0][~single[0].isnan()]
    low, high = (priced_M.min().item(), priced_M.max().item()) if len(priced_M) else (0.0, 0.0)
    entry = {"aiq": float("nan"), "nauc": float("nan"), "qnc": float("nan")}
    entry["zero_router_aiq"] = 100 * curves.aiq(*single, low, high).item()
    if parts["curve_cost"].isnan().all() or not len(priced_M):
        return entry
    cheapest = int(single[0].nan_to_num(float("inf")).argmin())
    curve = cost.with_point(
        (parts["curve_cost"], parts["curve_quality"]), (single[0][cheapest], single[1][cheapest])
    )
    entry["aiq"] = 100 * curves.aiq(*curve, low, high).item()
    every_call = cost.with_point(curve, (parts["cheapest_cost"], parts["cheapest_quality"]))
    entry["nauc"] = 100 * curves.nauc(*every_call, parts["low"].item(), parts["high"].item()).item()
    if best_single != functional.NONE:
        target_cost, target_quality = (side[best_single].item() for side in single)
        entry["qnc"] = curves.qnc(*curve, target_quality, target_cost).item()
    return entry
