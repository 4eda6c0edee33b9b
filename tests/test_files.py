"""Files are whole or absent; runs get folders of their own; blocks move as one."""

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import pytest
import torch

from satlight.cli import runs
from satlight.errors import SatlightError
from satlight.files import atomic_path, cache_dir, locked, write_text


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half of the ne")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_disk_that_is_full_only_at_the_sync_leaves_the_old_file(tmp_path, monkeypatch):
    target = tmp_path / "a.txt"
    write_text(target, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text(target, "new")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_nothing_is_seen_before_it_is_whole(tmp_path):
    target = tmp_path / "deep" / "folder"
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "one").write_text("1")
        assert not target.exists()
    assert os.listdir(target) == ["one"]
    assert os.listdir(tmp_path / "deep") == ["folder"]


def test_a_folder_takes_the_place_of_a_folder(tmp_path):
    target = tmp_path / "folder"
    for name in ("one", "two"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert os.listdir(target) == ["two"]
    assert os.listdir(tmp_path) == ["folder"]


def test_a_body_that_makes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "a"):
        pass
    assert os.listdir(tmp_path) == []


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a", "é → ψ")
    assert (tmp_path / "a").read_bytes().decode("utf-8") == "é → ψ"


def test_a_lock_is_waited_for_and_released_when_its_holder_is_killed(tmp_path, capsys):
    path = tmp_path / "locks" / "a.lock"
    hold = "import sys, time; from satlight.files import locked\n"
    hold += "with locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        Timer(0.3, holder.kill).start()
        with locked(path):
            assert holder.wait(5) != 0
    assert capsys.readouterr().err == f"Waiting for another process that holds {path}.\n"
    with locked(path):
        pass
    assert capsys.readouterr().err == ""


def test_the_cache_is_where_the_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("SATLIGHT_CACHE", "~/mine")
    assert cache_dir() == Path.home() / "mine"
    monkeypatch.delenv("SATLIGHT_CACHE")
    assert cache_dir().name == "satlight"


def test_runs_are_numbered_and_never_shared(tmp_path):
    (tmp_path / "demo" / "notes").mkdir(parents=True)  # somebody's own folder is no run
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: runs.create(tmp_path, "demo"), range(12)))
    assert sorted(int(folder.name) for folder in folders) == list(range(1, 13))
    assert [folder.name for folder in runs.existing(tmp_path, "demo")] == [str(n) for n in range(1, 13)]
    assert runs.existing(tmp_path, "other") == []


def test_the_newest_run_with_a_checkpoint_is_found(tmp_path):
    for number in (2, 10):  # by number, not by letter
        folder = tmp_path / "demo" / str(number) / "checkpoints"
        folder.mkdir(parents=True)
        (folder / "best.ckpt").touch()
        (folder.parent / "config.yaml").touch()
    assert runs.checkpoint(tmp_path, "demo", "best").parts[-3] == "10"
    (tmp_path / "demo" / "10" / "checkpoints" / "best.ckpt").unlink()  # killed before the first validation
    found = runs.checkpoint(tmp_path, "demo", "best")
    assert found.parts[-3] == "2"
    assert runs.folder_of(found) == (tmp_path / "demo" / "2").resolve()
    with pytest.raises(SatlightError, match=r"demo has a checkpoint last\.ckpt"):
        runs.checkpoint(tmp_path, "demo", "last")


def test_a_checkpoint_elsewhere_belongs_to_no_run(tmp_path):
    assert runs.folder_of(tmp_path / "mine.ckpt") is None
    assert runs.folder_of(tmp_path / "checkpoints" / "mine.ckpt") is None


def test_a_block_moves_as_one(make_block):
    block = make_block(["a", "b"], [("c",)], weight_BC=torch.ones(2, 1))
    moved = block.to("meta", non_blocking=True)
    tensors = ("rows", "columns", "groups", "target_BC", "known_BC", "weight_BC")
    assert {getattr(moved, name).device.type for name in tensors} == {"meta"}
    assert (moved.instructions, moved.capabilities, moved.shape) == (["a", "b"], block.capabilities, (2, 1))
    assert block.rows.device.type == "cpu"


def test_a_folder_that_appears_meanwhile_is_replaced(tmp_path):
    target = tmp_path / "folder"
    with atomic_path(target) as temporary:
        temporary.mkdir()
        (temporary / "mine").touch()
        with atomic_path(target) as other:  # another process is done first
            other.mkdir()
            (other / "other").touch()
    assert os.listdir(target) == ["mine"]
    assert os.listdir(tmp_path) == ["folder"]
