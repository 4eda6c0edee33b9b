"""Scheduling of trials. The child is a small program that logs like `fit` does; tests/cli runs the real one."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from satlight.errors import SatlightError
from satlight.sweeps import Parameter, Sweep, Trial, run_sweep, runner, trials
from satlight.sweeps.report import rows_of, save_report
from satlight.sweeps.trials import best, epochs

CHILD = """
import sys, time, pathlib
options = dict(word[2:].split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
given = dict(zip(sys.argv, sys.argv[1:]))
root = pathlib.Path(given["--runs"]) / given["--name"]
run = root / str(len([one for one in root.iterdir() if one.name.isdigit()]) + 1)
run.mkdir()
x = float(options["x"])
with (root / "calls.txt").open("a") as calls:
    calls.write("called\\n")
lines = "epoch,step,val_loss,train_loss\\n"
for epoch in range(int(options.get("epochs", 1))):
    lines += f"{epoch},1,,0.5\\n{epoch},1,{(x - 3) ** 2 - 0.01 * epoch},\\n"
    (run / "metrics.csv").write_text(lines + "9,1,0.0")  # the last line is not complete yet
    time.sleep(float(options.get("pause", 0)))
if x == 13:
    sys.exit("error: x is 13, which is unlucky")
"""


@pytest.fixture(autouse=True)
def child(tmp_path, monkeypatch) -> None:
    path = tmp_path / "child.py"
    path.write_text(CHILD)
    monkeypatch.setattr(runner, "_PROGRAM", [sys.executable, str(path)])
    monkeypatch.setattr(runner, "_POLL_SECONDS", 0.02)


def make(method: str = "grid", **parameters: Parameter) -> Sweep:
    return Sweep("demo", ("fit", "${args}"), method, "val_loss", False, parameters)


def key_of(point: dict) -> str:
    return "-".join(f"{value}" for value in point.values())


def calls(folder: Path) -> int:
    return sum(len(path.read_text().split()) for path in folder.glob("*/calls.txt"))


def test_a_failed_trial_does_not_harm_the_others_and_results_are_kept(tmp_path):
    sweep, folder = make(x=Parameter((1, 13, 4))), tmp_path / "sweep"
    found = {trial.point["x"]: trial for trial in run_sweep(sweep, folder, key_of, processes=2)}
    assert {x: trial.state for x, trial in found.items()} == {1: "complete", 13: "failed", 4: "complete"}
    assert (found[1].value, found[4].value) == (4.0, 1.0)
    assert found[13].error == "error: x is 13, which is unlucky"
    kept = []
    more = replace(sweep, parameters={"x": Parameter((1, 13, 4, 2))})
    again = run_sweep(more, folder, key_of, report=lambda trial, old: kept.append((trial.point["x"], old)))
    assert sorted(kept) == [(1, True), (2, False), (4, True), (13, True)]
    assert calls(folder) == 4
    assert [row.label for row in rows_of(more, again)] == ["x=4", "x=2", "x=1", "x=13"]
    run_sweep(sweep, folder, key_of, retry_failed=True)
    assert calls(folder) == 5


def test_the_limit_counts_points(tmp_path):
    found = run_sweep(make(x=Parameter((1, 2, 4))), tmp_path / "sweep", key_of, limit=2)
    assert [trial.point["x"] for trial in found] == [1, 2]
    with pytest.raises(SatlightError, match="method: random has no end; give --trials N"):
        run_sweep(make("random", x=Parameter((1, 2))), tmp_path / "other", key_of)


def test_an_interrupted_trial_ends_and_runs_again(tmp_path):
    sweep, folder = make(x=Parameter((1, 2)), pause=Parameter((0.01,)), epochs=Parameter((1,))), tmp_path / "sweep"

    def interrupt(trial: Trial, kept: bool) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, folder, key_of, report=interrupt)
    assert len(list(folder.glob("*/trial.json"))) == 1
    assert len(run_sweep(sweep, folder, key_of)) == 2
    assert calls(folder) == 2


def test_a_metric_that_never_appears_fails_the_trial(tmp_path):
    sweep = replace(make(x=Parameter((1,))), metric="val_gap_closed")
    (trial,) = run_sweep(sweep, tmp_path / "sweep", key_of)
    assert trial.state == "failed"
    assert trial.error == "val_gap_closed was not logged; validation metrics: val_loss"


def test_reports(tmp_path):
    sweep = make(x=Parameter((1, 2)), seed_everything=Parameter((0, 1)))
    found = run_sweep(sweep, tmp_path / "sweep", key_of, processes=2)
    first, second = rows_of(sweep, found)
    assert (first.label, first.values(), second.values()) == ("x=2", [1.0, 1.0], [4.0, 4.0])
    table, plot = save_report(sweep, found, tmp_path / "sweep")
    assert table.read_text().splitlines()[0].startswith("trial,state,x,seed_everything,best val_loss,epoch")
    assert len(table.read_text().splitlines()) == 5
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_curves_of_resumed_runs_are_joined(tmp_path):
    (tmp_path / "metrics.1.csv").write_text("epoch,val_loss\n0,0.9\n1,0.5\n")
    (tmp_path / "metrics.csv").write_text("epoch,val_loss,val_ece\n2,0.7,0.1\n3,nan,\n4,0.")
    history = epochs(tmp_path)
    assert history == [(0, {"val_loss": 0.9}), (1, {"val_loss": 0.5}), (2, {"val_loss": 0.7, "val_ece": 0.1})]
    assert best(history, "val_loss", maximize=False) == (1, 0.5)
    assert best(history, "val_none", maximize=False) is None


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "trial.json").write_text("{")
    with pytest.raises(SatlightError, match="delete this file to run the trial again"):
        trials.Trial.read(tmp_path, "a")
    (tmp_path / "a" / "trial.json").write_text('{"key": "a"}')
    with pytest.raises(SatlightError, match="delete this file to run the trial again"):
        trials.Trial.read(tmp_path, "a")


def test_without_optuna_the_message_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SatlightError, match=r"pip install 'satlight\[sweep\]'"):
        run_sweep(make("bayes", x=Parameter((1, 2))), tmp_path / "sweep", key_of, limit=1)


def test_bayes_learns_and_continues(tmp_path):
    pytest.importorskip("optuna", minversion="5")
    sweep, folder = make("bayes", x=Parameter(low=0.0, high=10.0)), tmp_path / "sweep"
    run_sweep(sweep, folder, key_of, limit=6, processes=2)
    assert calls(folder) == 6
    kept = run_sweep(sweep, folder, key_of, limit=6, processes=2)
    assert (len(kept), calls(folder)) == (6, 6)  # nothing left to do
    run_sweep(sweep, folder, key_of, limit=18, processes=2)
    xs = [trials.Trial.read(folder, path.parent.name).point["x"] for path in folder.glob("*/trial.json")]
    assert len(xs) == 18
    assert sum(abs(x - 3) < 2 for x in xs) > 7  # 4 of 10 at random


def test_bad_trials_stop_early(tmp_path):
    pytest.importorskip("optuna", minversion="5")
    sweep = make(x=Parameter((3, 4, 2, 5, 20)), epochs=Parameter((4,)), pause=Parameter((0.4,)))
    sweep = replace(sweep, early_terminate=True)
    found = {trial.point["x"]: trial for trial in run_sweep(sweep, tmp_path / "sweep", key_of)}
    assert {x: trial.state for x, trial in found.items()} == {**dict.fromkeys((3, 4, 2, 5), "complete"), 20: "pruned"}
    assert found[20].epoch < 3
