"""Claims on cells."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from satlight.bench.locks import claim, holder, is_stale


@pytest.fixture
def lock(tmp_path):
    return tmp_path / "cells" / "abc.lock"


def sign(lock, **changes):
    content = {"pid": os.getpid(), "start": "0", "host": socket.gethostname()} | changes
    lock.parent.mkdir(exist_ok=True)
    lock.write_text(json.dumps(content))


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_only_one_of_two_gets_it_and_it_is_free_afterwards(lock):
    with claim(lock) as first, claim(lock) as second:
        assert (first, second) == (True, False)
        assert holder(lock) == f"process {os.getpid()} on {socket.gethostname()}"
    with claim(lock) as again:
        assert again


def test_who_was_refused_leaves_the_lock_alone(lock):
    with claim(lock):
        with claim(lock):
            pass
        assert lock.exists()


def test_the_lock_of_a_dead_process_is_taken_over(lock):
    sign(lock, pid=dead_pid())
    with claim(lock) as granted:
        assert granted
        assert json.loads(lock.read_text())["pid"] == os.getpid()


def test_another_process_with_the_same_number_does_not_count(lock):
    sign(lock)  # our own pid, but another start
    assert is_stale(lock)


def test_a_lock_of_another_host_is_believed(lock):
    sign(lock, pid=dead_pid(), host="elsewhere.example")
    with claim(lock) as granted:
        assert not granted


def test_an_unsigned_lock_is_taken_over_when_it_is_old(lock):
    lock.parent.mkdir()
    lock.write_text("")
    with claim(lock) as granted:
        assert not granted
    old = time.time() - 60
    os.utime(lock, (old, old))
    with claim(lock) as granted:
        assert granted


def test_of_many_processes_one_takes_over(lock, tmp_path):
    sign(lock, pid=dead_pid())
    script = (
        "import sys, time, pathlib\nfrom satlight.bench.locks import claim\n"
        "sys.stdin.readline()\n"
        "with claim(pathlib.Path(sys.argv[1])) as granted:\n    print(granted, flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in processes]
    for process in processes:
        process.communicate("done\n")
    assert sorted(answers) == ["False", "False", "True"]
