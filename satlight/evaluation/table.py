"""Results as a table for the terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from satlight.evaluation.results import RoutingResults

# Heading, key, factor and decimals; narrow, so that twelve figures and a name fit 110 columns.
_Column = tuple[str, str, float, int]
_COLUMNS: tuple[_Column, ...] = (
    ("random", "random", 1, 1),
    ("best\nsingle", "best_single", 1, 1),
    ("dataset\nbest", "dataset_best", 1, 1),
    ("task\nbest", "task_best", 1, 1),
    ("dataset\noracle", "dataset_oracle", 1, 1),
    ("oracle", "oracle", 1, 1),
    ("gap\n%", "gap_closed", 100, 0),
    ("ECE", "ece", 1, 3),
)
_REACHABLE: tuple[_Column, ...] = (
    ("Bayes", "bayes_optimal", 1, 1),
    ("reach\n%", "reachable_gap_closed", 100, 0),
)
_TEXT_CONTROLS = {
    "tfidf_knn": "TF-IDF kNN",
    "aptitude_knn": "aptitude kNN",
    "inferred_dataset": "inferred dataset",
}
_MOST_CHOSEN = 5


def print_table(results: RoutingResults, console: Console | None = None) -> None:
    """Print one row per dataset and per group, then what was chosen; fits 110 columns.

    Args:
        results: From :func:`satlight.evaluation.evaluate`.
        console: Where to print; None = standard output.

    Example:
        >>> entry = {"n": 2, "n_unknown": 0, "routed": 50.0, "interval": [0.0, 100.0], "oracle": 100.0,
        ...     "versus_best_single": [-50.0, 50.0], "share": {"a": 1.0}, "best_single_candidate": "a"}
        >>> results = RoutingResults({"math": entry}, {}, ["a"], "test", "score",
        ...     {"name": "toy", "fingerprint": "0", "simulated": True}, 0)
        >>> print_table(results, Console(width=110))  # doctest: +ELLIPSIS
        Routing on toy (simulated), test split, accuracy in percent...
    """
    console = console or Console()
    entries = [*results.datasets.values(), *results.groups.values()]
    simulated = any("bayes_optimal" in entry for entry in entries)
    title = f"Routing on {results.data['name']}{' (simulated)' if results.data['simulated'] else ''}"
    console.print(Text(f"{title}, {results.split} split, accuracy in percent", style="bold"))
    console.print(_table(results, _COLUMNS + (_REACHABLE if simulated else ())))
    legend = "gap % = share of the way from best single to oracle"
    if simulated:
        legend += "; reach % = from best single to Bayes-optimal, by true probabilities"
    console.print(Text(f"{legend}; 95 % = bootstrap interval of routed", style="dim"))
    for line in _remarks(results):
        console.print(Text(line))


def _table(results: RoutingResults, columns: tuple[_Column, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("dataset", max_width=20, no_wrap=True, overflow="ellipsis", vertical="bottom")
    for heading in ("n", "routed", "95 %", *(column[0] for column in columns)):
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for name, entry in results.datasets.items():
        table.add_row(*_cells(name, entry, columns))
    table.add_section()
    for name, entry in results.groups.items():
        table.add_row(*_cells(f"mean {name}", entry, columns), style="bold")
    return table


def _cells(name: str, entry: dict[str, Any], columns: tuple[_Column, ...]) -> list[Text]:
    low, high = entry["interval"]
    cells = [name, f"{entry['n']}", _number(entry["routed"]), f"{_number(low)}–{_number(high)}"]
    cells += [_number(entry.get(key), factor, decimals) for _, key, factor, decimals in columns]
    return [Text(cell) for cell in cells]  # Text, because a name such as "[mmlu]" is not markup


def _number(value: float | None, factor: float = 1, decimals: int = 1) -> str:
    return "–" if value is None else f"{factor * value:.{decimals}f}"


def _remarks(results: RoutingResults) -> list[str]:
    lines = []
    short = _short_names(results.candidates)
    groups = results.groups or results.datasets
    for name, entry in groups.items():
        low, high = entry["versus_best_single"]
        if low is not None:
            best = short[entry["best_single_candidate"]]
            lines.append(f"{name}: {low:+.1f} to {high:+.1f} points over best single, {best} (95 %, paired)")
        lines += [f"{name}: {line}" for line in (_over_text_controls(entry), _spent(entry)) if line]
        chosen = sorted(((share, m) for m, share in entry["share"].items() if share), key=lambda x: -x[0])
        shown = [f"{short[m]} {100 * share:.0f} %" for share, m in chosen[:_MOST_CHOSEN]]
        rest = [f"{len(chosen) - _MOST_CHOSEN} more"] if len(chosen) > _MOST_CHOSEN else []
        lines.append(f"{name}: chose {', '.join(shown + rest)}; {len(chosen)} of {len(short)} candidates")
    if results.calibration is not None:
        errors = ", ".join(
            f"{name} {_number(entry['ece'], 1, 3)} → {_number(entry['ece_calibrated'], 1, 3)}"
            for name, entry in groups.items()
        )
        lines.append(f"ECE after temperature scaling, fitted on validation: {errors}")
    if results.data.get("costs") == "incomplete":
        lines.append("costs are left out: some records have no cost_usd, and an unknown price is not $0")
    if unknown := sum(entry["n_unknown"] for entry in results.datasets.values()):
        lines.append(f"routed leaves out {unknown} of the instructions: no record of the routed candidate")
    return lines


def _over_text_controls(entry: dict[str, Any]) -> str:
    """What controls reach that read the text, and how far the router is above them."""
    parts = []
    for control, label in _TEXT_CONTROLS.items():
        low, high = entry.get(f"versus_{control}", (None, None))
        if low is not None:
            parts.append(f"{label} {_number(entry[control])} ({low:+.1f} to {high:+.1f})")
    return f"points over {', '.join(parts)}" if parts else ""


def _spent(entry: dict[str, Any]) -> str:
    """What routing costs, and what a mixture of single candidates does for as much."""
    if entry.get("cost_routed") is None:
        return ""
    line = f"${entry['cost_routed']:.3g} per 1,000 instructions"
    if entry["zero_router"] is not None:
        line += f"; zero router {_number(entry['zero_router'])} for ${entry['cost_zero_router']:.3g}"
    if entry["aiq"] is not None:
        line += f"; AIQ {_number(entry['aiq'])}, of the zero router {_number(entry['zero_router_aiq'])}"
    return line


def _short_names(candidates: list[str]) -> dict[str, str]:
    """Names without their institute where that leaves them distinct."""
    short = {candidate: candidate.rsplit("/", 1)[-1] for candidate in candidates}
    return short if len(set(short.values())) == len(candidates) else {name: name for name in candidates}
