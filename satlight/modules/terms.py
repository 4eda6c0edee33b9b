"""The contract of terms: optional parts of Model-SAT that read the encoder's vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from torch import Tensor

from satlight.modules.precision import Float32
from satlight.modules.projector import Projector
from satlight.storage.classes import Configured


@dataclass(frozen=True)
class Reading:
    """Vectors and results that the capability encoder reads in a block: the input of a :class:`ScoreTerm`.

    Args:
        instruction_BD: Unit vectors of B instructions.
        capability_CD: Capability vectors ψ(c) of C candidates.
        standard_CD: Standardized capability vectors (ψ(c) - μ) / σ, see
            :class:`~satlight.modules.projector.Projector`.
        read_results: Computes :attr:`results`; called only if a term uses them.
        image_BVD: V standardized tokens of the images of each instruction, the mean over its images and 0 without
            one; None = no instruction has an image.
        has_image_B: bool, True where an instruction has an image; None likewise.
    """

    instruction_BD: Tensor
    capability_CD: Tensor
    standard_CD: Tensor
    read_results: Callable[[], tuple[Tensor, Tensor]]
    image_BVD: Tensor | None = None
    has_image_B: Tensor | None = None

    @cached_property
    def results(self) -> tuple[Tensor, Tensor]:
        """Unit vectors of T core tasks (T, D) and results of the candidates in standard deviations (C, T).

        A result is NaN where a candidate has none.
        """
        return self.read_results()


class Term(Float32, Configured):
    """An optional part of :class:`~satlight.modules.ModelSAT`; it trains with the rate of the projector.

    Its inputs and weights are float32 in every precision of the trainer.
    """

    name: ClassVar[str]
    """Attribute of the model, and so the first part of the keys of its weights."""
    connector: ClassVar[bool] = True
    """True if stage 1 of two-stage tuning trains it."""
    needs_images: ClassVar[bool] = False
    """True if it needs a model with a vision encoder."""

    def connect(self, in_features: int, out_features: int, token_norm: float) -> None:
        """Build the layers; the model calls this once.

        Args:
            in_features: Width of the encoder's vectors.
            out_features: Width of the router LLM's embeddings.
            token_norm: Typical Euclidean norm of a token embedding.
        """

    def connect_images(self, tokens: int, width: int) -> None:
        """Learn the shape of the tokens of an image; a model with a vision encoder calls this before :meth:`connect`.

        Args:
            tokens: V, tokens of an image.
            width: Width of one.
        """


class ScoreTerm(Term):
    """A term that is added to the score of the router LLM: subclass it to add one.

    Example:
        >>> import torch
        >>> class Cosine(ScoreTerm):
        ...     name = "cosine"
        ...     def forward(self, reading):
        ...         return reading.instruction_BD @ reading.standard_CD.T
        >>> Cosine()(Reading(torch.ones(5, 4), torch.ones(3, 4), torch.ones(3, 4), lambda: None)).shape
        torch.Size([5, 3])
    """

    order_invariant: ClassVar[bool] = False
    """True if it ignores the order of the results, so that perturbations need not compute it again."""

    def forward(self, reading: Reading) -> Tensor:
        """Return the log-odds to add: float (B, C)."""
        raise NotImplementedError


class InstructionVector(Projector, Term):
    """A projector of the instruction's vector: one more token that the router LLM reads before the text."""

    name: ClassVar[str] = "instruction_projector"

    def __init__(self) -> None:
        super().__init__(standardize=False)
