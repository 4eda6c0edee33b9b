"""The short version of benchmarks/reliability.py, and what it found."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import yaml

from satlight.backbones.conventions import read_convention
from satlight.backbones.store import MANIFEST, Manifest
from satlight.bench.config import load_config
from satlight.bench.results import CellResult
from satlight.cli import runs
from satlight.errors import SatlightError
from satlight.files import atomic_path, clean, write_table
from satlight.routing import StoredScores
from satlight.storage.checkpoints import read_checkpoint
from satlight.storage.typed import typed

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The script, imported as when it is run."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("PYTHONPATH", str(FOLDER), prepend=os.pathsep)  # for its workers
    import reliability

    yield reliability
    for name in [name for name in sys.modules if name.partition(".")[0] in ("reliability", "faults", "common")]:
        sys.modules.pop(name)


@pytest.mark.timeout(900)  # several processes start, which takes long on a busy machine
@pytest.mark.skipif(sys.platform != "linux", reason="it looks for processes in /proc")
def test_nothing_is_lost_or_misread(benchmark, capfd):
    code = benchmark.main(["--quick", "--only", "kills", "mutations"])
    printed = capfd.readouterr().out
    assert code == 0, printed
    for text in ("fit: while last.ckpt is written", "tfidf_knn", "0 faults"):
        assert text in printed


def test_the_comparison_of_the_benchmark_can_fail(benchmark, tmp_path):
    from faults.kills import Job, Moment, run

    def result(folder: Path, printed: str) -> dict[str, Any]:
        (folder / ".left.0123abcd").touch()
        return {"folder": folder.name}

    job = Job("weights", lambda folder: ["weights", "list"], result, [Moment("at once", within=0.0)], lambda _: None)
    (row,) = run([job], tmp_path, kills=1, seed=0, workers=1)
    assert row.kills == 1
    assert row.resumed == 0
    assert "other results" in row.faults[0]
    assert "left over: .left.0123abcd" in row.faults[1]


def test_leftovers_of_everything_in_a_folder_are_removed(tmp_path):
    for name in (".one.ckpt.0123abcd", ".two.89abcdef"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.lock").touch()
    (tmp_path / ".mine").mkdir()
    (tmp_path / ".mine.yaml").touch()
    with atomic_path(tmp_path / "three") as temporary:  # at work
        temporary.write_text("3")
        clean(tmp_path, tmp_path / "missing")
    assert sorted(os.listdir(tmp_path)) == [".mine", ".mine.yaml", "three"]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_checkpoint_that_is_not_finite_is_refused(tmp_path, value):
    torch.save({"state_dict": {"weight": torch.tensor([1.0, value])}}, tmp_path / "a.ckpt")
    with pytest.raises(SatlightError, match=r"a\.ckpt: weight has values that are not finite"):
        read_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "content", ["[1]", '{"weight_map": 3}', '[{"type": 3}]', '[{"type": "x.Pooling", "path": 7}]', "{"]
)
def test_damaged_modules_of_an_encoder_are_named(tmp_path, content):
    (tmp_path / "modules.json").write_text(content)
    with pytest.raises(SatlightError, match=r"modules\.json"):
        read_convention("x", tmp_path)


@pytest.mark.parametrize("content", ["[]", '{"max_seq_length": "long"}', '{"max_seq_length": true}', "\ud83d"])
def test_a_damaged_length_of_an_encoder_is_named(tmp_path, content):
    (tmp_path / "sentence_bert_config.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(SatlightError, match=r"sentence_bert_config\.json"):
        read_convention("x", tmp_path)


@pytest.mark.parametrize("content", [b"\xff", b"[" * 5000, b"[]", b'{"name": "x", "files": {"a": [1]}}', b"{}"])
def test_a_damaged_manifest_is_none(tmp_path, content):
    (tmp_path / MANIFEST).write_bytes(content)
    assert Manifest.read(tmp_path) is None


@pytest.mark.parametrize("content", ["[]", '{"routed": "x"}', '{"unknown": 1}', '{"seconds": NaN}', "[" * 5000])
def test_a_damaged_result_is_computed_again(tmp_path, content):
    (tmp_path / "cells/key").mkdir(parents=True)
    (tmp_path / "cells/key/result.json").write_text(content)
    assert CellResult.read(tmp_path, "key") is None


def test_results_survive_their_file(tmp_path):
    result = CellResult(seconds=1, chosen={"k": "3"}, curve=[[0.5, 1], [2, 3]], folds=[{"a": [1, None]}])
    (tmp_path / "cells/key").mkdir(parents=True)
    result.write(tmp_path / "cells/key")
    read = CellResult.read(tmp_path, "key")
    assert read is not None
    assert (read.chosen, read.curve, read.folds) == (result.chosen, result.curve, result.folds)


def test_lists_and_dictionaries_are_checked_inside():
    assert typed(dict[str, list[int]], {"a": [1]}, "x") == {"a": [1]}
    with pytest.raises(TypeError, match=r"x\.a\[1\] is 'b'"):
        typed(dict[str, list[int]], {"a": [1, "b"]}, "x")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_is_an_oserror_for_tables_too():
    with pytest.raises(OSError, match=r"No space left on device: '/dev/full'"):
        write_table(pl.DataFrame({"a": range(1000)}), "/dev/full")


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_scores_that_are_not_finite_are_refused(tmp_path, value):
    pl.DataFrame({"instruction_id": ["1", "2"], "m": [0.5, value]}).write_parquet(tmp_path / "scores.parquet")
    with pytest.raises(SatlightError, match=r"scores\.parquet has a row"):
        StoredScores.read(tmp_path / "scores.parquet")


@pytest.mark.parametrize("content", [b"methods: [\xe4]", b"\0", b"a: " + b"[" * 5000, b"[1]"])
def test_damaged_benches_are_named(tmp_path, content):
    (tmp_path / "bench.yaml").write_bytes(content)
    with pytest.raises(SatlightError, match=r"bench\.yaml"):
        load_config(tmp_path / "bench.yaml")


def test_the_home_folder_in_a_bench(tmp_path):
    content = {
        "methods": [{"scores": "~/x/scores.parquet"}],
        "data": [{"name": "a", "records": "simulated"}],
        "output": "~/out",
    }
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(content))
    config = load_config(tmp_path / "bench.yaml")
    assert config.output == str(Path.home() / "out")
    assert config.methods[0].scores == str(Path.home() / "x/scores.parquet")


@pytest.mark.parametrize("content", [b"model: [", b"\xff", b"- 1", b"a: " + b"{b: " * 3000])
def test_a_damaged_record_of_a_run_is_named(tmp_path, content):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(SatlightError, match=r"config\.yaml"):
        runs.read_config(tmp_path / "config.yaml")
