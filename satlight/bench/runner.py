"""Runs the cells of a bench that have no result yet, several at once, each in a process of its own.

Two benches at once on one output folder share the cells between them: a cell belongs to whoever holds its
lock file (:mod:`satlight.bench.locks`), and its folder appears whole or not at all.
"""

from __future__ import annotations

import json
import logging
import math
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from satlight.bench import locks, worker
from satlight.bench.cells import CONTROLS, EMBEDDING, Cell, write_cell
from satlight.bench.methods import forget_run
from satlight.files import atomic_path

log = logging.getLogger(__name__)

Report = Callable[[Cell, dict[str, Any]], None]
"""Told of every cell that this process finished, with its result."""

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
"""Variables that give each process one thread; a value of the user's stays."""

_PRELOADED = ["torch", "scipy.sparse", "sklearn.linear_model"]
"""What nearly every cell imports, loaded once; nothing that starts threads, which a fork would lose."""

_POLL_SECONDS = 0.5


def read_result(output: Path, cell: Cell) -> dict[str, Any] | None:
    """The result of a cell; None if there is none yet."""
    try:
        return json.loads((output / "cells" / cell.key / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_cells(
    cells: list[Cell],
    output: Path,
    *,
    workers: int,
    timeout: float,
    retry_failed: bool = False,
    report: Report = lambda cell, result: None,
) -> None:
    """Compute what is missing, and wait for what another bench is computing.

    A cell that raises, dies or runs out of time gets a result that says so; the others go on. What needs a
    cell that failed fails with it.

    Args:
        cells: All cells, those that others need first.
        output: Folder of the bench.
        workers: Processes at once.
        timeout: Seconds that each method may take; controls and embeddings take what they need.
        retry_failed: Compute cells that failed before once more.
        report: Called after each cell.
    """
    _Runner(cells, output, workers, timeout, report).run(retry_failed)


@dataclass
class _Running:
    """A cell at work: its process, when it must be done, and what is to be closed afterwards."""

    cell: Cell
    folder: Path
    process: BaseProcess
    deadline: float
    stack: ExitStack


class _Runner:
    def __init__(self, cells: list[Cell], output: Path, workers: int, timeout: float, report: Report) -> None:
        self.output, self.workers, self.timeout, self.report = output, workers, timeout, report
        self.cells = {cell.key: cell for cell in cells}
        self.running: list[_Running] = []
        self.named: set[str] = set()

    def run(self, retry_failed: bool) -> None:
        todo = [cell for cell in self.cells.values() if self._is_open(cell, retry_failed)]
        self.old = {cell.key: read_result(self.output, cell) for cell in todo}
        with _one_thread():
            try:
                while todo or self.running:
                    todo = self._start(todo)
                    if todo and not self.running:
                        self._say_who_else(todo)
                    self._reap()
            finally:
                for job in self.running:
                    self._stop(job)

    def _is_open(self, cell: Cell, retry_failed: bool) -> bool:
        result = read_result(self.output, cell)
        return result is None or (retry_failed and result["status"] == "failed")

    def _start(self, todo: list[Cell]) -> list[Cell]:
        """Start what can be started; returns what is still to be done."""
        left = []
        for cell in todo:
            if self._is_done(cell):
                continue  # by another bench
            if len(self.running) >= self.workers or not self._is_ready(cell) or not self._launch(cell):
                left.append(cell)
        return left

    def _is_done(self, cell: Cell) -> bool:
        result = read_result(self.output, cell)
        return result is not None and result != self.old[cell.key]

    def _is_ready(self, cell: Cell) -> bool:
        waiting = {job.cell.key for job in self.running}
        return all(
            key not in waiting and (key not in self.old or self._is_done(self.cells[key]))
            for key in cell.needs
        )

    def _launch(self, cell: Cell) -> bool:
        """Claim a cell and start its process; False if another bench has it."""
        with ExitStack() as stack:
            cells = self.output / "cells"
            if not stack.enter_context(locks.claim(cells / f"{cell.key}.lock")):
                return False
            if self._is_done(cell):
                return True  # finished between the look and the claim
            for leftover in cells.glob(f".{cell.key}.*"):  # of a process that was killed
                shutil.rmtree(leftover, ignore_errors=True)
            if self.old[cell.key] is not None:
                forget_run(cell, self.output)
            folder = stack.enter_context(atomic_path(cells / cell.key))
            folder.mkdir()
            write_cell(cell, folder)
            if broken := self._broken_need(cell):
                self._finish(cell, folder, worker.failure(broken, "NeedsFailed"))
                return True
            process = _context().Process(
                target=worker.main, args=(str(folder), str(self.output), dict(os.environ))
            )
            process.start()
            # What all methods share has the time it needs.
            seconds = math.inf if cell.kind in (CONTROLS, EMBEDDING) else self.timeout
            self.running.append(_Running(cell, folder, process, time.monotonic() + seconds, stack.pop_all()))
        return True

    def _say_who_else(self, todo: list[Cell]) -> None:
        """Once per holder, name who has what this bench is waiting for."""
        for cell in todo:
            path = self.output / "cells" / f"{cell.key}.lock"
            if (who := locks.holder(path)) and who not in self.named:
                self.named.add(who)
                log.info("waiting for %s, which holds %s (%s)", who, path, cell.title)

    def _broken_need(self, cell: Cell) -> str:
        for key in cell.needs:
            needed = self.cells[key]
            result = read_result(self.output, needed) or {}
            if result.get("status") == "failed":
                return f"its {needed.kind} failed: {result['error']}"
        return ""

    def _reap(self) -> None:
        """Wait until a process ends, or a moment; close what has ended or run out of time."""
        wait([job.process.sentinel for job in self.running], _POLL_SECONDS)
        for job in list(self.running):
            overdue = time.monotonic() > job.deadline
            if job.process.is_alive() and not overdue:
                continue
            self.running.remove(job)
            result = None
            if job.process.is_alive():
                _kill(job.process)
                result = worker.failure(f"ran out of time after {self.timeout:g} s", "Timeout")
            elif not (job.folder / "result.json").is_file():
                result = worker.failure(f"the process died ({_end(job.process.exitcode)})", "Crash")
            with job.stack:
                self._finish(job.cell, job.folder, result)

    def _finish(self, cell: Cell, folder: Path, result: dict[str, Any] | None) -> None:
        if result is not None:
            worker.write_result(folder, result)
        self.report(cell, json.loads((folder / "result.json").read_text(encoding="utf-8")))

    def _stop(self, job: _Running) -> None:
        _kill(job.process)
        with suppress(KeyboardInterrupt), job.stack:
            raise KeyboardInterrupt  # so that the unfinished folder is removed, not published


def _kill(process: BaseProcess) -> None:
    """End a process and the trainings that it started."""
    assert process.pid is not None
    with suppress(ProcessLookupError, PermissionError):  # before it heads a group, or after its end
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def _end(code: int | None) -> str:
    if code is not None and code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            return name + (", perhaps for want of memory" if name == "SIGKILL" else "")
    return f"exit code {code}"


def _context() -> Any:
    """How processes are made: forked from one that has loaded the libraries, where the system can."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context


@contextmanager
def _one_thread() -> Iterator[None]:
    """Processes started inside have one thread each."""
    added = [name for name in ONE_THREAD if name not in os.environ]
    os.environ.update(dict.fromkeys(added, "1"))
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]
