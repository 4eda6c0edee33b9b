"""``satlight recommend``: the command from a log to an answer."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from satlight import Router
from satlight.bench import recommend
from satlight.bench import recommend_report as report
from satlight.bench.results import CellResult
from satlight.cli import main
from satlight.cli.recommend import _config
from satlight.evaluation.verdict import QUALITY, SAVING, Comparison
from satlight.metrics.bootstrap import Difference

KINDS = ("Translate the poem {}", "Solve the equation {}", "Sort the list {}")


def write_log(path: Path, skill, costs=None, count: int = 360, kept=None) -> Path:
    """Write a log of three kinds of instructions; ``skill`` is candidate → chance on each kind."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "instruction": KINDS[i % 3].format(f"number {i}"),
            "candidate": name,
            "score": int(rng.random() < chance[i % 3]),
        }
        | ({} if costs is None else {"cost_usd": costs[name]})
        for i in range(count)
        for name, chance in skill.items()
        if kept is None or kept(i, name)
    ]
    pl.DataFrame(rows).write_csv(path)
    return path


SPECIALISTS = {"poet": (0.95, 0.2, 0.2), "solver": (0.2, 0.95, 0.2), "coder": (0.2, 0.2, 0.95)}


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """Run a command without training; return its exit code, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(recommend, "ON_VECTORS", ("linear",))

    def run(*words):
        code = None
        try:
            main(["recommend", *(str(word) for word in words), "--config", "/dev/null"])
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_log_of_specialists_is_worth_a_router(run, tmp_path):
    log, output = write_log(tmp_path / "log.csv", SPECIALISTS), tmp_path / "out"
    code, out, _ = run(log, "--to", output, "--embedder", "tiny:bert")
    assert code is None
    assert "Route with" in out
    assert "no costs" in " ".join(out.split())
    found = json.loads((output / "recommendation.json").read_text())
    assert found["route"] is True
    assert {one["name"] for one in found["validation"]} == {"tfidf_knn", "inferred_dataset", "linear"}
    assert found["test"][0]["gain"]["low"] > 0.3
    assert found["log"]["rows"]["test"] + found["log"]["rows"]["train"] + found["log"]["rows"]["validation"] == 360
    assert any("equation" in name for name in found["log"]["clusters"])
    # The bench holds no test row of the log.
    texts = {
        text for path in output.rglob("instructions.parquet") for text in pl.read_parquet(path)["instruction"].to_list()
    }
    assert len(texts) == 360 - found["log"]["rows"]["test"]
    # The router routes, and its folder says what was found.
    router = Router.from_pretrained(output / "router")
    assert router.route("Solve the equation number 999").best == "solver"
    assert router.about["recommendation"]["route"] is True
    page = (output / "recommendation.html").read_text()
    assert "Route with" in page
    assert not any(outside in page for outside in ("src=", "<link", "<script", 'href="http', "@import"))
    assert "<svg" in page
    assert f"3 candidates: {', '.join(found['log']['candidates'])}" in page

    before = {path: path.stat().st_mtime_ns for path in output.rglob("result.json")}
    code, _, _ = run(log, "--to", output, "--embedder", "tiny:bert")
    assert code is None
    assert {path: path.stat().st_mtime_ns for path in output.rglob("result.json")} == before
    again = json.loads((output / "recommendation.json").read_text())
    seconds = [one.pop("seconds") for content in (found, again) for one in content["validation"]]
    assert seconds[:3] == seconds[3:]
    assert again == found


def script(name: str):
    spec = importlib.util.spec_from_file_location("script", Path(__file__).parents[2] / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_log_of_a_fleet_has_specialists_noise_and_costs():
    log = script("benchmarks/standin/log.py")
    rows = log.fleet_rows(600, seed=0)
    assert rows == log.fleet_rows(600, seed=0)
    assert rows != log.fleet_rows(600, seed=1)
    frame = pl.DataFrame(rows)
    assert frame["instruction"].n_unique() == 600
    means = dict(frame.group_by("candidate").agg(pl.col("score").mean()).rows())
    assert max(means, key=means.get) == "large"
    kinds = log.fleet_instructions(600, np.random.default_rng(0))
    code = frame.filter(pl.col("instruction").map_elements(kinds.get, return_dtype=pl.String) == "code")
    on_code = dict(code.group_by("candidate").agg(pl.col("score").mean()).rows())
    assert on_code["large"] < on_code["coder"] < 0.97
    paid = dict(frame.group_by("candidate").agg(pl.col("cost_usd").mean()).rows())
    assert paid == pytest.approx({name: cost for name, (cost, _) in log.FLEET.items()}, rel=0.1)


@pytest.mark.parametrize("costs", [False, True])
def test_noise_is_not_worth_a_router(costs):
    noise = script("experiments/recommend/noise.py")
    args = SimpleNamespace(instructions=300, candidates=4, costs=costs, equal=False)
    for seed in range(2):
        found = noise.recommended(seed, args)
        assert not found.route
        assert found.router.name == "router"
        assert (found.main.cost is not None) == costs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 50}, "has 50 instructions; at least 100"),
        ({"kept": lambda i, name: name == "poet"}, "has one candidate, poet"),
        ({"kept": lambda i, name: i % 3 == list(SPECIALISTS).index(name)}, "was answered by two candidates"),
    ],
)
def test_logs_that_cannot_answer_are_refused(run, tmp_path, options, message):
    log = write_log(tmp_path / "log.csv", SPECIALISTS, **options)
    code, _, err = run(log, "--to", tmp_path / "out", "--embedder", "none")
    assert code == 1
    assert message in err


def test_a_candidate_that_was_rarely_asked_is_said(tmp_path):
    def kept(row, name):
        return name != "coder" or (row % 3 == 2 and row < 100)  # asked only what it is good at

    log = write_log(tmp_path / "log.csv", SPECIALISTS, kept=kept)
    notes = recommend.open_log(recommend.Request(str(log), tmp_path / "out")).notes
    assert [note for note in notes if "few of the 360 instructions: coder (33)" in note and "random sample" in note]
    whole = write_log(tmp_path / "whole.csv", SPECIALISTS)
    assert "comparable" not in "".join(recommend.open_log(recommend.Request(str(whole), tmp_path / "out")).notes)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("few", "--group-column few: 'log' has 6 groups in 360 instructions, the largest with 60. No group is divided"),
        ("none", "have no column 'none' to group by"),
    ],
)
def test_groups_that_cannot_be_split_are_refused(run, tmp_path, column, message):
    log = write_log(tmp_path / "log.csv", SPECIALISTS)
    frame = pl.read_csv(log)
    number = pl.col("instruction").rank("dense") % 6
    frame.with_columns(number.alias("few")).write_csv(log)
    code, _, err = run(log, "--to", tmp_path / "out", "--embedder", "none", "--group-column", column)
    assert code == 1
    assert message in err


def test_missing_prices_leave_costs_out_and_are_said(tmp_path):
    costs = {"poet": 0.001, "solver": None, "coder": 0.002}
    log = write_log(tmp_path / "log.csv", SPECIALISTS, costs)
    opened = recommend.open_log(recommend.Request(str(log), tmp_path / "out", embedder=None))
    assert not opened.has_costs
    assert "360 of 1080 records have no cost_usd" in opened.notes[-1]


def test_minutes_and_config_are_checked(run, tmp_path, capsys):
    log = write_log(tmp_path / "log.csv", SPECIALISTS)
    code, _, err = run(log, "--minutes", "0")
    assert (code, "--minutes is 0" in err) == (1, True)
    with pytest.raises(SystemExit):
        main(["recommend", str(log), "--config", str(tmp_path / "none.yaml")])
    assert "does not exist" in capsys.readouterr().err


def test_embedding_that_takes_too_long_is_left_out_and_said(tmp_path, monkeypatch):
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    log = write_log(tmp_path / "log.csv", SPECIALISTS)
    request = recommend.Request(str(log), tmp_path / "out", minutes=1e-6, embedder="tiny:bert")
    opened = recommend.open_log(request)
    cells = recommend.development_bench(request, opened)
    monkeypatch.setattr(recommend, "run_cells", lambda *args, **options: None)
    late = []
    progress = recommend.Progress(done=lambda name, result: late.append(name) if result is None else None)
    notes = recommend.run_within(request, opened, cells, progress)
    assert "would take about" in notes[0]
    assert "tfidf_knn" in notes[1]
    assert "linear" not in notes[1]


def test_a_training_ends_in_time_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(recommend, "ON_WORDS", ())
    log, ran = write_log(tmp_path / "log.csv", SPECIALISTS), []
    request = recommend.Request(str(log), tmp_path / "out", minutes=10, embedder=None, config=str(_config(None)))
    opened = recommend.open_log(request)
    cells = recommend.development_bench(request, opened)

    def run_cells(cells, output, **options):
        folder = output / "cells" / cells[-1].key
        folder.mkdir(parents=True)
        CellResult(probabilistic=True).write(folder)
        (folder / "log.txt").write_text("Time limit reached. Elapsed time is 0:05:59. Signaling Trainer to stop.")
        ran.append(cells[-1])

    monkeypatch.setattr(recommend, "run_cells", run_cells)
    notes = recommend.run_within(request, opened, cells, recommend.Progress())
    assert ran[-1].key == cells[-1].key  # so that the next call finds it
    assert ran[-1].spec["overrides"][-1] in ("--trainer.max_time=00:00:04:59", "--trainer.max_time=00:00:05:00")
    assert [note for note in notes if "ended the training of model_sat" in note]
    longer = recommend.development_bench(replace(request, minutes=20), opened)
    assert longer[-1].key != cells[-1].key
    assert longer[0].key == cells[0].key


def test_a_saving_that_may_lose_too_much_is_explained():
    def difference(mean, low, high):
        return Difference(mean, low, high, 1.0, False)

    better, cheaper = difference(0.02, 0.01, 0.03), difference(-0.28, -0.32, -0.24)
    one = Comparison(
        SAVING,
        "cheapest@0.9",
        660,
        1.0,
        0.87,
        0.88,
        difference(-0.01, -0.029, 0.006),
        0.3,
        0.003,
        0.005,
        cheaper,
        better,
    )
    quality = replace(one, policy=QUALITY, rule="budget@0.005")
    found = SimpleNamespace(
        comparisons=[quality, one], main=quality, facts={"level": 0.975}, method="knn", single="large", route=False,
        validation_gain=0.01,
    )  # fmt: skip
    text = report.reason(found)
    assert (
        "changes the cost by -28.0 % (97.5 %: -32.0 to -24.0), but a loss of 2.90 points is not excluded; 1 is" in text
    )
    titles = [title for title, _ in report.policy_rows(found)]
    assert titles == [
        "Quality: the best answers at the mean cost of large (rule budget@0.005)",
        "Saving: the lowest cost at the quality of large (rule cheapest@0.9)",
    ]
    assert "fixed shares of all requests" in report.gain_over(found)
    found.comparisons[1] = replace(one, gain=difference(0.0, -0.005, 0.005))
    assert "is not excluded" not in report.reason(found)


def test_model_sat_is_trained_with_the_settings_for_own_logs():
    assert Path(_config(None)).name == "own_data.yaml"
    assert "model:" in Path(_config(None)).read_text()
    assert _config(Path("/dev/null")) is None
