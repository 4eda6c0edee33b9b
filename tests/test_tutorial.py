"""docs/tutorial.md, word for word: its commands in order, in one shell, with stand-in upstreams."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def script() -> str:
    """Return the shell blocks of the page with free ports."""
    text = "".join(re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE))
    ports = {port: str(free_port()) for port in sorted(set(re.findall(r"(?<=[: ])(?:4000|900\d)\b", text)))}
    assert len(ports) == 5
    for port, free in ports.items():
        text = re.sub(rf"(?<=[: ]){port}\b", free, text)
    return f"set -euo pipefail\ntrap 'kill $(jobs -p)' EXIT\n{text}"


@pytest.mark.timeout(900)
def test_the_tutorial_runs_as_it_is_written(tmp_path):
    pytest.importorskip("litellm.proxy", reason="the tutorial needs pip install satlight[serve]")
    pytest.importorskip("openai", reason="the tutorial needs pip install openai")
    for program in ("bash", "curl"):
        if shutil.which(program) is None:
            pytest.skip(f"the tutorial needs {program}")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "COLUMNS": "120", "SATLIGHT_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen(
        ["bash", "-c", script()],
        cwd=tmp_path,
        env=env,
        stdout=(log := (tmp_path / "log.txt").open("wb")),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        code = process.wait(timeout=800)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        log.close()
    said = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert code == 0, said[-4000:]
    assert "Route with" in said
    assert re.findall(r"(\w+) answers: (\w+):", said) == [("code", "code"), ("law", "law")]
    assert '"model":"verse"' in said
    assert said.count("Route with") == 2  # the second router sends poems to the new candidate
    assert (tmp_path / "runs/second/router").is_dir()
