"""The capability representation as text, and the prompt around an instruction that asks for the score.

Shape legend: T core tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, get_args

import numpy as np

from satlight.errors import SatlightError
from satlight.types import Capability, Result, Style

if TYPE_CHECKING:
    from satlight.capability.aptitude import AptitudeTest
    from satlight.records.matrix import PerformanceRecords
    from satlight.types import AptitudeResults

PERFORMANCE_INQUIRY = "Would this model answer the instruction correctly? Reply with Yes or No."
"""The performance inquiry prompt p [Zhang et al. 2025, Eq. 3-4]; the score is Pr(Yes) as its answer."""

PROMPT_PREFIX = "Instruction: "
"""Text in front of the instruction."""

GRADES = (
    (-1.5, "far below average"),
    (-0.75, "below average"),
    (-0.25, "slightly below average"),
    (0.25, "about average"),
    (0.75, "slightly above average"),
    (1.5, "above average"),
    (float("inf"), "far above average"),
)
"""Upper end of :attr:`~satlight.types.Result.strength` (exclusive) and its wording."""

SMALLEST_STD = 0.05
"""One item of twenty: smaller differences between candidates are not called below or above average."""


@lru_cache(maxsize=100_000)
def statement(result: Result, style: Style = "plain") -> str:
    """Render one result as a full sentence, so that it can be encoded alone.

    Args:
        result: The result.
        style: ``plain``, or ``graded`` to add a comparison with the training candidates.

    Example:
        >>> result = Result("sums", "Mathematics, Equations", accuracy=0.85, strength=2.0)
        >>> statement(result, "graded")
        'The model achieves accuracy 85.0% (far above average) on the task of "Mathematics, Equations".'
    """
    grade = ""
    if style == "graded":
        bounds = [bound for bound, _ in GRADES]
        place = min(int(np.searchsorted(bounds, result.strength, side="right")), len(GRADES) - 1)
        grade = f" ({GRADES[place][1]})"
    achieved = f"{100 * result.accuracy:.1f}%{grade}"
    return f'The model achieves accuracy {achieved} on the task of "{result.keywords}".'


def statements(capability: Capability) -> tuple[str, ...]:
    """Render a capability representation: a sentence per result, then the notes.

    Joined by spaces they are the text c_m.

    Example:
        >>> statements(Capability((Result("sums", "Mathematics", 0.85),), ("It supports Chinese.",)))
        ('The model achieves accuracy 85.0% on the task of "Mathematics".', 'It supports Chinese.')

    Reference:
        Zhang et al. 2025, model representation c_m.
    """
    return (*(statement(result, capability.style) for result in capability.results), *capability.notes)


def represent(
    test: AptitudeTest,
    accuracies: np.ndarray,
    items: np.ndarray | None = None,
    notes: Sequence[str] = (),
    order: Sequence[int] | np.ndarray | np.random.Generator | None = None,
    style: Style = "plain",
) -> Capability:
    """Build the capability representation c_m of one candidate.

    Args:
        test: The aptitude test with T tasks.
        accuracies: float (T,) in [0, 1]; tasks with NaN are left out.
        items: int (T,), core items behind each accuracy; None = unknown.
        notes: Expert knowledge, e.g. ``("It supports Chinese.",)``; always last.
        order: Permutation of the T tasks; or a generator to draw one; None = the order of the test.
        style: ``plain``, or ``graded`` to add a comparison with the candidates the test was designed on.

    Returns:
        A result per task with an accuracy, then the notes.

    Raises:
        SatlightError: Accuracies out of range or of another length, an order that is no permutation, an
            unknown style, or ``graded`` for a test without reference accuracies.

    Example:
        >>> from satlight.capability import AptitudeTest, CoreTask
        >>> task = CoreTask("sums", "Mathematics, Equations", ("a",), ("1+1?",))
        >>> test = AptitudeTest((task,), reference_mean=(0.5,), reference_std=(0.1,))
        >>> round(represent(test, np.array([0.85])).results[0].strength, 6)
        3.5

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
    if style not in get_args(Style):
        raise SatlightError(f"Got the capability style '{style}'; allowed: plain, graded.")
    if style == "graded" and not test.has_reference:
        raise SatlightError(
            "The capability style 'graded' needs reference accuracies, but this aptitude test has none. "
            "Use the style 'plain', or design the test with AptitudeTest.design."
        )
    if test.has_reference:
        z = (values - np.array(test.reference_mean)) / np.maximum(test.reference_std, SMALLEST_STD)
    else:
        z = (values - 0.5) / 0.25  # half right is average
    counts = np.zeros(len(values), dtype=int) if items is None else items
    results = tuple(
        Result(task.name, task.keywords, float(values[t]), int(counts[t]), float(z[t]))
        for t in _permutation(order, len(values))
        if not np.isnan(values[t])
        for task in (test.tasks[t],)
    )
    return Capability(results, tuple(notes), style)


def _permutation(order: Sequence[int] | np.ndarray | np.random.Generator | None, size: int) -> list[int]:
    if order is None:
        return list(range(size))
    if isinstance(order, np.random.Generator):
        return order.permutation(size).tolist()
    tasks = [int(t) for t in order]
    if sorted(tasks) != list(range(size)):
        raise SatlightError(f"Got an order of {len(tasks)} tasks; it must hold each of 0 to {size - 1} once.")
    return tasks


@dataclass(frozen=True)
class CapabilityText:
    """Settings of capability representations.

    Args:
        shots: Core items per task that count; None = all.
        style: "plain" or "graded" (:func:`represent`).
        order_seed: Non-negative: one fixed shuffled order of the tasks for all candidates; None = the order
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
        """Write the capability representations of candidates, each with its own expert notes.

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
        accuracies, items = test.measure(records, model_ids, shots=self.shots, rng=rng)
        notes = {candidate.model_id: candidate.notes for candidate in records.candidates}
        wanted = records.model_ids if model_ids is None else list(model_ids)
        order = self._order(test)
        return [
            represent(test, row, count, notes[model_id], order, self.style)
            for model_id, row, count in zip(wanted, accuracies, items, strict=True)
        ]

    def of(self, test: AptitudeTest, results: AptitudeResults, notes: Sequence[str] = ()) -> Capability:
        """Return the capability representation of one candidate from its results on the core items.

        Args:
            test: The aptitude test.
            results: Outcomes on core items, found by their ids.
            notes: Expert knowledge of the candidate.

        Raises:
            SatlightError: Results on no core item.
        """
        accuracies, items = test.measure_one(results, self.shots)
        return represent(test, accuracies, items, notes, self._order(test), self.style)

    def _order(self, test: AptitudeTest) -> np.ndarray | None:
        if self.order_seed is None:
            return None
        return np.random.default_rng(self.order_seed).permutation(len(test.tasks))


def perturbations(capability: Capability, n: int, seed: int = 0) -> list[Capability]:
    """Return the same capability with its results in ``n`` shuffled orders, for perturbation evaluation.

    Expert notes stay last. The first k orders are the same for every n ≥ k.

    Args:
        capability: Results and notes.
        n: Number of orders, at least 1.
        seed: Non-negative seed.

    Raises:
        SatlightError: n below 1.

    Example:
        >>> c = Capability((Result("a", "A", 0.1), Result("b", "B", 0.2)), ("It is new.",))
        >>> [len(p.results) for p in perturbations(c, 2)]
        [2, 2]

    Reference:
        Zhang et al. 2025, perturbation of the model representation at inference.
    """
    if n < 1:
        raise SatlightError(f"Got {n} perturbations; allowed: at least 1.")
    results = capability.results
    orders = (np.random.default_rng([seed, k]).permutation(len(results)) for k in range(n))
    return [replace(capability, results=tuple(results[i] for i in order)) for order in orders]
