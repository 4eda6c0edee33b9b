"""A stand-in for W&B's server: the few GraphQL calls and file streams that `wandb sweep`, `wandb agent` and a run send.

Holds what it receives in memory, so that a test can look at it. Grid sweeps only.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ENTITY = "me"


@dataclass
class Run:
    """Facts of a run that the server holds."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exitcode: int | None = None
    agent: str | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The last config, without the descriptions."""
        return {key: one["value"] for key, one in json.loads(self.fields.get("config") or "{}").items()}


class _QuietServer(ThreadingHTTPServer):
    """A server that does not print connections that a client has reset."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class WandbServer:
    """The server; ``with WandbServer() as server`` listens on ``server.url``."""

    def __init__(self) -> None:
        self.sweep: dict[str, Any] = {}
        self.runs: dict[str, Run] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.operations: list[str] = []
        self.agents = 0
        self._points: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def __enter__(self) -> WandbServer:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def _answer(self, content: Any) -> None:
                body = json.dumps(content).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def do_POST(self) -> None:
                content = self._body()
                if not self.path.endswith(("/graphql", "/file_stream")):  # telemetry, not in JSON
                    return self._answer({})
                body = json.loads(content)
                with outer._lock:
                    if self.path.endswith("/graphql"):
                        self._answer({"data": outer.graphql(body["query"], body.get("variables") or {})})
                    else:
                        outer.file_stream(self.path.split("/")[-2], body)
                        self._answer({"exitcode": None, "limits": {}})

            def do_PUT(self) -> None:
                self._body()
                self._answer({})

            def do_GET(self) -> None:
                self._answer({})

        self._http = _QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._http.shutdown()
        self._http.server_close()

    # -- requests ------------------------------------------------------------------------------------------

    def graphql(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        """Answer one query or mutation."""
        name = re.search(r"(?:query|mutation)\s+(\w+)", query)[1]
        self.operations.append(name)
        answer = getattr(self, "_" + re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower(), None)
        return answer(variables) if answer else {}

    def file_stream(self, run: str, body: dict[str, Any]) -> None:
        """Take lines of the history, the summary and the exit code of a run."""
        found = self.runs.setdefault(run, Run(run))
        for name, part in (body.get("files") or {}).items():
            lines = [json.loads(line) for line in part["content"]] if name.endswith((".jsonl", ".json")) else []
            if name == "wandb-history.jsonl":
                found.history += lines
            elif name == "wandb-summary.json":
                found.summary = lines[-1]
        if body.get("complete"):
            found.exitcode = body.get("exitcode")

    # -- operations ----------------------------------------------------------------------------------------

    def _viewer(self, variables: dict[str, Any]) -> Any:
        teams = {"edges": [{"node": {"name": ENTITY}}]}
        user = {"id": "u", "entity": ENTITY, "username": ENTITY, "email": None, "flags": "{}", "teams": teams}
        return {"viewer": user}

    def _server_features_query(self, variables: dict[str, Any]) -> Any:
        return {"serverInfo": {"features": []}}

    def _upsert_sweep(self, variables: dict[str, Any]) -> Any:
        self.sweep = yaml.safe_load(variables["config"])
        keys = list(self.sweep["parameters"])
        values = [one.get("values", [one.get("value")]) for one in self.sweep["parameters"].values()]
        self._points = [dict(zip(keys, point, strict=True)) for point in itertools.product(*values)]
        project = {"name": variables.get("projectName") or "p", "entity": {"name": ENTITY}}
        sweep = {"name": "sweep1", "id": "s1", "project": project}
        return {"upsertSweep": {"sweep": sweep, "configValidationWarnings": []}}

    def _sweep_with_runs(self, variables: dict[str, Any]) -> Any:
        config = yaml.safe_dump(self.sweep)
        sweep = {"id": "s1", "name": "sweep1", "state": "RUNNING", "config": config, "runs": {"edges": []}}
        return {"project": {"sweep": sweep}}

    def _create_agent(self, variables: dict[str, Any]) -> Any:
        self.agents += 1
        return {"createAgent": {"agent": {"id": f"agent{self.agents}"}}}

    def _heartbeat(self, variables: dict[str, Any]) -> Any:
        """Give an idle agent the next point, or tell it to exit when there is none."""
        agent, commands = variables["id"], []
        if not json.loads(variables["runState"] or "{}"):
            if self._points:
                point = self._points.pop(0)
                args = {key: {"value": value} for key, value in sorted(point.items())}
                run = f"run{len(self.runs) + 1}"
                self.runs[run] = Run(run, point, agent=agent)
                commands = [{"type": "run", "run_id": run, "program": self.sweep["program"], "args": args}]
            else:
                commands = [{"type": "exit"}]
        return {"agentHeartbeat": {"agent": {"id": agent}, "commands": json.dumps(commands)}}

    def _upsert_bucket(self, variables: dict[str, Any]) -> Any:
        name = variables.get("name") or variables.get("id")
        run = self.runs.setdefault(name, Run(name))
        run.fields |= {key: value for key, value in variables.items() if value is not None}
        project = {"id": "p1", "name": variables.get("project") or "p", "entity": {"id": "e1", "name": ENTITY}}
        bucket = {"id": f"id-{name}", "name": name, "displayName": name, "project": project, "historyLineCount": 0}
        bucket |= {"sweepName": variables.get("sweep"), "config": run.fields.get("config"), "description": None}
        return {"upsertBucket": {"bucket": bucket, "inserted": True}}

    def _run_resume_status(self, variables: dict[str, Any]) -> Any:
        project = {"id": "p1", "name": variables["project"], "entity": {"id": "e1", "name": ENTITY}}
        run = self.runs.get(variables["name"])
        if run is None or not run.fields:
            return {"model": project | {"bucket": None}}
        last = [json.dumps(run.history[-1])] if run.history else []
        bucket = {
            "id": f"id-{run.name}",
            "name": run.name,
            "displayName": run.name,
            "summaryMetrics": json.dumps(run.summary),
            "config": run.fields.get("config"),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": json.dumps(last),
            "eventsTail": "[]",
            "tags": run.fields.get("tags") or [],
            "notes": None,
            "wandbConfig": '{"t": 1}',
        }
        return {"model": project | {"bucket": bucket}}

    def _create_run_files(self, variables: dict[str, Any]) -> Any:
        files = [{"name": name, "uploadUrl": f"{self.url}/storage/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": variables["run"], "uploadHeaders": [], "files": files}}

    def _artifact_type(self, variables: dict[str, Any]) -> Any:
        return {"project": None}  # no artifact of that name yet

    def _create_artifact(self, variables: dict[str, Any]) -> Any:
        """Take an artifact as one whose files are here already, so that none is uploaded."""
        self.artifacts.append(variables["input"])
        sequence = {"id": "seq1", "name": "a", "latestArtifact": {"id": "a1", "versionIndex": 0}}
        return {"createArtifact": {"artifact": {"id": "a1", "state": "COMMITTED", "artifactSequence": sequence}}}
