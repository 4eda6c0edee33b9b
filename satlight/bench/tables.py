"""Leaderboards as text for the terminal, CSV, JSON and Markdown; the HTML report uses the same cells."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from satlight.bench.board import COSTS, Board, UnseenTable
from satlight.escaping import csv_text, markdown_text
from satlight.evaluation.leaderboard import Entry, Figure
from satlight.evaluation.outcomes import METHOD

TEXTS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))
"""Legends of the tables and captions of the plots."""

LEGEND, UNSEEN_LEGEND = TEXTS["legend"], TEXTS["unseen_legend"]

DASH = "–"

_FIRST = 3
"""Number of columns for name, primary group and its interval."""

_ONLY_IN_FILES = ("95 %", "vs best single", "AIQ")
"""Columns that do not fit on a terminal, except the interval of the primary group."""

Line = tuple[str, list[str]]
"""The role of an entry (``failed`` = a method without a figure) and its cells."""


def headings(board: Board) -> list[str]:
    """Return the headings of the main table."""
    named = [part for group in board.groups for part in (group, "95 %")]
    costs = ["$/1000", "zero router", "AIQ"] if board.priced else []
    return ["router", *named, "vs best single", "vs best control", "gap %", "ECE", *costs, "fit s", "ms"]


def lines(board: Board) -> list[Line]:
    """Return the rows of the main table, best first."""
    return [(entry.role if entry.seeds else "failed", _cells(board, entry)) for entry in board.entries]


def _cells(board: Board, entry: Entry) -> list[str]:
    unknown = Figure(None, None, None, {})
    cells = [_name(entry)]
    for group in board.groups:
        figure = entry.groups.get(group, unknown)
        cells += [mean(figure), interval(figure.interval)]
    primary = entry.groups.get(board.primary, unknown)
    cells += [difference(primary.versus_best_single), difference(primary.versus_best_control)]
    cells.append(number(primary.gap_closed, 100, 0))
    for key in ("ece", *(COSTS if board.priced else ())):
        cells.append(number(entry.means.get(key, {}).get(board.primary), 1, 3 if key in ("ece", "cost") else 2))
    return [*cells, number(entry.fit_seconds, 1, 1), number(entry.decision_ms)]


def _name(entry: Entry) -> str:
    name = entry.name + (f" ({entry.role})" if entry.role != METHOD else "")
    if not entry.failed_seeds:
        return name
    seeds = f" for seed {', '.join(map(str, sorted(entry.failed_seeds)))}" if entry.seeds else ""
    return f"{name} – failed{seeds}"


def number(value: float | None, factor: float = 1, decimals: int = 2) -> str:
    """Return a figure as text; a dash for None."""
    return DASH if value is None else f"{factor * value:.{decimals}f}"


def mean(figure: Figure | None) -> str:
    """Return the mean over seeds ± half of its interval."""
    if figure is None or figure.routed is None:
        return DASH
    # Controls and some methods do not depend on the seed.
    spread = f" ±{figure.seed_half_width:.2f}" if figure.seed_half_width else ""
    return f"{figure.routed:.2f}{spread}"


def interval(bounds: list[float] | None) -> str:
    """Return an interval as text."""
    return DASH if bounds is None else f"{bounds[0]:.1f}–{bounds[1]:.1f}"


def difference(values: list[float] | None) -> str:
    """Return a difference with its interval."""
    return DASH if values is None else f"{values[0]:+.2f} ({values[1]:+.1f} to {values[2]:+.1f})"


def title(board: Board) -> str:
    """Return data, setting, zoo size and seeds in one line."""
    zoo = "all candidates" if board.setting == "all" else board.setting
    simulated = " (simulated)" if board.simulated else ""
    seeds = len(board.fingerprints)
    size = f"{len(board.candidates)} candidates, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{board.data}{simulated}, {zoo}: {size}"


UNSEEN_HEADINGS = ["router", "unseen", "95 %", "trained on all", "lost", "vs best single"]
"""Headings of the tables of protocols with unseen candidates or tasks."""


def unseen_lines(table: UnseenTable) -> list[Line]:
    """Return the rows of such a table."""
    return [
        (
            row.role,
            [
                row.name if row.role == METHOD else f"{row.name} ({row.role})",
                mean(row.figure),
                interval(row.figure.interval),
                number(row.informed),
                difference(row.loss),
                difference(row.figure.versus_best_single if row.role == METHOD else None),
            ],
        )
        for row in table.rows
    ]


def print_boards(boards: list[Board], console: Console | None = None) -> None:
    """Print every leaderboard without the columns that are only in the files.

    Args:
        boards: Leaderboards.
        console: Where to print; None = standard output, as wide as the widest table, so that no figure is cut off.
    """
    shown: list[Text | Table] = []
    for board in boards:
        shown += [Text(title(board), style="bold"), _main_table(board)]
        for about in board.unseen:
            shown += [Text(f"{board.data}, {about.title}", style="bold"), _table(UNSEEN_HEADINGS, unseen_lines(about))]
            shown += [Text(sentence) for sentence in about.notes]
        shown += [Text(sentence) for sentence in board.notes]
        shown += [Text(f"failed: {sentence}", style="red") for sentence in board.failures]
    shown.append(Text(LEGEND, style="dim"))
    if any(board.unseen for board in boards):
        shown.append(Text(UNSEEN_LEGEND, style="dim"))
    if console is None:
        wide = Console(width=1000)
        console = Console(width=max(Console().width, *(wide.measure(t).maximum for t in shown if isinstance(t, Table))))
    for one in shown:
        console.print(one)


def _main_table(board: Board) -> Table:
    names = headings(board)
    kept = [i for i, name in enumerate(names) if i < _FIRST or name not in _ONLY_IN_FILES]
    return _table([names[i] for i in kept], [(role, [cells[i] for i in kept]) for role, cells in lines(board)])


def _table(names: list[str], rows: list[Line]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for i, name in enumerate(names):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for role, cells in rows:
        style = {"control": "dim", "upper bound": "dim italic", "failed": "red"}.get(role)
        table.add_row(*map(Text, cells), style=style)
    return table


def markdown(boards: list[Board]) -> str:
    """Return leaderboards and per-dataset tables in Markdown."""
    parts = []
    for board in boards:
        counts = ", ".join(f"{markdown_text(name)} n = {count}" for name, count in board.counts.items())
        names, rows = by_dataset(board)
        parts += [f"### {markdown_text(title(board))}", _grid(headings(board), lines(board))]
        parts += _list(board.notes)
        parts += [f"Per dataset ({counts}):", _grid(names, rows)]
        for about in board.unseen:
            parts.append(f"{markdown_text(about.title[:1].upper() + about.title[1:])}:")
            parts += [_grid(UNSEEN_HEADINGS, unseen_lines(about)), *_list(about.notes), UNSEEN_LEGEND]
        parts += _list([f"failed: {sentence}" for sentence in board.failures])
    return "\n\n".join(parts) + "\n"


def _list(sentences: list[str]) -> list[str]:
    return ["\n".join(f"- {markdown_text(sentence)}" for sentence in sentences)] if sentences else []


def by_dataset(board: Board) -> tuple[list[str], list[Line]]:
    """Return headings and rows of the per-dataset table."""
    rows = [
        (entry.role, [_name(entry), *(mean(entry.datasets.get(name)) for name in board.counts)])
        for entry in board.entries
        if entry.seeds
    ]
    return ["router", *board.counts], rows


def _grid(names: list[str], rows: list[Line]) -> str:
    # polars writes Markdown tables too, but needs distinct headings and aligns all columns alike.
    rule = ["---", *["---:"] * (len(names) - 1)]
    table = (names, rule, *(cells for _, cells in rows))
    return "\n".join(f"| {' | '.join(map(markdown_text, row))} |" for row in table)


def flat(boards: list[Board]) -> list[dict[str, Any]]:
    """Return one flat row per leaderboard, dataset or group, and entry."""
    return [
        {"data": board.data, "setting": board.setting, "kind": kind, "name": name} | _flat(entry, kind, name, figure)
        for board in boards
        for entry in board.entries
        for kind, figures in (("group", entry.groups), ("dataset", entry.datasets))
        for name, figure in figures.items()
    ]


def _flat(entry: Entry, kind: str, name: str, figure: Figure) -> dict[str, Any]:
    row: dict[str, Any] = {"router": entry.name, "role": entry.role, "seeds": len(entry.seeds)}
    for key in ("ece", "brier", *COSTS):
        row[key] = entry.means.get(key, {}).get(name) if kind == "group" else None
    row |= {"fit_seconds": entry.fit_seconds, "decision_ms": entry.decision_ms}
    row |= {"routed": figure.routed, "seed_half_width": figure.seed_half_width}
    row["low"], row["high"] = figure.interval or (None, None)
    row["gap_closed"] = figure.gap_closed
    for key in ("versus_best_single", "versus_best_control"):
        row[key], row[f"{key}_low"], row[f"{key}_high"] = getattr(figure, key) or (None, None, None)
    row["per_seed"] = " ".join(number(routed, 1, 4) for routed in figure.per_seed.values())
    return row


def to_csv(boards: list[Board]) -> str:
    """Return :func:`flat` as CSV."""
    return csv_text(flat(boards)) if boards else "data\n"


def to_json(boards: list[Board]) -> str:
    """Return everything on the leaderboards as JSON, without the tables that they were computed from."""
    content = [asdict(board) for board in boards]
    for board in content:
        del board["table"], board["results"]
    # JSON has no NaN; null = cannot be measured.
    finite = json.loads(json.dumps(content), parse_constant=lambda name: None)
    return json.dumps(finite, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
