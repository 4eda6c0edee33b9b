"""Try every reader on damaged inputs, in worker processes that may crash or hang."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from faults.kills import LEFTOVER
from faults.mutate import mutate
from faults.readers import Reader
from faults.router_readers import all_readers

MEMORY = 6 << 30
"""Address space of a worker in bytes: a reader that believes a damaged size runs into it."""
QUICK = (
    *("csv", "jsonl", "lm-eval", "routerdc", "mmlu-pro", "models.json, prices", "records folder", "keywords.yaml"),
    *("zoo setting", "bench YAML", "requests for route", "scores.parquet", "router folder, tfidf_knn"),
)
"""Readers that are tried by the tests: the fast ones."""
KINDS = ("foreign", "unnamed", "crash", "hang", "half-written", "NaN accepted")


@dataclass
class Row:
    """A line of the table.

    Args:
        inputs: Damaged inputs that were tried.
        read: Inputs that were still valid.
        refused: Inputs that ended in a SatlightError.
        seconds: Wall-clock time of all inputs.
        faults: Kind → inputs with that fault.
        examples: Up to ten faults with their seed.
    """

    reader: str
    inputs: int = 0
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    examples: list[str] = field(default_factory=list)


def attempt(reader: Reader, template: Path, place: Path, seed: str) -> tuple[str, str]:
    """Damage a copy of the valid inputs of a reader and read it.

    Returns:
        ``read``, ``refused`` or one of :data:`KINDS`; and details.
    """
    from satlight.errors import SatlightError

    rng = random.Random(seed)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(template, place)
    files = [path for pattern in reader.victims for path in sorted(place.glob(pattern)) if path.is_file()]
    path = rng.choice(files)
    detail = f"{path.relative_to(place)}, {mutate(path, rng)}"
    try:
        reader.use(place)
        kind = "read"
    except SatlightError as error:
        parts = [str(place), *(part for file in files for part in file.relative_to(place).parts)]
        named = any(part in str(error) for part in parts)
        kind, detail = ("refused", detail) if named else ("unnamed", f"{detail}: {error}")
    except AssertionError as error:
        kind, detail = "NaN accepted", f"{detail}: {error}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        frames = [one for one in traceback.extract_tb(error.__traceback__) if "satlight/" in one.filename] or [last]
        at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        kind, detail = "foreign", f"{detail}: {type(error).__name__} at {at}: {str(error)[:200]}"
    left = [str(one.relative_to(place)) for one in place.rglob(".*") if LEFTOVER.fullmatch(one.name)]
    if left or (kind == "refused" and (place / "out").exists()):
        kind, detail = "half-written", f"{detail}: {left or 'out'}"
    return kind, detail


def _work(pipe: Any, source: Path | None, templates: Path, place: Path) -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    place.mkdir(parents=True, exist_ok=True)
    os.environ["SATLIGHT_CACHE"] = str(place / "cache")
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    torch.set_num_threads(1)
    readers = {reader.name: reader for reader in all_readers(source)}
    pipe.send("ready")
    while (task := pipe.recv()) is not None:
        name, seed = task
        pipe.send(attempt(readers[name], templates / name, place / "case", seed))


class Worker:
    """A process that tries inputs and is replaced when it dies or hangs."""

    def __init__(self, source: Path | None, templates: Path, place: Path, timeout: float) -> None:
        self.args, self.timeout = (source, templates, place), timeout
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit locks of polars and torch
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, *self.args), daemon=True)
        self.process.start()
        theirs.close()
        assert self.pipe.recv() == "ready"

    def attempt(self, name: str, seed: str) -> tuple[str, str]:
        """Return what :func:`attempt` does; also ``crash`` or ``hang``."""
        self.pipe.send((name, seed))
        kind = "hang"
        start, last = self._seconds(), time.monotonic() + 20 * self.timeout
        while not (answered := self.pipe.poll(0.5)) and time.monotonic() < last:
            if self._seconds() - start > self.timeout:
                break
        if answered:
            try:
                return self.pipe.recv()
            except (EOFError, ConnectionResetError):
                kind = "crash"
        self.process.kill()
        self.process.join()
        code = self.process.exitcode
        self._start()
        return kind, f"exit code {code}"

    def _seconds(self) -> float:
        """Return the CPU seconds of the process, so that other load on the machine makes no hang."""
        try:
            times = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        except OSError:  # it has died, which the pipe tells
            return 0.0
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        """End the process."""
        self.pipe.send(None)
        self.process.join(10)


def run(
    source: Path | None,
    names: Sequence[str] | None,
    place: Path,
    inputs: int,
    seed: int,
    workers: int,
    timeout: float = 30.0,
) -> list[Row]:
    """Try damaged inputs on all readers.

    Args:
        source: Run folder of a training, whose checkpoint is damaged; None = without.
        names: Names of the readers; None = all.
        place: Folder for copies.
        inputs: Number of inputs in all, at least one per reader.
        seed: Of the damage.
        workers: Processes at a time.
        timeout: CPU seconds after which an input hangs; 20 times as many seconds in any case.

    Returns:
        A row per reader.
    """
    readers, templates = [one for one in all_readers(source) if names is None or one.name in names], place / "templates"
    for reader in readers:
        (templates / reader.name).mkdir(parents=True)
        reader.build(templates / reader.name)
        check = place / "undamaged"
        shutil.copytree(templates / reader.name, check)
        reader.use(check)  # or the damage would prove nothing
        shutil.rmtree(check)
    total = sum(reader.share for reader in readers)
    tasks = [
        (reader.name, f"{seed}/{reader.name}/{number}")
        for reader in readers
        for number in range(-(-inputs * reader.share // total))
    ]
    random.Random(seed).shuffle(tasks)
    rows = {reader.name: Row(reader.name) for reader in readers}

    def work(number: int) -> None:
        worker = Worker(source, templates, place / f"worker-{number}", timeout)
        for name, case in tasks[number::workers]:
            begin, row = time.monotonic(), rows[name]
            kind, detail = worker.attempt(name, case)
            row.seconds += time.monotonic() - begin
            row.inputs += 1
            if (done := sum(one.inputs for one in rows.values())) % 250 == 0:
                print(f"{done} of {len(tasks)} damaged inputs", file=sys.stderr, flush=True)
            if kind in ("read", "refused"):
                setattr(row, kind, getattr(row, kind) + 1)
            else:
                row.faults[kind] += 1
                row.examples.append(f"{kind}: {case}: {detail}")
                print(row.examples[-1], file=sys.stderr, flush=True)
        worker.close()

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    return list(rows.values())
