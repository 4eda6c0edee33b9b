"""Outcome tables: a row for every choice that a router or a control made.

All leaderboards (:mod:`satlight.evaluation.leaderboard`) are group-bys and joins on these tables.

Shape legend: N test instructions and M candidates of the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from satlight.evaluation.controls import Control
from satlight.evaluation.spending import Spending

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

SCHEMA = {
    "data": pl.String,
    "setting": pl.String,
    "seed": pl.Int64,
    "protocol": pl.String,
    "fold": pl.Int64,
    "role": pl.String,
    "router": pl.String,
    "row": pl.Int64,
    "instruction": pl.String,
    "dataset": pl.String,
    "candidate": pl.String,
    "score": pl.Float32,
    "outcome": pl.Float32,
    "cost": pl.Float64,
}
"""Columns of an outcome table.

``row`` is the position of the instruction among the test rows. ``candidate`` is null if there is no single
choice, ``score`` if the entry predicts none, ``outcome`` if it is unknown, and ``cost`` (US dollars) unless
every test record has a cost.
"""

METHOD, CONTROL, UPPER_BOUND = "method", "control", "upper bound"
"""Roles of the entries of a leaderboard."""

INFORMED = "informed"
"""Role of a method that was trained on everything, in a protocol that otherwise hides something."""

ZERO_ROUTER = "zero router"
"""Role of the mixture of single candidates that costs as much as the method of the same name."""

CANDIDATE = "candidate"
"""Role of a candidate that answers everything."""

UPPER_BOUNDS = ("dataset_oracle", "oracle", "bayes_optimal")
"""Controls that use the test outcomes; they are never the best control."""

ORDINARY = "ordinary"
"""The protocol without folds."""

KEY = ["role", "router"]
"""Columns that identify an entry."""

ORACLE = f"{UPPER_BOUND} oracle"
"""The oracle's key as one text."""


class OutcomeTable:
    """Collect the rows of an outcome table for one problem and fold.

    Args:
        test: Test records, N × M.
        place: Values of the columns ``data``, ``setting`` and ``seed``.
        protocol: Name of the protocol.
        fold: Number of the fold, from 1; 0 without folds.
        rows: int64 (N,), positions of the instructions among all test rows; None = 0 to N - 1.
        train: Records that the prices of a zero router are learned from; None = there are none.
    """

    def __init__(
        self,
        test: PerformanceRecords,
        place: dict[str, Any],
        protocol: str = ORDINARY,
        fold: int = 0,
        rows: np.ndarray | None = None,
        train: PerformanceRecords | None = None,
    ) -> None:
        self.test = test
        self.constant = {**place, "protocol": protocol, "fold": fold}
        self.rows = np.arange(test.shape[0]) if rows is None else rows
        self.spending = Spending.of(test, train)
        self.frames: list[pl.DataFrame] = []

    def add(self, role: str, router: str, control: Control, score_NM: np.ndarray | None = None) -> None:
        """Add an entry.

        Args:
            role: Role of the entry.
            router: Its name.
            control: Its choices and their outcomes.
            score_NM: Scores (N, M) that it chose by; None = it predicts none.
        """
        candidate = score = None
        if control.choices is not None:
            choice_N = control.choices.numpy()
            candidate = np.array([*self.test.model_ids, None], dtype=object)[
                choice_N
            ].tolist()  # -1, no choice, is last
            if score_NM is not None:
                score = score_NM[np.arange(len(choice_N)), choice_N]
        columns = {
            **self.constant,
            "role": role,
            "router": router,
            "row": self.rows,
            "instruction": self.test.instructions["instruction_id"].cast(pl.String),
            "dataset": self.test.datasets,
            "candidate": candidate,
            "score": score,
            "outcome": _with_nulls(control.outcomes, control.known),
            "cost": None if self.spending is None else _with_nulls(*self.spending.paid(control)),
        }
        self.frames.append(pl.DataFrame(columns, schema=SCHEMA))

    def frame(self) -> pl.DataFrame:
        """Return the table."""
        return pl.concat(self.frames)


def _with_nulls(value_N: Tensor, known_N: Tensor) -> pl.Series:
    return pl.Series(value_N.numpy()).set(pl.Series(~known_N.numpy()), None)


def controls_of(table: pl.DataFrame, model_ids: Sequence[str]) -> dict[str, Control]:
    """Return the controls that are stored in an outcome table of one problem.

    Args:
        table: Rows of one seed, without folds.
        model_ids: Names of the candidates, in the order of the choices' columns.
    """
    column = {name: place for place, name in enumerate(model_ids)}
    controls = {}
    stored = table.filter(pl.col("role").is_in([CONTROL, UPPER_BOUND]))
    for (_, name), rows in stored.group_by(KEY, maintain_order=True):
        choice = rows["candidate"].replace_strict(column, default=-1, return_dtype=pl.Int64)
        controls[str(name)] = Control(
            torch.tensor(rows["outcome"].fill_null(0.0).to_numpy()),
            torch.tensor(rows["outcome"].is_not_null().to_numpy()),
            # The expected outcome of a random candidate is not that of one choice.
            None if name == "random" else torch.tensor(choice.to_numpy()),
        )
    return controls
