"""`satlight reproduce` of runs that W&B holds."""

import json
import struct
from types import SimpleNamespace

import pytest
import yaml

from satlight.cli.wandb_source import _records

OPTIONS = {"model": {"class_path": "satlight.modules.ModelSAT"}, "data": {"init_args": {}}, "name": "mine"}


@pytest.fixture
def server(monkeypatch):
    """W&B's client with one run, me/project/abc."""
    import wandb

    class Api:
        def __init__(self, timeout: int) -> None: ...

        def run(self, path: str) -> SimpleNamespace:
            if path != "me/project/abc":
                raise wandb.errors.CommError(f"Could not find run {path}")
            return SimpleNamespace(
                config={"cli": OPTIONS, "facts": {"commit": "0" * 40, "command": ["fit", "-c", "x"]}}
            )

    monkeypatch.setattr(wandb, "Api", Api)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)


@pytest.mark.parametrize("name", ["me/project/abc", "https://wandb.ai/me/project/runs/abc"])
def test_a_run_on_the_server(server, command, name, tmp_path):
    shown = command("reproduce", name, "--runs", tmp_path / "runs", "--no-data")
    assert shown.code is None, shown.err
    path = tmp_path / "runs" / "mine" / "wandb-abc.yaml"
    assert yaml.safe_load(path.read_text()) == OPTIONS | {"runs": str(tmp_path / "runs")}
    assert f"satlight fit -c {path} --name mine" in shown.out
    assert f"satlight was at commit {'0' * 40}" in shown.err


def test_mistakes(server, command, tmp_path, monkeypatch):
    missing = command("reproduce", "me/project/none", "--runs", tmp_path)
    assert missing.code == 1
    assert "W&B run me/project/none cannot be read (Could not find run me/project/none)" in missing.err
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert "runs/full/9 is no run folder" in command("reproduce", "runs/full/9").err
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert "needs an API key: run `wandb login`" in command("reproduce", "me/project/abc").err
    (tmp_path / "run-abc.wandb").write_bytes(b"something else")
    assert "run-abc.wandb is damaged (it does not begin with :W&B)" in command("reproduce", tmp_path).err


def test_long_records_are_put_together():
    """Records of the log are split at blocks of 32 KiB; one that the run did not finish is left out."""
    texts = [b"a" * 10, b"b" * 70_000, b"c" * 32_700, json.dumps(OPTIONS).encode()]
    content = b":W&B" + bytes(3)
    for text in texts:
        rest, first = text, True
        while rest or first:
            if (left := 32768 - len(content) % 32768) < 7:
                content += bytes(left)
                left = 32768
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (1 if not rest else 2) if first else (4 if not rest else 3)
            content += struct.pack("<IHB", 0, len(part), kind) + part
            first = False
    assert list(_records(content)) == texts
    assert list(_records(content[:-5])) == texts[:-1]
