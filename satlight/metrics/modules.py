"""Metrics with sums as their state (torchmetrics), for validation inside Lightning.

Shape legend: B instructions and C candidates of a block, G groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchmetrics import Metric

from satlight.errors import SatlightError
from satlight.metrics import forecast, functional


class Sums(Metric):
    """A metric whose sums stay in float32 in every precision of the trainer: bfloat16 cannot count to 300."""

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        return super()._apply(lambda tensor: tensor.to(fn(tensor).device), exclude_state)


class WeightedMean(Sums):
    """Mean of scalars by weight, over blocks and devices; NaN when the weights are all 0.

    Lightning's own mean over devices truncates the mean number of rows to an integer where the backend is gloo.

    Example:
        >>> metric = WeightedMean()
        >>> metric.update(torch.tensor(1.0), 3)
        >>> metric.update(torch.tensor(3.0), 1)
        >>> metric.compute().item()
        1.5
    """

    is_differentiable = False
    full_state_update = False
    total: Tensor
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "weight"):
            self.add_state(name, default=torch.zeros((), dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, value: Tensor, weight: float) -> None:
        """Add a scalar with a weight of at least 0."""
        self.total = self.total + value.detach().to(self.total) * weight
        self.weight = self.weight + weight

    def compute(self) -> Tensor:
        """Return the mean, a scalar."""
        return self.total / self.weight


class RoutedAccuracy(Sums):
    """Mean outcome of the routed candidates, over blocks that hold *every* candidate of the zoo.

    Instructions whose routed candidate has no record are left out; :meth:`counts` returns how many remain.

    Args:
        average: ``macro`` = mean of the means within the groups seen; ``micro`` = mean over instructions.
        num_groups: Maximum number of groups.

    Raises:
        SatlightError: ``average`` is neither, or a group number is not below ``num_groups``.

    Example:
        >>> metric = RoutedAccuracy()
        >>> score = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> outcome = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> metric.update(score, outcome, torch.ones(3, 2, dtype=torch.bool), torch.tensor([0, 0, 1]))
        >>> metric.compute().item()
        0.75
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, average: Literal["macro", "micro"] = "macro", num_groups: int = 1024) -> None:
        super().__init__()
        if average not in ("macro", "micro"):
            raise SatlightError(f"RoutedAccuracy: average is {average!r}; allowed are 'macro' and 'micro'")
        self.average = average
        self.num_groups = num_groups
        # With a fixed size, devices that saw different groups can add their states.
        self.add_state("total", default=torch.zeros(num_groups, dtype=torch.float32), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros(num_groups, dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, group_B: Tensor | None = None) -> None:
        """Add a block.

        Args:
            score_BC: Log-odds (B, C) of all candidates.
            target_BC: Outcomes (B, C).
            known_BC: bool (B, C).
            group_B: int64 (B,), group of each instruction; None = all in group 0.
        """
        if group_B is None:
            group_B = torch.zeros(len(score_BC), dtype=torch.long, device=score_BC.device)
        if len(group_B) and (largest := int(group_B.max())) >= self.num_groups:
            raise SatlightError(
                f"RoutedAccuracy: got group number {largest}, but num_groups is {self.num_groups}; "
                "raise num_groups above the number of datasets"
            )
        outcome_B, known_B = functional.outcomes_of(functional.choose(score_BC), target_BC, known_BC)
        # Not in place: after `validate` the states are inference tensors, which `fit` cannot change.
        self.total = self.total.index_add(0, group_B, outcome_B.to(self.total))
        self.count = self.count.index_add(0, group_B, known_B.to(self.count))

    def compute(self) -> Tensor:
        """Return the accuracy, a scalar in [0, 1]; NaN when no outcome was known."""
        if self.average == "micro":
            return self.total.sum() / self.count.sum()
        return (self.total / self.count).nanmean()

    def counts(self) -> Tensor:
        """Return float (num_groups,): instructions with a known routed outcome on this device, per group."""
        return self.count


class CalibrationError(Sums):
    """Expected calibration error of Pr(correct) = sigmoid(score) over all known cells.

    Args:
        bins: Number of equally wide bins on [0, 1].

    Raises:
        SatlightError: ``bins`` is below 1.

    Example:
        >>> metric = CalibrationError()
        >>> known = torch.ones(1, 2, dtype=torch.bool)
        >>> metric.update(torch.zeros(1, 2), torch.tensor([[1.0, 1.0]]), known)
        >>> metric.update(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), known)
        >>> metric.compute().item()
        0.25

    Reference:
        [Guo et al. 2017, Eq. 3]
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False
    probability: Tensor
    outcome: Tensor
    count: Tensor

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        if bins < 1:
            raise SatlightError(f"CalibrationError: bins is {bins}; it must be 1 or more (15 is usual)")
        self.bins = bins
        for name in ("probability", "outcome", "count"):
            self.add_state(name, default=torch.zeros(bins, dtype=torch.float32), dist_reduce_fx="sum")

    def update(self, score_BC: Tensor, target_BC: Tensor, known_BC: Tensor) -> None:
        """Add a block.

        Args:
            score_BC: Log-odds (B, C).
            target_BC: Outcomes (B, C).
            known_BC: bool (B, C).
        """
        probability, outcome, count = forecast.calibration_bins(score_BC, target_BC, known_BC, self.bins)
        self.probability, self.outcome = self.probability + probability, self.outcome + outcome
        self.count = self.count + count

    def compute(self) -> Tensor:
        """Return the error, a scalar in [0, 1]; NaN when no outcome was known."""
        return forecast.calibration_error_of_bins(self.probability, self.outcome, self.count)
