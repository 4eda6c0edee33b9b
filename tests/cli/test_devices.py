"""One process and two: the same metrics, each row counted once, one set of files, checkpoints for either."""

import csv
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from satlight.callbacks.calibration import TemperatureScaling
from satlight.cli.training import SatlightCLI, ignore_noise
from satlight.data.stream import EvaluationBlocks, Repeated

SCRIPT = """
import json, os, sys
from satlight.cli.startup import import_torchmetrics_alone, show_log
import_torchmetrics_alone()
show_log()
from satlight.cli.training import RANK_FOLDER, SatlightCLI, run
kept = []
def note(self):
    from satlight.callbacks.calibration import TemperatureScaling
    found = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
    fitted = [one.fitted for one in self.trainer.callbacks if isinstance(one, TemperatureScaling)]
    return found | ({"temperature": fitted[0].temperature} if fitted[0] else {})
SatlightCLI.after_validate = lambda self: kept.append(note(self))
for argv in json.load(open(sys.argv[1])):
    os.environ.pop(RANK_FOLDER, None)
    run(argv)
json.dump(kept, open(f"{sys.argv[1]}.{os.environ['RANK']}", "w"))
"""
BLOCK = 13
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return tmp_path_factory.mktemp("devices") / "runs"


@pytest.fixture(scope="module")
def options(settings, runs):
    """Options of a run whose blocks divide unevenly: see test_the_blocks_divide_unevenly."""

    def build(name, epochs=1, blocks=4):
        more = {"trainer.max_epochs": epochs, "data.blocks_per_epoch": blocks, "data.eval_instructions": BLOCK}
        return [*settings(runs, **more), f"--name={name}"]

    return build


@pytest.fixture
def training_words(monkeypatch):
    """The arguments of satlight in the first torchrun command of the docs."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs" / "multi_node.md").read_text()
    return text.partition("-m satlight ")[2].partition("```")[0].replace("\\\n", " ").split()


@pytest.fixture(scope="module")
def single(options, runs, call):
    """A run of one process, its metrics and its files."""
    assert call("fit", *options("single", blocks=5)) is None
    run = runs / "single" / "1"
    with warnings.catch_warnings():
        ignore_noise()
        trainer = SatlightCLI(args=["validate", str(run)]).trainer
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    metrics["blocks"] = trainer.num_val_batches[0]
    (fitted,) = [one.fitted for one in trainer.callbacks if isinstance(one, TemperatureScaling)]
    metrics["temperature"] = fitted.temperature
    assert call("test", str(run)) is None
    assert call("predict", str(run)) is None
    results, scores = (run / "results.json").read_text(), pl.read_parquet(run / "scores.parquet")
    (run / "results.json").unlink()
    (run / "scores.parquet").unlink()
    return run, metrics, json.loads(results), scores


@pytest.fixture(scope="module")
def double(single, options, tmp_path_factory):
    """Verbs in two processes that torchrun starts: validate, test, predict, a new run, and one that continues."""
    folder, run = tmp_path_factory.mktemp("torchrun"), single[0]
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    wandb = "{class_path: lightning.pytorch.loggers.WandbLogger, init_args: {project: p, offline: true}}"
    verbs = [
        ["validate", str(run), *two],
        ["test", str(run), *two],
        ["predict", str(run), *two],
        ["fit", *options("double"), *two, f"--trainer.logger={wandb}"],
        ["fit", *options("single", epochs=2, blocks=5), *two, f"--ckpt_path={run / 'checkpoints/last.ckpt'}"],
    ]
    (folder / "script.py").write_text(SCRIPT)
    (folder / "verbs.json").write_text(json.dumps(verbs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "script.py", "verbs.json"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder, done


def test_the_blocks_divide_unevenly(single):
    """Otherwise the tests below would say nothing."""
    _, metrics, results, _ = single
    rows = sum(entry["n"] for entry in results["datasets"].values())
    assert rows % BLOCK
    assert -(-rows // BLOCK) % 2 == 1
    assert metrics.pop("blocks") % 2 == 1


def test_metrics_are_those_of_one_process(single, double):
    _, expected, results, _ = single
    for rank in (0, 1):
        (metrics,) = json.loads((double[0] / f"verbs.json.{rank}").read_text())
        assert metrics == pytest.approx(expected, rel=1e-5)
    again = json.loads((single[0] / "results.json").read_text())
    assert again["groups"]["all"]["routed"] == results["groups"]["all"]["routed"]
    assert {name: entry["n"] for name, entry in again["datasets"].items()} == {
        name: entry["n"] for name, entry in results["datasets"].items()
    }


def test_predict_writes_each_row_once(single, double):
    run, _, _, expected = single
    scores = pl.read_parquet(run / "scores.parquet")
    assert scores["instruction_id"].to_list() == expected["instruction_id"].to_list()
    np.testing.assert_allclose(scores[:, 1:].to_numpy(), expected[:, 1:].to_numpy(), atol=1e-4)


def test_one_process_writes_one_set_of_files(runs, double):
    assert [path.name for path in (runs / "double").iterdir()] == ["1"]
    run = runs / "double" / "1"
    for name in ("config.yaml", "environment.json", "router/config.json", "checkpoints/best.ckpt"):
        assert (run / name).is_file()
    assert len([*(run / "wandb").glob("offline-run-*")]) == 1
    assert sorted(path.name for path in double[0].iterdir()) == [
        "script.py", "verbs.json", "verbs.json.0", "verbs.json.1",
    ]  # fmt: skip
    assert double[1].stderr.count("run folder:") == 5
    assert "recommended to use `Trainer(devices=1" not in double[1].stderr


def test_validation_of_a_training_counts_each_row_once(runs, double):
    rows = list(csv.DictReader((runs / "double" / "1" / "metrics.csv").open()))
    (row,) = [row for row in rows if row["val_loss"]]
    routed = [float(value) for name, value in row.items() if name.startswith("val_routed/")]
    assert float(row["val_routed_accuracy"]) == pytest.approx(np.nanmean(routed), abs=1e-6)
    share = np.array([float(value) for name, value in row.items() if name.startswith("val_share/")])
    assert share.sum() == pytest.approx(1, abs=1e-5)


def test_a_checkpoint_continues_on_more_and_on_fewer_devices(single, double, options, call, runs, tmp_path):
    more = torch.load(single[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert (more["epoch"], more["global_step"], more["satlight_world_size"]) == (1, 6, 2)  # 5 blocks: 3 steps
    assert more["lr_schedulers"][0]["last_epoch"] == 6
    shutil.copytree(runs / "double", tmp_path / "double")  # other tests read the run
    last = tmp_path / "double" / "1" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert call("fit", *options("double", epochs=2), f"--runs={tmp_path}", f"--ckpt_path={last}") is None
    fewer = torch.load(last, weights_only=True)
    assert (fewer["epoch"], fewer["global_step"], fewer["satlight_world_size"]) == (1, 8, 1)
    assert fewer["lr_schedulers"][0]["last_epoch"] == 8


@pytest.mark.parametrize(("number", "world_size"), [(5, 2), (1, 3), (4, 2), (7, 3)])
def test_each_block_is_counted_in_one_process(number, world_size):
    blocks = [(np.array([row]), np.array([0])) for row in range(number)]
    parts = [[*EvaluationBlocks(blocks, rank, world_size)] for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    counted = [int(block[0][0]) for part in parts for block in part if not isinstance(block, Repeated)]
    assert sorted(counted) == list(range(number))


def test_an_offline_run_of_wandb_is_reproduced(runs, double, command, tmp_path):
    run = runs / "double" / "1"
    (offline,) = (run / "wandb").glob("offline-run-*")
    shown = command("reproduce", offline, "--runs", tmp_path / "again", "--no-data")
    assert shown.code is None, shown.err
    (written,) = (tmp_path / "again" / "double").glob("wandb-*.yaml")
    assert f"satlight fit -c {written} --name double --runs {tmp_path / 'again'}" in shown.out
    assert "# started as: satlight fit -c" in shown.out
    expected = yaml.safe_load((run / "config.yaml").read_text()) | {"runs": str(tmp_path / "again")}
    assert yaml.safe_load(written.read_text()) == expected


def test_fsdp_without_a_gpu_is_refused_in_one_sentence(single, command):
    refused = command("test", single[0], "--trainer.devices=2", "--trainer.strategy=fsdp")
    assert refused.code == 1
    assert "error: Lightning's Trainer does not take these options: The strategy `fsdp` requires a GPU" in refused.err
    assert "Traceback" not in refused.err


def test_the_command_of_the_docs_names_files_and_options_that_exist(training_words):
    """`torchrun --standalone --nproc-per-node 2 -m satlight fit …` of docs/multi_node.md; its process is that above."""
    from satlight.cli.training import training_parser

    assert training_parser().parse_args(training_words).fit.trainer.strategy == "ddp"
