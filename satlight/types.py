"""The contracts between the parts: candidate, request, capability, block, scores, ranking.

Shape legend, used as suffixes in all of satlight:

    N instructions and M candidates of a whole matrix
    B instructions and C candidates of a block
    S statements of one capability representation
    T tokens, D features
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from satlight.errors import SatlightError

if TYPE_CHECKING:  # records and the command line need Candidate, but must not wait for torch
    from pathlib import Path

    import numpy as np
    import torch
    from torch import Tensor

Score = TypeVar("Score", "float", "np.ndarray", "Tensor")

SPLITS = ("train", "validation", "test", "dropped")
"""Allowed values of an instruction's ``split``; "dropped" rows duplicate another split and are never used."""

Style = Literal["plain", "graded"]
"""Wording of a result, see :func:`satlight.capability.text.statement`."""


@dataclass(frozen=True, slots=True)
class Result:
    """Result of a candidate on one core task.

    Args:
        task: Name of the core task.
        keywords: About five words that describe the task.
        accuracy: Mean outcome on the core items, in [0, 1].
        items: Number of core items behind the accuracy; 0 = unknown.
        strength: Distance from the mean accuracy of the training candidates, in their standard deviations.

    Example:
        >>> Result("law", "Law, Courts", accuracy=0.85, items=20, strength=1.5).strength
        1.5
    """

    task: str
    keywords: str
    accuracy: float
    items: int = 0
    strength: float = 0.0


@dataclass(frozen=True, slots=True)
class Capability:
    """A capability representation c_m: results on the core tasks and expert notes.

    :mod:`satlight.capability.text` renders it as text.

    Args:
        results: One per core task that the candidate has outcomes on.
        notes: Expert knowledge, e.g. ``("It supports Chinese.",)``.
        style: Wording of the results.

    Example:
        >>> Capability(notes=("It supports Chinese.",)).results
        ()
    """

    results: tuple[Result, ...] = ()
    notes: tuple[str, ...] = ()
    style: Style = "plain"


def task_key(dataset: str, task: str) -> str:
    """Return the unique name of a task: two datasets may each have a task called "algebra".

    Example:
        >>> task_key("math", "algebra")
        'math/algebra'
    """
    return f"{dataset}/{task}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """An LLM that may be chosen.

    Args:
        model_id: Unique name, e.g. ``"mistralai/Mistral-7B-v0.1"``.
        institute: Who released it.
        params_b: Parameters in billions (total for mixtures of experts).
        release_date: ``"YYYY-MM"``.
        open_weights: Whether the weights are public.
        price_in: US dollars per million prompt tokens; None = unknown, 0 = free.
        price_out: US dollars per million generated tokens; None = unknown, 0 = free.
        tokens_out: Mean number of tokens that it generates per request; None = unknown.
        cost_usd: Mean cost of one of its calls in the log, in US dollars; None = unknown, 0 = free.
        notes: Expert knowledge added to its capability representation, e.g. ``("It supports Chinese.",)``.

    Example:
        >>> Candidate("tiny-7b", params_b=7.0).params_b
        7.0
    """

    model_id: str
    institute: str | None = None
    params_b: float | None = None
    release_date: str | None = None
    open_weights: bool | None = None
    price_in: float | None = None
    price_out: float | None = None
    tokens_out: float | None = None
    cost_usd: float | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """Input of a router: a text, with images if there are any.

    Args:
        text: The instruction.
        images: Image files, or the contents of such files, in the order in which the text refers to them.
        metadata: Further facts that callers want back, e.g. an id; routers do not read it.

    Example:
        >>> Request("What is 2 + 2?").images
        ()
    """

    text: str
    images: tuple[Path | bytes, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AptitudeResults:
    """Outcomes of one candidate on instructions that it has answered, usually the core items.

    Args:
        instruction_ids: L ids.
        texts: L instruction texts.
        outcomes: float32 (L,) in [0, 1].
        datasets: L dataset names; empty = unknown.
        images: L tuples of images as in a :class:`Request`; empty = no item has an image.

    Example:
        >>> import numpy as np
        >>> AptitudeResults(("a",), ("1+1?",), np.array([1.0], dtype=np.float32)).outcomes.shape
        (1,)
    """

    instruction_ids: tuple[str, ...]
    texts: tuple[str, ...]
    outcomes: np.ndarray
    datasets: tuple[str, ...] = ()
    images: tuple[tuple[Path | bytes, ...], ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.instruction_ids), len(self.texts), len(self.outcomes)}
        lengths |= {len(given) for given in (self.datasets, self.images) if given}
        if len(lengths) != 1 or not len(self.outcomes):
            raise SatlightError(
                f"Aptitude results need one id, text and outcome per item and at least one item, got "
                f"{len(self.instruction_ids)} ids, {len(self.texts)} texts, {len(self.outcomes)} outcomes, "
                f"{len(self.datasets)} datasets and {len(self.images)} tuples of images (the last two may be empty)"
            )
        if twice := [item for item, times in Counter(self.instruction_ids).items() if times > 1]:
            raise SatlightError(f"Aptitude results: the item {twice[0]!r} occurs twice; keep one outcome")
        for item, outcome in zip(self.instruction_ids, self.outcomes, strict=True):
            if not 0 <= outcome <= 1:  # also refuses NaN
                raise SatlightError(f"The outcome of item {item!r} is {outcome}; it must lie in [0, 1]")

    def requests(self) -> list[Request]:
        """Return the L items as what routers read: texts with their images."""
        images = self.images or [()] * len(self.texts)
        return [Request(text, own) for text, own in zip(self.texts, images, strict=True)]


@dataclass(frozen=True, slots=True)
class Temperature:
    """Calibration of log-odds: score / temperature + bias.

    Args:
        temperature: Above 0; above 1 where the scores are too confident.
        bias: In log-odds; above 0 where the scores are too low.
        candidates: Calibration of single candidates by name; the others have the one above.

    Raises:
        SatlightError: A temperature that is not above 0, or values that are not finite.

    Example:
        >>> Temperature(2.0, -1.0).apply(4.0)
        1.0
    """

    temperature: float = 1.0
    bias: float = 0.0
    candidates: dict[str, Temperature] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (0 < self.temperature < math.inf and math.isfinite(self.bias)):
            raise SatlightError(
                f"temperature is {self.temperature} and bias is {self.bias}; the temperature must be above 0 "
                "and both finite. Fit them again with fit_temperature."
            )

    def apply(self, score: Score, candidates: Sequence[str] = ()) -> Score:
        """Return calibrated log-odds, of any shape; with names, an array (..., C) with their columns."""
        if not (self.candidates and candidates):
            return score / self.temperature + self.bias
        import numpy as np

        own = [self.candidates.get(name, self) for name in candidates]
        return score / np.array([one.temperature for one in own]) + np.array([one.bias for one in own])  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores of B requests for C candidates.

    Args:
        log_odds_BC: float32 (B, C), as the method gives them; higher is better.
        probability_BC: float32 (B, C) in [0, 1], predicted Pr(correct), calibrated where the router is.
        candidates: C names, the columns.

    Example:
        >>> import numpy as np
        >>> scores = Scores(np.array([[0.0, 2.0]]), np.array([[0.5, 0.88]]), ("a", "b"))
        >>> scores.rankings(top_k=1)[0].best
        'b'
    """

    log_odds_BC: np.ndarray
    probability_BC: np.ndarray
    candidates: tuple[str, ...]

    def rankings(
        self,
        top_k: int | None = None,
        order_BC: np.ndarray | None = None,
        cost_BC: np.ndarray | None = None,
        rule: str = "best",
    ) -> list[Ranking]:
        """Return B rankings.

        Args:
            top_k: Keep the first K candidates; None = all.
            order_BC: Columns in the order of a decision rule; None = best first, and equal scores keep the order of
                the candidates.
            cost_BC: Expected costs to show, in US dollars, NaN = unknown; None = all unknown.
            rule: Text form of the rule that gave the order.
        """
        if order_BC is None:
            order_BC = (-self.log_odds_BC).argsort(axis=1, kind="stable")
        columns = [self.probability_BC, self.log_odds_BC, self.log_odds_BC * math.nan if cost_BC is None else cost_BC]

        def choice(b: int, c: int) -> Choice:
            probability, score, cost = (float(column[b, c]) for column in columns)
            return Choice(self.candidates[c], probability, score, None if math.isnan(cost) else cost)

        return [
            Ranking(tuple(choice(b, c) for c in order), rule) for b, order in enumerate(order_BC[:, :top_k].tolist())
        ]


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate for one request.

    Args:
        model_id: The candidate.
        probability: Predicted Pr(correct) in [0, 1], calibrated where the router is.
        score: Log-odds, as the method gives them.
        cost_usd: Expected cost in US dollars (:func:`satlight.costs.expected_costs`); None = unknown.
    """

    model_id: str
    probability: float
    score: float
    cost_usd: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON, numbers with the six digits of single precision: 0.0004, not 0.000399999."""
        return {name: float(f"{one:.6g}") if isinstance(one, float) else one for name, one in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Ranking:
    """Candidates for one request, in the order of a decision rule.

    Args:
        choices: The chosen candidate first.
        rule: Text form of the rule (:mod:`satlight.rules`).
    """

    choices: tuple[Choice, ...]
    rule: str = "best"

    @property
    def best(self) -> str:
        """The candidate to send the request to."""
        return self.choices[0].model_id

    def to_dict(self) -> dict[str, Any]:
        """Return {"route": the choice, "rule": its text, "ranking": [:meth:`Choice.to_dict`, ...]}."""
        return {"route": self.best, "rule": self.rule, "ranking": [choice.to_dict() for choice in self.choices]}


class Block:
    """A B × C piece of the score matrix: what a data module yields and a router scores.

    It is no dataclass: Lightning would convert the fields of one to the precision of the trainer, outcomes included.

    Args:
        instructions: B instruction texts.
        capabilities: C capability representations.
        rows: int64 (B,), row of each instruction in the whole matrix.
        columns: int64 (C,), column of each candidate in the whole matrix.
        groups: int64 (B,), number of the dataset each instruction belongs to.
        target_BC: float32 (B, C) outcomes in [0, 1]; None when predicting.
        known_BC: bool (B, C), False where no record exists; such cells never count.
        weight_BC: float32 (B, C) non-negative weights of the cells; None = all 1.
        images: B tuples of images, uint8 (H, W, 3) each, empty for an instruction without; None = no images at all.

    Example:
        >>> import torch
        >>> zero, capability = torch.tensor([0]), Capability(notes=("It is good at law.",))
        >>> block = Block(["2+2?"], [capability] * 2, zero, torch.tensor([0, 1]), zero)
        >>> block.shape
        (1, 2)
    """

    def __init__(
        self,
        instructions: list[str],
        capabilities: list[Capability],
        rows: Tensor,
        columns: Tensor,
        groups: Tensor,
        target_BC: Tensor | None = None,
        known_BC: Tensor | None = None,
        weight_BC: Tensor | None = None,
        images: list[tuple[np.ndarray, ...]] | None = None,
    ) -> None:
        self.instructions, self.capabilities, self.images = instructions, capabilities, images
        self.rows, self.columns, self.groups = rows, columns, groups
        self.target_BC, self.known_BC, self.weight_BC = target_BC, known_BC, weight_BC

    @property
    def shape(self) -> tuple[int, int]:
        """(B, C)."""
        return len(self.instructions), len(self.capabilities)

    def to(self, device: torch.device | str, **kwargs: Any) -> Block:
        """Return the same block with its tensors on ``device`` (Lightning calls this)."""
        from torch import Tensor

        moved: dict[str, Any] = {
            name: value.to(device, **kwargs) if isinstance(value, Tensor) else value
            for name, value in vars(self).items()
        }
        return Block(**moved)


@dataclass(frozen=True)
class Stage:
    """A stage of training: the rows it draws, the parts it trains and the span of its learning-rate schedule.

    A callback decides it (:class:`~satlight.callbacks.TwoStageTuning`); the data module reads it in its
    attribute ``stage``, the module in its method ``enter``.

    Args:
        name: Shown in messages.
        in_domain_only: Draw only instructions whose task is a core task.
        trainable: Top-level parts of the module to train; None = every part that the config does not freeze.
        first_step: Optimizer step at which the stage starts.
        end_step: Optimizer step at which it ends, exclusive; None = the end of the run.

    Example:
        >>> Stage("connectors", trainable=("projector",)).trains("projector.linear.weight")
        True
    """

    name: str = "everything"
    in_domain_only: bool = False
    trainable: tuple[str, ...] | None = None
    first_step: int = 0
    end_step: int | None = None

    def trains(self, parameter: str) -> bool:
        """Return whether the stage trains the parameter of this name."""
        return self.trainable is None or parameter.partition(".")[0] in self.trainable
