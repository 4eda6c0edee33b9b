"""Leaderboards as text: for the terminal, CSV, JSON and Markdown. The HTML report uses the same cells."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from satlight.bench.board import COSTS, Board, Entry, Figure
from satlight.bench.unseen import UnseenTable

LEGEND = (
    "Accuracy in percent, macro mean over the group's datasets; mean over seeds ± half its 95 % interval "
    "over seeds (Student t). 95 %: bootstrap over instructions of that mean. Differences are paired, on the "
    "same instructions, with their 95 % bootstrap interval. Best control: the best of the controls that do "
    "not know the test outcomes, picked on the very test rows, which favours it. Gap: share of the way from "
    "best single to oracle. $/1000: cost of the choices for 1,000 instructions; zero router: accuracy of the "
    "blind mixture of single candidates at that cost; AIQ: mean height of the quality-cost hull. fit s: time "
    "to learn, without embedding the instructions. ms: time to score the zoo for one instruction, in a "
    "batch, with embedding. Times are CPU time on one thread, with a GPU wall time."
)

DASH = "–"

_FIRST = 3
"""Columns of name, primary group and its interval."""

_ONLY_IN_FILES = ("95 %", "vs best single", "AIQ")
"""Columns that a terminal has no room for, the interval of the primary group aside."""


def headings(board: Board) -> list[str]:
    """Headings of the main table."""
    named = [part for group in board.groups for part in (group, "95 %")]
    costs = ["$/1000", "zero router", "AIQ"] if board.priced else []
    return ["router", *named, "vs best single", "vs best control", "gap %", "ECE", *costs, "fit s", "ms"]


def lines(board: Board) -> list[tuple[Entry, list[str]]]:
    """The main table: each entry with its cells, best first; an entry without a figure says why."""
    return [(entry, _cells(board, entry)) for entry in board.entries]


def _cells(board: Board, entry: Entry) -> list[str]:
    name = entry.name + (f" ({entry.role})" if entry.role != "method" else "")
    cells = [name + _seeds_lost(entry)]
    for group in board.groups:
        figure = entry.groups.get(group)
        cells += [mean(figure), interval(figure.interval if figure else None)]
    primary = entry.groups.get(board.primary)
    cells.append(difference(primary.versus_best_single if primary else None))
    cells.append(difference(primary.versus_best_control if primary else None))
    cells.append(number(primary.gap_closed if primary else None, 100, 0))
    cells.append(number(entry.facts.get("ece", {}).get(board.primary), 1, 3))
    for key in COSTS if board.priced else ():
        cells.append(number(entry.facts.get(key, {}).get(board.primary), 1, 3 if key == "cost" else 2))
    cells += [number(entry.facts.get("fit_seconds"), 1, 1), number(entry.facts.get("decision_ms"), 1, 2)]
    return cells


def _seeds_lost(entry: Entry) -> str:
    if not entry.failed_seeds:
        return ""
    if not entry.seeds:
        return " – failed"
    return f" – failed for seed {', '.join(map(str, sorted(entry.failed_seeds)))}"


def number(value: float | None, factor: float = 1, decimals: int = 2) -> str:
    """A figure as text; a dash for None."""
    return DASH if value is None else f"{factor * value:.{decimals}f}"


def mean(figure: Figure | None) -> str:
    """Mean over seeds ± half its interval."""
    if figure is None or figure.routed is None:
        return DASH
    # Controls and some methods give the same for every seed, and then there is no spread to show.
    spread = f" ±{figure.seed_half_width:.2f}" if figure.seed_half_width else ""
    return f"{figure.routed:.2f}{spread}"


def interval(bounds: list[float] | None) -> str:
    """Lower and upper bound."""
    return DASH if bounds is None else f"{bounds[0]:.1f}–{bounds[1]:.1f}"


def difference(values: list[float] | None) -> str:
    """A difference with its bounds."""
    return DASH if values is None else f"{values[0]:+.2f} ({values[1]:+.1f} to {values[2]:+.1f})"


def title(board: Board) -> str:
    """What a leaderboard is about, in one line."""
    zoo = "all candidates" if board.setting == "all" else board.setting
    simulated = " (simulated)" if board.simulated else ""
    seeds = len(board.fingerprints)
    size = f"{len(board.candidates)} candidates, {seeds} seed{'s' if seeds > 1 else ''}"
    return f"{board.data}{simulated}, {zoo}: {size}"


UNSEEN_HEADINGS = ["router", "unseen", "95 %", "trained on all", "lost", "vs best single"]
"""Headings of the tables of protocols with unseen candidates or tasks."""

UNSEEN_LEGEND = (
    "Trained fold by fold without what it then chooses between, or without the tasks that it then routes. "
    "Trained on all: the same method with everything known, asked the same. Lost: unseen minus trained on "
    "all, paired. Best single: the best on what is known in training."
)


def unseen_lines(table: UnseenTable) -> list[tuple[str, list[str]]]:
    """Rows of such a table: the role, and the cells."""
    rows = []
    for row in table.rows:
        routed, half, low, high = row.routed
        name = row.name if row.role == "method" else f"{row.name} ({row.role})"
        cells = [name, f"{routed:.2f}{f' ±{half:.2f}' if half else ''}", interval([low, high])]
        cells += [
            number(row.informed),
            difference(_list(row.loss)),
            difference(_list(row.versus_best_single)),
        ]
        rows.append((row.role, cells))
    return rows


def _list(values: tuple[float, ...] | None) -> list[float] | None:
    return None if values is None else list(values)


def print_boards(boards: list[Board], console: Console | None = None) -> None:
    """Print every leaderboard without the columns that only the files have.

    Args:
        boards: What to print.
        console: Where to; None = standard output, as wide as the widest table, so that no figure is cut off.
    """
    made = [(board, _table(board), [_unseen(table) for table in board.unseen]) for board in boards]
    if console is None:
        wide = Console(width=1000)
        widths = [wide.measure(table).maximum for _, main, others in made for table in (main, *others)]
        console = Console(width=max([Console().width, *widths]))
    for board, main, others in made:
        console.print(Text(title(board), style="bold"))
        console.print(main)
        for about, table in zip(board.unseen, others, strict=True):
            console.print(Text(f"{board.data}, {about.title}", style="bold"))
            console.print(table)
        for sentence in board.failures:
            console.print(Text(f"failed: {sentence}", style="red"))
    console.print(Text(LEGEND, style="dim"))
    if any(board.unseen for board in boards):
        console.print(Text(UNSEEN_LEGEND, style="dim"))


def _unseen(about: UnseenTable) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for i, heading in enumerate(UNSEEN_HEADINGS):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for role, cells in unseen_lines(about):
        table.add_row(*map(Text, cells), style="dim" if role == "control" else None)
    return table


def _table(board: Board) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    names = headings(board)
    kept = [i for i, name in enumerate(names) if i < _FIRST or name not in _ONLY_IN_FILES]
    for i in kept:
        table.add_column(names[i], justify="right" if i else "left", no_wrap=True)
    for entry, cells in lines(board):
        style = {"control": "dim", "upper bound": "dim italic"}.get(entry.role)
        table.add_row(*(Text(cells[i]) for i in kept), style=style)
    return table


def markdown(boards: list[Board]) -> str:
    """Leaderboards and per-dataset tables in Markdown."""
    parts = []
    for board in boards:
        main = [headings(board), *(cells for _, cells in lines(board))]
        parts += [
            f"### {title(board)}",
            _grid(main),
            f"Per dataset ({_counts(board)}):",
            _grid(by_dataset(board)),
        ]
        for about in board.unseen:
            parts += [
                f"{_capital(about.title)}:",
                _grid([UNSEEN_HEADINGS, *(c for _, c in unseen_lines(about))]),
            ]
            parts.append(UNSEEN_LEGEND)
        if board.failures:
            parts.append("\n".join(f"- failed: {_escape(sentence)}" for sentence in board.failures))
    return "\n\n".join(parts) + "\n"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def by_dataset(board: Board) -> list[list[str]]:
    """Headings and rows of the per-dataset table."""
    rows = [["router", *board.counts]]
    for entry in board.entries:
        if entry.seeds:
            rows.append([_cells(board, entry)[0], *(mean(entry.datasets.get(name)) for name in board.counts)])
    return rows


def _counts(board: Board) -> str:
    return ", ".join(f"{name} n = {count}" for name, count in board.counts.items())


def _grid(rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join(f"| {' | '.join(map(_escape, row))} |" for row in (rows[0], rule, *rows[1:]))


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def flat(boards: list[Board]) -> list[dict[str, Any]]:
    """One flat row per leaderboard, dataset or group, and entry."""
    rows = []
    for board in boards:
        for entry in board.entries:
            for kind, figures in (("group", entry.groups), ("dataset", entry.datasets)):
                for name, figure in figures.items():
                    place = {"data": board.data, "setting": board.setting, "kind": kind, "name": name}
                    rows.append(place | _flat_entry(entry, name) | _flat_figure(figure))
    return rows


def _flat_entry(entry: Entry, name: str) -> dict[str, Any]:
    by_group = {key: entry.facts.get(key, {}).get(name) for key in ("ece", "brier", *COSTS)}
    seconds = {key: entry.facts.get(key) for key in ("fit_seconds", "decision_ms")}
    return {"router": entry.name, "role": entry.role, "seeds": len(entry.seeds), **by_group, **seconds}


def _flat_figure(figure: Figure) -> dict[str, Any]:
    row: dict[str, Any] = {"routed": figure.routed, "seed_half_width": figure.seed_half_width}
    row["low"], row["high"] = figure.interval or (None, None)
    row["gap_closed"] = figure.gap_closed
    for key in ("versus_best_single", "versus_best_control"):
        row[key], row[f"{key}_low"], row[f"{key}_high"] = getattr(figure, key) or (None, None, None)
    row["per_seed"] = " ".join(number(line["routed"], 1, 4) for line in figure.per_seed)
    return row


def to_csv(boards: list[Board]) -> str:
    """:func:`flat` as CSV."""
    rows = flat(boards)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]) if rows else ["data"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def to_json(boards: list[Board]) -> str:
    """Everything on the leaderboards, without what the cells hold themselves."""
    content = []
    for board in boards:
        plain = asdict(board)
        for entry in plain["entries"]:
            del entry["results"]
        content.append(plain)
    # JSON has no NaN; what cannot be measured is null.
    plain_content = json.loads(json.dumps(content), parse_constant=lambda name: None)
    return json.dumps(plain_content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
