"""The process that computes cells: ``python -m satlight.bench.worker``.

It imports the large libraries once and forks a child for each cell, so that a cell starts quickly and its
crash ends nothing else. :class:`satlight.bench.runner.Server` talks to it over pipes.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satlight.bench.cells import CONTROLS, EMBEDDING, Cell, read_cell
from satlight.bench.methods import clock, predict
from satlight.bench.results import CellResult

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
"""Environment variables that give each process one thread, unless the user has set them."""

_PRELOADED = ("torch", "scipy.sparse", "sklearn.linear_model")
"""Imported before forking. None of them starts threads, which would be missing in a child."""

_PROBED = 64
"""Number of texts whose embedding is timed."""


def serve() -> None:
    """Read a request per line from stdin; write the child's process id, then its exit code.

    A request has the arguments of :func:`main`. The end of stdin ends this process, and the child with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the bench
    for name in _PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                main(**json.loads(line))
                os._exit(0)
            finally:  # a child must not return into the loop
                os._exit(1)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # processes that the cell has left behind
        print(os.waitstatus_to_exitcode(status), flush=True)


def main(folder: str, output: str, directory: str, path: list[str] | None, environment: dict[str, str] | None) -> None:
    """Compute the cell described in ``folder``/cell.json and write its result there.

    Args:
        folder: Folder of the cell.
        output: Folder of the bench.
        directory: Working directory; ignored if it does not exist on this host.
        path: Value of ``sys.path``; None = unchanged.
        environment: Environment variables; None = unchanged.
    """
    _lead_group()
    _log_to(Path(folder) / "log.txt")
    if os.path.isdir(directory):
        os.chdir(directory)
    if path is not None:
        sys.path[:] = path
    if environment is not None:
        os.environ.clear()
        os.environ.update(ONE_THREAD | environment)
    start = time.perf_counter()
    try:
        result = run_cell(read_cell(Path(folder)), Path(folder), Path(output))
    except Exception as error:  # a method may fail in any way, and the bench continues
        traceback.print_exc()
        result = CellResult(str(error) or repr(error), type(error).__name__)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    result.seconds = round(time.perf_counter() - start, 3)
    result.write(Path(folder))


def run_cell(cell: Cell, folder: Path, output: Path) -> CellResult:
    """Compute a cell in this process.

    Args:
        cell: The cell.
        folder: Its folder, which gets its tables.
        output: Folder of the bench, with the problems and the cells that this one needs.
    """
    from satlight.records import open_records

    records = open_records(output / "problems" / cell.problem.key)
    if cell.kind == EMBEDDING:
        return _embed(records, cell.spec["backbone"])
    from satlight.bench.judge import judge, measure

    if cell.protocol is not None:
        from satlight.bench.protocols import run_protocol

        return run_protocol(cell, records, folder, output)
    train, test = split_up(records, cell.problem.train_datasets)
    if cell.kind == CONTROLS:
        return measure(cell, train, test, folder)
    prediction = predict(cell, train, test, output)
    return judge(cell, prediction, train, test, folder, output / "cells" / cell.needs[0])


def split_up(
    records: PerformanceRecords, train_datasets: list[str] | None
) -> tuple[PerformanceRecords, PerformanceRecords]:
    """Return the rows that a method may train on (train and validation), and the test rows."""
    learned = np.isin(records.splits, ["train", "validation"])
    if train_datasets is not None:
        learned &= np.isin(records.datasets, train_datasets)
    return records.rows(learned), records.rows(records.splits == "test")


def _embed(records: PerformanceRecords, embedder: str | dict[str, Any]) -> CellResult:
    """Fill the embedding cache for all methods, and time the embedding of a new instruction."""
    from satlight.backbones.embedding import build_embedder

    embed = build_embedder(embedder)
    asked: Sequence[Any] = records.requests() if embed.reads_images else records.texts
    embed(asked)
    probe = asked[:: max(1, len(asked) // _PROBED)][:_PROBED]
    with tempfile.TemporaryDirectory() as empty:
        # In small batches there is as little padding as among many texts sorted by length.
        timed = build_embedder(embedder, batch_size=8)
        for number, store in enumerate(timed.stores):
            store.folder = Path(empty, str(number))
        timed([""])  # loads the networks
        start = clock()
        timed(probe)
        return CellResult(embedding_ms=1000 * (clock() - start) / len(probe))


def _lead_group() -> None:
    """Become the leader of a process group, and kill it when the server's stdin ends."""
    os.setsid()
    lifeline = os.dup(0)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        os.read(lifeline, 1)  # nothing is sent while a cell is computed
        os.killpg(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _log_to(path: Path) -> None:
    """Send the output of this process and its children to one file."""
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)


if __name__ == "__main__":
    serve()
