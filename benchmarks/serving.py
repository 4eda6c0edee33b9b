"""Load on ``satlight serve``: concurrent clients, two upstreams killed and restarted, the same proxy without routing.

Everything runs on this machine: the clients, the server and three stand-in upstreams share its cores. Prints requests
per second, times of answers and decisions, lost and misrouted requests, and the memory of the server.

    python benchmarks/serving.py --clients 200 --seconds 60
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from standin import processes

SKILLS = processes.SKILLS[:3]
KILLED = SKILLS[:2]


class Load:
    """Results of one phase as the clients saw them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.decisions_ms: list[float] = []
        self.reasons: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.misrouted = 0
        self.wall = self.memory_mb = 0.0


def main(argv: Sequence[str] | None = None) -> None:
    """Run the three phases and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--clients", type=int, default=200, help="concurrent clients")
    options.add_argument("--seconds", type=float, default=60.0, help="length of each of the three phases")
    options.add_argument("--deadline-ms", type=int, default=1000, help="of the server")
    options.add_argument("--quick", action="store_true", help="4 clients for 2 seconds: tests the script only")
    args = options.parse_args(argv)
    if args.quick:
        args.clients, args.seconds = 4, 2.0
    with tempfile.TemporaryDirectory() as folder:
        phases = run(args, Path(folder))
    show(phases, args)


def run(args: argparse.Namespace, folder: Path) -> list[Load]:
    """Start everything, and load the proxy without routing, with it, and with it while upstreams fail."""
    processes.skilled_router(SKILLS).save(folder / "router")
    ports = {skill: processes.free_port() for skill in SKILLS}
    processes.write_upstreams(folder / "upstreams.yaml", ports)
    upstreams: dict[str, subprocess.Popen] = {}
    port = processes.free_port()
    options = ("--default", SKILLS[-1], "--deadline-ms", str(args.deadline_ms))

    async def failing() -> None:
        await asyncio.sleep(args.seconds / 3)
        processes.stop(*(upstreams[skill] for skill in KILLED))
        await asyncio.sleep(args.seconds / 3)
        for skill in KILLED:
            upstreams[skill] = await asyncio.to_thread(processes.start_upstream, skill, ports[skill], "--delay", "0.05")

    async def phase(name: str, model: str | None, faults: bool = False) -> Load:
        load = Load(name)
        start = time.perf_counter()
        clients = [client(port, model, start + args.seconds, load, random.Random(n)) for n in range(args.clients)]
        await asyncio.gather(*clients, *([failing()] if faults else []))
        load.wall = time.perf_counter() - start
        load.memory_mb = memory_mb(server.pid)
        return load

    async def phases() -> list[Load]:
        await phase("warm up", "satlight")
        return [
            await phase("no routing", None),
            await phase("routed", "satlight"),
            await phase(f"routed, {' and '.join(KILLED)} killed and restarted", "satlight", faults=True),
        ]

    try:
        for skill in SKILLS:
            upstreams[skill] = processes.start_upstream(skill, ports[skill], "--delay", "0.05")
        server = processes.start_server(folder / "router", folder / "upstreams.yaml", port, folder / "log", *options)
        result = asyncio.run(phases())
        processes.stop(server)
        return result
    finally:
        processes.stop(*upstreams.values())


async def client(port: int, model: str | None, end: float, load: Load, rng: random.Random) -> None:
    """Ask one question after another over one connection; without a model, ask the right candidate by its name."""
    connection = None
    while time.perf_counter() < end:
        skill = rng.choice(SKILLS)
        text = rng.choice(processes.instructions(skill))
        body = json.dumps({"model": model or skill, "messages": [{"role": "user", "content": text}]}).encode()
        start = time.perf_counter()
        try:
            connection = connection or await asyncio.open_connection("127.0.0.1", port)
            status, headers, content = await asyncio.wait_for(ask(*connection, body), timeout=120)
        except (OSError, EOFError, TimeoutError) as error:
            load.lost[type(error).__name__] += 1
            connection = None
            continue
        load.seconds.append(time.perf_counter() - start)
        if status != 200:
            load.lost[str(status)] += 1
            continue
        answered = json.loads(content)["choices"][0]["message"]["content"]
        reason = headers.get("x-satlight-reason", "no routing")
        load.reasons[reason] += 1
        expected = skill if reason in ("rule", "no routing") else headers["x-satlight-model"]
        load.misrouted += answered != f"{expected}: {text}"
        if "x-satlight-decision-ms" in headers:
            load.decisions_ms.append(float(headers["x-satlight-decision-ms"]))


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """Send a request and return status, headers and body of the response."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
    writer.write(head.encode() + b"content-type: application/json\r\n\r\n" + body)
    await writer.drain()
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    return int(first.split(" ")[1]), headers, await reader.readexactly(int(headers["content-length"]))


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process on Linux, else NaN."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return float("nan")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def show(phases: Sequence[Load], args: argparse.Namespace) -> None:
    """Print the table."""
    table = Table(title=f"{args.clients} clients, {args.seconds:g} s for each phase")
    for column in ("phase", "requests/s", "answer p50 / p99 ms", "decision p50 / p99 ms", "reasons"):
        table.add_column(column)
    for column in ("lost", "misrouted", "memory MB"):
        table.add_column(column, justify="right")
    for load in phases:
        table.add_row(
            load.name,
            f"{len(load.seconds) / load.wall:.1f}",
            percentiles([1000 * second for second in load.seconds]),
            percentiles(load.decisions_ms),
            ", ".join(f"{reason} {count}" for reason, count in load.reasons.most_common()),
            ", ".join(f"{count} × {kind}" for kind, count in load.lost.items()) or "0",
            str(load.misrouted),
            f"{load.memory_mb:.0f}",
        )
    Console().print(table)


def percentiles(values: Sequence[float]) -> str:
    """Return median and 99th percentile."""
    return "{:.1f} / {:.1f}".format(*np.percentile(values, [50, 99])) if values else "–"


if __name__ == "__main__":
    main()
