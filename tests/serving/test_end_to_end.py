"""Real processes on loopback: the official client, three upstreams, a fourth one added while the server runs."""

import http.client
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("litellm.proxy", reason="pip install satlight[serve]")
pytest.importorskip("openai")

KEY = "sk-test-of-the-server-0123456789"
UPSTREAM_KEY = "sk-upstream-secret-9876543210"
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(standin, router_folder, tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A server with a key, feedback and three upstreams."""
    folder = tmp_path_factory.mktemp("server")
    router, config, log = folder / "router", folder / "upstreams.yaml", folder / "log"
    shutil.copytree(router_folder, router)
    ports = {skill: standin.free_port() for skill in standin.SKILLS}
    upstreams = {skill: standin.start_upstream(skill, ports[skill]) for skill in standin.SKILLS}
    standin.write_upstreams(config, {skill: ports[skill] for skill in standin.SKILLS[:3]}, api_key_env="UPSTREAM_KEY")
    port = standin.free_port()
    options = ("--default", "law", "--api-key-env", "SERVER_KEY", "--feedback", str(folder / "feedback"))
    limits = ("--max-body-mb", "2", "--deadline-ms", "20000", "--reload-seconds", "0.2")
    paths = {"folder": folder, "log": log, "config": config, "router": router}
    keys = {"SERVER_KEY": KEY, "UPSTREAM_KEY": UPSTREAM_KEY}
    try:
        process = standin.start_server(router, config, port, log, *options, *limits, **keys)
        yield SimpleNamespace(port=port, ports=ports, upstreams=upstreams, **paths)
        standin.stop(process)
    finally:
        standin.stop(*upstreams.values())


@pytest.fixture(scope="module")
def client(server):
    import openai

    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=KEY, max_retries=0, timeout=60)


def ask(client, text: str, model: str = "satlight", **options):
    """Return the whole response, with its headers."""
    messages = [{"role": "user", "content": text}]
    return client.chat.completions.with_raw_response.create(model=model, messages=messages, **options)


def post(server, body: bytes, path: str = "/v1/chat/completions", **headers: str) -> tuple[int, dict]:
    """Send bytes as they are; return status and parsed body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    fields = {"content-type": "application/json", "authorization": f"Bearer {KEY}", **headers}
    connection.request("POST", path, body, fields)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.parametrize("skill", ["math", "code", "law"])
def test_each_instruction_goes_to_the_candidate_that_solves_it(client, standin, skill):
    response = ask(client, standin.instructions(skill)[3])
    assert response.parse().choices[0].message.content == f"{skill}: {standin.instructions(skill)[3]}"
    headers = response.headers
    assert headers["x-satlight-model"] == skill
    assert headers["x-satlight-rule"] == "best"
    assert headers["x-satlight-reason"] == "rule"
    assert 0.5 < float(headers["x-satlight-probability"]) <= 1
    assert len(headers["x-satlight-router-version"]) == 12


@pytest.mark.parametrize(("rule", "model"), [("cheapest@0", "math"), ("cheapest@0.5", "law"), ("utility@0.1", "law")])
def test_another_rule_can_be_asked_for(client, standin, rule, model):
    headers = ask(client, standin.instructions("law")[3], model=f"satlight:{rule}").headers
    assert (headers["x-satlight-model"], headers["x-satlight-rule"]) == (model, rule)


def test_streams_arrive_in_pieces(client, standin):
    text = standin.instructions("code")[0]
    stream = client.chat.completions.create(
        model="satlight:best", messages=[{"role": "user", "content": text}], stream=True
    )
    pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert "".join(filter(None, pieces)).strip() == f"code: {text}"
    assert len(pieces) > 3
    assert stream.response.headers["x-satlight-model"] == "code"


def test_tools_pass_untouched(client, standin):
    schema = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Bern", "Nîmes"]}}, "required": []}
    tools = [{"type": "function", "function": {"name": "weather", "description": "Say it.", "parameters": schema}}]
    call = ask(client, standin.instructions("law")[0], tools=tools).parse().choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"tools": tools}


def test_candidates_can_be_asked_by_name(client, standin):
    response = ask(client, standin.instructions("law")[0], model="math")
    assert response.parse().choices[0].message.content.startswith("math: ")
    assert "x-satlight-model" not in response.headers


def test_route_decides_without_asking(server, standin):
    status, one = post(server, json.dumps({"instruction": standin.instructions("math")[0]}).encode(), "/v1/route")
    assert (status, one["model"]) == (200, "math")
    assert one["choices"][0]["model_id"] == "math"
    texts = [standin.instructions(skill)[1] for skill in ("law", "code")]
    status, several = post(server, json.dumps({"instructions": texts}).encode(), "/v1/route")
    assert [result["model"] for result in several["results"]] == ["law", "code"]
    assert post(server, b"{}", "/v1/route")[0] == 400


def test_nothing_is_served_without_the_key(server):
    body = json.dumps({"model": "satlight", "messages": [{"role": "user", "content": "Hi"}]}).encode()
    for path in ("/v1/chat/completions", "/v1/route", "/v1/feedback"):
        assert post(server, body, path, authorization="Bearer wrong")[0] == 401
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/metrics")
    assert connection.getresponse().status == 401


def chat(text: str, model: str = "satlight") -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}]}).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model": ', 400),
        (b"[1]", 400),
        (b"\xff\xfe", 400),
        (b"\0\0", 400),
        (b"[" * 100_000, 400),
        (chat("null \0 character"), 400),
        (b'{"model": "satlight", "messages": "none"}', 400),
        (chat("x" * 1_000_000), 413),
        (chat("x" * 3_000_000), 413),
        (chat("Hi", model="unknown"), 400),
        (chat("Hi", model="satlight:unknown"), 400),
        (chat("Hi", model="satlight:failover-1"), 400),
        (chat("Hi", model="satlight:budget@0.01"), 400),
        (chat("Hi", model="satlight:a\r\nx-injected: 1"), 400),
        (chat("Hi", model="satlight")[:-1] + b', "api_base": "http://169.254.169.254"}', 400),
        (b'{"model": "satlight", "messages": []}', 400),
        (b'{"model": "satlight", "messages": [{"role": "user", "content": 5}]}', 400),
        (b'{"model": "satlight", "messages": [{"role": "user", "content": [1]}]}', 400),
        (b'{"model": "satlight", "messages": [{"role": "user", "content": "\\ud800"}]}', 400),
    ],
    ids=range(19),
)
def test_hostile_bodies_are_refused_and_the_server_lives(server, standin, body, status):
    got, content = post(server, body)
    assert got == status, content
    assert content["error"]["message"]
    assert standin.get_json(server.port, "/health")["status"] == "ok"


def test_forms_are_refused_where_json_is_expected(server):
    kind = {"content-type": "application/x-www-form-urlencoded"}
    status, content = post(server, b"model=satlight&messages=[]", **kind)
    assert (status, "takes JSON" in content["error"]["message"]) == (415, True)


def test_broken_http_does_not_stop_the_server(server, standin):
    for request in (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nx-a: b\0c\r\n\r\n",
        b"\0" * 1000,
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(request)
            assert connection.recv(65536).split(b" ")[1:2] in ([b"400"], [])
    assert standin.get_json(server.port, "/health")["status"] == "ok"


def restarted(server, standin, skill: str, *options: str) -> subprocess.Popen:
    """Replace an upstream by one with other options."""
    standin.stop(server.upstreams[skill])
    server.upstreams[skill] = standin.start_upstream(skill, server.ports[skill], *options)
    return server.upstreams[skill]


@pytest.mark.parametrize("mode", ["dead", "500", "html", "hang"])
def test_a_failing_upstream_loses_no_request(server, client, standin, mode):
    text = standin.instructions("math")[0]
    if mode == "dead":
        standin.stop(server.upstreams["math"])
    else:
        restarted(server, standin, "math", "--mode", mode)
    for _ in range(3):
        response = ask(client, text)
        assert response.headers["x-satlight-reason"] == "failover"
        assert response.headers["x-satlight-model"] in ("code", "law")
        assert response.parse().choices[0].message.content.endswith(text)
    restarted(server, standin, "math")

    def recovered() -> None:
        assert ask(client, text).headers["x-satlight-model"] == "math"

    standin.wait_for(recovered, seconds=30)  # litellm lets a failed upstream rest for some seconds


def test_graded_answers_become_records(server, client, standin, tmp_path):
    from satlight.records.sources import feedback

    text = standin.instructions("code")[5]
    answer_id = ask(client, text).headers["x-satlight-id"]
    assert post(server, json.dumps({"id": answer_id, "thumbs": "up"}).encode(), "/v1/feedback")[0] == 200
    assert post(server, json.dumps({"id": answer_id, "score": 2}).encode(), "/v1/feedback")[0] == 400
    assert post(server, json.dumps({"id": "unknown", "score": 1}).encode(), "/v1/feedback")[0] == 404
    records = feedback.read(server.folder / "feedback")
    assert (records.texts, records.model_ids, records.outcomes.tolist()) == ([text], ["code"], [[1.0]])
    row = json.loads(next((server.folder / "feedback").iterdir()).read_text())
    assert row["cost_usd"] == pytest.approx(40e-6)  # 10 tokens at 2 $/M, 5 at 4 $/M
    assert 0 < row["latency"] < 60


def test_a_fourth_upstream_is_added_while_the_server_runs(server, client, standin):
    from satlight.routers import Router

    text = standin.instructions("verse")[2]
    assert ask(client, text).headers["x-satlight-model"] != "verse"
    before = standin.get_json(server.port, "/health")["router_version"]
    larger = standin.admitted(Router.from_pretrained(server.router), "verse")
    larger.save(server.router)  # without an upstream for it, the server keeps the old router
    standin.wait_for(lambda: _contains(server.log, "no upstream for the candidates"), seconds=60)
    assert standin.get_json(server.port, "/health")["router_version"] == before
    standin.write_upstreams(server.config, server.ports, api_key_env="UPSTREAM_KEY")

    def traffic() -> None:
        assert ask(client, text).headers["x-satlight-model"] == "verse"

    standin.wait_for(traffic, seconds=60)
    assert ask(client, text).parse().choices[0].message.content == f"verse: {text}"
    assert ask(client, standin.instructions("math")[0]).headers["x-satlight-model"] == "math"


def _contains(log: Path, text: str) -> None:
    assert text in log.read_text(encoding="utf-8")


def test_metrics_count_answers_and_no_key_is_in_a_log(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("GET", "/metrics", headers={"authorization": f"Bearer {KEY}"})
    text = connection.getresponse().read().decode()
    assert 'satlight_answers_total{candidate="math",reason="rule"}' in text
    assert 'reason="failover"' in text
    logged = server.log.read_text(encoding="utf-8")
    files = [path.read_text(encoding="utf-8") for path in (server.folder / "feedback").iterdir()]
    assert not any(key in content for key in (KEY, UPSTREAM_KEY) for content in [logged, *files])
