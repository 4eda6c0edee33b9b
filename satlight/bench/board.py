"""From the cells of a bench to leaderboards: one for each data and zoo setting, over all seeds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from satlight.bench.cells import CONTROLS, EMBEDDING, UNSEEN, Cell
from satlight.bench.config import BenchConfig
from satlight.bench.results import CellResult
from satlight.errors import SatlightError
from satlight.evaluation import RoutingResults
from satlight.evaluation.comparison import left_out
from satlight.evaluation.leaderboard import Entry, Means, UnseenRow, entries, rank, release_curves, unseen_rows
from satlight.evaluation.outcomes import INFORMED, METHOD, ORDINARY, SCHEMA, ZERO_ROUTER

COSTS = ("cost", "zero_router", "aiq")
"""Means with costs: US dollars per 1,000 instructions, accuracy of the zero router at that cost, and AIQ."""


@dataclass
class UnseenTable:
    """Table of a protocol with unseen candidates or tasks, on the primary group of a leaderboard.

    Args:
        protocol: ``unseen_candidates`` or ``unseen_tasks``.
        group: Group of the macro mean.
        rows: Entries, best first.
        folds: Facts of the folds of the first seed.
        notes: Sentences about what the comparison leaves out; none on complete records.
    """

    protocol: str
    group: str
    rows: list[UnseenRow]
    folds: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Protocol, folds and group in one line."""
        probes = f", {self.folds[0]['probes']} probe instructions" if "probes" in self.folds[0] else ""
        return f"{self.protocol.replace('_', ' ')}: {len(self.folds)} folds{probes}, {self.group}"


@dataclass
class ReleaseTable:
    """Accuracies after each release, on the primary group of a leaderboard.

    Args:
        folds: Facts of the releases.
        curves: Role → name → for each seed the accuracies in percent.
    """

    folds: list[dict[str, Any]]
    curves: dict[str, dict[str, list[list[float]]]]


@dataclass
class Board:
    """Leaderboard of one data and zoo setting.

    Args:
        data: Name of the data.
        setting: Name of the zoo setting.
        groups: Datasets of each group; the first group sorts.
        candidates: Names of the candidates.
        counts: Number of test instructions of each dataset.
        simulated: Whether the outcomes are simulated.
        fingerprints: Fingerprint of the records, for each seed.
        entries: Best first; entries without a figure are last.
        best_control: For each dataset or group, the best control that is no upper bound.
        notes: Sentences about what the comparison leaves out; none on complete records.
        failures: A sentence for each failed cell.
        release: The release curve; None = not measured.
        unseen: Tables of the protocols with unseen candidates or tasks.
        table: Outcome table of all cells under the ordinary protocol.
        results: Results of each method's cells, by seed.
    """

    data: str
    setting: str
    groups: dict[str, list[str]]
    candidates: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    simulated: bool = False
    fingerprints: dict[int, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)
    best_control: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    release: ReleaseTable | None = None
    unseen: list[UnseenTable] = field(default_factory=list)
    table: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCHEMA), repr=False)
    results: dict[str, list[CellResult]] = field(default_factory=dict, repr=False)

    @property
    def primary(self) -> str:
        """Name of the group that sorts the entries."""
        return next(iter(self.groups))

    @property
    def priced(self) -> bool:
        """True if costs are known."""
        return any("cost" in entry.means for entry in self.entries)

    @property
    def methods(self) -> list[Entry]:
        """Methods that have a figure, best first."""
        return [entry for entry in self.entries if entry.role == METHOD and entry.seeds]


def boards(config: BenchConfig, cells: list[Cell], output: Path) -> list[Board]:
    """Return the leaderboards of all computed cells, in the order of the config.

    Args:
        config: The bench.
        cells: Cells from :func:`satlight.bench.cells.plan`.
        output: Folder of the bench.

    Returns:
        One leaderboard for each data and zoo setting.
    """
    places = [(data.name, setting) for data in config.data for setting in data.settings]
    return [
        _board([c for c in cells if (c.problem.data, c.problem.setting) == place], output, config.resamples)
        for place in places
    ]


def _board(cells: list[Cell], output: Path, resamples: int) -> Board:
    problem = cells[0].problem
    board = Board(problem.data, problem.setting, problem.groups)
    board.fingerprints = {cell.problem.seed: cell.problem.fingerprint for cell in cells}
    done = [(c, r) for c in cells if c.kind != EMBEDDING and (r := CellResult.read(output, c.key)) is not None]
    ordinary = [(c, r) for c, r in done if c.kind != CONTROLS and c.protocol is None]
    failed = [(cell, str(result.error).splitlines()[0]) for cell, result in done if result.failed]
    board.failures = [f"{cell.name}, seed {cell.problem.seed}: {error}" for cell, error in failed]
    folds = {str(c.protocol): r.folds for c, r in reversed(done) if not r.failed}
    tables = [_outcomes(output, cell) for cell, result in done if not result.failed]
    by_protocol = pl.concat([pl.DataFrame(schema=SCHEMA), *tables]).partition_by("protocol", as_dict=True)
    board.table = by_protocol.pop((ORDINARY,), board.table)
    if len(board.table):
        means = Means(board.table, board.groups, resamples)
        board.counts = means.counts
        board.notes = left_out(means.left_out, means.compared)
        board.entries, board.best_control = entries(means, board.groups)
    _add_results(board, ordinary, output)
    members = board.groups[board.primary]
    if (rows := by_protocol.get(("release",))) is not None:
        board.release = ReleaseTable(folds["release"], release_curves(rows, members))
    for protocol in UNSEEN:
        if (rows := by_protocol.get((protocol,))) is not None:
            found, notes = unseen_rows(rows, board.primary, members, resamples)
            board.unseen.append(UnseenTable(protocol, board.primary, found, folds[protocol], notes))
    return board


def _outcomes(output: Path, cell: Cell) -> pl.DataFrame:
    """Read the outcome table of a cell; methods have the names of this bench."""
    path = output / "cells" / cell.key / "outcomes.parquet"
    try:
        table = pl.read_parquet(path)
        whole = table.with_columns(router=pl.lit("")).select(*SCHEMA).schema == pl.Schema(SCHEMA)
    except (OSError, pl.exceptions.PolarsError):
        whole = False
    if not whole:
        raise SatlightError(f"{path} is damaged; delete {path.parent}, and `satlight bench` computes the cell again")
    own = pl.col("role").is_in([METHOD, INFORMED, ZERO_ROUTER])
    return table.with_columns(router=pl.when(own).then(pl.lit(cell.method)).otherwise("router")).select(*SCHEMA)


def _add_results(board: Board, cells: list[tuple[Cell, CellResult]], output: Path) -> None:
    """Add the failures, times and calibration of the methods to their entries."""
    by_name = {entry.name: entry for entry in board.entries if entry.role == METHOD}
    for name in dict.fromkeys(cell.method for cell, _ in cells):
        entry = by_name.get(name) or Entry(name, METHOD)
        if name not in by_name:
            board.entries.append(entry)
        entry.failed_seeds = [cell.problem.seed for cell, result in cells if cell.method == name and result.failed]
        done = [(cell, result) for cell, result in cells if cell.method == name and not result.failed]
        if not done:
            continue
        own = board.results[name] = [result for _, result in done]
        measured = [RoutingResults.load(output / "cells" / cell.key) for cell, _ in done]
        board.candidates, board.simulated = measured[0].candidates, measured[0].data.simulated
        entry.fit_seconds = _mean([result.fit_seconds for result in own])
        entry.decision_ms = _mean([result.decision_ms for result in own])
        if entry.decision_ms is not None and "embedder" in done[0][0].spec:
            entry.decision_ms += _embedding_ms([cell for cell, _ in done], output) or 0.0
        for key in ("ece", "brier", "aiq") if all(result.probabilistic for result in own) else ("aiq",):
            for group in board.groups:
                values = [getattr(one.groups[group], key) for one in measured]
                if None not in values:
                    entry.means.setdefault(key, {})[group] = _mean(values) or 0.0
    board.entries.sort(key=lambda entry: rank(entry, board.primary))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _embedding_ms(cells: list[Cell], output: Path) -> float | None:
    """Return the time to embed an instruction, which a cell of another seed or setting may have measured."""
    for key in sorted({key for cell in cells for key in cell.needs[1:]}):
        result = CellResult.read(output, key)
        if result is not None and result.embedding_ms is not None:
            return result.embedding_ms
    return None
