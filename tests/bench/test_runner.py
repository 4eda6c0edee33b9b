"""Running cells: resuming, failures of every kind, time limits, two benches at once, a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from satlight.bench.cells import plan
from satlight.bench.config import load_config
from satlight.bench.results import CellResult
from satlight.bench.runner import run_cells
from satlight.errors import SatlightError

pytestmark = pytest.mark.timeout(900)  # several processes start, which takes long on a busy machine


def run(path, **options):
    """Run a bench; return its results by method and seed, and the titles of the cells it computed."""
    config = load_config(path)
    output = Path(config.output)
    cells = plan(config)
    seen = []
    run_cells(
        cells,
        output,
        workers=config.workers,
        timeout=config.timeout,
        report=lambda cell, result: seen.append(cell.title),
        **options,
    )
    return {(cell.method, cell.problem.seed): CellResult.read(output, cell.key) for cell in cells}, seen


def routed(result):
    return result.routed


def test_a_second_run_computes_only_what_is_missing(bench_file, tmp_path):
    count = tmp_path / "fits"
    toy = {"baseline": "toys.Toy", "options": {"count": str(count)}}
    first, seen = run(bench_file([toy]))
    assert len(seen) == 4  # controls and the toy for two seeds
    assert [routed(first["Toy", seed]) for seed in (0, 1)] == [100.0, 100.0]
    assert sorted(count.read_text().split()) == ["0", "1"]
    again, seen = run(bench_file([toy]))
    assert (again, seen) == (first, [])
    _, seen = run(bench_file([toy], seeds=[0, 1, 2]))
    assert len(seen) == 2
    assert sorted(count.read_text().split()) == ["0", "1", "2"]


def test_other_options_are_another_cell(bench_file, tmp_path):
    run(bench_file([{"baseline": "toys.Toy"}], seeds=[0]))
    _, seen = run(bench_file([{"baseline": "toys.Toy", "options": {"seconds": 0.01}}], seeds=[0]))
    assert seen == ["Toy · toy · all · seed 0"]


def test_whatever_a_method_does_the_others_go_on(bench_file):
    results, _ = run(
        bench_file([f"toys.{name}" for name in ("Crash", "Dies", "Killed", "Exits", "NotANumber", "Toy")], seeds=[0])
    )
    errors = {name: result.error for (name, _), result in results.items()}
    assert errors["Toy"] is errors["controls"] is None
    assert errors["Crash"] == "no such luck"
    assert errors["Dies"] == "the process died (exit code 7)"
    assert errors["Killed"] == "the process died (SIGKILL, possibly out of memory)"
    assert errors["Exits"] == "the process died (exit code 1)"
    assert "80 scores are not finite" in errors["NotANumber"]


def test_a_method_that_runs_out_of_time_is_ended(bench_file):
    slow = {"name": "slow", "baseline": "toys.Toy", "options": {"seconds": 250}}
    start = time.monotonic()
    results, _ = run(bench_file([slow], seeds=[0], timeout=1))
    assert time.monotonic() - start < 200
    assert results["slow", 0].error == "ran out of time after 1 s"


def test_failures_are_kept_until_they_are_retried(bench_file, tmp_path):
    path = bench_file(
        [{"baseline": "toys.Unlucky", "options": {"count": str(tmp_path / "luck")}}, "toys.Toy"], seeds=[0]
    )
    first, _ = run(path)
    assert first["Unlucky", 0].error == "not yet"
    (tmp_path / "luck").touch()
    assert run(path) == (first, [])
    results, seen = run(path, retry_failed=True)
    assert seen == ["Unlucky · toy · all · seed 0"]
    assert routed(results["Unlucky", 0]) == 100.0


def test_the_log_holds_what_a_method_said(bench_file, tmp_path):
    run(bench_file(["toys.Crash"], seeds=[0]))
    logs = [path.read_text() for path in (tmp_path / "out/cells").glob("*/log.txt")]
    assert any("RuntimeError: no such luck" in log for log in logs)


def test_embeddings_are_made_before_they_are_needed(bench_file, tmp_path, monkeypatch):
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    results, seen = run(bench_file(["toys.Needy"], seeds=[0], embedder="tiny:bert"))
    assert sorted(title.partition(" ")[0] for title in seen) == ["Needy", "controls", "embedding"]
    assert results["embedding", 0].embedding_ms > 0
    assert routed(results["Needy", 0]) == 100.0


def test_a_method_without_its_embeddings_fails_with_them(bench_file):
    results, _ = run(bench_file(["toys.Needy", "toys.Toy"], seeds=[0], embedder="/no/such/folder"))
    assert results["embedding", 0].failed
    assert results["Needy", 0].error.startswith("its embedding failed: ")
    assert routed(results["Toy", 0]) == 100.0


# -- killed, and two at once -------------------------------------------------------------------------------

SCRIPT = """
import sys
sys.path.insert(0, sys.argv[2])
from test_runner import run
if __name__ == "__main__":
    run(sys.argv[1])
"""


@pytest.fixture
def start(tmp_path):
    """Start a bench in its own process."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    started = []

    def start(path):
        process = subprocess.Popen([sys.executable, str(script), str(path), str(Path(__file__).parent)])
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition, seconds=400):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def test_two_benches_at_once_share_the_cells(bench_file, tmp_path, start):
    count = tmp_path / "fits"
    toy = {"baseline": "toys.Toy", "options": {"count": str(count), "seconds": 0.3}}
    path = bench_file([toy], seeds=[0, 1, 2, 3], workers=1)
    processes = [start(path), start(path)]
    assert [process.wait(timeout=800) for process in processes] == [0, 0]
    assert sorted(count.read_text().split()) == ["0", "1", "2", "3"]  # nothing twice
    results, seen = run(path)
    assert seen == []
    assert [routed(results["Toy", seed]) for seed in range(4)] == [100.0] * 4


@pytest.mark.parametrize("workers", [1, 2])  # joblib runs one worker in the process of the bench
def test_a_killed_bench_leaves_nothing_incomplete_and_resumes(bench_file, tmp_path, start, workers):
    count = tmp_path / "fits"
    toy = {"baseline": "toys.Toy", "options": {"count": str(count), "seconds": 5.0}}
    path = bench_file([toy], seeds=[0, 1], workers=workers)
    process = start(path)
    wait_for(count.exists)  # the first fit has begun
    process.send_signal(signal.SIGKILL)
    process.wait()
    cells = tmp_path / "out/cells"
    assert all((folder / "result.json").is_file() for folder in cells.glob("[!.]*") if folder.is_dir())
    for pid in _workers(cells):  # the cell ends with its bench
        wait_for(lambda pid=pid: not os.path.exists(f"/proc/{pid}"))
    results, _ = run(path)
    assert [routed(results["Toy", seed]) for seed in (0, 1)] == [100.0, 100.0]
    assert sorted(count.read_text().split()) in (["0", "0", "1"], ["0", "1", "1"], ["0", "0", "1", "1"])
    assert not list(cells.glob(".*"))


def _workers(cells):
    """Processes that still have a log in an unfinished folder open."""
    for path in Path("/proc").glob("[0-9]*/fd/1"):
        try:
            if os.readlink(path).startswith(str(cells)):
                yield int(path.parts[2])
        except OSError:
            continue


# -- on a cluster ------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path):
    """A Dask scheduler and two workers, which talk over TCP."""
    from dask.distributed import Client

    log = (tmp_path / "dask.log").open("w")
    address = tmp_path / "scheduler.json"

    def dask(*argv):
        return subprocess.Popen([sys.executable, "-m", "dask", *argv], stdout=log, stderr=log)

    options = ["--scheduler-file", str(address), "--no-dashboard"]
    processes = [dask("scheduler", "--port", "0", "--protocol", "tcp", *options)]
    wait_for(address.exists)
    worker = ["worker", *options, "--nthreads", "1", "--local-directory", str(tmp_path / "dask")]
    processes += [dask(*worker), dask(*worker)]
    tcp = json.loads(address.read_text())["address"]
    with Client(tcp, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=200)
    yield tcp
    for process in reversed(processes):
        process.send_signal(signal.SIGTERM)
        process.wait()
    log.close()


def test_a_cluster_of_two_workers_computes_the_cells(bench_file, tmp_path, cluster):
    assert cluster.startswith("tcp://")
    hosts = tmp_path / "hosts"
    options = {"count": str(hosts), "seconds": 1.0}
    toys = [{"name": f"toy{i}", "baseline": "toys.Where", "options": options | {"seed": i}} for i in range(3)]
    slow = {"name": "slow", "baseline": "toys.Toy", "options": {"seconds": 250}}
    methods = [*toys, slow, "toys.Crash", "toys.Dies", "toys.Killed"]
    path = bench_file(methods, seeds=[0], timeout=10)
    results, seen = run(path, backend="dask", scheduler=cluster)
    assert len(seen) == 8
    assert [routed(results[f"toy{i}", 0]) for i in range(3)] == [100.0] * 3
    assert results["slow", 0].error == "ran out of time after 10 s"
    assert results["Crash", 0].error == "no such luck"
    assert results["Dies", 0].error == "the process died (exit code 7)"
    assert results["Killed", 0].error.startswith("the process died (SIGKILL")
    assert len(set(hosts.read_text().split())) == 2  # parents of the cells: a server on each worker
    assert run(path, backend="dask", scheduler=cluster) == (results, [])


def test_a_folder_that_the_workers_do_not_see_is_an_error(bench_file, tmp_path):
    path = bench_file(["toys.Toy"], seeds=[0])
    cells = plan(load_config(path))
    with pytest.raises(SatlightError, match="use an output folder that all hosts share"):
        run_cells(cells, tmp_path / "elsewhere", workers=1, timeout=1)
