"""Scalars of training next to controls, recomputed here from the records."""

import csv

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger

from satlight.callbacks import LiveScalars, TemperatureScaling
from satlight.callbacks.loggers import markdown_table


@pytest.fixture(scope="module")
def logged(make_run, tmp_path_factory):
    """The rows of metrics.csv, and the data module."""
    folder = tmp_path_factory.mktemp("live")
    callbacks = [TemperatureScaling(), LiveScalars()]
    logger = CSVLogger(folder, name="", version="")
    run = make_run(folder, callbacks=callbacks, max_epochs=2, log_every_n_steps=2, logger=logger).fit()
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file)), run.data


def test_controls_are_chosen_on_train_and_measured_on_validation(logged):
    rows, data = logged
    (first, second) = [row for row in rows if row["val_oracle"]]
    records = data.records
    train, validation = data.train_view().records, records.rows(records.splits == "validation")
    for dataset in set(validation.datasets):
        outcomes = validation.outcomes[validation.datasets == dataset]
        expected = {"random": outcomes.mean(), "oracle": outcomes.max(1).mean()}
        best = train.outcomes[train.datasets == dataset].mean(0).argmax()
        expected["dataset_best"] = outcomes[:, best].mean()
        for name, value in expected.items():
            assert float(first[f"val_{name}/{dataset}"]) == pytest.approx(value, abs=1e-5), (name, dataset)
            assert first[f"val_{name}/{dataset}"] == second[f"val_{name}/{dataset}"]
    datasets = sorted(set(validation.datasets))
    for row in (first, second):
        routed = [float(row[f"val_routed/{dataset}"]) for dataset in datasets]
        assert np.mean(routed) == pytest.approx(float(row["val_routed_accuracy"]), abs=1e-5)
        assert sum(float(row[f"val_share/{name}"]) for name in records.model_ids) == pytest.approx(1)
        gap = float(row["val_oracle"]) - float(row["val_best_single"])
        closed = (float(row["val_routed_accuracy"]) - float(row["val_best_single"])) / gap
        assert float(row["val_gap_closed"]) == pytest.approx(closed, abs=1e-4)
        assert float(row["val_temperature"]) > 0


def test_stage_rates_and_speed(logged):
    rows, _ = logged
    steps = [row for row in rows if row["stage"]]
    assert [float(row["stage"]) for row in steps] == [1.0] * 5 + [2.0] * 5
    assert all(float(row["cells_per_second"]) > 0 and float(row["lr/projector"]) > 0 for row in steps)
    assert not any("no_decay" in name for name in rows[0])


def test_tables_in_markdown():
    text = markdown_table([{"a": "x|y", "b": 1 / 3}, {"a": None, "b": 2}])
    assert text.splitlines()[2:] == [r"| x\|y | 0.333333 |", "|  | 2 |"]
