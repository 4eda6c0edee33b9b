"""Results as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from satlight.evaluation.comparison import left_out
from satlight.evaluation.results import LEAST_GAP, GroupResult, RoutingResults


class _Column(NamedTuple):
    """Column of the table: heading, name of a control or field, factor and decimals."""

    heading: str
    name: str
    factor: float = 1
    decimals: int = 1

    def cell(self, entry: GroupResult) -> str:
        control = entry.controls.get(self.name)
        value = getattr(entry, self.name, None) if control is None else control.accuracy
        return _number(value, self.factor, self.decimals)


# Narrow, so that twelve numbers and a name fit 110 columns.
_COLUMNS = (
    _Column("random", "random"),
    _Column("best\nsingle", "best_single"),
    _Column("dataset\nbest", "dataset_best"),
    _Column("task\nbest", "task_best"),
    _Column("dataset\noracle", "dataset_oracle"),
    _Column("oracle", "oracle"),
    _Column("gap\n%", "gap_closed", 100, 0),
    _Column("ECE", "ece", 1, 3),
)
_REACHABLE = (_Column("Bayes", "bayes_optimal"), _Column("reach\n%", "reachable_gap_closed", 100, 0))
_TEXT_CONTROLS = {"tfidf_knn": "TF-IDF kNN", "aptitude_knn": "aptitude kNN", "inferred_dataset": "inferred dataset"}
_MOST_CHOSEN = 5


def print_table(results: RoutingResults, console: Console | None = None) -> None:
    """Print one row per dataset and per group, then remarks on the choices; fits 110 columns.

    Args:
        results: From :func:`satlight.evaluation.evaluate`.
        console: Console to print to; None = standard output.

    Example:
        >>> from satlight.evaluation.results import EvaluatedData
        >>> results = RoutingResults({}, {}, ["a"], "test", "score", EvaluatedData("toy", "0", True), 0)
        >>> print_table(results, Console(width=110))
        Routing on toy (simulated), test split, accuracy in percent
        ...
    """
    console = console or Console()
    entries = [*results.datasets.values(), *results.groups.values()]
    simulated = any("bayes_optimal" in entry.controls for entry in entries)
    title = f"Routing on {results.data.name}{' (simulated)' if results.data.simulated else ''}"
    console.print(Text(f"{title}, {results.split} split, accuracy in percent", style="bold"))
    console.print(_table(results, _COLUMNS + (_REACHABLE if simulated else ())))
    legend = "gap % = share of the way from best single to oracle"
    if simulated:
        legend += "; reach % = from best single to Bayes-optimal, by true probabilities"
    legend += f"; – = the way is below {LEAST_GAP:g} points"
    console.print(Text(f"{legend}; 95 % = bootstrap interval of routed", style="dim"))
    for line in _remarks(results):
        console.print(Text(line))


def _table(results: RoutingResults, columns: tuple[_Column, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("dataset", max_width=20, no_wrap=True, overflow="ellipsis", vertical="bottom")
    for heading in ("n", "routed", "95 %", *(column.heading for column in columns)):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    kinds: tuple[tuple[str, str | None, Mapping[str, GroupResult]], ...]
    kinds = ("", None, results.datasets), ("mean ", "bold", results.groups)
    for prefix, style, entries in kinds:
        table.add_section()
        for name, entry in entries.items():
            low, high = entry.interval
            cells = [f"{prefix}{name}", f"{entry.n}", _number(entry.routed), f"{_number(low)}–{_number(high)}"]
            cells += [column.cell(entry) for column in columns]
            table.add_row(*map(Text, cells), style=style)  # Text, because a name such as "[mmlu]" is not markup
    return table


def _number(value: float | None, factor: float = 1, decimals: int = 1) -> str:
    return "–" if value is None else f"{factor * value:.{decimals}f}"


def _remarks(results: RoutingResults) -> list[str]:
    lines = []
    short = _short_names(results.candidates)
    groups: Mapping[str, GroupResult] = results.groups or results.datasets
    for name, entry in groups.items():
        if (best := entry.best_single_candidate) and (over := _over(entry, "best_single")):
            lines.append(f"{name}: {over} points over best single, {short[best]} (95 %, paired)")
        lines += [f"{name}: {line}" for line in (_over_text_controls(entry), _spent(entry)) if line]
        chosen = sorted(((share, m) for m, share in entry.share.items() if share), key=lambda x: -x[0])
        shown = [f"{short[m]} {100 * share:.0f} %" for share, m in chosen[:_MOST_CHOSEN]]
        rest = [f"{len(chosen) - _MOST_CHOSEN} more"] if len(chosen) > _MOST_CHOSEN else []
        lines.append(f"{name}: chose {', '.join(shown + rest)}; {len(chosen)} of {len(short)} candidates")
    if results.calibration is not None:
        errors = ", ".join(
            f"{name} {_number(entry.ece, 1, 3)} → {_number(entry.ece_calibrated, 1, 3)}"
            for name, entry in groups.items()
        )
        lines.append(f"ECE after calibration on validation rows: {errors}")
    if results.data.costs == "incomplete":
        lines.append("costs are left out: some records have no cost_usd, and an unknown price is not $0")
    if unknown := sum(entry.n_unknown for entry in results.datasets.values()):
        lines.append(f"{unknown} of the instructions have no record of the routed candidate")
    return lines + _not_compared(results)


def _not_compared(results: RoutingResults) -> list[str]:
    """Return what the comparison leaves out where outcomes are missing."""
    shares: dict[str, dict[str, float]] = {}
    for dataset, entry in results.datasets.items():
        for name, share in entry.coverage.items():
            if name != "routed" and share and entry.controls[name].accuracy is None:
                candidate = f", {entry.best_single_candidate}," if name == "best_single" else ""
                shares.setdefault(f"{name.replace('_', ' ')}{candidate}", {})[dataset] = share
    compared = {name: entry.n_compared / entry.n for name, entry in results.datasets.items()}
    return left_out(shares, compared)


def _over(entry: GroupResult, control: str) -> str:
    """Return the interval of the router's difference to a control; empty if unknown."""
    result = entry.controls.get(control)
    low, high = (result and result.versus) or (None, None)
    return "" if low is None else f"{low:+.1f} to {high:+.1f}"


def _over_text_controls(entry: GroupResult) -> str:
    """Return the accuracy of the controls that read the text, and the router's difference to them."""
    parts = [
        f"{label} {_number(entry.controls[control].accuracy)} ({over})"
        for control, label in _TEXT_CONTROLS.items()
        if (over := _over(entry, control))
    ]
    return f"points over {', '.join(parts)}" if parts else ""


def _spent(entry: GroupResult) -> str:
    """Return the cost of routing, and the accuracy of the zero router at that cost."""
    if entry.cost_routed is None:
        return ""
    zero = entry.controls["zero_router"]
    line = f"${entry.cost_routed:.3g} per 1,000 instructions"
    if zero.accuracy is not None:
        line += f"; zero router {_number(zero.accuracy)} for ${zero.cost:.3g}"
    if entry.aiq is not None:
        line += f"; AIQ {_number(entry.aiq)}, of the zero router {_number(entry.zero_router_aiq)}"
    return line


def _short_names(candidates: list[str]) -> dict[str, str]:
    """Strip the institute from names if they stay distinct."""
    short = {candidate: candidate.rsplit("/", 1)[-1] for candidate in candidates}
    return short if len(set(short.values())) == len(candidates) else {name: name for name in candidates}
