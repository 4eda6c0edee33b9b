"""`test`, `validate` and `predict`: results, tables and scores."""

import csv
import json

import numpy as np
import polars as pl
import pytest

from satlight.routing import Router


def test_results_hold_every_key(tested, records):
    results = json.loads((tested / "results.json").read_text())
    about = {"candidates", "split", "score_column", "data", "seed", "calibration"}
    assert set(results) == {"datasets", "groups"} | about
    assert results["candidates"] == records.model_ids
    assert (results["split"], results["score_column"]) == ("test", "score")
    assert results["data"]["simulated"] is True
    assert len(results["data"]["fingerprint"]) == 16
    assert set(results["datasets"]) == set(records.datasets)
    assert set(results["groups"]) == {"hard", "easy"}
    keys = {"routed", "interval", "random", "best_single", "dataset_best", "dataset_oracle", "oracle"}
    for entry in (*results["datasets"].values(), *results["groups"].values()):
        assert keys | {"gap_closed", "ece", "n", "share"} <= set(entry)
        assert entry["interval"][0] <= entry["routed"] <= entry["interval"][1]
        assert entry["oracle"] >= entry["dataset_oracle"] >= entry["best_single"] - 1e-6
        assert 0 <= entry["ece"] <= 1
        assert sum(entry["share"].values()) == pytest.approx(1, abs=1e-4)
    hard = [results["datasets"][name]["routed"] for name in ("mathematics", "science")]
    assert results["groups"]["hard"]["routed"] == pytest.approx(np.mean(hard), abs=1e-4)
    assert results["groups"]["hard"]["n"] == sum(results["datasets"][name]["n"] for name in ("mathematics", "science"))


def test_tables_hold_what_results_hold(tested):
    results = json.loads((tested / "results.json").read_text())
    rows = {row["name"]: row for row in csv.DictReader((tested / "results.csv").open())}
    assert set(rows) == {*results["datasets"], *results["groups"]}
    assert float(rows["code"]["routed"]) == results["datasets"]["code"]["routed"]
    choices = list(csv.DictReader((tested / "choices.csv").open()))
    assert len(choices) == len(rows) * 6


def test_test_prints_the_table(tested, words, command):
    result = command("test", *words)
    assert result.code is None, result.err
    for word in ("simulated", "mathematics", "hard", "easy", "95 %", "best"):
        assert word in result.out


def test_predict_writes_the_whole_matrix(scores, records):
    test = records.filter(splits="test")
    assert scores.columns == ["instruction_id", *records.model_ids]
    assert sorted(scores["instruction_id"]) == sorted(test.instructions["instruction_id"])
    assert scores.drop("instruction_id").to_numpy().dtype == np.float32
    assert np.isfinite(scores.drop("instruction_id").to_numpy()).all()


def test_the_table_follows_from_the_scores(tested, scores, records):
    results = json.loads((tested / "results.json").read_text())
    test = records.filter(splits="test")
    order = dict(zip(scores["instruction_id"], range(len(scores)), strict=True))
    rows = [order[key] for key in test.instructions["instruction_id"]]
    chosen = scores.drop("instruction_id").to_numpy()[rows].argmax(axis=1)
    outcomes = test.outcomes[np.arange(len(rows)), chosen]
    for name, entry in results["datasets"].items():
        assert entry["routed"] == pytest.approx(100 * outcomes[test.datasets == name].mean(), abs=1e-3)
        assert entry["n"] == (test.datasets == name).sum()


def test_validate_repeats_the_validation_of_the_best_epoch(run, words, command):
    result = command("validate", *words)
    assert result.code is None, result.err
    rows = [row for row in csv.DictReader((run / "metrics.csv").open()) if row["val_loss"]]
    best = min(rows, key=lambda row: float(row["val_loss"]))  # what configs/full.yaml monitors
    for metric in ("val_loss", "val_routed_accuracy"):
        assert f"{float(best[metric]):.5f}"[:-1] in result.out


def test_evaluation_keeps_the_curves_of_the_fit(tested, run, scores):
    assert "train_loss" in (run / "metrics.csv").read_text()
    assert {path.name for path in run.glob("*config.yaml")} >= {
        "config.yaml",
        "test_config.yaml",
        "predict_config.yaml",
    }


def test_own_records_are_flags(records_folder, tmp_path, command, settings):
    words = [
        *settings(tmp_path / "runs", **{"trainer.max_epochs": 1, "data.blocks_per_epoch": 3}),
        f"--data.records={records_folder}",
        "--data.score_column=correct",
        '--data.candidates=["*7b*"]',
        '--data.datasets=["alpha", "gamma"]',
        "--data.group_column=family",
        "--data.aptitude.num_shots=6",
        "--data.aptitude.min_shots=3",
        "--name=own",
    ]
    for verb in ("fit", "test", "predict"):
        result = command(verb, *words)
        assert result.code is None, result.err
    folder = tmp_path / "runs" / "own" / "1"
    results = json.loads((folder / "results.json").read_text())
    assert results["candidates"] == ["org/one-7b", "org/two-7b"]
    assert set(results["datasets"]) == {"alpha", "gamma"}
    assert results["score_column"] == "correct"
    assert results["datasets"]["gamma"]["dataset_best"] is None  # it has no train rows to choose on
    assert pl.read_parquet(folder / "scores.parquet").shape == (18 + 12, 3)
    router = Router.from_pretrained(folder / "router")
    assert router.about["data"]["name"] == "demo"
    assert router.capabilities[1].notes == ("It supports Chinese.",)
    # The same flags in one more place would be a mistake that is named.
    wrong = command("fit", *words, "--data.score_column=corect")
    assert wrong.code == 1
    assert "corect" in wrong.err
