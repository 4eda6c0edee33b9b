"""TensorBoard, MLflow and CSV: the scalars, options, tables and plots of a run, through one interface."""

import csv
import json
from pathlib import Path

import pytest

from satlight.cli import main

ROOT = Path(__file__).parents[2]
SCALARS = ("val_routed_accuracy", "val_gap_closed", "val_best_single/writing", "train_loss", "cells_per_second")


@pytest.fixture
def fit_and_test(tmp_path):
    """Train and test with a logger; return the run folder."""

    def work(logger: str) -> Path:
        options = {
            "runs": tmp_path / "runs",
            "trainer.accelerator": "cpu",
            "trainer.logger": logger,
            "trainer.max_epochs": 1,
            "trainer.log_every_n_steps": 1,
            "trainer.enable_progress_bar": "false",
            "trainer.enable_model_summary": "false",
            "data.simulated": "{num_instructions: 1500, num_candidates: 3}",
            "data.blocks_per_epoch": 2,
        }
        configs = [f"-c{ROOT}/configs/full.yaml", f"-c{ROOT}/configs/overlay/debug.yaml"]
        main(["fit", *configs, *(f"--{key}={value}" for key, value in options.items())])
        main(["test", str(tmp_path / "runs" / "full" / "1")])
        return tmp_path / "runs" / "full" / "1"

    return work


def test_csv(fit_and_test):
    run = fit_and_test("null")
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    for name in SCALARS:
        assert any(row[name] for row in rows), name
    assert (run / "results.csv").is_file()
    assert (run / "choices.csv").is_file()
    assert (run / "accuracy.png").is_file()


def test_tensorboard(fit_and_test, tmp_path, caplog):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    init = f"{{save_dir: {tmp_path / 'tb'}}}"
    run = fit_and_test(f"{{class_path: lightning.pytorch.loggers.TensorBoardLogger, init_args: {init}}}")
    assert "could not log" not in caplog.text
    files = [*(tmp_path / "tb").rglob("events.out.tfevents*")]
    tags: dict[str, set[str]] = {"scalars": set(), "tensors": set(), "images": set()}
    for folder in {path.parent for path in files}:
        events = EventAccumulator(str(folder)).Reload()
        for kind, found in tags.items():
            found |= set(events.Tags()[kind])
    assert set(SCALARS) <= tags["scalars"]
    assert {"test/all/routed", "test/all/gap_closed"} <= tags["scalars"]
    assert {"test_table/text_summary", "choices/text_summary"} <= tags["tensors"]
    assert {"plots/accuracy", "plots/choices"} <= tags["images"]
    assert (run / "metrics.csv").is_file()


def test_mlflow(fit_and_test, tmp_path, caplog):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    store = f"sqlite:///{tmp_path / 'mlflow.db'}" if _has_sqlalchemy() else (tmp_path / "mlflow").as_uri()
    init = (
        f"{{tracking_uri: '{store}', experiment_name: satlight, artifact_location: '{(tmp_path / 'files').as_uri()}'}}"
    )
    run = fit_and_test(f"{{class_path: lightning.pytorch.loggers.MLFlowLogger, init_args: {init}}}")
    assert "could not log" not in caplog.text
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("satlight")
    (one,) = client.search_runs([experiment.experiment_id])  # test continues the run of fit
    assert set(SCALARS) <= one.data.metrics.keys()
    results = json.loads((run / "results.json").read_text())
    assert one.data.metrics["test/all/routed"] == pytest.approx(results["groups"]["all"]["routed"])
    assert one.data.params["cli/data/init_args/simulated/num_candidates"] == "3"
    names = {path.path for path in client.list_artifacts(one.info.run_id)}
    assert {"test_table.csv", "choices.csv", "plots", "router"} <= names


def _has_sqlalchemy() -> bool:
    import importlib.util

    return importlib.util.find_spec("sqlalchemy") is not None
