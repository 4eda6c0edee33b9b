"""The contract between data and modules: a candidate, an instruction, a block of the score matrix.

Shape legend, used as suffixes all over satlight:

    N instructions and M candidates of a whole matrix
    B instructions and C candidates of a block
    S statements of one capability representation
    T tokens, D features
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # records and the command line need Candidate, but must not wait for torch
    import torch
    from torch import Tensor

Capability = tuple[str, ...]
"""A capability representation: a statement per core task, then notes; joined by spaces it is the text c_m."""


class Result(str):
    """A statement that is the result on one core task: text like any other, and its meaning in numbers.

    Args:
        text: The statement.
        about: Keywords of the task.
        strength: How far the accuracy lies above the mean of the training candidates, in their standard
            deviations.

    Example:
        >>> result = Result('The model achieves accuracy 85.0% ...', about="Law", strength=1.5)
        >>> result.startswith("The model"), result.about, result.strength
        (True, 'Law', 1.5)
    """

    about: str
    strength: float

    def __new__(cls, text: str, about: str, strength: float) -> Result:
        result = super().__new__(cls, text)
        result.about, result.strength = about, float(strength)
        return result

    def __getnewargs__(self) -> tuple[str, str, float]:  # type: ignore[override]
        return str(self), self.about, self.strength


@dataclass(frozen=True, slots=True)
class Candidate:
    """An LLM that may be chosen.

    Args:
        model_id: Unique name, e.g. ``"mistralai/Mistral-7B-v0.1"``.
        institute: Who released it.
        params_b: Parameters in billions (total for mixtures of experts).
        release_date: ``"YYYY-MM"``.
        open_weights: Whether the weights are public.
        price_in: US dollars per million prompt tokens; None = unknown, never 0.
        price_out: US dollars per million generated tokens; None = unknown, never 0.
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
    notes: tuple[str, ...] = ()


@dataclass
class Block:
    """A B × C piece of the score matrix: what a data module yields and a router scores.

    Args:
        instructions: B instruction texts.
        capabilities: C capability representations (:data:`Capability`).
        rows: int64 (B,), row of each instruction in the whole matrix.
        columns: int64 (C,), column of each candidate in the whole matrix.
        groups: int64 (B,), number of the dataset each instruction belongs to.
        target_BC: float32 (B, C) outcomes in [0, 1]; None when predicting.
        known_BC: bool (B, C), False where no record exists; such cells never count.
        weight_BC: float32 (B, C) non-negative weights of the cells; None = all 1.

    Example:
        >>> import torch
        >>> zero, capability = torch.tensor([0]), ("The model achieves ...",)
        >>> block = Block(["2+2?"], [capability] * 2, zero, torch.tensor([0, 1]), zero)
        >>> block.shape
        (1, 2)
    """

    instructions: list[str]
    capabilities: list[Capability]
    rows: Tensor
    columns: Tensor
    groups: Tensor
    target_BC: Tensor | None = None
    known_BC: Tensor | None = None
    weight_BC: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(B, C)."""
        return len(self.instructions), len(self.capabilities)

    def to(self, device: torch.device | str, **kwargs: Any) -> Block:
        """The same block with its tensors on ``device`` (Lightning calls this)."""
        from torch import Tensor

        tensors: dict[str, Any] = {
            f.name: value.to(device, **kwargs)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **tensors)


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
