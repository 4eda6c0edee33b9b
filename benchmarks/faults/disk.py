"""Commands on a file system without room: a small tmpfs in a user namespace of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from faults import jobs
from faults.kills import hashes, leftovers

_SCRIPT = """
set -e
mount -t tmpfs -o size=$SIZE tmpfs "$PLACE"
cp -r "$SOURCE"/. "$PLACE"
cd "$PLACE"
dd if=/dev/zero of=fill bs=4k count=$FILL 2>/dev/null || true
code=0
"$PYTHON" -m satlight "$@" > "$REPORT/out.txt" 2> "$REPORT/err.txt" || code=$?
rm -f fill
cp -r "$PLACE" "$REPORT/after"
exit $code
"""


@dataclass
class Row:
    """A line of the table: a command on a full disk.

    Args:
        fault: What is wrong; empty = nothing.
    """

    name: str
    code: int
    sentence: str
    fault: str = ""


def run(source: Path | None, place: Path) -> list[Row] | None:
    """Let fit, export and import run out of room.

    Args:
        source: Working folder of a finished training; None = no export.
        place: Folder for working folders.

    Returns:
        A row per command; None if no tmpfs can be mounted.
    """
    place.mkdir(parents=True)
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", str(place)], check=False, capture_output=True
        ).returncode
    ):
        return None
    rows = []
    for name, kilobytes in (("data import", 64), ("export", 96), ("fit, first checkpoint", 128), ("fit, router", 480)):
        folder, report = place / name / "start", place / name / "report"
        folder.mkdir(parents=True)
        report.mkdir()
        if name == "data import":
            jobs.write_csv(folder)
            argv = ["data", "import", "log.csv", "--from", "csv", "--to", "mine", "--force"]
        elif name == "export" and source is not None:
            shutil.copytree(source / jobs.RUN, folder / jobs.RUN)
            argv = ["export", jobs.RUN]
        elif name != "export":
            argv = jobs.fit(folder)
        else:
            continue
        rows.append(_try(name, argv, folder, report, kilobytes))
    return rows


def _try(name: str, argv: list[str], folder: Path, report: Path, kilobytes: int) -> Row:
    """Run a command with a few kilobytes of room."""
    target = report.parent / "mounted"
    target.mkdir()
    used = sum(-(-path.stat().st_size // 4096) * 4 + 4 for path in folder.rglob("*"))
    size = used + kilobytes + 64
    environment = os.environ | {
        "SIZE": f"{size}k", "FILL": "16", "PLACE": str(target), "SOURCE": str(folder), "REPORT": str(report),
        "PYTHON": sys.executable, "SATLIGHT_CACHE": str(report / "cache"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", _SCRIPT, "sh", *argv],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    said = [line for line in (report / "err.txt").read_text().splitlines() if line.startswith("error: ")]
    row = Row(name, done.returncode, said[0] if said else "")
    before, after = hashes(folder), hashes(report / "after")
    if done.returncode != 1 or len(said) != 1:
        row.fault = f"exit code {done.returncode}: {(report / 'err.txt').read_text()[-300:]}"
    elif changed := [path for path, value in before.items() if after.get(path) != value]:
        row.fault = f"changed {changed}"
    elif left := leftovers(report / "after"):
        row.fault = f"left over: {left}"
    return row
