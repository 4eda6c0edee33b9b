"""Metrics that need the whole matrix: they collect blocks, over batches and devices, and measure at the end.

Shape legend: B instructions and C candidates of a block, N and M of the whole matrix.

Each class applies the function it names to everything collected, see :class:`MatrixMetric`. Memory grows with
the matrix (13 bytes per cell with costs), unlike that of :class:`~satlight.metrics.modules.RoutedAccuracy`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from satlight.errors import SatlightError
from satlight.metrics import cost, curves, forecast, functional, selection, strong_weak

_STATES = ("score_NM", "outcome_NM", "known_NM", "cost_NM", "group_N")
_DERIVED: dict[str, Callable[[Tensor], Any]] = {
    "choice_N": functional.choose,
    "num_candidates": lambda score_NM: score_NM.shape[1],
}


class MatrixMetric(Metric):
    """Collect blocks that hold *every* candidate of the zoo and apply a function to the whole matrix.

    A subclass names the function. Its parameters ``score_NM``, ``outcome_NM``, ``known_NM``, ``cost_NM``, ``group_N``,
    ``choice_N`` and ``num_candidates`` are filled with what was collected; all others become the arguments of the
    class, with their annotations and defaults. A metric whose function takes ``cost_NM`` requires costs.

    Example:
        >>> def solved(choice_N: Tensor, outcome_NM: Tensor, at_least: float = 1.0) -> Tensor:
        ...     return (outcome_NM.gather(1, choice_N[:, None]) >= at_least).float().mean()
        >>> class Solved(MatrixMetric, function=solved):
        ...     '''Share of instructions whose routed candidate reaches ``at_least``.'''
        >>> inspect.signature(Solved)
        <Signature (at_least: float = 1.0) -> None>
        >>> metric = Solved(at_least=0.5)
        >>> known = torch.ones(2, 2, dtype=torch.bool)
        >>> metric.update(torch.eye(2), torch.tensor([[0.5, 0.0], [1.0, 0.0]]), known)
        >>> metric.compute().item()
        0.5
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    function: ClassVar[Callable[..., Any]]
    _collected: ClassVar[tuple[str, ...]] = ()
    _settings: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(
        cls, function: Callable[..., Any] | None = None, higher_is_better: bool | None = None
    ) -> None:
        super().__init_subclass__()
        if higher_is_better is not None:
            cls.higher_is_better = higher_is_better
        if function is None:
            return
        parameters = inspect.signature(function, eval_str=True).parameters
        settings = [p for name, p in parameters.items() if name not in (*_STATES, *_DERIVED)]
        cls.function = staticmethod(function)
        cls._settings = tuple(p.name for p in settings)
        cls._collected = tuple(name for name in parameters if name not in cls._settings)
        cls.__init__ = _constructor(settings)  # type: ignore[method-assign]

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # each subclass has its own signature
        super().__init__()
        for name in _STATES:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self,
        score_BC: Tensor,
        target_BC: Tensor,
        known_BC: Tensor,
        group_B: Tensor | None = None,
        cost_BC: Tensor | None = None,
    ) -> None:
        """Add a block; one without a known cell adds nothing, since on several devices another one counts it.

        Args:
            score_BC: Log-odds (B, C) of all candidates.
            target_BC: Outcomes (B, C).
            known_BC: bool (B, C).
            group_B: int64 (B,), dataset of each instruction; None = all in dataset 0.
            cost_BC: US dollars (B, C) of each call; None where the metric needs no costs.

        Raises:
            SatlightError: The metric needs costs and gets none.
        """
        if cost_BC is None and "cost_NM" in self._collected:
            raise SatlightError(
                f"{type(self).__name__}.update got no cost_BC; it measures costs, so pass the cost of every "
                "record in US dollars (an unknown price is not $0)"
            )
        if group_B is None:
            group_B = torch.zeros(len(score_BC), dtype=torch.long, device=score_BC.device)
        cost_BC = torch.full_like(score_BC, torch.nan) if cost_BC is None else cost_BC
        block = (score_BC.float(), target_BC.float(), known_BC, cost_BC.float(), group_B)
        rows = len(score_BC) if known_BC.any() else 0  # an empty part: devices without any would wait for each other
        for name, part in zip(_STATES, block, strict=True):
            getattr(self, name).append(part[:rows])

    def compute(self) -> Tensor:
        """Return the metric as a scalar; NaN when nothing was collected."""
        if not all(len(getattr(self, name)) for name in _STATES):
            return torch.tensor(torch.nan)
        given = {name: dim_zero_cat(getattr(self, name)) for name in _STATES}
        if not len(given["score_NM"]):
            return torch.tensor(torch.nan)
        given |= {name: derive(given["score_NM"]) for name, derive in _DERIVED.items()}
        settings = {name: getattr(self, name) for name in self._settings}
        return type(self).function(**{name: given[name] for name in self._collected}, **settings)


def _constructor(settings: list[inspect.Parameter]) -> Callable[..., None]:
    """Return an ``__init__`` that stores the settings; tensors become buffers, which follow the device."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("self", kind), *(p.replace(kind=kind) for p in settings)]
    signature = inspect.Signature(parameters, return_annotation=None)

    def initialize(*args: Any, **kwargs: Any) -> None:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        self = bound.arguments.pop("self")
        MatrixMetric.__init__(self)
        for name, value in bound.arguments.items():
            if isinstance(value, Tensor):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    initialize.__signature__ = signature  # type: ignore[attr-defined]
    initialize.__annotations__ = {p.name: p.annotation for p in settings} | {"return": None}
    return initialize


class ForecastAccuracy(MatrixMetric, function=forecast.forecast_accuracy):
    """Share of correctly predicted outcomes, see :func:`satlight.metrics.forecast.forecast_accuracy`."""


class ForecastAUROC(MatrixMetric, function=forecast.forecast_auroc):
    """Area under the ROC curve over cells, see :func:`satlight.metrics.forecast.forecast_auroc`."""


class ForecastLogLoss(MatrixMetric, function=forecast.forecast_log_loss, higher_is_better=False):
    """Negative log-likelihood per cell in nats, see :func:`satlight.metrics.forecast.forecast_log_loss`."""


class BrierScore(MatrixMetric, function=forecast.brier_score, higher_is_better=False):
    """Squared error of Pr(correct), see :func:`satlight.metrics.forecast.brier_score`."""


def _accuracy_ratio(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, reference: float) -> Tensor:
    routed = functional.routed_accuracy(score_NM, outcome_NM, known_NM).item()
    return torch.tensor(selection.accuracy_ratio(routed, reference))


class AccuracyRatio(MatrixMetric, function=_accuracy_ratio):
    """Routed accuracy over a reference (V_R, V_B), see :func:`satlight.metrics.selection.accuracy_ratio`.

    Args:
        reference: Accuracy of the reference, a fraction.
    """


class GainAtR(MatrixMetric, function=selection.gain_at_r):
    """Gain@R over the collected datasets, see :func:`satlight.metrics.selection.gain_at_r`."""


class GainAtB(MatrixMetric, function=selection.gain_at_b):
    """Gain@B over the collected datasets, see :func:`satlight.metrics.selection.gain_at_b`.

    Args:
        best: Column of the best single candidate, chosen on train.
    """


class GapAtO(MatrixMetric, function=selection.gap_at_o, higher_is_better=False):
    """Gap@O over the collected datasets, see :func:`satlight.metrics.selection.gap_at_o`."""


class SelectionEntropy(MatrixMetric, function=selection.selection_entropy):
    """Entropy of the choices in bits (E_p), see :func:`satlight.metrics.selection.selection_entropy`."""


class RareSolverRecall(MatrixMetric, function=selection.rare_solver_recall):
    """Recall of rare solvers, see :func:`satlight.metrics.selection.rare_solver_recall`.

    Args:
        at_most: Maximum number of solvers of a rare instruction.
    """


def _pair(
    score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, weak: int, strong: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the preference for the strong candidate, both outcomes, and where both are known."""
    preference_N = score_NM[:, strong] - score_NM[:, weak]
    known_N = known_NM[:, weak] & known_NM[:, strong]
    return preference_N, outcome_NM[:, weak], outcome_NM[:, strong], known_N


def _apgr(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, weak: int, strong: int) -> Tensor:
    return strong_weak.apgr(*_pair(score_NM, outcome_NM, known_NM, weak, strong))


def _cpt(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, weak: int, strong: int, share: float) -> Tensor:
    return strong_weak.cpt(*_pair(score_NM, outcome_NM, known_NM, weak, strong), share=share)


class APGR(MatrixMetric, function=_apgr):
    """Average performance gap recovered, see :func:`satlight.metrics.strong_weak.apgr`.

    Args:
        weak: Column of the weak candidate.
        strong: Column of the strong candidate.
    """


class CPT(MatrixMetric, function=_cpt, higher_is_better=False):
    """Call-performance threshold, see :func:`satlight.metrics.strong_weak.cpt`.

    Args:
        weak: Column of the weak candidate.
        strong: Column of the strong candidate.
        share: x, the share of the gap to recover, in (0, 1].
    """


class MeanCost(MatrixMetric, function=cost.mean_cost, higher_is_better=False):
    """Mean cost of the routed candidates in US dollars, see :func:`satlight.metrics.cost.mean_cost`."""


class RoutingCollapse(MatrixMetric, function=selection.routing_collapse, higher_is_better=False):
    """Routing collapse index (RCI), see :func:`satlight.metrics.selection.routing_collapse`."""


def _aiq(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, cost_NM: Tensor, price: Tensor) -> Tensor:
    curve = cost.router_curve(score_NM, price, outcome_NM, known_NM, cost_NM)
    single_M = cost.single_points(outcome_NM, known_NM, cost_NM)[0]
    single_M = single_M[~single_M.isnan()]
    return curves.aiq(*curve, low=single_M.min().item(), high=single_M.max().item())


def _nauc(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, cost_NM: Tensor, price: Tensor) -> Tensor:
    curve = cost.router_curve(score_NM, price, outcome_NM, known_NM, cost_NM)
    cheapest_N = cost.cheapest_choices(cost_NM, known_NM)
    point = cost.policy_point(cheapest_N, outcome_NM, known_NM, cost_NM)
    return curves.nauc(*cost.with_point(curve, point), *cost.cost_bounds(cost_NM, known_NM))


def _qnc(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, cost_NM: Tensor, price: Tensor, best: int) -> Tensor:
    curve = cost.router_curve(score_NM, price, outcome_NM, known_NM, cost_NM)
    cost_M, quality_M = cost.single_points(outcome_NM, known_NM, cost_NM)
    return curves.qnc(*curve, quality_M[best].item(), cost_M[best].item())


class AIQ(MatrixMetric, function=_aiq):
    """Average improvement in quality between the costs of the cheapest and the most expensive candidate.

    The policies are those of :func:`satlight.metrics.cost.router_curve`; see :func:`satlight.metrics.curves.aiq`.

    Args:
        price: Expected cost (M,) of each candidate in US dollars, e.g. its mean cost on train.
    """


class NAUC(MatrixMetric, function=_nauc):
    """Normalized area under the quality-cost curve, see :func:`satlight.metrics.curves.nauc`.

    Args:
        price: Expected cost (M,) of each candidate in US dollars, e.g. its mean cost on train.
    """


class QNC(MatrixMetric, function=_qnc, higher_is_better=False):
    """Quality-neutral cost, see :func:`satlight.metrics.curves.qnc`.

    Args:
        price: Expected cost (M,) of each candidate in US dollars, e.g. its mean cost on train.
        best: Column of the best single candidate, chosen on train.
    """
