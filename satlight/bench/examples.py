"""Instructions with images that the best method of a leaderboard missed, for the HTML report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from satlight.bench.board import Board
from satlight.bench.cells import Cell
from satlight.evaluation.examples import Example, missed
from satlight.evaluation.outcomes import METHOD
from satlight.images import thumbnail_url

EXAMPLES = 24
"""Maximum number of examples in a report: each thumbnail is a part of the page."""


@dataclass(frozen=True)
class Shown:
    """An example with its thumbnails as ``data:`` URLs."""

    example: Example
    thumbnails: list[str]


def board_examples(board: Board, cells: list[Cell], output: Path, limit: int = EXAMPLES) -> list[Shown]:
    """Return missed instructions of the best method, on its first seed; only boards with images have any.

    Args:
        board: The leaderboard.
        cells: Cells of the bench.
        output: Folder of the bench, with the records of its problems.
        limit: Maximum number of examples.
    """
    from satlight.records import open_records

    if not board.methods or limit < 1:
        return []
    rows = board.table.filter(pl.col("role") == METHOD, pl.col("router") == board.methods[0].name)
    rows = rows.filter(pl.col("seed") == pl.col("seed").min()).sort("row")
    place = (board.data, board.setting, rows["seed"][0])
    problem = next(c.problem for c in cells if (c.problem.data, c.problem.setting, c.problem.seed) == place)
    records = open_records(output / "problems" / problem.key)
    test = records.rows(records.splits == "test")
    if not any(test.images):
        return []
    column = {name: place for place, name in enumerate(test.model_ids)}
    choice_N = rows["candidate"].replace_strict(column, default=-1, return_dtype=pl.Int64).to_numpy()
    seen_N = np.array([bool(own) for own in test.images])
    found = missed(test.rows(seen_N), choice_N[seen_N], limit)
    return [Shown(one, [thumbnail_url(image) for image in one.images]) for one in found]
