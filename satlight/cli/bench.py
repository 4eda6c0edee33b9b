"""``satlight bench``: measure all methods on all data, zoo settings and seeds, and write a report."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satlight.cli.route import user_path

if TYPE_CHECKING:
    from rich.console import Console

    from satlight.bench.board import Board
    from satlight.bench.cells import Cell
    from satlight.bench.config import BenchConfig
    from satlight.bench.results import CellResult


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "bench",
        help="compare routers: methods x data x zoo settings x seeds",
        description="Run the cells that have no result yet, then write tables, plots and a report. After an "
        "interruption, the same command resumes.",
    )
    parser.add_argument(
        "configs", nargs="+", type=user_path, metavar="YAML", help="benches, e.g. configs/bench/quick.yaml"
    )
    parser.add_argument("--retry-failed", action="store_true", help="run failed cells again")
    parser.add_argument("--report-only", action="store_true", help="run nothing, report the existing results")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="cells to run at once (default: the config's, or all cores)"
    )
    parser.add_argument(
        "--backend",
        choices=["loky", "dask"],
        default="loky",
        help="loky: processes on this machine (default); dask: a cluster",
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="the Dask scheduler, e.g. tcp://10.0.0.1:8786")
    parser.add_argument("--methods", nargs="+", metavar="NAME", help="only these of the configs' methods")
    parser.add_argument(
        "--output", type=user_path, metavar="DIR", help="output folder instead of the config's; one bench only"
    )
    parser.add_argument(
        "--markdown", type=user_path, metavar="FILE", help="also write the leaderboards of all benches to this file"
    )
    parser.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace) -> None:
    """Run and report every bench in turn."""
    from dataclasses import replace

    from satlight.bench.config import load_config
    from satlight.errors import SatlightError
    from satlight.files import read_text, write_text

    benches = [load_config(path) for path in args.configs]
    if args.output is not None and len(benches) > 1:
        raise SatlightError(f"--output names one folder, but {len(benches)} benches are given; omit it")
    if args.workers is not None and args.workers < 1:
        raise SatlightError(f"--workers is {args.workers}; it must be at least 1")
    if (args.scheduler is None) == (args.backend == "dask"):
        raise SatlightError(
            f"--backend {args.backend} with --scheduler {args.scheduler}; a cluster needs `--backend dask "
            "--scheduler ADDRESS`, this machine neither of them"
        )
    from satlight.bench.tables import LEGEND, markdown
    from satlight.escaping import markdown_text

    parts = []
    for path, bench in zip(args.configs, benches, strict=True):
        known = [method.name for method in bench.methods]
        chosen = known if args.methods is None else args.methods
        if unknown := [name for name in chosen if name not in known]:
            raise SatlightError(f"--methods names {unknown}, but the bench {bench.name} has {', '.join(known)}")
        bench = replace(
            bench,
            methods=[method for method in bench.methods if method.name in chosen],
            output=str(args.output or bench.output),
            workers=args.workers or bench.workers,
        )
        boards = _bench(bench, read_text(path, "give the YAML file of a bench"), args)
        parts.append(f"## {markdown_text(path.stem)}\n\n{markdown(boards)}")
    if args.markdown is not None:
        paths = " ".join(path.as_posix() for path in args.configs)
        about = f"Written by `satlight bench {paths} --markdown FILE`; do not edit. {LEGEND}"
        write_text(args.markdown, "\n\n".join(["# Results", about, *parts]))
        print(f"Written to {args.markdown}")


def _bench(bench: BenchConfig, text: str, args: argparse.Namespace) -> list[Board]:
    import joblib
    from rich.console import Console

    from satlight.bench.cells import plan
    from satlight.bench.report import write_report
    from satlight.bench.results import CellResult
    from satlight.bench.runner import run_cells
    from satlight.bench.tables import print_boards

    console = Console()
    output = Path(bench.output)
    cells = plan(bench)
    missing = sum(CellResult.read(output, cell.key) is None for cell in cells)
    console.print(f"{bench.name}: {len(cells)} cells, {missing} to compute, in {output}", markup=False)
    if not args.report_only:
        run_cells(
            cells,
            output,
            workers=bench.workers or joblib.cpu_count(),
            timeout=bench.timeout,
            retry_failed=args.retry_failed,
            backend=args.backend,
            scheduler=args.scheduler,
            report=_Progress(console, missing),
        )
    boards = write_report(bench, cells, output, text)
    print_boards(boards)
    console.print(f"Report: {output / 'report.html'}", markup=False)
    return boards


class _Progress:
    """Print a line per finished cell."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done = console, total, 0

    def __call__(self, cell: Cell, result: CellResult) -> None:
        self.done += 1
        line = f"[{self.done}/{max(self.total, self.done)}] {cell.title}: "
        if result.error is not None:
            line += f"failed: {result.error.splitlines()[0]}"
        else:
            line += "done" if result.routed is None else f"{result.routed:.2f} ({next(iter(cell.problem.groups))})"
        line += "" if result.seconds is None else f", {result.seconds:.0f} s"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)
