"""The ASGI middleware in front of litellm: limits, checks, the choice of a rule, and response headers."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import quote, urlsplit

from satlight.errors import SatlightError
from satlight.files import decoded, parse_json
from satlight.serving import conversation, metrics
from satlight.serving.engine import Engine
from satlight.serving.feedback import Answer
from satlight.serving.settings import is_loopback
from satlight.serving.state import CURRENT, RequestState
from satlight.serving.upstreams import MODEL

log = logging.getLogger(__name__)
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

REMEMBERED = 10_000
"""Number of answers that can still be graded."""

BODY = "satlight.body"
"""Key of the parsed body in the ASGI scope."""

OWN_PATHS = ("/v1/route", "/v1/feedback")
"""Endpoints of this server; all others are litellm's."""

_FORMS = ("multipart/", "application/x-www-form-urlencoded")
_JSON_ONLY = ("/completions", "/responses", "/messages", "/embeddings")
"""Ends of the paths that take JSON; litellm would read forms there, too, which are not checked here."""

_REDIRECTING = ("api_base", "base_url", "api_key", "model_list", "user_config", "litellm_credential_name")
"""Keys of a body with which a client would choose another upstream or key; litellm refuses them as a fault (500)."""

_OPEN_PATHS = ("/v1/", "/health", "/metrics")


class RefusedError(Exception):
    """A request that the server does not pass on.

    Args:
        status: HTTP status.
        message: For the client.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


class Gate:
    """Check requests, choose their rule, pass them to litellm, and say in the response who answered.

    Args:
        app: litellm's application.
        engine: Makes the decisions.
    """

    def __init__(self, app: App, engine: Engine) -> None:
        self.app, self.engine, self.settings = app, engine, engine.settings
        self.answers = conversation.LRU[Answer](REMEMBERED)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            if scope["type"] == "websocket" and self.settings.api_key_env is None:
                await send({"type": "websocket.close", "code": 1008})
                return
            await self.app(scope, receive, send)
            return
        try:
            headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
            self._check_source(scope["path"], headers)
            if scope["path"] == "/health":
                await respond(send, 200, self.health())
                return
            if scope["path"] == "/metrics" or self.engine.loaded.upstreams.one_key:
                self._check_key(headers)
            if scope["path"] == "/metrics":
                await respond(send, 200, self.engine.metrics.text(), metrics.CONTENT_TYPE)
            else:
                await self._pass_on(scope, headers, receive, send)
        except RefusedError as refusal:
            self.engine.metrics.refused.labels(str(refusal.status)).inc()
            await respond(send, refusal.status, error_body(refusal.status, refusal.message))

    def health(self) -> dict[str, Any]:
        """Return the state of the server; it can answer whenever it can run this."""
        loaded = self.engine.loaded
        return {"status": "ok", "router_version": loaded.version, "candidates": [*loaded.active]}

    # -- checks --------------------------------------------------------------------------------------------

    def _check_source(self, path: str, headers: dict[str, str]) -> None:
        """Without a key, serve local programs only: no pages of a browser, and none of litellm's administration."""
        if self.settings.api_key_env is not None:
            return
        for name, value in (("Host", f"//{headers.get('host', '')}"), ("Origin", headers.get("origin", ""))):
            if value.strip("/") and not is_loopback(_hostname(value)):
                raise RefusedError(
                    403, f"{name} {value[:80]!r} is not this machine; start the server with --api-key-env"
                )
        if not path.startswith(_OPEN_PATHS):
            raise RefusedError(404, f"{path[:80]!r} is not served without a key; start the server with --api-key-env")

    def _check_key(self, headers: dict[str, str]) -> None:
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if not self.engine.is_key(given or headers.get("x-api-key", headers.get("api-key", ""))):
            raise RefusedError(401, "Authentication Error: send the server's key as a bearer token")

    async def _body(self, headers: dict[str, str], receive: Receive) -> bytes:
        limit = int(self.settings.max_body_mb * 1e6)
        too_large = RefusedError(413, f"The body is larger than {self.settings.max_body_mb:g} MB; send less")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            raise too_large
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RefusedError(400, "The client closed the connection before the end of the body")
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > limit:
                raise too_large
            if not message.get("more_body"):
                return b"".join(chunks)

    def _parsed(self, body: bytes) -> dict[str, Any]:
        try:
            content = parse_json(decoded(body, "the body", "send JSON"), "the body", "send a JSON object")
        except SatlightError as error:
            raise RefusedError(400, str(error)) from None
        if not isinstance(content, dict):
            raise RefusedError(400, f"The body is a JSON {type(content).__name__}; send an object")
        length = 0
        for text in conversation.strings(content):
            length += len(text)
            if "\0" in text:
                raise RefusedError(400, "A text holds the null character U+0000; remove it")
        if length > self.settings.max_prompt_chars:
            raise RefusedError(
                413, f"The texts have {length} characters; at most {self.settings.max_prompt_chars} are allowed"
            )
        if named := [key for key in _REDIRECTING if key in content]:
            raise RefusedError(400, f"The body has the key `{named[0]}`; upstreams are chosen by the server alone")
        if "messages" in content:
            _check_messages(content["messages"])
        return content

    def _state(self, content: dict[str, Any], headers: dict[str, str]) -> RequestState | None:
        """Return the state of a request for the model ``satlight`` or one of its rules."""
        model = content.get("model")
        name, colon, rule = model.partition(":") if isinstance(model, str) else ("", "", "")
        if name != MODEL:
            return None
        try:
            rule = self.engine.checked_rule(rule) if colon else self.engine.default_rule
        except SatlightError as error:
            raise RefusedError(400, str(error)) from None
        scope = hashlib.sha256(headers.get("authorization", "").encode()).hexdigest()
        return RequestState(uuid.uuid4().hex, rule, scope, headers.get("x-satlight-conversation"))

    # -- passing on ----------------------------------------------------------------------------------------

    async def _pass_on(self, scope: Message, headers: dict[str, str], receive: Receive, send: Send) -> None:
        if scope["method"] not in ("POST", "PUT", "PATCH"):
            await self.app(scope, receive, send)
            return
        form = headers.get("content-type", "").lower().startswith(_FORMS)
        if form and scope["path"].rstrip("/").endswith(_JSON_ONLY):
            raise RefusedError(415, f"{scope['path'][:80]!r} takes JSON; send it with content-type: application/json")
        body, state = await self._body(headers, receive), None
        if scope["path"] in OWN_PATHS or not form:
            content = self._parsed(body)
            state = self._state(content, headers)
            scope = {**scope, BODY: content}
            if state is not None and content["model"] != MODEL:
                body = json.dumps(content | {"model": MODEL}, ensure_ascii=False).encode()
                others = [one for one in scope["headers"] if one[0].lower() != b"content-length"]
                scope = {**scope, "headers": [*others, (b"content-length", str(len(body)).encode())]}
        CURRENT.set(state)
        await self.app(scope, _replayed(body, receive), send if state is None else _Reply(self, state, send))


class _Reply:
    """Send a response with headers that say who answers and why, and remember the answer for feedback."""

    def __init__(self, gate: Gate, state: RequestState, send: Send) -> None:
        self.gate, self.state, self.send = gate, state, send
        self.start = time.perf_counter()
        self.refused = False
        self.cost: float | None = None

    async def __call__(self, message: Message) -> None:
        state = self.state
        if message["type"] == "http.response.start":
            if state.error is not None:
                self.refused = True
                self.gate.engine.metrics.refused.labels("400").inc()
                await respond(self.send, 400, error_body(400, str(state.error)))
            elif state.candidate is not None:
                message = {**message, "headers": [*message.get("headers", ()), *response_headers(state)]}
                self.cost = _cost(message["headers"])
                if message["status"] < 400:
                    self.gate.engine.metrics.answers.labels(state.candidate, state.reason).inc()
        if self.refused:
            return
        await self.send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._remember()

    def _remember(self) -> None:
        state, decision = self.state, self.state.decision
        if self.gate.settings.feedback is None or state.candidate is None or decision is None:
            return
        answer = Answer(
            instruction=decision.text,
            candidate=state.candidate,
            rule=state.rule,
            reason=state.reason,
            probability=decision.probability(state.candidate),
            router_version=decision.version,
            latency=round(time.perf_counter() - self.start, 4),
            cost=self.cost,
        )
        self.gate.answers.put(state.answer_id, answer)


def _check_messages(messages: Any) -> None:
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise RefusedError(400, "`messages` must be a list of objects with role and content, at least one")
    for number, message in enumerate(messages):
        content = message.get("content")
        parts = content if isinstance(content, list) else []
        if not (content is None or isinstance(content, str | list)) or not all(isinstance(one, dict) for one in parts):
            raise RefusedError(400, f"messages[{number}].content must be a text, or a list of parts that are objects")


def response_headers(state: RequestState) -> list[tuple[bytes, bytes]]:
    """Return the headers of a routed answer; names that HTTP does not allow in a header are percent-encoded."""
    decision, candidate = state.decision, state.candidate
    assert decision is not None
    assert candidate is not None
    probability = decision.probability(candidate)
    values = {
        "id": state.answer_id,
        "model": candidate,
        "probability": None if probability is None else f"{probability:.4f}",
        "rule": state.rule,
        "router-version": decision.version,
        "decision-ms": f"{1000 * decision.seconds:.1f}",
        "reason": state.reason,
    }
    return [
        (f"x-satlight-{name}".encode(), quote(value, safe="/:@.,-+=() ").encode())
        for name, value in values.items()
        if value is not None
    ]


def error_body(status: int, message: str) -> dict[str, Any]:
    """Return an error in OpenAI's format."""
    kind = "authentication_error" if status in (401, 403) else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": str(status)}}


async def respond(send: Send, status: int, content: Any, content_type: str = "application/json") -> None:
    """Send a whole response: a text as it is, everything else as JSON."""
    body = (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)).encode()
    headers = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a receive function that yields a body that was read already."""
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _cost(headers: list[tuple[bytes, bytes]]) -> float | None:
    """Return the dollars that litellm computed for an answer, if it knows the price."""
    value = next((value for name, value in headers if name.lower() == b"x-litellm-response-cost"), b"")
    try:
        return float(value) or None
    except ValueError:
        return None
