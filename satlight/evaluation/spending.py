"""Costs of routing, on records with costs.

Shape legend: N instructions and M candidates of the test records, P policies of a quality-cost curve.

Costs in results are US dollars per 1,000 instructions; areas under curves are percent like accuracies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from satlight.evaluation.controls import Control, matrices, numbered
from satlight.metrics import cost, curves, functional

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

PER = 1000
"""Number of instructions that reported costs refer to."""


def cost_state(records: PerformanceRecords) -> str:
    """Return "complete", "none", or "incomplete" when some records have no cost.

    An unknown price is not $0, so costs are only reported when they are complete.
    """
    if records.costs is None or np.isnan(records.costs[records.known]).all():
        return "none"
    priced = np.isfinite(records.costs) & (records.costs >= 0)
    return "complete" if bool(priced[records.known].all()) else "incomplete"


@dataclass(frozen=True)
class Spending:
    """Outcomes and costs on the test records, and means of each candidate on train.

    Args:
        outcome_NM: float32 (N, M) outcomes.
        known_NM: bool (N, M).
        cost_NM: float64 (N, M) US dollars, 0 where there is no record.
        dataset_N: int64 (N,), number of each instruction's dataset.
        price_M: float64 (M,) macro mean cost of each candidate on train; NaN = unknown.
        quality_M: float64 (M,) macro mean outcome of each candidate on train; NaN = unknown.
    """

    outcome_NM: Tensor
    known_NM: Tensor
    cost_NM: Tensor
    dataset_N: Tensor
    price_M: Tensor
    quality_M: Tensor

    @classmethod
    def of(cls, test: PerformanceRecords, train: PerformanceRecords | None) -> Spending | None:
        """Collect them; None where the costs of the test records are not complete."""
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
        """Measure the mixture of single candidates that costs on train what the router costs on test.

        Both costs are macro means over datasets.

        Args:
            choice_N: The router's choices on the test records.

        Returns:
            Expected outcomes of the mixture on the test records; unknown where one of its candidates is.
        """
        paid_N, known_N = functional.outcomes_of(choice_N, self.cost_NM, self.known_NM)
        target = functional.macro_means(paid_N[:, None], known_N[:, None], self.dataset_N).item()
        share_M = curves.zero_router_shares(self.price_M, self.quality_M, target)
        return Control(*self._mixed(self.outcome_NM, share_M), shares=share_M)

    def paid(self, control: Control) -> tuple[Tensor, Tensor]:
        """Return the cost of a control on each instruction (N,), and where it is known."""
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
        """Compute the mean cost of the router and of every control on some rows, where their outcomes are known.

        Args:
            columns: ``routed`` and the controls, on all rows.
            rows: int64, rows of one dataset.

        Returns:
            US dollars per :data:`PER` instructions, under the same names.
        """
        paid = {name: self.paid(control) for name, control in columns.items()}
        return {
            name: PER * functional.masked_mean(paid_N[rows].double(), (known_N & columns[name].known)[rows]).item()
            for name, (paid_N, known_N) in paid.items()
        }

    def curve_inputs(self, score_NM: Tensor, rows: Tensor) -> CurveInputs:
        """Measure the policies of the quality-cost curves on some rows.

        Args:
            score_NM: Log-odds (N, M) of the router.
            rows: int64, rows of one dataset.
        """
        cells = _, known_NM, cost_NM = self.cells(rows)
        curve = torch.full((2, 1), torch.nan)
        if self.price_M.isfinite().all():
            curve = torch.stack(cost.trade_off_curve(score_NM[rows].double().sigmoid(), self.price_M, *cells))
        return CurveInputs(
            torch.stack(cost.single_points(*cells)),
            torch.stack(cost.policy_point(cost.cheapest_choices(cost_NM, known_NM), *cells)),
            curve,
            torch.tensor(cost.cost_bounds(cost_NM, known_NM), dtype=torch.double),
        )

    def cells(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return outcomes, known mask and costs of some rows."""
        return self.outcome_NM[rows], self.known_NM[rows], self.cost_NM[rows]


class CurveInputs(NamedTuple):
    """Per-dataset inputs to the quality-cost curves; average them before computing areas.

    Each holds mean costs in US dollars per instruction, then mean outcomes.

    Args:
        single: (2, M), each candidate on its own.
        cheapest: (2,), the cheapest call per instruction.
        curve: (2, P), the router's policies; NaN without prices on train.
        bounds: (2,), lower and upper bound of the cost of any router.
    """

    single: Tensor
    cheapest: Tensor
    curve: Tensor
    bounds: Tensor

    @classmethod
    def mean(cls, inputs: Sequence[CurveInputs]) -> CurveInputs:
        """Average over datasets."""
        return cls(*(torch.stack(values).mean(0) for values in zip(*inputs, strict=True)))


def areas(inputs: CurveInputs, best_single: int) -> dict[str, float]:
    """Compute the areas under the quality-cost curves.

    Args:
        inputs: From :meth:`Spending.curve_inputs`.
        best_single: Column of the best single candidate, -1 = none.

    Returns:
        ``aiq``, ``nauc``, ``qnc`` and ``zero_router_aiq`` as in
        :class:`satlight.evaluation.results.GroupResult`; NaN where the candidates have no prices on train.
    """
    cost_M, quality_M = inputs.single
    priced_M = cost_M[~cost_M.isnan()]
    low, high = (priced_M.min().item(), priced_M.max().item()) if len(priced_M) else (0.0, 0.0)
    result = dict.fromkeys(("aiq", "nauc", "qnc"), float("nan"))
    result["zero_router_aiq"] = 100 * curves.aiq(cost_M, quality_M, low, high).item()
    if inputs.curve.isnan().all() or not len(priced_M):
        return result
    cheapest = cost_M.nan_to_num(float("inf")).argmin()
    curve = torch.cat([inputs.curve, inputs.single[:, cheapest, None]], 1)
    every_call = torch.cat([curve, inputs.cheapest[:, None]], 1)
    ends = quality_M[best_single].item(), cost_M[best_single].item()
    if best_single != functional.NONE:
        result["qnc"] = curves.qnc(curve[0], curve[1], *ends).item()
    result["aiq"] = 100 * curves.aiq(curve[0], curve[1], low, high).item()
    result["nauc"] = 100 * curves.nauc(every_call[0], every_call[1], *inputs.bounds.tolist()).item()
    return result
