"""Objectives as modules, for configs: ``class_path: satlight.losses.Pointwise``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from satlight.errors import SatlightError
from satlight.losses import functional

# Names that torch.nn.ModuleDict does not accept, or that would overwrite a key of the result.
_RESERVED = {"loss", ""}


def _positive_temperature(owner: str, temperature: float) -> float:
    if not temperature > 0:
        raise SatlightError(f"{owner}: temperature is {temperature}; it must be greater than 0 (1.0 changes nothing)")
    return temperature


class Objective(nn.Module, ABC):
    """Loss on a block of the score matrix; subclass it to add an objective."""

    @abstractmethod
    def forward(
        self, score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, weight_BC: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the loss of one block.

        Args:
            score_BC: Log-odds (B, C).
            target_BC: Outcomes (B, C) in [0, 1].
            known_BC: bool (B, C), False where no record exists.
            weight_BC: Non-negative weights (B, C); None = all 1.

        Returns:
            ``loss``, the scalar to differentiate, and detached scalars to log under the names of its parts.
        """


class _Contrastive(Objective):
    """Settings and forward pass of the contrastive objectives; a subclass names the equation."""

    equation: ClassVar[Callable[..., Tensor]]

    def __init__(self, temperature: float = 1.0, threshold: float = 0.5) -> None:
        super().__init__()
        owner = type(self).__name__
        temperature = _positive_temperature(owner, temperature)
        if not 0 < threshold <= 1:
            raise SatlightError(
                f"{owner}: threshold is {threshold}; it must lie in (0, 1], "
                "the outcome from which a cell counts as right"
            )
        self.temperature = temperature
        self.threshold = threshold

    def forward(
        self, score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, weight_BC: Tensor | None = None
    ) -> dict[str, Tensor]:
        loss = self.equation(
            score_BC, target_BC, known_BC, weight_BC, temperature=self.temperature, threshold=self.threshold
        )
        return {"loss": loss, self.equation.__name__: loss.detach()}

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, threshold={self.threshold}"


class InstructionContrastive(_Contrastive):
    """The paper's objective, a softmax along columns.

    See :func:`satlight.losses.functional.instruction_contrastive`.

    Args:
        temperature: Divides the scores; > 0.
        threshold: Outcome from which a cell is a positive, in (0, 1].

    Raises:
        SatlightError: An argument is out of range.

    Example:
        >>> import torch
        >>> score, target = torch.zeros(2, 1), torch.tensor([[1.0], [0.0]])
        >>> result = InstructionContrastive()(score, target, torch.ones(2, 1, dtype=torch.bool))
        >>> sorted(result), round(result["loss"].item(), 4)
        (['instruction_contrastive', 'loss'], 0.6931)

    Reference:
        [Zhang et al. 2025, Eq. 5]
    """

    equation = staticmethod(functional.instruction_contrastive)


class CandidateContrastive(_Contrastive):
    """Softmax along rows, see :func:`satlight.losses.functional.candidate_contrastive`.

    Args:
        temperature: Divides the scores; > 0.
        threshold: Outcome from which a cell is a positive, in (0, 1].

    Raises:
        SatlightError: An argument is out of range.

    Example:
        >>> import torch
        >>> score, target = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> result = CandidateContrastive()(score, target, torch.ones(1, 2, dtype=torch.bool))
        >>> round(result["loss"].item(), 4)
        0.6931
    """

    equation = staticmethod(functional.candidate_contrastive)


class RoutingRegret(Objective):
    """Outcome lost by routing on the scores, see :func:`satlight.losses.functional.routing_regret`.

    It does not calibrate the scores; add :class:`Pointwise` (by :class:`WeightedSum`) for probabilities.

    Args:
        temperature: Divides the scores; > 0.

    Raises:
        SatlightError: The temperature is not greater than 0.

    Example:
        >>> import torch
        >>> score, target = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> RoutingRegret()(score, target, torch.ones(1, 2, dtype=torch.bool))["loss"].item()
        0.5
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = _positive_temperature(type(self).__name__, temperature)

    def forward(
        self, score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, weight_BC: Tensor | None = None
    ) -> dict[str, Tensor]:
        loss = functional.routing_regret(score_BC, target_BC, known_BC, weight_BC, temperature=self.temperature)
        return {"loss": loss, "routing_regret": loss.detach()}

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"


class Pointwise(Objective):
    """Binary cross-entropy on every known cell, see :func:`satlight.losses.functional.pointwise`.

    Example:
        >>> import torch
        >>> known = torch.ones(1, 1, dtype=torch.bool)
        >>> round(Pointwise()(torch.zeros(1, 1), torch.ones(1, 1), known)["loss"].item(), 4)
        0.6931
    """

    def forward(
        self, score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, weight_BC: Tensor | None = None
    ) -> dict[str, Tensor]:
        loss = functional.pointwise(score_BC, target_BC, known_BC, weight_BC)
        return {"loss": loss, "pointwise": loss.detach()}


class WeightedSum(Objective):
    """Weighted sum of objectives: loss = Σ weight · loss of each.

    Args:
        objectives: The objectives by names of your choice, which appear in the log.
        weights: A non-negative weight for every name of ``objectives``, and no other.

    Raises:
        SatlightError: The names differ, a weight is negative, or a name cannot be used.

    Example:
        >>> import torch
        >>> objective = WeightedSum(
        ...     {"row": CandidateContrastive(), "cell": Pointwise()}, weights={"row": 1.0, "cell": 0.5}
        ... )
        >>> score, target = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
        >>> parts = objective(score, target, torch.ones(1, 2, dtype=torch.bool))
        >>> {name: round(value.item(), 4) for name, value in parts.items()}
        {'loss': 1.0397, 'row': 0.6931, 'cell': 0.6931}
    """

    def __init__(self, objectives: dict[str, Objective], weights: dict[str, float]) -> None:
        super().__init__()
        _check_sum(objectives, weights)
        self.objectives = nn.ModuleDict(objectives)
        self.weights = dict(weights)

    def forward(
        self, score_BC: Tensor, target_BC: Tensor, known_BC: Tensor, weight_BC: Tensor | None = None
    ) -> dict[str, Tensor]:
        losses = {
            name: objective(score_BC, target_BC, known_BC, weight_BC)["loss"]
            for name, objective in self.objectives.items()
        }
        total = sum(self.weights[name] * loss for name, loss in losses.items())
        return {"loss": total} | {name: loss.detach() for name, loss in losses.items()}

    def extra_repr(self) -> str:
        return f"weights={self.weights}"


def _check_sum(objectives: dict[str, Objective], weights: dict[str, float]) -> None:
    if not objectives:
        raise SatlightError("WeightedSum: objectives is empty; name at least one, e.g. {row: CandidateContrastive}")
    if set(objectives) != set(weights):
        raise SatlightError(
            f"WeightedSum: objectives are {sorted(objectives)} but weights are for {sorted(weights)}; "
            "give every objective exactly one weight under the same name"
        )
    if negative := {name: weight for name, weight in weights.items() if not weight >= 0}:
        raise SatlightError(f"WeightedSum: weights must be 0 or more, got {negative}")
    if bad := [n for n in objectives if n in _RESERVED or "." in n or hasattr(nn.ModuleDict, n)]:
        raise SatlightError(
            f"WeightedSum: {bad} cannot name an objective: 'loss', names with a dot and methods of "
            "ModuleDict such as 'values' are reserved; choose another name, e.g. 'row' or 'column'"
        )
