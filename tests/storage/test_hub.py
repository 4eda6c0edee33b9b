"""Routers on the Hugging Face hub, over HTTP with a local server in the hub's place."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest

from satlight.errors import SatlightError
from satlight.routing import Router

TEXTS = ["What is 2+2?", "Name three rivers that flow through Germany."]
TOKEN = "hf_test"


@dataclass
class Hub:
    """What the server keeps: a list of commits (files by path) for each repository."""

    repos: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    url: str = ""
    requests: list[str] = field(default_factory=list)

    def revision(self, repo: str, name: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit id and files of a branch or commit."""
        commits = self.repos.get(repo, [])
        ids = [hashlib.sha1(f"{repo}{i}".encode()).hexdigest() for i in range(len(commits))]
        if name == "main" and ids:
            return ids[-1], commits[-1]
        return next(((key, commits[i]) for i, key in enumerate(ids) if key == name), None)


class Handler(BaseHTTPRequestHandler):
    """The endpoints behind create_repo, upload_folder (regular files) and snapshot_download."""

    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, content: object = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _missing(self, code: str = "RepoNotFound") -> None:
        self._send(404, {"error": "not found"}, X_Error_Code=code, X_Error_Message="not found")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self) -> None:
        path, body = urlparse(self.path).path, self._body()
        self.hub.requests.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid credentials"})
        elif path == "/api/repos/create":
            content = json.loads(body)
            repo = f"{content.get('organization') or 'me'}/{content['name']}"
            self.hub.repos.setdefault(repo, [{}])
            self.hub.private.setdefault(repo, content.get("private") or content.get("visibility") == "private")
            self._send(200, {"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})
        elif found := re.fullmatch(r"/api/models/(.+?)/preupload/main", path):
            files = json.loads(body)["files"]
            answer = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            self._send(200, {"files": answer, "commitOid": self.hub.revision(found[1], "main")[0]})
        elif found := re.fullmatch(r"/api/models/(.+?)/commit/main", path):
            files = dict(self.hub.repos[found[1]][-1])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "deletedFile":
                    files.pop(value["path"])
            self.hub.repos[found[1]].append(files)
            commit, _ = self.hub.revision(found[1], "main")
            url = f"{self.hub.url}/{found[1]}/commit/{commit}"
            self._send(200, {"success": True, "commitOid": commit, "commitUrl": url})
        else:
            self._send(200, {})

    def do_GET(self) -> None:
        path = unquote(urlparse(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            if (revision := self.hub.revision(found[1], found[2])) is None:
                return self._missing()
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in revision[1].items()
            ]
            return self._send(200, entries)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            if (revision := self.hub.revision(found[1], found[2] or "main")) is None:
                known = found[1] in self.hub.repos
                return self._missing("RevisionNotFound" if known else "RepoNotFound")
            names = [{"rfilename": name} for name in revision[1]]
            return self._send(200, {"id": found[1], "sha": revision[0], "siblings": names, "private": False})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            revision = self.hub.revision(found[1], found[2])
            if revision is None or found[3] not in revision[1]:
                return self._missing("EntryNotFound")
            data = revision[1][found[3]]
            tag = f'"{hashlib.sha1(data).hexdigest()}"'
            return self._send(200, data, ETag=tag, X_Repo_Commit=revision[0])
        return self._missing()

    do_HEAD = do_GET


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    handler = type("HubHandler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def python(hub, tmp_path) -> Callable[..., str]:
    """Run a script in a process of its own: huggingface_hub reads its settings when it is imported."""

    def run(script: str, *args: str, **variables: str) -> str:
        outside = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "SATLIGHT_"))}
        settings = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_TOKEN": TOKEN,
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        head = "import json, sys\nfrom satlight import Router\nfrom satlight.errors import SatlightError\n"
        code = "try:\n" + "\n".join(f"    {line}" for line in script.strip().splitlines())
        code += "\nexcept SatlightError as error:\n    print('error:', error)\n"
        done = subprocess.run(
            [sys.executable, "-c", head + code, *args],
            env=outside | settings | variables,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run


PUSH = "print(Router.from_pretrained(sys.argv[1]).push_to_hub(sys.argv[2], private=True))"
SCORE = """
router = Router.from_pretrained(sys.argv[1], revision=sys.argv[3] if len(sys.argv) > 3 else None)
print(json.dumps(router.score(json.loads(sys.argv[2])).log_odds_BC.tolist()))
"""


def test_a_router_is_pushed_loaded_and_replaced(hub, python, router, router_folder, contents, make_router, tmp_path):
    hub.repos["me/mine"] = [{}, {"README.md": b"old", "left-over.json": b"{}"}]
    address = python(PUSH, str(router_folder), "me/mine")
    first, files = hub.revision("me/mine", "main")
    assert address == f"{hub.url}/me/mine/commit/{first}"
    assert len(hub.repos["me/mine"]) == 3  # one commit
    assert files == contents(router_folder)  # and nothing left over
    scores = json.loads(python(SCORE, "me/mine", json.dumps(TEXTS)))
    assert np.allclose(scores, router.score(TEXTS).log_odds_BC, atol=1e-5)

    # Without the hub, what was fetched once is found again; a name that was not is an error.
    hub.requests.clear()
    again = json.loads(python(SCORE, "me/mine", json.dumps(TEXTS), first))
    assert again == scores
    assert not [request for request in hub.requests if "/resolve/" in request]


def test_a_new_repository_is_made(hub, python, router_folder):
    python(PUSH, str(router_folder), "me/new")
    assert hub.private == {"me/new": True}
    assert len(hub.repos["me/new"]) == 2


def test_errors_of_the_hub_are_named(hub, python, router_folder):
    error = python(SCORE, "me/none", "[]")
    assert re.match(r"error: There is no folder me/none, and me/none could not be fetched .*hf auth login", error)
    error = python(SCORE, "me/none", "[]", HF_ENDPOINT="http://127.0.0.1:9")
    assert re.match(r"error: There is no folder me/none, and me/none could not be fetched .*network", error)
    error = python(PUSH, str(router_folder), "me/mine", HF_TOKEN="hf_wrong")
    assert re.match(r"error: The router could not be uploaded to me/mine: .*hf auth login", error)
    error = python(PUSH, str(router_folder), "me/mine", HF_ENDPOINT="http://127.0.0.1:9")
    assert re.match(r"error: The router could not be uploaded to me/mine: .*network", error)
    assert not hub.repos


def test_a_repository_that_is_no_router(hub, python):
    hub.repos["me/other"] = [{"config.json": b'{"model_type": "llama"}'}]
    assert re.match(r"error: .*config\.json is no configuration of a router", python(SCORE, "me/other", "[]"))


@pytest.mark.parametrize("variable", ["SATLIGHT_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_variables_are_named(monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    with pytest.raises(SatlightError, match=rf"There is no folder owner/name, .*{variable}.* the hub"):
        Router.from_pretrained("owner/name")


@pytest.mark.parametrize("name", ["name", "a/b/c", "./a/b", "../name", "owner/", "https://hub/owner/name"])
def test_what_is_no_name_on_the_hub_is_a_folder(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SatlightError, match="does not exist or is no folder"):
        Router.from_pretrained(name)


def test_a_folder_comes_before_the_hub(router_folder, monkeypatch):
    monkeypatch.chdir(router_folder.parent.parent)
    name = router_folder.relative_to(Path.cwd()).as_posix()
    assert re.fullmatch(r"[\w-]+/mine", name)
    assert Router.from_pretrained(name).model_ids
