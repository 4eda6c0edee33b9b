"""``satlight recommend``: whether routing pays on a log, and with which router."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import satlight
from satlight.cli.route import user_path
from satlight.errors import SatlightError

if TYPE_CHECKING:
    from rich.console import Console

    from satlight.bench.recommend import Progress
    from satlight.bench.recommendation import Recommendation

CONFIG = Path("configs/own_data.yaml")
"""Training config of Model-SAT, in a checkout; the wheel has it next to the package's modules."""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "recommend",
        help="from a log to an answer: does routing pay, and with which router",
        description="Fit routers within a time budget, pick one on validation rows, judge it once on held-out rows, "
        "and save it with a decision rule. After an interruption, the same command resumes.",
    )
    add_log_options(parser)
    parser.add_argument("--minutes", type=float, default=10.0, help="time for fitting routers (default: 10)")
    parser.add_argument(
        "--to", type=user_path, metavar="DIR", help="folder of router and report (default: runs/recommend/NAME)"
    )
    parser.add_argument("--text-column", default="instruction", help="column that routers read (default: instruction)")
    parser.add_argument("--group-column", help="column of groups that stay in one split")
    parser.add_argument(
        "--embedder", default="minilm", help="text embedder (default: minilm); none = routers on words only"
    )
    parser.add_argument(
        "--config",
        type=user_path,
        metavar="YAML",
        help=f"training config of Model-SAT (default: {CONFIG}; /dev/null = leave Model-SAT out)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of splits and routers (default: 0)")
    parser.set_defaults(run=run_recommend)


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add the log, its column of outcomes, and what to keep of it."""
    parser.add_argument("records", help="records folder, .csv or .jsonl file with instruction, candidate and score")
    parser.add_argument("--score-column", default="score", help="column of the outcomes, 0 to 1 (default: score)")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="names or patterns to keep")
    parser.add_argument("--candidates", nargs="+", metavar="NAME", help="names or patterns to keep")


def run_recommend(args: argparse.Namespace) -> None:
    """Measure, decide, print and save."""
    from rich.console import Console

    from satlight.bench import recommend
    from satlight.bench.recommend_report import write_recommendation
    from satlight.bench.recommendation import clear, conclude

    if not args.minutes > 0:
        raise SatlightError(f"--minutes is {args.minutes:g}; it must be positive")
    console = Console()
    output = args.to or Path("runs/recommend") / Path(args.records).expanduser().resolve().stem
    request = recommend.Request(
        args.records,
        output.absolute(),
        args.minutes,
        args.score_column,
        args.text_column,
        args.group_column,
        args.datasets,
        args.candidates,
        None if args.embedder == "none" else args.embedder,
        _config(args.config),
        args.seed,
    )
    log = recommend.open_log(request)
    console.print(f"{log.records!r}, output in {output}", markup=False, highlight=False, soft_wrap=True)
    clear(request.output)
    cells = recommend.development_bench(request, log)
    with _bar(len(cells)) as progress:
        notes = recommend.run_within(request, log, cells, progress)
    if request.config is None:
        notes.append("Model-SAT was left out: no training config.")
    found = conclude(request, log, cells, notes)
    write_recommendation(found, request.output)
    _print(console, found)
    for name in ("recommendation.html", "recommendation.json", "router"):
        console.print(f"{name}: {output / name}", markup=False, highlight=False, soft_wrap=True)


def _config(given: Path | None) -> str | None:
    if given is None:
        package = Path(satlight.__file__).parent
        return str(next(path for path in (package / CONFIG.name, package.parent / CONFIG) if path.is_file()))
    if str(given) == "/dev/null":
        return None
    if not given.is_file():
        raise SatlightError(f"--config {given} does not exist; give a training config such as {CONFIG}")
    return str(given)


class _bar:  # noqa: N801  used like a function
    """Show a progress bar on a terminal, and lines elsewhere."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self.task = self.bar.add_task("splits", total=total)

    def __enter__(self) -> Progress:
        from satlight.bench.recommend import Progress

        self.bar.start()
        return Progress(lambda name: self.bar.update(self.task, description=name), self._done)

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def _done(self, name: str, result: Any) -> None:
        self.bar.advance(self.task)


def _print(console: Console, found: Recommendation) -> None:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from satlight.bench import recommend_report as report

    def show(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
        table = Table(title=Text(title), title_justify="left", box=SIMPLE, show_header=bool(headings))
        for number in range(len(rows[0])):
            table.add_column(headings[number] if headings else "", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)

    title = f"Routers on the validation rows, the picked one first. Gain {report.gain_over(found)}"
    show(title, ("router", "gain", "time to fit"), report.method_rows(found))
    rows = found.facts["rows"]["test"]
    for title, lines in report.policy_rows(found):
        show(f"{found.method} on the {rows} test rows, opened once.\n{title}", (), lines)
    kinds = report.kind_rows(found)
    known = sum(one.gain is not None for one in found.kinds)  # the others are last
    shown = kinds if len(kinds) <= 12 else kinds[:known] if known <= 12 else [*kinds[:6], *kinds[known - 6 : known]]
    title = f"{'The kinds that gain most and least' if len(kinds) > 12 else 'By kind'}; intervals not adjusted"
    show(title, report.KIND_HEADINGS, shown or kinds[:12])
    for note in found.notes:
        console.print(f"- {note}", markup=False, highlight=False)
    console.print(Text(report.headline(found), style="bold"))
    console.print(f"{report.reason(found)} {report.power(found)}", markup=False, highlight=False)
