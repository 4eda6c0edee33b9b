"""Backbones of the hub: fetched without pickles, completed, offline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from satlight.backbones import weights
from satlight.errors import SatlightError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SATLIGHT_OFFLINE", raising=False)
    return tmp_path / "cache"


class FakeHub:
    """Stands in for huggingface_hub.snapshot_download."""

    def __init__(self, folder: Path, online: dict[str, str] | Exception) -> None:
        self.folder, self.online = folder, online
        self.calls: list[dict[str, object]] = []

    def __call__(self, repo: str, **options: object) -> str:
        self.calls.append({"repo": repo, **options})
        if not options["local_files_only"]:
            if isinstance(self.online, Exception):
                raise self.online
            self.folder.mkdir(exist_ok=True)
            for name, text in self.online.items():
                (self.folder / name).write_text(text)
        elif not self.folder.exists():
            raise FileNotFoundError("not in the cache")
        return str(self.folder)


def use_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, online: dict[str, str] | Exception) -> FakeHub:
    hub = FakeHub(tmp_path / "snapshot", online)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    return hub


def test_hub_model_is_fetched_without_pickles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = use_hub(monkeypatch, tmp_path, {"config.json": "{}", "model.safetensors": ""})
    assert weights.resolve("owner/name@abc123") == hub.folder
    assert [call["local_files_only"] for call in hub.calls] == [True, False]
    assert (hub.calls[0]["repo"], hub.calls[0]["revision"]) == ("owner/name", "abc123")
    assert not any("bin" in pattern or "pt" in pattern for pattern in hub.calls[1]["allow_patterns"])  # type: ignore[attr-defined]
    weights.resolve("owner/name@abc123")
    assert len(hub.calls) == 3, "once cached, the hub is not asked again"


def test_hub_model_with_a_missing_shard_is_completed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}})
    online = {"config.json": "{}", "model.safetensors.index.json": index, "model-1.safetensors": ""}
    hub = use_hub(monkeypatch, tmp_path, online | {"model-2.safetensors": ""})
    hub.folder.mkdir()
    for name, text in online.items():
        (hub.folder / name).write_text(text)
    assert (weights.resolve("owner/name") / "model-2.safetensors").is_file()


def test_hub_model_with_pickles_only_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_hub(monkeypatch, tmp_path, {"config.json": "{}"})
    with pytest.raises(SatlightError, match="Pickled weights are not loaded"):
        weights.resolve("owner/name")


def test_hub_unreachable_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_hub(monkeypatch, tmp_path, ConnectionError("no route"))
    with pytest.raises(SatlightError, match=r"no route\n[^$]*satlight weights fetch owner/name\n[^$]*copy its"):
        weights.resolve("owner/name")


def test_hub_is_not_asked_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = use_hub(monkeypatch, tmp_path, {"config.json": "{}", "model.safetensors": ""})
    monkeypatch.setenv("SATLIGHT_OFFLINE", "1")
    with pytest.raises(SatlightError, match="SATLIGHT_OFFLINE"):
        weights.resolve("owner/name")
    assert [call["local_files_only"] for call in hub.calls] == [True]
