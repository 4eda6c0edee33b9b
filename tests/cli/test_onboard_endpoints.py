"""``satlight onboard`` through litellm: an endpoint that answers, fails, or refuses."""

import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from satlight.routers import Router
from satlight.routing.onboarding.cache import AnswerCache
from satlight.routing.onboarding.endpoints import Sampling


class Upstream(BaseHTTPRequestHandler):
    """An OpenAI-compatible server with moods; ``server.mood(number of the request)`` returns status and headers."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.headers["Authorization"], body))
        status, headers, text = self.server.mood(len(self.server.seen))
        if text is None:
            message = {"role": "assistant", "content": self.server.reply(body["messages"][0]["content"])}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}
            text = json.dumps(
                {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "m",
                    "choices": [choice],
                    "usage": usage,
                }
            )
            headers = {"Content-Type": "application/json"}
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(text.encode()))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def upstream(reply):
    @contextmanager
    def start(mood):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        server.seen, server.mood, server.reply = [], mood, reply
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            server.shutdown()
            server.server_close()

    return start


JSON = {"Content-Type": "application/json"}
ERROR = json.dumps({"error": {"message": "no", "type": "x", "code": "x"}})


def test_a_flaky_endpoint_is_asked_again(command, folder, upstream, monkeypatch):
    pytest.importorskip("litellm")
    monkeypatch.setenv("STAND_IN_KEY", "sk-secret")
    monkeypatch.setattr("satlight.routing.onboarding.runner.BASE_SECONDS", 0.01)
    moods = {1: (500, JSON, ERROR), 2: (429, JSON | {"Retry-After": "0.05"}, ERROR), 4: (503, JSON, ERROR)}
    with upstream(lambda number: moods.get(number, (200, {}, None))) as (server, base):
        words = ("onboard", "--router", folder, "--model", "new", "--api-base", base, "--yes", "--concurrency", 3)
        done = command(*words, "--api-key-env", "STAND_IN_KEY")
        assert done.code is None, done.err
        assert len(server.seen) == 10 + 3
        assert {key for key, _ in server.seen} == {"Bearer sk-secret"}
        assert server.seen[0][1]["model"] == "new"
        assert server.seen[0][1]["temperature"] == 0
    assert Router.from_pretrained(folder).candidates[-1].tokens_out == 11
    kept = AnswerCache(folder.with_name("router-answers"))
    assert len(kept.answers) == 10
    assert "sk-secret" not in kept.path.read_text() + done.err + done.out


def test_the_users_openai_key_goes_to_no_other_address(command, folder, upstream, monkeypatch):
    pytest.importorskip("litellm")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with upstream(lambda number: (200, {}, None)) as (server, base):
        assert command("onboard", "--router", folder, "--model", "new", "--api-base", base, "--yes").code is None
        assert not any("sk-secret" in key for key, _ in server.seen)


@pytest.mark.parametrize(
    ("mood", "message", "requests"),
    [
        ((401, JSON, ERROR), "refused the key", 1),
        ((403, JSON, ERROR), "refused the key", 1),
        ((404, JSON, ERROR), "refused the request", 1),
        (
            (200, {"Content-Type": "text/html"}, "<!doctype html><html>Welcome</html>"),
            "something else than the JSON",
            1,
        ),
        ((200, JSON, "{"), "(2 attempts). Answers so far are kept", 2),  # an answer that was cut off
        ((500, JSON, ERROR), "(2 attempts). Answers so far are kept", 2),
        ((429, JSON | {"Retry-After": "9999"}, ERROR), "asks to wait 9999 s", 1),
    ],
)
def test_errors_of_the_endpoint_are_told(command, folder, upstream, monkeypatch, mood, message, requests, state):
    pytest.importorskip("litellm")
    monkeypatch.setattr("satlight.routing.onboarding.runner.BASE_SECONDS", 0.01)
    before = state(folder)
    with upstream(lambda number: mood) as (server, base):
        words = ("onboard", "--router", folder, "--model", "new", "--api-base", base, "--yes", "--concurrency", 1)
        done = command(*words, "--retries", 1)
        assert done.code == 1
        assert message in done.err
        assert "127.0.0.1" in done.err
        assert len(server.seen) == requests
    assert state(folder) == before


def test_an_endpoint_that_is_down_is_told(command, folder, upstream, monkeypatch):
    pytest.importorskip("litellm")
    monkeypatch.setattr("satlight.routing.onboarding.runner.BASE_SECONDS", 0.01)
    with upstream(lambda number: (200, {}, None)) as (_, base):
        pass
    done = command("onboard", "--router", folder, "--model", "new", "--api-base", base, "--yes", "--retries", 1)
    assert done.code == 1
    assert f"{base} failed" in done.err


def test_prices_come_from_litellm():
    pytest.importorskip("litellm")
    from satlight.routing.onboarding.endpoints import Endpoint

    assert Endpoint("openai/gpt-4o-mini", Sampling()).prices() == pytest.approx((0.15, 0.6))
    assert Endpoint("openai/no-such-model", Sampling(), "http://localhost:1/v1").prices() is None


def test_without_litellm_the_extra_is_named(command, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    done = command("onboard", "--router", folder, "--model", "new", "--api-base", "http://localhost:1/v1", "--yes")
    assert done.code == 1
    assert "pip install satlight[onboard]" in done.err
