"""Controls: choices without the router. Every report contains them.

Shape legend: N instructions and M candidates of the test records.

| control | choice | chosen on |
|---|---|---|
| random | expected outcome of a random known candidate | – |
| best_single | one candidate for all instructions (:func:`satlight.metrics.functional.best_single`) | train |
| dataset_best | per dataset the best candidate; none for a dataset without train data | train |
| task_best | per task the best candidate; for a task without train data, dataset_best | train |
| tfidf_knn | per instruction the best candidate on the nearest train instructions | train |
| aptitude_knn | the same with only the core instructions of the aptitude test | train |
| inferred_dataset | the best candidate on the dataset predicted from the text | train |
| dataset_oracle | per dataset the best candidate | test |
| oracle | per instruction the best candidate, the cheapest one in a tie | test |
| bayes_optimal | per instruction the highest true probability (simulated records only) | truth |

The zero router depends on the cost of the evaluated router, so it is measured together with the router
(:meth:`satlight.evaluation.spending.Spending.zero_router`) where records have costs.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from satlight.evaluation.text_controls import text_choices
from satlight.metrics import functional
from satlight.metrics.cost import cheapest_choices

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


@dataclass(frozen=True)
class Control:
    """Outcomes of one control on the test records.

    Args:
        outcomes: float32 (N,) outcomes in [0, 1], 0 where unknown.
        known: bool (N,), False where the control has no choice or its outcome is unknown.
        choices: int64 (N,) columns, -1 = none; None for mixtures (random, zero router).
        shares: float64 (M,), share of each candidate in the zero router; None otherwise.
    """

    outcomes: Tensor
    known: Tensor
    choices: Tensor | None = None
    shares: Tensor | None = None

    @classmethod
    def of(cls, choice_N: Tensor, outcome_NM: Tensor, known_NM: Tensor) -> Control:
        """Return choices, columns of the outcomes with -1 = none, with their outcomes."""
        return cls(*functional.outcomes_of(choice_N, outcome_NM, known_NM), choice_N)

    def at(self, rows: Tensor) -> Control:
        """Return the control on some rows (int64)."""
        choices = None if self.choices is None else self.choices[rows]
        return replace(self, outcomes=self.outcomes[rows], known=self.known[rows], choices=choices)


def measure_controls(
    test: PerformanceRecords,
    train: PerformanceRecords | None,
    core: Collection[str] | None = None,
    seed: int = 0,
    with_texts: bool = True,
) -> dict[str, Control]:
    """Measure all controls on the test records.

    Args:
        test: Records to evaluate on, N × M.
        train: Records to choose candidates on, matched by name; candidates missing there are never chosen.
            None = controls that are chosen on train are unknown.
        core: Ids of the core instructions among ``train``, for ``aptitude_knn``; None = it selects its own.
        seed: Seed of the core instructions that ``aptitude_knn`` selects.
        with_texts: Measure the controls that read the texts too, which take longer.

    Returns:
        Controls by name, in the order of the table above; ``bayes_optimal`` only where ``test.expected`` is
        known, with true probabilities in place of outcomes.

    Example:
        >>> import polars as pl
        >>> from satlight.records import PerformanceRecords
        >>> from satlight.types import Candidate
        >>> rows = pl.DataFrame({"instruction_id": ["1", "2"], "dataset": ["a", "b"], "task": ["a", "b"],
        ...     "split": ["test", "test"], "instruction": ["x", "y"]})
        >>> outcomes = np.array([[1, 0], [0, 1]], dtype=np.float32)
        >>> records = PerformanceRecords(rows, (Candidate("m"), Candidate("n")), outcomes, outcomes >= 0)
        >>> controls = measure_controls(records, records)
        >>> {name: controls[name].outcomes.tolist() for name in ("random", "best_single", "dataset_best")}
        {'random': [0.5, 0.5], 'best_single': [1.0, 0.0], 'dataset_best': [1.0, 1.0]}
    """
    outcome_NM, known_NM = matrices(test)
    choices = _train_choices(test, train)
    if with_texts:
        choices |= text_choices(test, train, core, seed)
    groups_N = numbered(test.datasets)[0]
    choices["dataset_oracle"] = functional.group_best(outcome_NM, known_NM, groups_N, groups_N)
    choices["oracle"] = oracle(test)
    controls = {"random": Control(*functional.random_outcomes(outcome_NM, known_NM))}
    controls |= {name: Control.of(choice_N, outcome_NM, known_NM) for name, choice_N in choices.items()}
    if test.expected is not None:
        expected_NM = _tensor(test.expected)
        always_NM = torch.ones_like(expected_NM, dtype=torch.bool)
        controls["bayes_optimal"] = Control.of(functional.choose(expected_NM), expected_NM, always_NM)
    return controls


def matrices(
    records: PerformanceRecords, model_ids: list[str] | None = None, values: np.ndarray | None = None
) -> tuple[Tensor, Tensor]:
    """Return the outcomes (N, M) and the known mask (N, M) of records as tensors.

    Args:
        records: Any records.
        model_ids: Order of the columns; candidates missing in the records are unknown everywhere. None = the
            order of the records.
        values: Another matrix of the records to return instead of the outcomes, e.g. their costs.

    Returns:
        float32 outcomes and bool mask.
    """
    outcomes, known = records.outcomes if values is None else values, records.known
    if model_ids is not None and model_ids != records.model_ids:
        column = {model_id: m for m, model_id in enumerate(records.model_ids)}
        columns = np.array([column.get(model_id, 0) for model_id in model_ids])
        present = np.array([model_id in column for model_id in model_ids])
        outcomes, known = outcomes[:, columns], known[:, columns] & present
    return _tensor(outcomes).float(), _tensor(known)


def oracle(records: PerformanceRecords) -> Tensor:
    """Return, per instruction, the candidate with the best outcome, and among equals the cheapest call.

    Args:
        records: N × M; an unknown cost counts as the highest.

    Returns:
        int64 (N,), columns; -1 where no outcome is known.
    """
    outcome_NM, known_NM = matrices(records)
    best_N1 = torch.where(known_NM, outcome_NM, -1.0).amax(1, keepdim=True)
    cost_NM = torch.zeros_like(outcome_NM) if records.costs is None else _tensor(records.costs)
    highest = torch.finfo(cost_NM.dtype).max
    return cheapest_choices(cost_NM.nan_to_num(highest, highest), known_NM & (outcome_NM == best_N1))


def _train_choices(test: PerformanceRecords, train: PerformanceRecords | None) -> dict[str, Tensor]:
    none_N = torch.full((test.shape[0],), functional.NONE)
    if train is None:
        return {"best_single": none_N, "dataset_best": none_N, "task_best": none_N}
    outcome_NM, known_NM = matrices(train, test.model_ids)
    dataset_N, train_dataset_N = numbered(test.datasets, train.datasets)
    task_N, train_task_N = numbered(test.task_keys, train.task_keys)
    dataset_best_N = functional.group_best(outcome_NM, known_NM, train_dataset_N, dataset_N)
    task_best_N = functional.group_best(outcome_NM, known_NM, train_task_N, task_N)
    return {
        "best_single": none_N.fill_(functional.best_single(outcome_NM, known_NM, train_dataset_N)),
        "dataset_best": dataset_best_N,
        "task_best": torch.where(task_best_N == functional.NONE, dataset_best_N, task_best_N),
    }


def numbered(*names: np.ndarray) -> list[Tensor]:
    """Number names consecutively; the same name has the same number in every array."""
    _, number = np.unique(np.concatenate(names), return_inverse=True)
    return list(torch.from_numpy(number.astype(np.int64)).split([len(n) for n in names]))


def _tensor(array: np.ndarray) -> Tensor:
    # torch warns about read-only arrays such as memory maps, although nothing here writes to them.
    return torch.from_numpy(array if array.flags.writeable else array.copy())
