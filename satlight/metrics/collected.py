"""Metrics that need the whole matrix: blocks are gathered, over batches and devices, and measured at the end.

Shape legend: B instructions and C candidates of a block, N and M of the whole matrix.

Each class is the function of the same name in :mod:`satlight.metrics` with Lightning's way of counting.
Memory grows with the matrix (13 bytes a cell with costs), unlike that of
:class:`~satlight.metrics.modules.RoutedAccuracy`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from satlight.errors import SatlightError
from satlight.metrics import cost, curves, forecast, functional, selection, strong_weak


class Matrices(NamedTuple):
    """Everything that was gathered; ``cost_NM`` is all NaN where no costs were given."""

    score_NM: Tensor
    outcome_NM: Tensor
    known_NM: Tensor
    cost_NM: Tensor
    group_N: Tensor

    @property
    def choices(self) -> Tensor:
        """The routed candidates."""
        return functional.choose(self.score_NM)


class MatrixMetric(Metric):
    """Gathers blocks that hold *every* candidate of the zoo; a subclass says what to measure on them."""

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    needs_costs = False
    score: list[Tensor]
    outcome: list[Tensor]
    known: list[Tensor]
    cost: list[Tensor]
    group: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for name in ("score", "outcome", "known", "cost", "group"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        score_BC: Tensor,
        target_BC: Tensor,
        known_BC: Tensor,
        group_B: Tensor | None = None,
        cost_BC: Tensor | None = None,
    ) -> None:
        """Add a block.

        Args:
            score_BC: Log-odds (B, C) of all candidates.
            target_BC: Outcomes (B, C).
            known_BC: bool (B, C).
            group_B: int64 (B,), dataset of each instruction; None = all in dataset 0.
            cost_BC: US dollars (B, C) of each call; None where the metric needs no costs.

        Raises:
            SatlightError: The metric needs costs and gets none.
        """
        if cost_BC is None and self.needs_costs:
            raise SatlightError(
                f"{type(self).__name__}.update got no cost_BC; it measures costs, so pass the cost of every "
                "record in US dollars (an unknown price is not $0)"
            )
        if group_B is None:
            group_B = torch.zeros(len(score_BC), dtype=torch.long, device=score_BC.device)
        self.score.append(score_BC.float())
        self.outcome.append(target_BC.float())
        self.known.append(known_BC)
        self.group.append(group_B)
        self.cost.append(torch.full_like(score_BC, torch.nan).float() if cost_BC is None else cost_BC.float())

    def compute(self) -> Tensor:
        """Scalar; NaN when nothing was known."""
        parts = (self.score, self.outcome, self.known, self.cost, self.group)
        if not all(len(part) for part in parts):
            return torch.tensor(torch.nan)
        return self.measure(Matrices(*(dim_zero_cat(part) for part in parts)))

    @abstractmethod
    def measure(self, m: Matrices) -> Tensor:
        """The metric on everything."""


# -- forecast of outcomes ----------------------------------------------------------------------------------


class ForecastAccuracy(MatrixMetric):
    """Share of cells whose outcome is foretold, see :func:`satlight.metrics.forecast.forecast_accuracy`."""

    def measure(self, m: Matrices) -> Tensor:
        return forecast.forecast_accuracy(m.score_NM, m.outcome_NM, m.known_NM)


class ForecastAUROC(MatrixMetric):
    """Probability that a right cell scores above a wrong one, see
    :func:`satlight.metrics.forecast.forecast_auroc`."""

    def measure(self, m: Matrices) -> Tensor:
        return forecast.forecast_auroc(m.score_NM, m.outcome_NM, m.known_NM)


class ForecastLogLoss(MatrixMetric):
    """Negative log-likelihood of a cell in nats, see :func:`satlight.metrics.forecast.forecast_log_loss`."""

    higher_is_better = False

    def measure(self, m: Matrices) -> Tensor:
        return forecast.forecast_log_loss(m.score_NM, m.outcome_NM, m.known_NM)


class BrierScore(MatrixMetric):
    """Squared error of Pr(correct), see :func:`satlight.metrics.forecast.brier_score`."""

    higher_is_better = False

    def measure(self, m: Matrices) -> Tensor:
        return forecast.brier_score(m.score_NM, m.outcome_NM, m.known_NM)


# -- relative accuracy and choices -------------------------------------------------------------------------


class AccuracyRatio(MatrixMetric):
    """Routed accuracy over a reference (V_R, V_B), see :func:`satlight.metrics.selection.accuracy_ratio`.

    Args:
        reference: Accuracy of the reference, a fraction.
    """

    def __init__(self, reference: float) -> None:
        super().__init__()
        self.reference = reference

    def measure(self, m: Matrices) -> Tensor:
        routed = functional.routed_accuracy(m.score_NM, m.outcome_NM, m.known_NM)
        return torch.tensor(selection.accuracy_ratio(routed.item(), self.reference))


class GainAtR(MatrixMetric):
    """Gain@R over the datasets seen, see :func:`satlight.metrics.selection.gain_at_r`."""

    def measure(self, m: Matrices) -> Tensor:
        return selection.gain_at_r(m.score_NM, m.outcome_NM, m.known_NM, m.group_N)


class GainAtB(MatrixMetric):
    """Gain@B over the datasets seen, see :func:`satlight.metrics.selection.gain_at_b`.

    Args:
        best: Column of the best single candidate, chosen on train.
    """

    def __init__(self, best: int) -> None:
        super().__init__()
        self.best = best

    def measure(self, m: Matrices) -> Tensor:
        return selection.gain_at_b(m.score_NM, m.outcome_NM, m.known_NM, self.best, m.group_N)


class GapAtO(MatrixMetric):
    """Gap@O over the datasets seen, see :func:`satlight.metrics.selection.gap_at_o`."""

    higher_is_better = False

    def measure(self, m: Matrices) -> Tensor:
        return selection.gap_at_o(m.score_NM, m.outcome_NM, m.known_NM, m.group_N)


class SelectionEntropy(MatrixMetric):
    """Entropy of the choices in bits (E_p), see :func:`satlight.metrics.selection.selection_entropy`."""

    def measure(self, m: Matrices) -> Tensor:
        return selection.selection_entropy(m.choices, m.score_NM.shape[1])


class RareSolverRecall(MatrixMetric):
    """How often a rare solver is found, see :func:`satlight.metrics.selection.rare_solver_recall`.

    Args:
        at_most: Most solvers of a rare instruction.
    """

    def __init__(self, at_most: int = 3) -> None:
        super().__init__()
        self.at_most = at_most

    def measure(self, m: Matrices) -> Tensor:
        return selection.rare_solver_recall(m.choices, m.outcome_NM, m.known_NM, self.at_most)


class APGR(MatrixMetric):
    """Average performance gap recovered, see :func:`satlight.metrics.strong_weak.apgr`.

    Args:
        weak: Column of the weak candidate.
        strong: Column of the strong candidate.
    """

    def __init__(self, weak: int, strong: int) -> None:
        super().__init__()
        self.weak, self.strong = weak, strong

    def pair(self, m: Matrices) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Preference for the strong one, both outcomes, and where both are known."""
        weak_N, strong_N = m.outcome_NM[:, self.weak], m.outcome_NM[:, self.strong]
        known_N = m.known_NM[:, self.weak] & m.known_NM[:, self.strong]
        return m.score_NM[:, self.strong] - m.score_NM[:, self.weak], weak_N, strong_N, known_N

    def measure(self, m: Matrices) -> Tensor:
        return strong_weak.apgr(*self.pair(m))


class CPT(APGR):
    """Call-performance threshold, see :func:`satlight.metrics.strong_weak.cpt`.

    Args:
        weak: Column of the weak candidate.
        strong: Column of the strong candidate.
        share: x, the share of the gap to recover, in (0, 1].
    """

    higher_is_better = False

    def __init__(self, weak: int, strong: int, share: float) -> None:
        super().__init__(weak, strong)
        self.share = share

    def measure(self, m: Matrices) -> Tensor:
        return strong_weak.cpt(*self.pair(m), share=self.share)


# -- cost --------------------------------------------------------------------------------------------------


class MeanCost(MatrixMetric):
    """Mean cost of the routed candidates in US dollars, see :func:`satlight.metrics.cost.mean_cost`."""

    higher_is_better = False
    needs_costs = True

    def measure(self, m: Matrices) -> Tensor:
        return cost.mean_cost(m.choices, m.cost_NM, m.known_NM)


class RoutingCollapse(MatrixMetric):
    """Routing collapse index (RCI), see :func:`satlight.metrics.selection.routing_collapse`."""

    higher_is_better = False
    needs_costs = True

    def measure(self, m: Matrices) -> Tensor:
        return selection.routing_collapse(m.choices, m.outcome_NM, m.known_NM, m.cost_NM)


class AIQ(MatrixMetric):
    """Average improvement in quality between the cheapest and the dearest candidate's cost.

    The policies are those of :func:`satlight.metrics.cost.router_curve`; see
    :func:`satlight.metrics.curves.aiq`.

    Args:
        price: Expected cost (M,) of each candidate in US dollars, e.g. its mean cost on train.
    """

    needs_costs = True

    def __init__(self, price: Tensor) -> None:
        super().__init__()
        self.register_buffer("price", price)

    def curve(self, m: Matrices) -> cost.Curve:
        """Quality over cost as the router trades one for the other."""
        assert isinstance(self.price, Tensor)
        return cost.router_curve(m.score_NM, self.price, m.outcome_NM, m.known_NM, m.cost_NM)

    def measure(self, m: Matrices) -> Tensor:
        single_M = cost.single_points(m.outcome_NM, m.known_NM, m.cost_NM)[0]
        single_M = single_M[~single_M.isnan()]
        return curves.aiq(*self.curve(m), low=single_M.min().item(), high=single_M.max().item())


class NAUC(AIQ):
    """Normalised area under the quality-cost curve, see :func:`satlight.metrics.curves.nauc`.

    Args:
        price: Expected cost (M,) of each candidate in US dollars, e.g. its mean cost on train.
    """

    def measure(self, m: Matrices) -> Tensor:
        cheapest_N = cost.cheapest_choices(m.cost_NM, m.known_NM)
        point = cost.policy_point(cheapest_N, m.outcome_NM, m.known_NM, m.cost_NM)
        return curves.nauc(*cost.with_point(self.curve(m), point), *cost.cost_bounds(m.cost_NM, m.known_NM))


class QNC(AIQ):
    """Quality-neutral cost, see :func:`satlight.metrics.curves.qnc`.

    Args:
        price: Expected cost (M,) of each candidate in US dollars, e.g. its mean cost on train.
        best: Column of the best single candidate, chosen on train.
    """

    higher_is_better = False

    def __init__(self, price: Tensor, best: int) -> None:
        super().__init__(price)
        self.best = best

    def measure(self, m: Matrices) -> Tensor:
        target_cost, target_quality = (
            single_M[self.best].item() for single_M in cost.single_points(m.outcome_NM, m.known_NM, m.cost_NM)
        )
        return curves.qnc(*self.curve(m), target_quality, target_cost)
