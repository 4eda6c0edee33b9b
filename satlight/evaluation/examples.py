"""Instructions that a router sent to the wrong candidate, to look at.

Shape legend: N instructions and M candidates of the records.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


@dataclass(frozen=True)
class Example:
    """An instruction, the candidate that a router chose for it, and those that would have been better.

    Args:
        instruction_id: Id of the instruction.
        dataset: Its dataset.
        text: Its text.
        images: Its image files.
        choice: The chosen candidate.
        outcome: Outcome of the choice in [0, 1].
        best: The candidates with the best known outcome.
        best_outcome: That outcome.
    """

    instruction_id: str
    dataset: str
    text: str
    images: tuple[str, ...]
    choice: str
    outcome: float
    best: tuple[str, ...]
    best_outcome: float


def missed(records: PerformanceRecords, choice_N: np.ndarray, limit: int) -> list[Example]:
    """Return the instructions on which the choice lost most against the best candidate.

    Among equal losses, those come first that more candidates would have solved: the router had many ways to be right.

    Args:
        records: N instructions.
        choice_N: int64 (N,), columns of the chosen candidates; -1 = no choice.
        limit: Maximum number of instructions.

    Returns:
        At most ``limit`` examples with a loss above 0, in equal shares of the datasets as far as possible.

    Example:
        >>> from satlight.records import open_records
        >>> from satlight.records.sources import SimulatedSpec
        >>> records = open_records("simulated", simulated=SimulatedSpec(num_instructions=500, num_candidates=4))
        >>> examples = missed(records, np.zeros(500, dtype=int), limit=2)
        >>> [(example.choice == records.model_ids[0], example.outcome) for example in examples]
        [(True, 0.0), (True, 0.0)]
    """
    outcome_NM = np.where(records.known, records.outcomes, -1.0)
    best_N = outcome_NM.max(axis=1)
    own_N = outcome_NM[np.arange(len(choice_N)), choice_N]
    lost_N = np.where((choice_N >= 0) & (own_N >= 0), best_N - own_N, 0.0)
    worst_first = np.lexsort((-(outcome_NM == best_N[:, None]).mean(axis=1), -lost_N))
    worst_first = worst_first[lost_N[worst_first] > 0]
    turn: dict[str, int] = {}
    place_N = [turn.update({name: turn.get(name, -1) + 1}) or turn[name] for name in records.datasets[worst_first]]
    rows = worst_first[np.argsort(place_N, kind="stable")][:limit]
    ids = records.instructions["instruction_id"].to_list()
    return [
        Example(
            str(ids[row]),
            str(records.datasets[row]),
            records.texts[row],
            records.images[row],
            records.model_ids[choice_N[row]],
            float(own_N[row]),
            tuple(records.model_ids[m] for m in np.flatnonzero(outcome_NM[row] == best_N[row])),
            float(best_N[row]),
        )
        for row in rows.tolist()
    ]
