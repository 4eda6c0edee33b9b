"""The instruction of a sample of the LM Evaluation Harness: its last question, without worked examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from satlight.errors import SatlightError
from satlight.files import parse_json
from satlight.records.chat import last_user_turn

MARK = re.compile(r"(?:<\|[^|<>\n]{1,40}\|>|<(?:start|end)_of_turn>|\[/?INST\]|</?s>)(?:user|model|assistant|system)?")
"""A mark of a chat template, with the role that follows it."""

NO_TEXT = frozenset({"id", "subject", "category", "topic", "source", "dataset", "task", "type", "level"})
"""Fields of an entry that are not part of its question."""

LONG = 20
"""Minimum length of a field to count on its position in the prompt."""


def prompt_and_choices(arguments: Any) -> tuple[str, list[str] | None]:
    """Return the prompt and, if options are scored one by one, the options.

    Args:
        arguments: As logged: one list or object (prompt, continuation or settings) per request to the model.
    """
    requests = arguments.values() if isinstance(arguments, dict) else arguments if isinstance(arguments, list) else []
    pairs = [
        list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else [one] for one in requests
    ]
    if not pairs or not all(pairs):
        return "", None
    prompts = [_plain(pair[0]) for pair in pairs]
    options = [str(pair[1]).strip() for pair in pairs if len(pair) > 1 and isinstance(pair[1], str)]
    same = len(pairs) > 1 and len(options) == len(pairs) and len(set(prompts)) == 1
    return prompts[0], options if same else None


def _plain(prompt: Any) -> str:
    """Return the text of a prompt, or the last user message of a conversation (perhaps as JSON text)."""
    while isinstance(prompt, list) and prompt and not isinstance(prompt[-1], dict):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt.startswith("[{"):
        try:
            messages = parse_json(prompt, "prompt", "")
        except SatlightError:
            return prompt
        return last_user_turn(messages) or prompt
    return prompt if isinstance(prompt, str) else last_user_turn(prompt) or ("" if prompt is None else str(prompt))


def common_start(prompts: list[str]) -> int:
    """Return the length of the paragraphs that all prompts start with: worked examples and general advice."""
    if len(prompts) < 2:
        return 0
    low, high = min(prompts), max(prompts)  # a prefix common to these is common to all
    common = next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    end = low.rfind("\n\n", 0, common)
    return end + 2 if end >= 0 and min(map(len, prompts)) > end + 2 else 0


def last_question(prompt: str, doc: dict[str, Any], shots: int | None, delimiter: str) -> tuple[str, bool]:
    """Return the question of ``doc`` as it stands in the prompt, behind worked examples.

    Args:
        prompt: Worked examples (perhaps) and the question.
        doc: Entry of the benchmark, whose texts are looked for in the prompt.
        shots: Number of worked examples; None = unknown.
        delimiter: Text between worked examples.

    Returns:
        The question, and whether that is certain; otherwise it is the text behind the last delimiter.

    Example:
        >>> last_question("Q: 1+1?\\nA: 2\\n\\nQ: 2+2?\\nA:", {"question": "2+2?"}, 1, "\\n\\n")
        ('Q: 2+2?\\nA:', True)
    """
    if shots == 0:
        return prompt.strip(), True
    spans = [(at, at + len(text)) for text in _texts(doc) if (at := prompt.rfind(text)) >= 0]
    spans = [span for span in spans if span[1] - span[0] >= LONG] or sorted(spans, key=lambda one: one[0] - one[1])[:1]
    if not spans:
        return (prompt.strip(), True) if shots is None else (prompt.rpartition(delimiter)[2].strip(), False)
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    cut = prompt.rfind(delimiter, 0, first)
    begin = cut + len(delimiter) if cut >= 0 else 0
    begin = max([begin, *(mark.end() for mark in MARK.finditer(prompt, 0, first))])
    behind = MARK.search(prompt, last)
    return prompt[begin : behind.start() if behind else None].strip(), True


def _texts(value: Any, key: str = "") -> Iterator[str]:
    """Yield the texts in an entry, at any depth."""
    if isinstance(value, str):
        if key not in NO_TEXT and (text := value.strip()):
            yield text
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _texts(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, key)
