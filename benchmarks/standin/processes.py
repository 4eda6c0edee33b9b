"""A router of known skills, stand-in upstreams and a server as processes on this machine, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from satlight.baselines import build
from satlight.records import PerformanceRecords
from satlight.routers import Router
from satlight.types import AptitudeResults, Candidate

UPSTREAM = Path(__file__).with_name("upstream.py")
SKILLS = ("math", "code", "law", "verse")
"""Names of candidates; each solves the instructions of its own kind only."""

PROMPTS = {
    "math": "Compute the sum of the numbers",
    "code": "Write a Python function that sorts",
    "law": "Explain the contract clause about liability",
    "verse": "Compose a short poem with rhymes",
}


def instructions(skill: str, count: int = 20) -> list[str]:
    """Return instructions of one kind."""
    return [f"{PROMPTS[skill]} {number}" for number in range(count)]


def candidate(skill: str) -> Candidate:
    """Return a candidate; each costs more than the one before it."""
    price = 1.0 + SKILLS.index(skill)
    return Candidate(skill, price_in=price, price_out=2 * price, tokens_out=100.0)


def skilled_router(skills: Sequence[str] = SKILLS[:3]) -> Router:
    """Fit a router on candidates of which each solves one kind of instruction."""
    texts = [text for skill in SKILLS for text in instructions(skill)]
    kinds = [skill for skill in SKILLS for _ in instructions(skill)]
    frame = pl.DataFrame(
        {
            "instruction_id": texts,
            "dataset": ["kinds"] * len(texts),
            "task": kinds,
            "split": ["validation" if number % 4 == 0 else "train" for number in range(len(texts))],
            "instruction": texts,
        }
    )
    outcomes = np.array([[float(kind == skill) for skill in skills] for kind in kinds], dtype=np.float32)
    candidates = tuple(candidate(skill) for skill in skills)
    return build("tfidf_knn").fit(PerformanceRecords(frame, candidates, outcomes, np.ones(outcomes.shape, dtype=bool)))


def admitted(router: Router, skill: str) -> Router:
    """Return the router with one more candidate, known by its results."""
    texts = tuple(text for other in SKILLS for text in instructions(other))
    grades = np.array([float(text.startswith(PROMPTS[skill])) for text in texts], dtype=np.float32)
    return router.admit(candidate(skill), AptitudeResults(texts, texts, grades))


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_upstream(name: str, port: int, *options: str) -> subprocess.Popen:
    """Start a stand-in upstream and wait until it listens."""
    process = subprocess.Popen([sys.executable, str(UPSTREAM), "--name", name, "--port", str(port), *options])
    wait_for(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close(), process)
    return process


def write_upstreams(path: Path, ports: Mapping[str, int], **params: str) -> None:
    """Write upstreams.yaml; each model has the name of its candidate and the given parameters."""
    upstreams = {
        name: {"model": f"openai/{name}", "api_base": f"http://127.0.0.1:{port}/v1", "timeout": 5, **params}
        for name, port in ports.items()
    }
    path.write_text(yaml.safe_dump({"upstreams": upstreams}), encoding="utf-8")


def start_server(router: Path, config: Path, port: int, log: Path, *options: str, **env: str) -> subprocess.Popen:
    """Start ``satlight serve`` and wait until it answers."""
    argv = [sys.executable, "-m", "satlight", "serve", "--router", str(router), "--config", str(config)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*argv, "--port", str(port), *options], stdout=output, stderr=output, env={**os.environ, **env}
        )
    try:
        wait_for(lambda: get_json(port, "/health"), process)
    except RuntimeError as error:
        stop(process)
        raise RuntimeError(f"{error}: {log.read_text(encoding='utf-8')[-2000:]}") from error
    return process


def get_json(port: int, path: str) -> Any:
    """Return what a server on this machine answers."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as response:
        return json.load(response)


def wait_for(check: Any, process: subprocess.Popen | None = None, seconds: float = 300) -> None:
    """Call a function until it raises no error.

    Raises:
        RuntimeError: The process has ended, or the time is up.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            check()
            return
        except (OSError, AssertionError) as error:
            if time.monotonic() > end or (process is not None and process.poll() is not None):
                raise RuntimeError(f"not ready: {error!r}") from error
            time.sleep(0.1)


def stop(*processes: subprocess.Popen) -> None:
    """End processes and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
