"""`satlight sweep` with real `fit` processes, and `satlight reproduce`."""

import csv
import json
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def write_sweep(path: Path, settings, parameters: dict, **more) -> Path:
    words = [word for word in settings(path.parent / "unused", **{"trainer.max_epochs": 1})]
    command = ["${env}", "lightning", "fit", *words, "${args}"]
    sweep = {"program": "lightning", "command": command, "method": "grid", "parameters": parameters}
    sweep |= {"metric": {"name": "val_routed_accuracy", "goal": "maximize"}}
    path.write_text(yaml.safe_dump(sweep | more))
    return path


@pytest.mark.slow
def test_two_points_one_of_which_fails(command, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("WANDB_RUN_GROUP", "")
    parameters = {"data.records": {"values": ["simulated", "no/such/records"]}}
    path = write_sweep(tmp_path / "mine.yaml", settings, parameters)
    done = command("sweep", path, "--runs", tmp_path / "sweeps", "--processes", 2)
    assert done.code is None, done.err
    assert "failed: records=no/such/records: error: " in done.out
    folder = tmp_path / "sweeps" / "mine"
    with (folder / "trials.csv").open() as file:
        good, bad = sorted(csv.DictReader(file), key=lambda row: row["state"])
    assert (good["state"], bad["state"]) == ("complete", "failed")
    assert 0 < float(good["best val_routed_accuracy"]) <= 1
    assert float(good["val_oracle"]) >= float(good["val_best_single"])
    assert (folder / good["run"] / "router" / "config.json").is_file()
    assert (folder / "trials.png").is_file()
    again = command("sweep", path, "--runs", tmp_path / "sweeps")
    assert again.out.count("kept from an earlier call") == 2


def test_mistakes_are_told_before_the_first_trial(command, settings, tmp_path):
    path = write_sweep(tmp_path / "mine.yaml", settings, {"model.optimizer.rate": {"values": [1]}})
    refused = command("sweep", path, "--runs", tmp_path / "sweeps")
    assert refused.code == 1
    assert "model.optimizer.rate" in refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "sweeps").exists()
    assert "--processes is 0" in command("sweep", path, "--processes", 0).err
    assert "cannot be read" in command("sweep", tmp_path / "none.yaml").err


def test_reproduce_prints_the_command_and_what_differs(command, run, tmp_path):
    printed = command("reproduce", run)
    assert printed.code is None, printed.err
    assert f"satlight fit -c {run / 'config.yaml'} --name full --runs {run.parent.parent}" in printed.out
    assert "was" not in printed.err  # same code, packages and data
    assert "fingerprint" not in printed.err
    facts = json.loads((run / "environment.json").read_text())
    assert facts["command"][0] == "fit"
    changed = facts | {"commit": "0" * 40, "versions": facts["versions"] | {"torch": "1.0"}, "fingerprint": "0" * 16}
    other = tmp_path / "full" / "1"
    other.mkdir(parents=True)
    (other / "config.yaml").write_text((run / "config.yaml").read_text())
    (other / "environment.json").write_text(json.dumps(changed))
    told = command("reproduce", other)
    assert "torch was 1.0, is " in told.err
    assert f"satlight was at commit {'0' * 40}" in told.err
    assert f"the data had the fingerprint {'0' * 16}, they have {facts['fingerprint']}" in told.err
    refused = command("reproduce", other, "--run")
    assert refused.code == 1
    assert not (other.parent / "2").exists()
    assert "is no run folder" in command("reproduce", tmp_path).err
    (other / "environment.json").unlink()
    assert "cannot be compared" in command("reproduce", other).err


def test_a_reproduced_run_is_the_same(command, run, tmp_path):
    again = command("reproduce", run, "--run", "--runs", tmp_path / "runs")
    assert again.code is None, again.err
    first, second = (folder / "metrics.csv" for folder in (run, tmp_path / "runs" / "full" / "1"))
    losses = []
    for path in (first, second):
        with path.open() as file:
            losses.append([row["val_loss"] for row in csv.DictReader(file) if row["val_loss"]])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 2
