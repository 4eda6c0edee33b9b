"""Controls that read the text: simple baselines without a neural network.

Shape legend: N instructions and M candidates of the test records.

They are the baselines of the same names on TF-IDF vectors; they need no downloaded weights.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from satlight.errors import SatlightError
from satlight.metrics.functional import NONE, choose

if TYPE_CHECKING:
    from satlight.baselines import Baseline
    from satlight.records import PerformanceRecords

TEXT_CONTROLS = ("tfidf_knn", "aptitude_knn", "inferred_dataset")

HELD_OUT = 5
"""Without validation rows, every fifth row is held out to choose k on."""


def text_choices(
    test: PerformanceRecords, train: PerformanceRecords | None, core: Collection[str] | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Return the choices of every control that reads the text.

    The number of neighbors is chosen on the rows of ``train`` marked "validation"; without any, on every fifth row;
    with fewer than five rows it is the first of the baseline's grid. All other rows of ``train`` count as train rows.

    Args:
        test: Records to route, N × M. Their outcomes are not read.
        train: Records to fit on. Candidates are matched by name, and those without an outcome there are
            never chosen. None = no choices.
        core: Ids of the core instructions among ``train``, the neighbors of ``aptitude_knn``; None = the
            baseline selects core instructions itself.
        seed: Seed of the baselines.

    Returns:
        int64 (N,) per control: columns of ``test``, all -1 without usable training rows.

    Raises:
        SatlightError: No id of ``core`` is in ``train``.

    Example:
        >>> import polars as pl
        >>> from satlight.records import PerformanceRecords
        >>> from satlight.types import Candidate
        >>> rows = pl.DataFrame({"instruction_id": ["1", "2"], "dataset": ["math", "code"],
        ...     "task": ["sums", "code"], "split": ["train"] * 2, "instruction": ["1 + 2", "Sort it"]})
        >>> outcomes = np.array([[1, 0], [0, 1]], dtype=np.float32)
        >>> records = PerformanceRecords(rows, (Candidate("m"), Candidate("n")), outcomes, outcomes >= 0)
        >>> text_choices(records, records)["inferred_dataset"].tolist()
        [0, 1]
    """
    from satlight.baselines import build

    usable = None if train is None else _usable(train, test)
    if usable is None:
        return {name: torch.full((test.shape[0],), NONE) for name in TEXT_CONTROLS}
    inferred = build("inferred_dataset", seed=seed, fixed={"label": "dataset", "use": "best"})
    return {
        "tfidf_knn": _choices(_tuned("tfidf_knn", usable, seed).fit(usable), usable, test),
        "aptitude_knn": _aptitude_choices(usable, test, core, seed),
        "inferred_dataset": _choices(inferred.fit(usable), usable, test),
    }


def _usable(train: PerformanceRecords, test: PerformanceRecords) -> PerformanceRecords | None:
    """Return the usable training rows and mark a validation subset; None = there are none."""
    records = _measured(train, test.model_ids)
    if records is None or not any(text.strip() for text in records.texts):
        return None
    if not (held_out := records.splits == "validation").any():
        held_out = np.arange(records.shape[0]) % HELD_OUT == HELD_OUT - 1
    return _marked(records, held_out)


def _aptitude_choices(
    usable: PerformanceRecords, test: PerformanceRecords, core: Collection[str] | None, seed: int
) -> Tensor:
    """Fit on core instructions only; choose the number of neighbors on validation rows."""
    from satlight.baselines import build

    if core is None:
        return _choices(_tuned("aptitude_knn", usable, seed).fit(usable), usable, test)
    is_core = np.isin(usable.instructions["instruction_id"].to_numpy(), list(core))
    if not is_core.any():
        raise SatlightError(
            f"None of the {len(core)} core instructions is among the {usable.shape[0]} train and validation "
            f"rows of '{usable.name}'; pass the aptitude test of these records, or core=None"
        )
    voters = _measured(_marked(usable, ~is_core).rows(is_core), test.model_ids)
    if voters is None:
        return torch.full((test.shape[0],), NONE)
    held_out = usable.splits == "validation"
    choosing = _measured(_marked(usable, held_out & ~is_core).rows(is_core | held_out), voters.model_ids)
    assert choosing is not None
    chosen = _tuned("aptitude_knn", choosing, seed).fit(choosing).chosen
    return _choices(build("aptitude_knn", seed=seed, fixed=chosen).fit(voters), voters, test)


def _tuned(name: str, records: PerformanceRecords, seed: int) -> Baseline:
    """Build the baseline, with the first point of its grid where there are no rows to choose on."""
    from satlight.baselines import build

    held_out = records.splits == "validation"
    tunable = records.known[held_out].any() and records.known[~held_out].any()
    fixed = {} if tunable else {key: values[0] for key, values in build(name).GRID.items()}
    return build(name, seed=seed, fixed=fixed)


def _choices(baseline: Baseline, usable: PerformanceRecords, test: PerformanceRecords) -> Tensor:
    known = set(usable.model_ids)
    columns = [m for m, model_id in enumerate(test.model_ids) if model_id in known]
    scores = baseline.predict(test.texts, [test.model_ids[m] for m in columns])
    return torch.tensor(columns)[choose(torch.from_numpy(scores))]


def _measured(records: PerformanceRecords, model_ids: list[str]) -> PerformanceRecords | None:
    """Keep the candidates that have any outcome; None = there are none."""
    wanted = set(model_ids)
    columns = np.flatnonzero(np.any(records.known, axis=0)).tolist()
    measured = [records.model_ids[column] for column in columns if records.model_ids[column] in wanted]
    return records.filter(candidates=measured) if measured else None


def _marked(records: PerformanceRecords, held_out: np.ndarray) -> PerformanceRecords:
    """Mark the held-out rows as validation and all other rows as train."""
    return records.with_splits(np.where(held_out, "validation", "train"))
