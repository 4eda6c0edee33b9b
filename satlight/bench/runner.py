"""Run the cells of a bench that have no result yet, on local processes or a Dask cluster.

Each task of joblib claims a cell by a file lock and lets a child process compute it. So a cell that crashes,
hangs or runs out of time is one failed cell, and several benches on one output folder share the work. The
folder of a cell appears completely or not at all.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlight.bench.cells import CONTROLS, EMBEDDING, Cell, write_cell
from satlight.bench.methods import forget_run
from satlight.bench.results import CellResult
from satlight.bench.worker import ONE_THREAD
from satlight.errors import SatlightError
from satlight.files import atomic_path

log = logging.getLogger(__name__)

Report = Callable[[Cell, CellResult], None]
"""Called for every cell that this bench has computed."""

_POLL_SECONDS = 0.5


def run_cells(
    cells: list[Cell],
    output: Path,
    *,
    workers: int,
    timeout: float,
    retry_failed: bool = False,
    backend: str = "loky",
    scheduler: str | None = None,
    report: Report = lambda cell, result: None,
) -> None:
    """Compute the cells without a result, and wait for those that another bench is computing.

    A cell that raises, crashes or runs out of time gets a result with the error, and the others continue. A
    cell that needs a failed one fails as well.

    Args:
        cells: All cells, each one after those that it needs.
        output: Folder of the bench; on a cluster, the same on all hosts.
        workers: Number of cells to run at once on this machine; a cluster runs one per worker thread.
        timeout: Time limit of each method in seconds; controls and embeddings have none.
        retry_failed: Also compute cells that failed before.
        backend: ``loky``, local processes, or ``dask``, the workers of a Dask cluster.
        scheduler: Address of the Dask scheduler.
        report: Called after each cell.

    Raises:
        SatlightError: There is no Dask cluster, or it does not see the folder.
    """
    output = output.resolve()
    (output / "locks").mkdir(parents=True, exist_ok=True)
    by_key = {cell.key: cell for cell in cells}
    local = backend == "loky"
    place: dict[str, Any] = {"directory": os.getcwd(), "path": None, "environment": None}
    if local:
        place |= {"path": [*sys.path], "environment": dict(os.environ)}
    with _parallel(backend, scheduler, workers) as parallel:
        for level in _levels(by_key):
            tasks = []
            for cell in level:
                result = CellResult.read(output, cell.key)
                if result is not None and not (retry_failed and result.failed):
                    continue
                limit = None if cell.kind in (CONTROLS, EMBEDDING) else timeout
                broken, old = _broken_need(cell, by_key, output), result.finished if result else None
                tasks.append(_Task(cell, output, limit, old, broken, place, os.getpid() if local else None))
            _finish(tasks, parallel, report)


def _finish(tasks: list[_Task], parallel: Callable[..., Any], report: Report) -> None:
    """Run tasks until each cell has a result, from this bench or another one."""
    import joblib

    announced = False
    while tasks:
        waiting = []
        for task, result, computed in parallel(joblib.delayed(compute)(task) for task in tasks):
            if result is None:
                waiting.append(task)
            elif computed:
                report(task.cell, result)
        if waiting and not announced:
            title = waiting[0].cell.title
            log.info("waiting for another bench, which computes %d cells, e.g. %s", len(waiting), title)
            announced = True
        if waiting and len(waiting) == len(tasks):
            time.sleep(_POLL_SECONDS)
        tasks = waiting


def _levels(cells: dict[str, Cell]) -> list[list[Cell]]:
    """Return the cells level by level: all that a cell needs is in earlier levels."""
    level: dict[str, int] = {}
    for key, cell in cells.items():
        level[key] = 1 + max((level[need] for need in cell.needs), default=-1)
    return [[cells[key] for key in cells if level[key] == i] for i in sorted(set(level.values()))]


def _broken_need(cell: Cell, cells: dict[str, Cell], output: Path) -> str | None:
    for key in cell.needs:
        if (result := CellResult.read(output, key)) is not None and result.failed:
            return f"its {cells[key].kind} failed: {result.error}"
    return None


@contextmanager
def _parallel(backend: str, scheduler: str | None, workers: int) -> Iterator[Callable[..., Any]]:
    """Yield a joblib.Parallel that returns results as they are completed."""
    import joblib

    options: dict[str, Any] = {"batch_size": 1, "return_as": "generator_unordered"}
    if backend == "loky":
        yield joblib.Parallel(n_jobs=workers, backend="loky", **options)
        return
    if scheduler is None:
        raise SatlightError("The backend 'dask' needs the address of a scheduler, e.g. tcp://10.0.0.1:8786")
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise SatlightError(
            "The backend 'dask' needs dask.distributed; install it with `pip install satlight[bench]`"
        ) from error
    try:
        client = Client(scheduler, timeout=20, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SatlightError(
            f"No Dask scheduler answers at {scheduler}: {error}. Start one with `dask scheduler`"
        ) from error
    with client, joblib.parallel_config(backend="dask", client=client):
        yield joblib.Parallel(n_jobs=-1, **options)


# -- in the process of a joblib worker ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """A cell to compute."""

    cell: Cell
    output: Path  # folder of the bench
    timeout: float | None  # in seconds; None = none
    replaced: float | None  # when the result that is to be replaced was finished; None = there is none
    broken: str | None  # why the cell cannot be computed; None = it can
    place: dict[str, Any]  # directory, path and environment for satlight.bench.worker.main
    bench: int | None  # process id of a bench that its cells must not outlive; None = they may

    @property
    def is_orphaned(self) -> bool:
        """Return whether the bench is dead; this process is the bench or a child of it."""
        return self.bench is not None and self.bench not in (os.getpid(), os.getppid())


def compute(task: _Task) -> tuple[_Task, CellResult | None, bool]:
    """Claim a cell and compute it.

    Returns:
        The task, the result (None while another bench is computing the cell), and whether this call computed it.
    """
    from filelock import FileLock, Timeout

    cell, output = task.cell, task.output
    if not (output / "problems" / cell.problem.key).is_dir():
        raise SatlightError(
            f"{output} has no records of the bench on host {os.uname().nodename}; use an output folder "
            "that all hosts share"
        )
    try:
        # The lock of a process that dies is released by the operating system.
        with FileLock(output / "locks" / f"{cell.key}.lock", timeout=0):
            result = CellResult.read(output, cell.key)
            if result is not None and result.finished != task.replaced:
                return task, result, False
            _compute(task)
            return task, CellResult.read(output, cell.key), True
    except Timeout:
        return task, None, False


def _compute(task: _Task) -> None:
    cell, cells = task.cell, task.output / "cells"
    if task.replaced is not None:
        forget_run(cell, task.output)
    with atomic_path(cells / cell.key) as folder:
        folder.mkdir()
        write_cell(cell, folder)
        if task.broken is not None:
            CellResult(task.broken, "NeedsFailed").write(folder)
            return
        end = Server.of_this_thread().run(folder, task)
        if end is None:
            CellResult(f"ran out of time after {task.timeout:g} s", "Timeout").write(folder)
        elif not (folder / "result.json").is_file():
            CellResult(f"the process died ({_describe(end)})", "Crash").write(folder)


class Server:
    """A :mod:`satlight.bench.worker` process, which forks a child for each cell."""

    _local = threading.local()

    def __init__(self) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "satlight.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # so that select sees every line
            env=ONE_THREAD | os.environ | {"PYTHONPATH": path},
        )

    @classmethod
    def of_this_thread(cls) -> Server:
        """Return the running server of this thread."""
        server = getattr(cls._local, "server", None)
        if server is None or server.process.poll() is not None:
            server = cls._local.server = cls()
        return server

    def run(self, folder: Path, task: _Task) -> int | None:
        """Let a child compute the cell in ``folder``.

        Returns:
            Its exit code, negative for a signal; None = it ran out of time and was killed.

        Raises:
            SatlightError: The server cannot be started.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = task.place | {"folder": str(folder), "output": str(task.output)}
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
        if not (pid := self.process.stdout.readline()):
            raise SatlightError(f"`{sys.executable} -m satlight.bench.worker` ends; try it by hand")
        start, overdue = time.monotonic(), False
        while not select.select([self.process.stdout], [], [], _POLL_SECONDS)[0]:
            overdue = task.timeout is not None and time.monotonic() - start > task.timeout
            if overdue or task.is_orphaned:
                _kill(int(pid))
            if task.is_orphaned:
                os._exit(1)
        code = self.process.stdout.readline()
        return None if overdue else int(code or -signal.SIGKILL)


def _kill(pid: int) -> None:
    """Kill a child and the processes that it started."""
    with suppress(ProcessLookupError, PermissionError):  # before it leads a group, or after its end
        os.killpg(pid, signal.SIGKILL)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _describe(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            name = signal.Signals(-code).name
            return name + (", possibly out of memory" if name == "SIGKILL" else "")
    return f"exit code {code}"
