"""Answers that were paid for: an append-only file that survives a kill."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import decoded, parse_json, unwritable
from satlight.storage.typed import typed

FILE = "answers.jsonl"


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a candidate to one item.

    Args:
        text: What it wrote.
        tokens_in: Prompt tokens; None = unknown.
        tokens_out: Generated tokens; None = unknown.
        finish: Why it ended, as the endpoint says: "stop", "length", "content_filter", ….
    """

    text: str
    tokens_in: int | None = None
    tokens_out: int | None = None
    finish: str = "stop"


def key_of(**asked: Any) -> str:
    """Return the key of an answer: a digest of everything it depends on.

    Args:
        asked: Model, address, item, prompt, images and sampling settings, as JSON has them.
    """
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


class AnswerCache:
    """Answers by key, one JSON object per line of ``answers.jsonl``.

    Every answer is on disk before :meth:`put` returns. A line that a kill has cut off is ignored when the file is read
    again, and the next line starts on its own. Keys of an endpoint are never written.

    Args:
        folder: Folder of the file; made with the first answer.

    Example:
        >>> import tempfile
        >>> cache = AnswerCache(Path(tempfile.mkdtemp()))
        >>> cache.put("key", "item", Answer("Paris"))
        >>> AnswerCache(cache.path.parent).answers["key"].text
        'Paris'
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.damaged = 0
        self.answers: dict[str, Answer] = {}
        self._whole = True
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise SatlightError(
                f"{self.path} cannot be read ({error.strerror or error}); choose another --cache"
            ) from error
        for number, line in enumerate(content.split(b"\n"), 1):
            if line.strip():
                self._read(line, f"{self.path}, line {number}")
        self._whole = not content or content.endswith(b"\n")

    def _read(self, line: bytes, where: str) -> None:
        try:
            entry = parse_json(decoded(line, where, ""), where, "")
            self.answers[entry["key"]] = typed(Answer, entry["answer"], where)
        except (SatlightError, LookupError, TypeError, ValueError):
            self.damaged += 1

    def put(self, key: str, item_id: str, answer: Answer) -> None:
        """Keep an answer.

        Raises:
            SatlightError: It cannot be written.
        """
        line = json.dumps({"key": key, "id": item_id, "answer": asdict(answer)}).encode() + b"\n"
        if not self._whole:
            line = b"\n" + line
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._whole = os.write(file, line) == len(line)
                if not self._whole:
                    raise OSError(28, os.strerror(28))
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.answers[key] = answer
