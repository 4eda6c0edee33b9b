"""Kill commands at random moments, resume them, and compare the results with an uninterrupted run."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MARK = "SATLIGHT_KILL_TEST"
"""Environment variable by which the processes of a chain are recognized."""
LEFTOVER = re.compile(r"\..+\.\w{8}(\.lock)?|.*\.whl|incoming")
TIMEOUT = 300.0
TOLERANCE = 1e-6
"""Of the weights and metrics of a resumed training; everything else must be equal."""
_POLL = 0.0005


@dataclass(frozen=True)
class Moment:
    """When to kill.

    Args:
        name: For the table.
        after: Pattern below the working folder; the clock starts when a path matches it. None = at the start.
        within: Maximum seconds after that; the delay is uniform. None = the duration of the uninterrupted run.
        times: The pattern must match so many different paths at different times, at most; drawn uniformly.
    """

    name: str
    after: str | None = None
    within: float | None = None
    times: int = 1


@dataclass
class Job:
    """A command that is killed and resumed.

    Args:
        name: For the table.
        argv: Arguments of ``satlight``; the function gets the working folder and returns the command that starts
            or resumes the work.
        result: Returns the outcome of the finished command by name: texts, numbers, arrays; it gets what was printed.
        moments: When to kill; chains take them in turn.
        prepare: Writes the inputs into a new working folder.
        intact: Called after each kill; raises if what was complete before is damaged.
        share: Relative number of kills.
    """

    name: str
    argv: Callable[[Path], list[str]]
    result: Callable[[Path, str], dict[str, Any]]
    moments: Sequence[Moment]
    prepare: Callable[[Path], None]
    intact: Callable[[Path], None] = lambda folder: None
    share: int = 1


@dataclass
class Row:
    """A line of the table: kills at one moment of one job.

    Args:
        kills: Processes that were alive when SIGKILL was sent.
        resumed: Kills that were followed by a completed run with the results of the uninterrupted one.
        faults: What went wrong, one sentence each.
    """

    job: str
    moment: str
    kills: int = 0
    resumed: int = 0
    faults: list[str] = field(default_factory=list)


def start(argv: list[str], folder: Path) -> subprocess.Popen[str]:
    """Start a command as the leader of a process group; its output goes to files of the folder."""
    (folder / "tmp").mkdir(exist_ok=True)
    environment = os.environ | {
        "SATLIGHT_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder / "tmp"),
        "OMP_NUM_THREADS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "wheels"),
        "PIP_CONFIG_FILE": os.devnull,
        MARK: str(folder),
    }
    with (folder / "out.txt").open("w") as out, (folder / "err.txt").open("w") as err:
        return subprocess.Popen(
            [sys.executable, "-m", "satlight", *argv],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            text=True,
            start_new_session=True,
        )


def complete(job: Job, folder: Path) -> tuple[dict[str, Any], float]:
    """Run a job to its end.

    Returns:
        Its result and its seconds.

    Raises:
        RuntimeError: It failed or did not end.
    """
    begin = time.monotonic()
    process = start(job.argv(folder), folder)
    try:
        code = process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        code = -1
    if code != 0:
        raise RuntimeError(f"exit code {code}: {(folder / 'err.txt').read_text()[-400:]}")
    return job.result(folder, (folder / "out.txt").read_text()), time.monotonic() - begin


def kill(job: Job, folder: Path, moment: Moment, seconds: float, rng: random.Random) -> bool:
    """Start a job and kill its process group; return False if it ended before the moment came."""
    process = start(job.argv(folder), folder)
    deadline = time.monotonic() + TIMEOUT
    for _ in range(rng.randint(1, moment.times)):
        before = set(folder.glob(moment.after)) if moment.after else set()
        while moment.after is not None and process.poll() is None and not set(folder.glob(moment.after)) - before:
            time.sleep(_POLL)
            if time.monotonic() > deadline:
                raise RuntimeError(f"{moment.after} did not appear in {TIMEOUT:g} s")
    limit = time.monotonic() + rng.uniform(0, seconds if moment.within is None else moment.within)
    while process.poll() is None and time.monotonic() < limit:
        time.sleep(_POLL)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    return process.wait() == -signal.SIGKILL and alive


def chain(job: Job, moments: Sequence[Moment], place: Path, reference: dict[str, Any], seed: str, seconds: float):
    """Kill a job at several moments, one after another, then let it finish and compare.

    Yields:
        A :class:`Row` per moment.
    """
    rng, rows = random.Random(seed), [Row(job.name, moment.name) for moment in moments]
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    job.prepare(place)
    faults: list[str] = []
    for row, moment in zip(rows, moments, strict=True):
        try:
            row.kills = int(kill(job, place, moment, seconds, rng))
            wait_for_end(place)
            job.intact(place)
        except Exception as error:
            faults.append(f"{seed}, after the kill: {error!r:.500}")
    try:
        result, _ = complete(job, place)
        wait_for_end(place)
        names = sorted({*result, *reference})
        different = [name for name in names if not _same(result.get(name), reference.get(name))]
        if different:
            faults.append(f"{seed}: other results than uninterrupted: {', '.join(different[:5])}")
        if left := leftovers(place):
            faults.append(f"{seed}: left over: {', '.join(left[:5])}")
    except Exception as error:
        faults.append(f"{seed}, resumed: {error!r:.700}")
    for row in rows:
        row.resumed = 0 if faults else row.kills
    print(
        *faults or [f"{seed}: {sum(row.kills for row in rows)} kills, resumed"], sep="\n", file=sys.stderr, flush=True
    )
    rows[-1].faults = faults
    return rows


def wait_for_end(place: Path, seconds: float = 10.0) -> None:
    """Wait until no process of a chain is alive.

    Raises:
        RuntimeError: Some survive.
    """
    deadline = time.monotonic() + seconds
    while alive := _processes(place):
        if time.monotonic() > deadline:
            raise RuntimeError(f"processes survive the kill of their group: {alive}")
        time.sleep(0.05)


def _processes(place: Path) -> list[int]:
    mark, found = f"{MARK}={place}\0".encode(), []
    for one in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in one.read_bytes() + b"\0" and int(one.parent.name) != os.getpid():
                found.append(int(one.parent.name))
        except OSError:
            continue
    return found


def leftovers(place: Path) -> list[str]:
    """Return temporary files and folders of satlight below a folder; the system's own temporary folder is not ours."""
    ours = (path for path in place.rglob("*") if path.relative_to(place).parts[0] not in ("tmp", "wheels"))
    return sorted(str(path.relative_to(place)) for path in ours if LEFTOVER.fullmatch(path.name))


def _same(one: Any, other: Any) -> bool:
    """Compare exactly, except arrays: a resumed training may differ in the last bits of a float32 sum."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=TOLERANCE)
    return type(one) is type(other) and bool(one == other)


def hashes(folder: Path, ignored: Sequence[str] = ()) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in sorted(found.items())
        if path.name not in ignored and path.suffix != ".lock"
    }


def run(jobs: Sequence[Job], place: Path, kills: int, seed: int, workers: int, length: int = 3) -> list[Row]:
    """Kill all jobs.

    Args:
        jobs: What to kill.
        place: Folder for the working folders.
        kills: Number of kills in all.
        seed: Of the moments.
        workers: Chains at a time.
        length: Kills of a chain, before it is allowed to finish.

    Returns:
        A row per job and moment.
    """
    rows: dict[tuple[str, str], Row] = {}
    with ThreadPoolExecutor(workers) as pool:
        references = dict(
            zip([job.name for job in jobs], pool.map(lambda job: _reference(job, place), jobs), strict=True)
        )
        todo = []
        shares = [job for job in jobs for _ in range(job.share)]
        for job in jobs:
            count = sum(shares[number % len(shares)] is job for number in range(kills))
            turn = [job.moments[number % len(job.moments)] for number in range(count)]
            for number, first in enumerate(range(0, len(turn), length)):
                name = f"{job.name.replace(' ', '-')}-{number}"
                todo.append((job, turn[first : first + length], place / name, *references[job.name], f"{seed}/{name}"))
        made = pool.map(lambda one: chain(one[0], one[1], one[2], one[3], one[5], one[4]), todo)
        for row in (row for found in made for row in found):
            total = rows.setdefault((row.job, row.moment), Row(row.job, row.moment))
            total.kills += row.kills
            total.resumed += row.resumed
            total.faults += row.faults
    return list(rows.values())


def _reference(job: Job, place: Path) -> tuple[dict[str, Any], float]:
    folder = place / f"{job.name.replace(' ', '-')}-whole"
    folder.mkdir(parents=True)
    job.prepare(folder)
    return complete(job, folder)
