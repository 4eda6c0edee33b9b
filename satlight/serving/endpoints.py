"""``/v1/route`` and ``/v1/feedback``, without the web framework: a JSON object in, a JSON object out."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from satlight.errors import SatlightError
from satlight.serving import conversation
from satlight.serving.engine import Decision, Engine
from satlight.serving.feedback import Answer, FeedbackLog
from satlight.serving.upstreams import MODEL

MAX_BATCH = 256
_INPUTS = ("instruction", "messages", "instructions")
_THUMBS = {"up": 1.0, "down": 0.0}


async def route(engine: Engine, content: Mapping[str, Any]) -> dict[str, Any]:
    """Decide without asking a candidate.

    Args:
        engine: Makes the decision.
        content: One of ``instruction`` (text), ``messages`` (conversation), ``instructions`` (list of texts), and
            optionally ``model`` (``satlight`` or ``satlight:RULE``).

    Returns:
        The decision, or ``{"results": [...]}`` for ``instructions``.

    Raises:
        SatlightError: A request of another form.
        QueueFullError: Too many requests wait.
    """
    given = [name for name in _INPUTS if name in content]
    if len(given) != 1 or set(content) - {*_INPUTS, "model"}:
        raise SatlightError(f"Send one of {[*_INPUTS]}, and optionally `model`; got the keys {sorted(content)!r:.200}")
    rule = _rule(engine, content.get("model", MODEL))
    value = content[given[0]]
    if given[0] == "messages":
        settings = engine.settings
        value = conversation.routed_text(value, settings.context_turns, settings.window_chars)
    texts = value if given[0] == "instructions" else [value]
    if not isinstance(texts, list) or not 0 < len(texts) <= MAX_BATCH:
        raise SatlightError(f"`instructions` must be a list of 1 to {MAX_BATCH} texts")
    for number, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            raise SatlightError(f"`{given[0]}`: text {number} is {text!r:.80}; send a text that is not empty")
    results = [_described(decision) for decision in await engine.rank(texts, rule)]
    return {"results": results} if given[0] == "instructions" else results[0]


def _rule(engine: Engine, model: Any) -> str:
    name, colon, rule = model.partition(":") if isinstance(model, str) else ("", "", "")
    if name != MODEL:
        raise SatlightError(f"`model` is {model!r:.80}; allowed are {MODEL!r} and '{MODEL}:RULE'")
    return engine.checked_rule(rule) if colon else engine.default_rule


def _described(decision: Decision) -> dict[str, Any]:
    choices = decision.ranking.choices if decision.ranking else ()
    return {
        "model": decision.order[0],
        "rule": decision.rule,
        "reason": decision.reason,
        "router_version": decision.version,
        "choices": [choice.to_dict() for choice in choices],
    }


async def feedback(answers: conversation.LRU[Answer], log: FeedbackLog | None, content: Mapping[str, Any]) -> bool:
    """Write the grade of an answer.

    Args:
        answers: Answers that can be graded.
        log: Where records go; None = the server takes no feedback.
        content: ``id`` (header ``x-satlight-id``), and ``score`` in [0, 1] or ``thumbs`` "up" or "down".

    Returns:
        Whether the id is known.

    Raises:
        SatlightError: A request of another form, or a server without ``--feedback``.
    """
    if log is None:
        raise SatlightError("This server takes no feedback; start it with --feedback DIR")
    if unknown := set(content) - {"id", "score", "thumbs"}:
        raise SatlightError(f"The keys {sorted(unknown)} are unknown; send `id`, and `score` or `thumbs`")
    score = content.get("score") if "score" in content else _THUMBS.get(str(content.get("thumbs")))
    if ("score" in content) == ("thumbs" in content) or isinstance(score, bool) or not isinstance(score, int | float):
        raise SatlightError('Send either `score`, a number in [0, 1], or `thumbs`, "up" or "down"')
    if not 0 <= score <= 1:
        raise SatlightError(f"`score` is {score}; it must be in [0, 1]")
    answer_id = content.get("id")
    answer = answers.get(answer_id) if isinstance(answer_id, str) else None
    if answer is None:
        return False
    assert isinstance(answer_id, str)
    await asyncio.to_thread(log.append, answer_id, answer, float(score))
    return True
