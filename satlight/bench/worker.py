"""One cell in a process of its own: what runs there, and what it leaves in the cell's folder.

Shape legend: N test instructions and M candidates of the problem.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satlight.bench.cells import CONTROLS, EMBEDDING, Cell, read_cell
from satlight.bench.clock import clock
from satlight.files import write_text

if TYPE_CHECKING:
    from satlight.evaluation import Control
    from satlight.records import PerformanceRecords

_PROBED = 64
"""Texts whose embedding is timed."""


def main(folder: str, output: str, environment: dict[str, str]) -> None:
    """Compute the cell described in ``folder``/cell.json and write its result there; never raises.

    Args:
        folder: The cell's folder, with cell.json.
        output: Folder of the bench.
        environment: Environment variables to run in.
    """
    os.environ.clear()
    os.environ.update(environment)
    _die_with_parent()
    _log_to(Path(folder) / "log.txt")
    start = time.perf_counter()
    try:
        result = {"status": "ok", **run_cell(read_cell(Path(folder)), Path(folder), Path(output))}
    except Exception as error:  # a method may fail in any way, and the bench goes on
        traceback.print_exc()
        result = failure(str(error) or repr(error), type(error).__name__)
    write_result(Path(folder), {**result, "seconds": round(time.perf_counter() - start, 3)})


def failure(message: str, kind: str) -> dict[str, Any]:
    """The result of a cell that failed."""
    return {"status": "failed", "error": message, "error_kind": kind}


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write ``result.json``, whole or not at all."""
    # The time tells a result from an earlier one, however much alike they are.
    content = {**result, "finished": time.time()}
    write_text(folder / "result.json", json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def run_cell(cell: Cell, folder: Path, output: Path) -> dict[str, Any]:
    """Compute a cell in this process.

    Args:
        cell: The cell.
        folder: Where its arrays go.
        output: Folder of the bench, with the problems and the cells that this one needs.

    Returns:
        What goes into result.json.
    """
    from satlight.records import open_records

    records = open_records(output / "problems" / cell.problem.key)
    if cell.kind == EMBEDDING:
        return _embed(records, cell.spec["backbone"])
    if cell.protocol == "release":
        from satlight.bench.release import run_release

        return run_release(cell, records, output)
    if cell.protocol is not None:
        from satlight.bench.unseen import run_unseen

        return run_unseen(cell, records, folder, output)
    train, test = split_up(records, cell.problem.train_datasets)
    if cell.kind == CONTROLS:
        return _measure(cell, train, test, folder)
    from satlight.bench.judge import judge
    from satlight.bench.methods import predict

    prediction = predict(cell, train, test, output)
    np.save(folder / "scores.npy", prediction.scores)
    controls = load_controls(output / "cells" / cell.needs[0])
    judged = judge(cell, prediction, train, test, controls)
    np.save(folder / "outcomes.npy", judged.pop("outcomes"))
    timing = {"fit_seconds": prediction.fit_seconds, "decision_ms": prediction.decision_ms}
    return {**timing, "chosen": {key: str(value) for key, value in prediction.chosen.items()}, **judged}


def split_up(
    records: PerformanceRecords, train_datasets: list[str] | None
) -> tuple[PerformanceRecords, PerformanceRecords]:
    """What a method may learn from (train and validation rows), and the test rows."""
    learnt = np.isin(records.splits, ["train", "validation"])
    if train_datasets is not None:
        learnt &= np.isin(records.datasets, train_datasets)
    return records.rows(learnt), records.rows(records.splits == "test")


# -- cells that methods wait for ---------------------------------------------------------------------------


def _measure(cell: Cell, train: PerformanceRecords, test: PerformanceRecords, folder: Path) -> dict[str, Any]:
    from satlight.evaluation import measure_controls

    start = clock()
    controls = measure_controls(test, train, seed=cell.problem.seed)
    arrays: dict[str, Any] = {"datasets": test.datasets}
    for name, control in controls.items():
        arrays[f"{name}.outcomes"] = control.outcomes.numpy()
        arrays[f"{name}.known"] = control.known.numpy()
        if control.choices is not None:
            arrays[f"{name}.choices"] = control.choices.numpy()
    np.savez(folder / "controls.npz", **arrays)
    return {"controls": list(controls), "fit_seconds": clock() - start}


def load_controls(folder: Path) -> dict[str, Control]:
    """The controls that a cell of the kind ``controls`` measured."""
    import torch

    from satlight.evaluation import Control

    with np.load(folder / "controls.npz", allow_pickle=False) as arrays:
        tensors = {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "datasets"}
    names = [key.removesuffix(".known") for key in tensors if key.endswith(".known")]
    return {
        name: Control(tensors[f"{name}.outcomes"], tensors[f"{name}.known"], tensors.get(f"{name}.choices"))
        for name in names
    }


def _embed(records: PerformanceRecords, backbone: str) -> dict[str, Any]:
    """Fill the cache for everybody, and time what a new instruction costs."""
    from satlight.backbones.embedding import Embedder

    Embedder(backbone)(records.texts)
    probe = records.texts[:: max(1, len(records.texts) // _PROBED)][:_PROBED]
    with tempfile.TemporaryDirectory() as empty:
        # Small batches, as little padding as among many texts sorted by length.
        timed = Embedder(backbone, batch_size=8)
        timed.store.folder = Path(empty)
        timed([""])  # loads the network
        start = clock()
        timed(probe)
        return {"embedding_ms": 1000 * (clock() - start) / len(probe), "texts": len(probe)}


# -- the process -------------------------------------------------------------------------------------------


def _die_with_parent() -> None:
    """Be the head of a process group, and end it when the bench is gone, however it went."""
    import multiprocessing

    os.setsid()
    parent = multiprocessing.parent_process()

    def wait() -> None:
        assert parent is not None
        parent.join()
        os.killpg(os.getpid(), signal.SIGKILL)

    if parent is not None:
        threading.Thread(target=wait, daemon=True).start()


def _log_to(path: Path) -> None:
    """Everything this process and its children say goes to one file."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
