"""``satlight sweep``: run a sweep in W&B's YAML format on this machine, without a server."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from satlight.cli.route import user_path
from satlight.errors import SatlightError


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "sweep",
        help="run a sweep over options of `fit`, without a server",
        description="Run every point of a sweep as a `fit` process, and compare the points in a table, a CSV file and "
        "a plot. After an interruption, the same command resumes. See docs/experiments.md.",
    )
    parser.add_argument("file", type=user_path, metavar="YAML", help="a sweep, e.g. configs/sweeps/objective.yaml")
    parser.add_argument(
        "--runs", type=user_path, default=Path("runs/sweeps"), metavar="DIR", help="results: DIR/NAME (runs/sweeps)"
    )
    parser.add_argument("--trials", type=int, metavar="N", help="maximum number of points (default: run_cap, or all)")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="trials to run at once (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of random points and proposals (default: 0)")
    parser.add_argument("--retry-failed", action="store_true", help="run failed trials again")
    parser.add_argument("--dry-run", action="store_true", help="check the points and print their commands")
    parser.set_defaults(run=run_sweep)


def run_sweep(args: argparse.Namespace) -> None:
    """Check all points, run the trials, print and save the results."""
    import shlex

    from rich.console import Console

    from satlight.sweeps import definition, runner
    from satlight.sweeps.report import label, print_report, save_report
    from satlight.sweeps.trials import Trial

    for option in ("trials", "processes"):
        if (number := getattr(args, option)) is not None and number < 1:
            raise SatlightError(f"--{option} is {number}; it must be at least 1")
    sweep = definition.read_sweep(args.file)
    folder: Path = args.runs / sweep.name
    checked = PointChecker(sweep.argv, args.file)
    points = list(sweep.points()) if sweep.method == "grid" else sweep.corners()
    for point in points:
        checked(point)
    checked.check_metric(sweep.metric, points[0])
    console = Console(width=None if sys.stdout.isatty() else 120)
    print(f"{sweep.name}: {len(points)} points checked; results in {folder}")
    if args.dry_run:
        for point in points:
            print(shlex.join(["satlight", *sweep.argv(point)]))
        return
    done = 0

    def report(trial: Trial, kept: bool) -> None:
        nonlocal done
        done += 1
        value = f"{sweep.metric} {trial.value:.4f}" if trial.value is not None else (trial.error or "")
        text = "kept from an earlier call" if kept else f"{trial.seconds:.0f} s"
        print(f"[{done}] {label(trial.point, list(trial.point))}: {trial.state}, {value}, {text}", flush=True)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    _local_tracking(sweep.name)
    trials = runner.run_sweep(
        sweep,
        folder,
        checked,
        limit=args.trials,
        processes=args.processes,
        retry_failed=args.retry_failed,
        seed=args.seed,
        report=report,
    )
    print_report(sweep, trials, console)
    for path in save_report(sweep, trials, folder):
        print(f"Written to {path}")
    if not any(trial.value is not None for trial in trials):
        raise SatlightError(f"no trial has a result; the logs are in {folder}/*/log.txt")


def _end(number: int, frame: Any) -> None:
    """Turn SIGTERM into an exception, so that the trials are ended too."""
    raise SystemExit(128 + number)


def _local_tracking(name: str) -> None:
    """Disable W&B in the trials unless the user has a key or has set a mode; make the sweep their group."""
    import os

    from satlight.callbacks.wandb_run import has_key

    if not has_key():
        os.environ.setdefault("WANDB_MODE", "disabled")
    os.environ.setdefault("WANDB_RUN_GROUP", name)


class PointChecker:
    """Parse the options of points as ``fit`` would, without running anything.

    Args:
        argv_of: Returns the arguments of satlight for a point.
        where: File of the sweep, for messages.
    """

    def __init__(self, argv_of: Callable[[dict[str, Any]], list[str]], where: Path) -> None:
        from satlight.cli.startup import import_torchmetrics_alone

        import_torchmetrics_alone()
        from satlight.cli.training import training_parser

        self._argv_of, self._where, self._parser = argv_of, where, training_parser()
        self._keys: dict[str, str] = {}

    def __call__(self, point: dict[str, Any]) -> str:
        """Return a hash of all resolved options of the run of a point.

        Raises:
            SatlightError: An option that does not exist, or a value that it does not take.
        """
        from satlight.bench.cells import digest

        if (argv := repr(self._argv_of(point))) not in self._keys:
            config = self.parse(point).as_dict()
            self._keys[argv] = digest({key: config[key] for key in config if key not in ("config", "name", "runs")})
        return self._keys[argv]

    def parse(self, point: dict[str, Any]) -> Any:
        """Return the resolved options of ``fit`` for a point."""
        from satlight.cli.settings import split_configs

        message = StringIO()
        try:
            with redirect_stderr(message):
                return self._parser.parse_args(split_configs(self._argv_of(point))).fit
        except SystemExit as stop:
            text = message.getvalue().partition("error:")[2].strip()
            raise SatlightError(f"{self._where}: the point {point} is no valid `fit`: {text}") from stop
        except SatlightError as error:
            raise SatlightError(f"{self._where}: the point {point}: {error}") from error

    def check_metric(self, metric: str, point: dict[str, Any]) -> None:
        """Raise an error if no validation logs the metric; modules from elsewhere may log others.

        Raises:
            SatlightError: satlight's modules do not log it.
        """
        from satlight.sweeps.definition import METRICS

        model = str(self.parse(point).model.class_path)
        if model.startswith("satlight.") and metric not in METRICS:
            raise SatlightError(
                f"{self._where}: metric.name is {metric!r}, which {model} does not log; "
                f"allowed are {', '.join(METRICS)}"
            )
