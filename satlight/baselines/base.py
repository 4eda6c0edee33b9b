"""What every baseline is: a router that learns from records in one call and needs no training loop of ours.

Shape legend: N instructions, M candidates, D features.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.records.names import listed

Embed = Callable[[Sequence[str]], np.ndarray]
"""N texts to float32 (N, D) vectors of length 1, e.g. :class:`satlight.backbones.embedding.Embedder`."""

LEARNT = ("train", "validation")
"""Splits that a baseline reads."""


class Baseline(ABC):
    """A router that is not a LightningModule.

    A subclass has a constructor whose parameters all have defaults, :meth:`fit` and :meth:`predict`. Most
    are easier to write as a :class:`~satlight.baselines.tuning.TunedBaseline`, which does the choosing.

    Attributes:
        needs_embeddings: Whether ``fit`` must be given an ``embed``.
        GRID: Hyper-parameters and the values to choose from on validation rows; in every combination.
        chosen: The values in use, after ``fit``.
    """

    needs_embeddings: ClassVar[bool] = True
    GRID: ClassVar[Mapping[str, Sequence[Any]]] = {}
    chosen: dict[str, Any]

    @abstractmethod
    def fit(self, records: PerformanceRecords, embed: Embed | None = None) -> Self:
        """Learn from rows with split "train", choose hyper-parameters on rows with split "validation".

        The choice among :attr:`GRID` is the one with the highest macro mean (over datasets) of routed
        accuracy on validation rows, the first among equals; then train and validation rows are learnt
        together. A candidate that was not in training is a column that is known on the probe rows only.

        Args:
            records: N instructions × M candidates. Unknown outcomes never count.
            embed: Text embedder; may be None where ``needs_embeddings`` is False.

        Returns:
            Itself.

        Raises:
            SatlightError: Test rows among the records, no train rows, no embedder where one is needed.
        """

    @abstractmethod
    def predict(self, instructions: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """Score instructions for candidates.

        Args:
            instructions: N texts.
            candidates: M names out of those learnt from, in any order.

        Returns:
            Finite float32 (N, M), a column per name in that order: expected outcomes in [0, 1] unless the
            class says otherwise.

        Raises:
            SatlightError: A name that was not in the records.
        """


def grid_points(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values of a grid, the last name varying fastest.

    Example:
        >>> grid_points({"k": (1, 2), "weights": ("equal",)})
        [{'k': 1, 'weights': 'equal'}, {'k': 2, 'weights': 'equal'}]
    """
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def learnt_rows(records: PerformanceRecords, who: str) -> PerformanceRecords:
    """The train and validation rows of records; "dropped" rows serve no split and are left out.

    Args:
        records: What ``fit`` was given.
        who: Name of the baseline, for messages.

    Raises:
        SatlightError: Test rows, rows without a split, or no train rows.
    """
    for wrong, meaning in (("test", "test rows"), ("", "rows without a split")):
        if count := int((records.splits == wrong).sum()):
            raise SatlightError(
                f"{who}.fit got {count} {meaning} of '{records.name}'; it learns from train and validation "
                "rows. Mark them with records.with_splits(split_records(records)) and pass "
                ".filter(splits=['train', 'validation'])."
            )
    if not (records.splits == "train").any():
        raise SatlightError(
            f"{who}.fit got no train rows of '{records.name}', only {listed(sorted(set(records.splits)))}."
        )
    kept = np.isin(records.splits, LEARNT)
    return records if kept.all() else records.rows(kept)


def needed_embed(embed: Embed | None, who: str) -> Embed:
    """``embed``, or an error that says who needs it."""
    if embed is None:
        raise SatlightError(
            f"{who}.fit needs an embedder and got none. Pass embed=Embedder() of "
            "satlight.backbones.embedding, or any function from texts to vectors of length 1."
        )
    return embed


def columns_of(candidates: Sequence[str], known: Sequence[str], who: str) -> np.ndarray:
    """Columns of candidates by name.

    Args:
        candidates: Names that are asked for.
        known: Names in the order of the columns.
        who: Name of the baseline, for messages.

    Returns:
        int64 (len(candidates),).

    Raises:
        SatlightError: An unknown name.

    Example:
        >>> columns_of(["b", "a"], ["a", "b"], "KNN").tolist()
        [1, 0]
    """
    column = {name: m for m, name in enumerate(known)}
    if unknown := [name for name in candidates if name not in column]:
        raise SatlightError(
            f"{who} was asked to score {listed(unknown)}, which it has not learnt from. Known: "
            f"{listed(list(known))}. Give fit records that hold outcomes of the others on some instructions."
        )
    return np.array([column[name] for name in candidates], dtype=np.int64)
