"""Feedback records: on disk when acknowledged, readable after a kill, private on request."""

import json
import signal
import subprocess
import sys

import pytest

from satlight.cli import main
from satlight.errors import SatlightError
from satlight.records import open_records
from satlight.records.sources import feedback as source
from satlight.serving import feedback
from satlight.serving.feedback import Answer, FeedbackLog


def answer(text: str = "What is 2+2?", **facts) -> Answer:
    return Answer(**({"instruction": text, "candidate": "a", "rule": "best", "reason": "rule", "probability": 0.75,
                      "router_version": "v1", "latency": 0.25, "cost": 0.001} | facts))  # fmt: skip


def rows(folder) -> list[dict]:
    return [json.loads(line) for file in sorted(folder.iterdir()) for line in file.read_text().splitlines()]


def test_records_are_imported_as_any_other_log(tmp_path):
    log = FeedbackLog(tmp_path / "log")
    log.append("1", answer(), 1.0)
    log.append("2", answer(candidate="b", cost=None), 0.0)
    log.append("3", answer('Name a river.\nIn "Peru"\u2028.'), 0.5)
    log.close()
    main(["data", "import", str(tmp_path / "log"), "--from", "feedback", "--to", str(tmp_path / "records")])
    records = open_records(tmp_path / "records")
    assert sorted(records.model_ids) == ["a", "b"]
    assert sorted(records.texts) == ['Name a river.\nIn "Peru"\u2028.', "What is 2+2?"]
    assert records.known.sum() == 3


def test_a_killed_writer_leaves_whole_records_and_at_most_half_a_line(tmp_path):
    code = (
        "import sys; from pathlib import Path; from satlight.serving.feedback import Answer, FeedbackLog\n"
        "log = FeedbackLog(Path(sys.argv[1])); n = 0\n"
        "while True:\n"
        "    log.append(str(n), Answer(f'text {n} ' + 'x' * 5000, 'a', 'best', 'rule', None, 'v'), 1.0)\n"
        "    print(n, flush=True); n += 1\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    acknowledged = [process.stdout.readline() for _ in range(5)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    acknowledged += process.stdout.readlines()
    process.stdout.close()
    file = next(tmp_path.iterdir())
    with file.open("ab") as out:
        out.write(b'{"instruction": "half a li')
    content = source.tables(tmp_path)
    assert content.instructions.height >= len([line for line in acknowledged if line.endswith("\n")])
    assert "1 unfinished lines" in content.notes[-1]


@pytest.mark.parametrize(("policy", "instruction"), [("keep", "secret"), ("hash", "sha256:2bb80d537b1d"), ("omit", "")])
def test_text_can_be_hashed_or_left_out(tmp_path, policy, instruction):
    FeedbackLog(tmp_path, policy).append("1", answer("secret"), 1.0)
    assert rows(tmp_path)[0].get("instruction", "").startswith(instruction)
    assert ("secret" in next(tmp_path.iterdir()).read_text()) == (policy == "keep")


def test_files_are_private_and_a_full_one_is_followed_by_another(tmp_path, monkeypatch):
    monkeypatch.setattr(feedback, "SEGMENT_BYTES", 300)
    log = FeedbackLog(tmp_path)
    for number in range(4):
        log.append(str(number), answer(), 1.0)
    assert len([*tmp_path.iterdir()]) > 1
    assert len(rows(tmp_path)) == 4
    assert all(file.stat().st_mode & 0o077 == 0 for file in tmp_path.iterdir())


def test_an_empty_folder_or_one_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(SatlightError, match="no feedback-"):
        source.tables(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SatlightError, match="choose another folder"):
        FeedbackLog(tmp_path / "file" / "log")
