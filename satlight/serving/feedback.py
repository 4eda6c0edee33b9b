"""Append graded answers to JSONL files that ``satlight data import --from feedback`` reads."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.serving.settings import TextPolicy

SEGMENT_BYTES = 64_000_000
"""A file that has reached this size is followed by a new one."""


@dataclass(frozen=True)
class Answer:
    """Facts of an answer before it is graded.

    Args:
        instruction: The routed text.
        candidate: Who answered.
        rule: Decision rule.
        reason: Why this candidate.
        probability: Predicted P(correct); None = there was no decision.
        router_version: Version of the router.
        latency: Seconds from request to the end of the answer; None = not known yet.
        cost: US dollars, as litellm computed them; None = unknown.
    """

    instruction: str
    candidate: str
    rule: str
    reason: str
    probability: float | None
    router_version: str
    latency: float | None = None
    cost: float | None = None


class FeedbackLog:
    """Append-only records of graded answers.

    Each record is one line, written in one call and synced to disk before the client gets its reply. A killed process
    can leave half a line at the end of a file; :mod:`satlight.records.sources.feedback` skips it, and a new process
    writes a new file.

    Args:
        folder: Where the files go; created if missing.
        text: "keep" the instruction, replace it by its SHA-256 ("hash"), or "omit" it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> log = FeedbackLog(folder)
        >>> log.append("id-1", Answer("2+2?", "org/a", "best", "rule", 0.9, "v1"), score=1.0)
        >>> [json.loads(file.read_text())["candidate"] for file in folder.iterdir()]
        ['org/a']
    """

    def __init__(self, folder: Path, text: TextPolicy = "keep") -> None:
        self.folder, self.text = folder, text
        self._lock = threading.Lock()
        self._number = 0
        self._stamp = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{os.getpid()}"
        self._file = self._opened()

    def _opened(self) -> int:
        path = self.folder / f"feedback-{self._stamp}-{self._number:04d}.jsonl"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise SatlightError(f"--feedback {path}: {error.strerror or error}; choose another folder") from error

    def append(self, answer_id: str, answer: Answer, score: float, grade: dict[str, Any] | None = None) -> None:
        """Write one record; it is on disk when this returns.

        Args:
            answer_id: Id of the answer.
            answer: The answer.
            score: Its grade in [0, 1].
            grade: Further fields of the record, e.g. who graded.
        """
        record = {
            "instruction": answer.instruction,
            "candidate": answer.candidate,
            "score": score,
            "cost_usd": answer.cost,
            "latency": answer.latency,
            "rule": answer.rule,
            "reason": answer.reason,
            "probability": answer.probability,
            "router_version": answer.router_version,
            "answer_id": answer_id,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            **(grade or {}),
        }
        if self.text == "hash":
            record["instruction"] = "sha256:" + hashlib.sha256(answer.instruction.encode()).hexdigest()
        elif self.text == "omit":
            del record["instruction"]
        line = json.dumps({key: value for key, value in record.items() if value is not None}, ensure_ascii=False) + "\n"
        with self._lock:
            if os.fstat(self._file).st_size >= SEGMENT_BYTES:
                os.close(self._file)
                self._number += 1
                self._file = self._opened()
            content = line.encode()
            if os.write(self._file, content) != len(content):
                os.write(self._file, b"\n")  # a full disk: the half line must not swallow the next
                raise OSError(28, "No space left on device", str(self.folder))
            os.fsync(self._file)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
