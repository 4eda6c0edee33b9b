"""The capability representation as text, and the words around an instruction that ask for the routing score.

Shape legend: T core tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from satlight.capability.aptitude import AptitudeTest
from satlight.errors import SatlightError
from satlight.types import Result

if TYPE_CHECKING:
    from satlight.records.matrix import PerformanceRecords
    from satlight.types import Capability

PERFORMANCE_INQUIRY = "Would this model answer the instruction correctly? Reply with Yes or No."
"""The performance inquiry prompt p [Zhang et al. 2025, Eq. 3-4]; the score is Pr(Yes) as its answer."""

PROMPT_PREFIX = "Instruction: "
"""What stands before the instruction."""


STATEMENT_START = "The model achieves accuracy "

GRADES = (
    (-1.5, "far below average"),
    (-0.75, "below average"),
    (-0.25, "slightly below average"),
    (0.25, "about average"),
    (0.75, "slightly above average"),
    (1.5, "above average"),
    (float("inf"), "far above average"),
)
"""Upper end of the z-score (exclusive) and the words for it."""

SMALLEST_STD = 0.05
"""One item of twenty: smaller differences between candidates are not called below or above average."""

Style = Literal["plain", "graded"]


def represent(
    test: AptitudeTest,
    accuracies: np.ndarray,
    notes: Sequence[str] = (),
    order: Sequence[int] | np.ndarray | np.random.Generator | None = None,
    style: Style = "plain",
) -> Capability:
    """The capability representation c_m of one candidate: a statement per core task, then expert notes.

    Each statement is a full sentence, so that it can be encoded alone; joined by spaces they
    are the text c_m.

    Args:
        test: The aptitude test with T tasks.
        accuracies: float (T,) in [0, 1]; tasks with NaN are left out.
        notes: Expert knowledge, e.g. ``("It supports Chinese.",)``; always last.
        order: Permutation of the T tasks; or a generator to draw one; None = the order of the test.
        style: "plain", or "graded" to add a comparison with the candidates the test was designed on.

    Returns:
        Statements, then notes.

    Raises:
        SatlightError: Accuracies out of range or of another length, an order that is no permutation, an
            unknown style, or "graded" for a test without reference accuracies.

    Example:
        >>> from satlight.capability import CoreTask
        >>> task = CoreTask("sums", "Mathematics, Equations", ("a",), ("1+1?",))
        >>> test = AptitudeTest((task,), reference_mean=(0.5,), reference_std=(0.1,))
        >>> represent(test, np.array([0.85]), notes=("It supports Chinese.",))
        ('The model achieves accuracy 85.0% on the task of "Mathematics, Equations".', 'It supports Chinese.')
        >>> represent(test, np.array([0.85]), style="graded")
        ('The model achieves accuracy 85.0% (far above average) on the task of "Mathematics, Equations".',)

    Reference:
        Zhang et al. 2025, model representation c_m.
    """
    values = np.asarray(accuracies, dtype=np.float64)
    if values.shape != (len(test.tasks),):
        raise SatlightError(
            f"Got accuracies of shape {values.shape} for an aptitude test of {len(test.tasks)} tasks; "
            "give one accuracy per task, e.g. a row of test.results(records)."
        )
    if ((values < 0) | (values > 1)).any():
        wrong = int(np.flatnonzero((values < 0) | (values > 1))[0])
        raise SatlightError(
            f"Got the accuracy {values[wrong]:g} on the task '{test.tasks[wrong].name}'; "
            "allowed: 0 to 1, or NaN for unknown."
        )
    if style not in ("plain", "graded"):
        raise SatlightError(f"Got the capability style '{style}'; allowed: plain, graded.")
    words = _grades(test, values) if style == "graded" else [""] * len(values)
    z = _standardised(test, values)
    statements = [
        Result(
            f'{STATEMENT_START}{100 * values[t]:.1f}%{words[t]} on the task of "{test.tasks[t].keywords}".',
            about=test.tasks[t].keywords,
            strength=z[t],
        )
        for t in _permutation(order, len(values))
        if not np.isnan(values[t])
    ]
    return (*statements, *notes)


def _standardised(test: AptitudeTest, values: np.ndarray) -> np.ndarray:
    """Accuracies in standard deviations from the mean of the candidates the test was designed on."""
    if len(test.reference_mean) != len(test.tasks) or len(test.reference_std) != len(test.tasks):
        return (values - 0.5) / 0.25  # a test without references: half right is average
    return (values - np.array(test.reference_mean)) / np.maximum(test.reference_std, SMALLEST_STD)


def _permutation(order: Sequence[int] | np.ndarray | np.random.Generator | None, size: int) -> list[int]:
    if order is None:
        return list(range(size))
    if isinstance(order, np.random.Generator):
        return order.permutation(size).tolist()
    tasks = [int(t) for t in order]
    if sorted(tasks) != list(range(size)):
        raise SatlightError(f"Got an order of {len(tasks)} tasks; it must hold each of 0 to {size - 1} once.")
    return tasks


def _grades(test: AptitudeTest, values: np.ndarray) -> list[str]:
    """The words in brackets for each accuracy, with a leading space."""
    if len(test.reference_mean) != len(test.tasks) or len(test.reference_std) != len(test.tasks):
        raise SatlightError(
            "The capability style 'graded' needs reference accuracies, but this aptitude test has none. "
            "Use the style 'plain', or design the test with AptitudeTest.design."
        )
    z = _standardised(test, values)
    bounds = np.array([bound for bound, _ in GRADES])
    # NaN sorts behind infinity; such tasks get no statement, so any grade serves.
    grade = np.minimum(np.searchsorted(bounds, z, side="right"), len(GRADES) - 1)
    return [f" ({GRADES[g][1]})" for g in grade]


@dataclass(frozen=True)
class CapabilityText:
    """How capability representations are written.

    Args:
        shots: Core items per task that count; None = all.
        style: "plain" or "graded" (:func:`represent`).
        order_seed: Not negative: one fixed shuffled order of the tasks for all candidates; None = the order
            of the test.

    Example:
        >>> CapabilityText(shots=10, style="graded").shots
        10
    """

    shots: int | None = None
    style: Style = "plain"
    order_seed: int | None = None

    def write(
        self,
        test: AptitudeTest,
        records: PerformanceRecords,
        model_ids: Sequence[str] | None = None,
        rng: np.random.Generator | None = None,
    ) -> list[Capability]:
        """Capability representations of candidates, each with its own expert notes.

        Args:
            test: The aptitude test.
            records: Records with outcomes on its core items.
            model_ids: M candidates; None = all of the records.
            rng: Resample the core items (:meth:`AptitudeTest.results`), for training augmentation.

        Returns:
            M representations.

        Raises:
            SatlightError: As :meth:`AptitudeTest.results` and :func:`represent`.
        """
        accuracies = test.results(records, model_ids, shots=self.shots, rng=rng)
        notes = {candidate.model_id: candidate.notes for candidate in records.candidates}
        wanted = records.model_ids if model_ids is None else list(model_ids)
        order = None
        if self.order_seed is not None:
            order = np.random.default_rng(self.order_seed).permutation(len(test.tasks))
        return [
            represent(test, row, notes[model_id], order, self.style)
            for model_id, row in zip(wanted, accuracies, strict=True)
        ]


def perturbations(capability: Capability, n: int, seed: int = 0) -> list[Capability]:
    """The same capability with its statements in ``n`` shuffled orders, for perturbation evaluation.

    Expert notes stay last. The first k orders are the same for every n ≥ k.

    Args:
        capability: Statements, then notes.
        n: How many, at least 1.
        seed: Not negative.

    Returns:
        ``n`` capabilities.

    Raises:
        SatlightError: n below 1.

    Example:
        >>> c = ("The model achieves accuracy 1.0% ...", "The model achieves accuracy 2.0% ...", "It is new.")
        >>> [p[-1] for p in perturbations(c, 2)]
        ['It is new.', 'It is new.']

    Reference:
        Zhang et al. 2025, perturbation of the model representation at inference.
    """
    if n < 1:
        raise SatlightError(f"Got {n} perturbations; allowed: at least 1.")
    statements = [text for text in capability if text.startswith(STATEMENT_START)]
    notes = [text for text in capability if not text.startswith(STATEMENT_START)]
    orders = (np.random.default_rng([seed, k]).permutation(len(statements)) for k in range(n))
    return [(*(statements[i] for i in order), *notes) for order in orders]
