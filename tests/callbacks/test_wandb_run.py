"""Weights & Biases: what an offline run records, and when a run is offline."""

import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from satlight.callbacks.loggers import Tracker
from satlight.callbacks.report import RoutingReport
from satlight.callbacks.result_tables import ResultTables, _missed
from satlight.callbacks.wandb_run import describe, offline_without_key, start
from satlight.cli import main
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.types import Candidate

ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_login(monkeypatch, tmp_path) -> Path:
    """Nobody has logged in here; returns where netrc would be."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, "")  # so that what the test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_SILENT", "true")
    return tmp_path / "netrc"


def test_without_a_key_runs_are_offline(no_login, monkeypatch):

    offline_without_key()
    assert os.environ["WANDB_MODE"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    offline_without_key()
    assert os.environ["WANDB_MODE"] == "disabled"  # an explicit choice stands


@pytest.mark.parametrize("kind", ["variable", "netrc", "own server"])
def test_with_a_key_the_mode_is_left_alone(no_login, monkeypatch, kind):

    host = "wandb.example.org" if kind == "own server" else "api.wandb.ai"
    if kind == "variable":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    else:
        no_login.write_text(f"machine {host}\n  login user\n  password {'0' * 40}\n")
        no_login.chmod(0o600)
    if kind == "own server":
        offline_without_key()
        assert os.environ.pop("WANDB_MODE") == "offline"  # the key is another server's
        monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org:8080")
    offline_without_key()
    assert "WANDB_MODE" not in os.environ


def test_an_offline_run_records_config_table_and_choices(no_login, tmp_path):
    import wandb

    words = [
        *(
            word
            for name in ("full", "overlay/debug", "overlay/wandb")
            for word in ("-c", f"{ROOT}/configs/{name}.yaml")
        ),
        f"--runs={tmp_path / 'runs'}",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--data.simulated={num_instructions: 1500, num_candidates: 3}",
        "--data.blocks_per_epoch=2",
    ]
    try:
        main(["fit", *words])
        config = wandb.run.config["cli"]
        assert wandb.run.settings.mode == "offline"
        assert config["model"]["init_args"]["encoder"]["init_args"]["backbone"] == "tiny:bert"
        assert config["data"]["init_args"]["simulated"]["num_candidates"] == 3
        assert wandb.run.summary["val_routed_accuracy"] > 0
        assert wandb.run.summary["val_best_single/writing"] > 0
        assert (wandb.run.group, wandb.run.job_type) == ("all candidates", "ModelSAT")
        assert wandb.run.tags == ("simulated", "Pointwise", "seed 0")
        facts = json.loads((tmp_path / "runs/full/1/environment.json").read_text())
        assert wandb.run.config["facts"] == facts
        assert (facts["command"][0], len(facts["fingerprint"])) == ("fit", 16)
        identity = wandb.run.id
        wandb.finish()
        main(["test", *words])
        assert wandb.run.id == identity  # one run of satlight is one run of W&B
        results = json.loads((tmp_path / "runs/full/1/results.json").read_text())
        assert wandb.run.summary["test/all/routed"] == results["groups"]["all"]["routed"]
        assert wandb.run.summary["test/all/gap_closed"] == results["groups"]["all"]["gap_closed"]
    finally:
        wandb.finish()
    folder = tmp_path / "runs" / "full" / "1"
    assert (folder / "metrics.csv").is_file()  # the CSV log is there beside W&B
    tables = {path.name.split("_2")[0].split("_1")[0]: path for path in folder.rglob("*.table.json")}
    names = {name: json.loads(path.read_text()) for name, path in tables.items()}
    (table,) = [content for name, content in names.items() if name.startswith("test_table")]
    (choices,) = [content for name, content in names.items() if name.startswith("choices")]
    row = dict(zip(table["columns"], table["data"][-1], strict=True))
    assert (row["kind"], row["name"], row["routed"]) == ("group", "all", results["groups"]["all"]["routed"])
    assert len(table["data"]) == len(results["datasets"]) + 1
    assert len(choices["data"]) == 3 * len(table["data"])


def test_resuming_continues_the_same_run(tmp_path, monkeypatch):
    from lightning.pytorch.loggers import WandbLogger

    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    first, second, other = (WandbLogger(project="p", offline=True) for _ in range(3))
    describe(first, tmp_path, group="g", job_type="j", tags=["t"])
    describe(second, tmp_path, group="g", job_type="j", tags=["t"])
    describe(other, tmp_path / "other", group="g", job_type="j", tags=["t"])
    assert first._wandb_init["id"] == second._wandb_init["id"] != other._wandb_init["id"]
    assert second._wandb_init["resume"] == "allow"
    own = WandbLogger(project="p", offline=True, id="mine", group="own", job_type="own", tags=["own"])
    describe(own, tmp_path, group="g", job_type="j", tags=["t"])
    assert [own._wandb_init[key] for key in ("id", "group", "job_type", "tags")] == ["mine", "own", "own", ["own"]]


def test_without_a_network_the_run_goes_offline(no_login, monkeypatch, tmp_path, caplog):
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    for name, value in (("BASE_URL", "http://127.0.0.1:9"), ("API_KEY", "0" * 40), ("INIT_TIMEOUT", "2")):
        monkeypatch.setenv(f"WANDB_{name}", value)
    wandb.teardown()  # of earlier tests, with their settings
    logger = WandbLogger(project="p", save_dir=tmp_path)
    try:
        start(logger)
        assert logger.experiment.offline
        assert "the run is logged offline" in caplog.text
    finally:
        wandb.finish()
        wandb.teardown()


def test_a_logger_that_fails_does_not_stop_the_run(tmp_path, caplog):
    class Broken(TensorBoardLogger):
        _prefix = ""

        def __init__(self) -> None: ...  # that of TensorBoardLogger needs tensorboard

        @property
        def experiment(self):
            raise ConnectionError("no network")

    tracker = Tracker([Broken()], tmp_path)
    tracker.table("results", [{"name": "all", "routed": 0.5}])
    tracker.summary({"test/all/routed": 0.5})
    assert "Broken could not log (ConnectionError: no network); the run continues" in caplog.text
    assert caplog.text.count("the run continues") == 2


def test_missed_instructions_are_shown_with_thumbnails(tmp_path):
    Image.new("RGB", (400, 200), "red").save(tmp_path / "red.png")
    images = [[str(tmp_path / "red.png")] * 2, None, [str(tmp_path / "red.png")]]
    columns = {"instruction_id": ["a", "b", "c"], "dataset": ["d"] * 3, "task": ["t"] * 3, "split": ["test"] * 3}
    frame = pl.DataFrame(columns | {"instruction": ["One?", "Two?", "Three?"], "images": images})
    outcomes = np.array([[0, 1], [0, 1], [1, 0]], dtype=np.float32)
    report = RoutingReport()
    report._view = PerformanceRecords(frame, (Candidate("x"), Candidate("y")), outcomes, outcomes >= 0)
    report._scores = np.array([[1, 0], [1, 0], [1, 0]], dtype=np.float32)
    (row,) = _missed(report, limit=5)  # "b" has no image, "c" went to the right candidate
    assert (row["instruction_id"], row["instruction"], row["choice"], row["best"]) == ("a", "One?", "x", "y")
    assert [image.image.size for image in row["images"]] == [(128, 64), (128, 64)]
    assert _missed(report, limit=0) == []
    report._view = report._view.rows(np.array([1]))
    report._scores = report._scores[[1]]
    assert _missed(report, limit=5) == []
    with pytest.raises(SatlightError, match="examples is -1"):
        ResultTables(examples=-1)
