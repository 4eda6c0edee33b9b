"""Run the trials of a sweep, each one a ``fit`` process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import locked
from satlight.sweeps.definition import Point, Sweep
from satlight.sweeps.study import Listed, Source, Study
from satlight.sweeps.trials import COMPLETE, FAILED, LOG, PRUNED, Trial, best, epochs

_POLL_SECONDS = 0.5
_PROGRAM = [sys.executable, "-m", "satlight"]
_GRACE_SECONDS = 30.0
"""Time from SIGTERM to SIGKILL."""


@dataclass
class _Running:
    """A trial at work."""

    key: str
    point: Point
    token: Any
    process: subprocess.Popen[bytes]
    started: float
    reported: int = 0
    stopped: bool = False

    def stop(self) -> None:
        with suppress(ProcessLookupError):
            self.process.terminate()


def run_sweep(
    sweep: Sweep,
    folder: Path,
    key_of: Callable[[Point], str],
    *,
    limit: int | None = None,
    processes: int = 1,
    retry_failed: bool = False,
    seed: int = 0,
    report: Callable[[Trial, bool], None] = lambda trial, kept: None,
) -> list[Trial]:
    """Run the points that have no result yet, and return the trials of all points.

    A trial that fails is marked failed; the others continue. An interrupted run continues from its last checkpoint.

    Args:
        sweep: The sweep.
        folder: Folder of the sweep; each trial has a folder of its own in it.
        key_of: Returns a hash of all resolved options of the run of a point.
        limit: Maximum number of points; None = the sweep's ``run_cap``, or the whole grid.
        processes: Trials to run at once.
        retry_failed: Run failed trials again, from the start.
        seed: Seed of random points and proposals.
        report: Called for every trial, with True if it was kept from an earlier call.

    Raises:
        SatlightError: A search without end, or Optuna is needed and not installed.
    """
    limit = limit if limit is not None else sweep.run_cap
    if limit is None and sweep.method != "grid":
        raise SatlightError(f"method: {sweep.method} has no end; give --trials N, or run_cap in the file")
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / ".lock"):
        return _Runner(sweep, folder, key_of, processes, retry_failed, report).run(
            _source(sweep, folder, key_of, limit, seed)
        )


def _source(sweep: Sweep, folder: Path, key_of: Callable[[Point], str], limit: int | None, seed: int) -> Source:
    if sweep.method != "bayes" and not sweep.early_terminate:
        return Listed(sweep.points(seed), limit)
    identity = f"{sweep.metric} {sweep.parameters} {[key_of(point) for point in sweep.corners()]}"
    return Study(sweep, folder, identity, limit, seed)


class _Runner:
    """The trials of one call."""

    def __init__(
        self,
        sweep: Sweep,
        folder: Path,
        key_of: Callable[[Point], str],
        processes: int,
        retry_failed: bool,
        report: Callable[[Trial, bool], None],
    ) -> None:
        self.sweep, self.folder, self.key_of, self.report = sweep, folder, key_of, report
        self.processes, self.retry_failed = processes, retry_failed
        self.trials: dict[str, Trial] = {}
        self.active: list[_Running] = []

    def run(self, source: Source) -> list[Trial]:
        """Run until the source has no more points."""
        for key in source.known:
            if (kept := Trial.read(self.folder, key)) is not None:
                self.trials[key] = kept
                self.report(kept, True)
        more = True
        try:
            while more or self.active:
                while more and len(self.active) < self.processes:
                    more = self._next(source)
                time.sleep(_POLL_SECONDS if self.active else 0)
                for running in list(self.active):
                    self._watch(running, source)
        finally:
            self._stop_all()
        return list(self.trials.values())

    def _next(self, source: Source) -> bool:
        """Start the next point, or take its kept result; False at the end."""
        asked = source.ask()
        if asked is None:
            return False
        point, token = asked
        key = self.key_of(point)
        kept = self.trials.get(key) or Trial.read(self.folder, key)
        if kept is not None and not (kept.state == FAILED and self.retry_failed and key not in self.trials):
            source.tell(token, kept)
            if key not in self.trials:
                self.trials[key] = kept
                self.report(kept, True)
        elif any(running.key == key for running in self.active):  # proposed twice at once
            source.tell(token, Trial(key, point, FAILED))
        else:
            self.active.append(self._start(key, point, token, resume=kept is None))
        return True

    def _start(self, key: str, point: Point, token: Any, resume: bool) -> _Running:
        """Start the process of a trial."""
        folder = self.folder / key
        folder.mkdir(exist_ok=True)
        argv = [*self.sweep.argv(point), "--runs", str(self.folder), "--name", key]
        run = _newest(folder)
        if resume and run is not None and (run / "checkpoints" / "last.ckpt").is_file():
            argv += ["--ckpt_path", "last"]
        threads = str(max(1, (os.cpu_count() or 1) // self.processes))
        # W&B would give one run id to all trials if this process were itself a run of an agent.
        env = {name: value for name, value in os.environ.items() if name not in ("WANDB_RUN_ID", "WANDB_SWEEP_ID")}
        with (folder / LOG).open("ab") as log:
            process = subprocess.Popen(
                [*_PROGRAM, *argv],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={"OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"} | env,
                start_new_session=True,  # Ctrl-C reaches this process alone, which then ends the trials
            )
        return _Running(key, point, token, process, time.monotonic())

    def _watch(self, running: _Running, source: Source) -> None:
        """Report new values of a trial; finish it if its process has ended."""
        code = running.process.poll()
        run = _newest(self.folder / running.key)
        history = epochs(run) if run is not None else []
        for epoch, row in history[running.reported :]:
            value = row.get(self.sweep.metric)
            if value is None:  # not yet written
                break
            running.reported += 1
            if not running.stopped and code is None and source.should_stop(running.token, epoch, value):
                running.stopped = True
                running.stop()
        if code is None:
            return
        self.active.remove(running)
        trial = self._result(running, code, run, history)
        trial.save(self.folder)
        self.trials[trial.key] = trial
        source.tell(running.token, trial)
        self.report(trial, False)

    def _result(
        self, running: _Running, code: int, run: Path | None, history: list[tuple[int, dict[str, float]]]
    ) -> Trial:
        found = best(history, self.sweep.metric, self.sweep.maximize)
        trial = Trial(running.key, running.point, COMPLETE, seconds=round(time.monotonic() - running.started, 1))
        trial.run = None if run is None else str(run.relative_to(self.folder))
        if found is not None:
            trial.epoch, trial.value = found
            trial.metrics = dict(history)[trial.epoch]
        if running.stopped and code != 0:
            trial.state = PRUNED
        elif code != 0:
            trial.state, trial.error = FAILED, _last_line(self.folder / running.key / LOG)
        elif found is None:
            names = ", ".join(sorted({name for _, row in history for name in row})) or "none"
            trial.state, trial.error = FAILED, f"{self.sweep.metric} was not logged; validation metrics: {names}"
        return trial

    def _stop_all(self) -> None:
        """End the trials at work; without a result, they continue at the next call."""
        for running in self.active:
            running.stop()
        deadline = time.monotonic() + _GRACE_SECONDS
        for running in self.active:
            try:
                running.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(running.process.pid, signal.SIGKILL)


def _newest(folder: Path) -> Path | None:
    """Return the newest run in the folder of a trial."""
    numbered = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
    return max(numbered, key=lambda path: int(path.name), default=None)


def _last_line(path: Path) -> str:
    """Return the message of a failed trial: its last line with ``error:``, or its last line."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line.lower()]
    return (errors or lines or ["no output"])[-1]
