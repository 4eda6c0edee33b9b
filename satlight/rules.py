"""Decision rules: which candidate a request is sent to, given Pr(correct) and expected cost of each.

Shape legend: B requests and C candidates.

| text | rule | choice |
|---|---|---|
| ``best`` | :class:`BestQuality` | the highest probability |
| ``cheapest@0.9`` | :class:`CheapestAtLeast` | the cheapest with probability ≥ 0.9, else the highest probability |
| ``budget@0.002`` | :class:`WithinBudget` | the highest probability − threshold · cost, fitted to the budget |
| ``utility@50`` | :class:`Utility` | the highest probability − 50 · cost |

Ties go to the lower cost, then to the candidate that comes first in the zoo. Costs are US dollars per request.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from satlight.errors import SatlightError
from satlight.storage.classes import Configured


class Rule(Configured, ABC):
    """Choose among candidates by Pr(correct) and expected cost; the base class of all rules.

    A subclass defines :meth:`keys` and :attr:`text`; it is stored in router folders with its constructor arguments.

    Attributes:
        needs_costs: Whether the expected cost of every candidate must be known.
    """

    needs_costs: ClassVar[bool] = True

    @property
    @abstractmethod
    def text(self) -> str:
        """Text form, as :func:`parse_rule` reads it."""

    @abstractmethod
    def keys(self, probability_BC: np.ndarray, cost_BC: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return what candidates are sorted by, ascending, the most important first; (B, C) each."""

    def order(self, probability_BC: np.ndarray, cost_BC: np.ndarray | None = None) -> np.ndarray:
        """Rank the candidates of every request.

        Args:
            probability_BC: Pr(correct) (B, C); minus infinity ranks a candidate last.
            cost_BC: Expected costs, (B, C) or (C,); NaN = unknown, which counts as the highest where the rule
                does not need costs. None = all unknown.

        Returns:
            int64 (B, C), columns: the choice first, the others in the rule's own order.

        Raises:
            SatlightError: NaN among the probabilities, or an unknown cost where the rule needs it.

        Example:
            >>> CheapestAtLeast(0.5).order(np.array([[0.2, 0.9, 0.6]]), np.array([1.0, 3.0, 2.0])).tolist()
            [[2, 1, 0]]
        """
        return np.lexsort(self._keys(probability_BC, cost_BC)[::-1], axis=1)

    def choose(self, probability_BC: np.ndarray, cost_BC: np.ndarray | None = None) -> np.ndarray:
        """Choose a candidate for every request: int64 (B,), the first column of :meth:`order`, without sorting.

        Example:
            >>> Utility(0.4).choose(np.array([[0.6, 0.9]]), np.array([1.0, 2.0])).tolist()
            [0]
        """
        left_BC = np.ones(np.shape(probability_BC), dtype=bool)
        for key_BC in self._keys(probability_BC, cost_BC):
            masked_BC = np.where(left_BC, key_BC, np.inf)
            left_BC &= masked_BC == masked_BC.min(axis=1, keepdims=True)
        return left_BC.argmax(axis=1)

    def _keys(self, probability_BC: np.ndarray, cost_BC: np.ndarray | None) -> tuple[np.ndarray, ...]:
        probability_BC = np.asarray(probability_BC)
        if np.isnan(probability_BC).any():
            raise SatlightError(f"The rule {self.text} got probabilities that are NaN; give numbers in [0, 1]")
        cost = np.asarray(np.nan if cost_BC is None else cost_BC, dtype=np.float64)
        if self.needs_costs and not np.isfinite(cost).all():
            raise SatlightError(
                f"The rule {self.text} needs a finite cost of every candidate; {int((~np.isfinite(cost)).sum())} of "
                f"{cost.size} are unknown. Give prices, or use the rule 'best'"
            )
        cost_BC = np.broadcast_to(np.where(np.isnan(cost), np.inf, cost), probability_BC.shape)
        return self.keys(probability_BC, cost_BC)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in self.init_args.items())})"


class BestQuality(Rule):
    """Choose the highest probability, whatever it costs.

    Example:
        >>> BestQuality().choose(np.array([[0.9, 0.9, 0.1]]), np.array([3.0, 2.0, 1.0])).tolist()
        [1]
    """

    needs_costs = False
    text = "best"

    def keys(self, probability_BC: np.ndarray, cost_BC: np.ndarray) -> tuple[np.ndarray, ...]:
        return -probability_BC, cost_BC


class CheapestAtLeast(Rule):
    """Choose the cheapest candidate that is good enough; if there is none, the highest probability.

    Args:
        target: Quality to reach, in [0, 1].
        threshold: Minimum probability of a good-enough candidate; None = ``target``. ``satlight calibrate`` fits it
            so that the mean outcome on validation rows meets the target.

    Raises:
        SatlightError: A target outside [0, 1], or a threshold that is not finite.

    Example:
        >>> probability, cost = np.array([[0.7, 0.95, 0.99], [0.1, 0.5, 0.6]]), np.array([1.0, 2.0, 3.0])
        >>> CheapestAtLeast(0.9).choose(probability, cost).tolist()
        [1, 2]
    """

    def __init__(self, target: float, threshold: float | None = None) -> None:
        if not 0 <= target <= 1:
            raise SatlightError(f"The target of the rule 'cheapest' is {target}; it is a probability, from 0 to 1")
        if threshold is not None and not math.isfinite(threshold):
            raise SatlightError(f"The threshold of the rule 'cheapest' is {threshold}; it must be finite")
        self.target, self.threshold = target, target if threshold is None else threshold

    @property
    def text(self) -> str:
        return f"cheapest@{_number(self.target)}"

    def keys(self, probability_BC: np.ndarray, cost_BC: np.ndarray) -> tuple[np.ndarray, ...]:
        # In the precision of the probabilities: 0.9 as float32 is just below 0.9.
        enough_BC = probability_BC >= probability_BC.dtype.type(self.threshold)
        first_BC, second_BC = np.where(enough_BC, (cost_BC, -probability_BC), (-probability_BC, cost_BC))
        return ~enough_BC, first_BC, second_BC


class Utility(Rule):
    """Choose the highest probability − ``usd_weight`` · cost.

    Args:
        usd_weight: Probability that one US dollar is worth, 0 or more; infinity = the lowest cost, ties by the
            highest probability.

    Raises:
        SatlightError: A weight below 0 or NaN.
    """

    def __init__(self, usd_weight: float) -> None:
        if not usd_weight >= 0:
            raise SatlightError(
                f"The weight of the rule 'utility' is {usd_weight}; it is the probability that one US dollar is worth, "
                "0 or more"
            )
        self.usd_weight = usd_weight

    @property
    def text(self) -> str:
        return f"utility@{_number(self.usd_weight)}"

    def keys(self, probability_BC: np.ndarray, cost_BC: np.ndarray) -> tuple[np.ndarray, ...]:
        return _by_utility(probability_BC, cost_BC, self.usd_weight)


class WithinBudget(Rule):
    """Choose the best quality at a mean cost of at most ``usd`` per request.

    The best choices under a budget for the mean cost maximize probability − threshold · cost, where the threshold is
    the Lagrange multiplier of the budget. ``satlight calibrate`` fits it on validation rows; a single request may cost
    more.

    Args:
        usd: Mean US dollars per request, above 0.
        threshold: Probability that one US dollar is worth; None = not fitted, so that nothing can be chosen.

    Raises:
        SatlightError: A budget that is not above 0, or a threshold below 0 or not finite.

    Example:
        >>> probability, cost = np.array([[0.5, 0.9], [0.8, 0.9]]), np.array([0.001, 0.003])
        >>> WithinBudget(0.002, threshold=100.0).choose(probability, cost).tolist()
        [1, 0]
    """

    def __init__(self, usd: float, threshold: float | None = None) -> None:
        if not 0 < usd < math.inf:
            raise SatlightError(f"The budget is {usd} US dollars per request; it must be above 0 and finite")
        if threshold is not None and not 0 <= threshold < math.inf:
            raise SatlightError(f"The threshold of the rule 'budget' is {threshold}; it must be 0 or more and finite")
        self.usd, self.threshold = usd, threshold

    @property
    def text(self) -> str:
        return f"budget@{_number(self.usd)}"

    def keys(self, probability_BC: np.ndarray, cost_BC: np.ndarray) -> tuple[np.ndarray, ...]:
        if self.threshold is None:
            raise SatlightError(
                f"The rule {self.text} has no threshold: it is fitted to the budget on validation rows. Run `satlight "
                f"calibrate DIR --budget {_number(self.usd)}`, which saves the rule in the router folder, or use "
                "utility@X"
            )
        return _by_utility(probability_BC, cost_BC, self.threshold)


def _by_utility(probability_BC: np.ndarray, cost_BC: np.ndarray, weight: float) -> tuple[np.ndarray, ...]:
    if math.isinf(weight):
        return np.isneginf(probability_BC), cost_BC, -probability_BC
    return weight * cost_BC - probability_BC.astype(np.float64), cost_BC


# -- text form ---------------------------------------------------------------------------------------------

_NUMBERED: dict[str, tuple[Callable[[float], Rule], str]] = {
    "cheapest": (CheapestAtLeast, "a quality from 0 to 1, e.g. cheapest@0.9"),
    "budget": (WithinBudget, "US dollars per request, e.g. budget@0.002"),
    "utility": (Utility, "the probability that one US dollar is worth, e.g. utility@50"),
}


def parse_rule(text: str) -> Rule:
    """Read the text form of a rule, as on the command line and in model names of the server.

    Raises:
        SatlightError: No such rule, a number that is missing or not one, or out of its range.

    Example:
        >>> parse_rule("cheapest@0.9")
        CheapestAtLeast(target=0.9, threshold=None)
        >>> parse_rule("best").text
        'best'
    """
    name, at, number = text.strip().partition("@")
    if name == BestQuality.text and not at:
        return BestQuality()
    if name not in _NUMBERED:
        raise SatlightError(
            f"{text!r:.80} is no decision rule; allowed are best, cheapest@PROBABILITY, budget@USD and utility@WEIGHT"
        )
    make, meaning = _NUMBERED[name]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SatlightError(f"{text!r:.80}: after {name}@ comes {meaning}")
    return make(value)


def _number(value: float) -> str:
    return f"{value:.15g}"


def rule_from(content: Any, where: str) -> Rule:
    """Check that a part of a router folder is a rule; None = :class:`BestQuality`.

    Raises:
        SatlightError: Something else.
    """
    if content is None:
        return BestQuality()
    if not isinstance(content, Rule):
        raise SatlightError(
            f"{where}: rule is a {type(content).__name__}; allowed are subclasses of satlight.rules.Rule"
        )
    return content
