"""Leaderboards: figures by hand, the honest order, and every control in every kind of table."""

import csv
import io
import json
import math

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from satlight.bench import tables
from satlight.evaluation import measure_controls
from satlight.evaluation.leaderboard import quality_cost_points
from satlight.evaluation.outcomes import CANDIDATE, SCHEMA, UPPER_BOUND, UPPER_BOUNDS
from satlight.records import open_records, split_records


def entry(board, name, role="method"):
    (found,) = [e for e in board.entries if e.name == name and (e.role == "method") == (role == "method")]
    return found


@pytest.fixture
def groups():
    return {"both": ["alpha", "beta"], "second": ["beta"]}


def test_figures_by_hand(compute, bench_file, groups):
    (board,) = compute(bench_file(["toys.Toy", "toys.BySeed"], data_groups=groups))
    toy, by_seed = entry(board, "Toy"), entry(board, "BySeed")
    assert toy.groups["both"].routed == 100.0
    assert toy.groups["both"].interval == [100.0, 100.0]
    assert by_seed.groups["both"].per_seed == {0: 100.0, 1: 50.0}
    figure = by_seed.groups["both"]
    # Two values d apart: the half width is t(0.975, 1 degree) * d / 2.
    assert (figure.routed, figure.seed_half_width) == (75.0, pytest.approx(12.7062 * 25, rel=1e-4))
    assert by_seed.groups["second"].routed == by_seed.datasets["beta"].routed == 100.0
    expected = {"random": 25.0, "best_single": 25.0, "dataset_best": 50.0, "oracle": 100.0}
    for name, value in expected.items():
        assert entry(board, name, "control").groups["both"].routed == value
    assert toy.groups["both"].versus_best_single[0] == 75.0
    assert toy.groups["both"].gap_closed == 1.0
    assert entry(board, "random", "control").groups["both"].gap_closed == 0.0
    assert entry(board, "best_single", "control").groups["both"].versus_best_single is None


def test_the_paired_interval_is_that_of_the_differences(compute, bench_file):
    (board,) = compute(bench_file(["toys.Toy"], seeds=[0], resamples=500))
    mean, low, high = entry(board, "Toy").datasets["alpha"].versus_best_single
    single = entry(board, "best_single", "control").datasets["alpha"]
    # Toy is always right, so its difference varies just as best single does.
    assert (mean, low, high) == (50.0, 100 - single.interval[1], 100 - single.interval[0])
    assert low < 30 < 70 < high


def test_the_order_is_that_of_the_first_group_whoever_wins(compute, bench_file, groups):
    (board,) = compute(bench_file(["toys.BySeed", "toys.Toy", "toys.Crash"], data_groups=groups))
    routed = [e.groups["both"].routed for e in board.entries if e.seeds]
    assert routed == sorted(routed, reverse=True)
    assert board.entries[-1].name == "Crash"
    assert [e.name for e in board.methods] == ["Toy", "BySeed"]


def test_the_best_control_does_not_know_the_test_outcomes(compute, bench_file):
    (board,) = compute(bench_file(["toys.Toy"], seeds=[0]))
    best = board.best_control["all"]
    others = [e for e in board.entries if e.role == "control"]
    assert entry(board, best, "control").groups["all"].routed == max(
        e.groups["all"].routed for e in others if e.groups["all"].routed is not None
    )
    assert best not in UPPER_BOUNDS


def test_every_table_has_every_control(compute, bench_file, toy_records):
    (board,) = compute(bench_file(["toys.Toy", "toys.Crash"], seeds=[0]))
    records = open_records(toy_records)
    records = records.with_splits(split_records(records))
    controls = measure_controls(records.filter(splits="test"), records.filter(splits=["train", "validation"]))
    assert {"random", "best_single", "dataset_best", "task_best", "dataset_oracle", "oracle"} <= set(controls)
    out = io.StringIO()
    tables.print_boards([board], Console(file=out, width=200))
    names = {row["router"] for row in csv.DictReader(io.StringIO(tables.to_csv([board])))}
    roles = {e["name"]: e["role"] for e in json.loads(tables.to_json([board]))[0]["entries"]}
    for text in (out.getvalue(), tables.markdown([board])):
        for name in controls:
            role = "upper bound" if name in UPPER_BOUNDS else "control"
            assert f"{name} ({role})" in text
            assert (name in names, roles[name]) == (True, role)
        assert "Crash – failed" in text
        assert "failed: Crash, seed 0: no such luck" in text


def test_a_control_and_the_method_of_its_name_are_one_and_the_same(compute, bench_file):
    names = ["aptitude_knn", "tfidf_knn"]
    (board,) = compute(bench_file(names, seeds=[3]))
    for name in names:
        assert entry(board, name).datasets["alpha"].routed == entry(board, name, "control").datasets["alpha"].routed


def test_a_method_that_failed_for_one_seed_says_so(compute, bench_file, tmp_path):
    scores = pl.DataFrame({"instruction_id": ["x"], "org/model-0": [1.0]})
    scores.write_parquet(tmp_path / "s-1.parquet")
    (board,) = compute(bench_file([{"name": "old", "scores": str(tmp_path / "s-{seed}.parquet")}]))
    assert len(board.failures) == 2
    assert board.failures[0].startswith("old, seed 0: Cannot read scores")
    assert "instructions have no scores" in board.failures[1]
    assert entry(board, "old").seeds == []


def test_existing_scores_are_judged(compute, bench_file, tmp_path, toy_records):
    records = open_records(toy_records)
    names = [m for m in reversed(records.model_ids)]
    table = records.instructions.select("instruction_id").reverse()
    right = records.outcomes[::-1, ::-1] * 2.0 - 1
    table.hstack(pl.DataFrame(right, schema=names)).write_parquet(tmp_path / "scores.parquet")
    (board,) = compute(bench_file([{"name": "old", "scores": str(tmp_path / "scores.parquet")}], seeds=[0]))
    old = entry(board, "old")
    assert old.groups["all"].routed == 100.0
    assert (old.fit_seconds, old.decision_ms) == (None, None)


def test_costs_stand_in_the_table_where_they_are_known(compute, bench_file):
    (board,) = compute(bench_file(["toys.Toy"], seeds=[0]))
    toy = entry(board, "Toy")
    # alpha: candidates 0 and 1 at $1 and $2 per 1,000; beta: 2 and 3 at $3 and $4.
    assert toy.means["cost"]["all"] == pytest.approx((1.5 + 3.5) / 2)
    assert entry(board, "best_single", "control").means["cost"]["all"] == pytest.approx(1.0)
    assert "$/1000" in tables.headings(board)
    curve = board.results["Toy"][0].curve
    assert (1000 * curve[0][0], curve[1][0]) == (pytest.approx(2.5), 100.0)
    assert 1000 * curve[0][-1] == pytest.approx(1.0)  # price alone: always the cheapest
    points = quality_cost_points(board.table, ["alpha", "beta"], UPPER_BOUND)
    assert points["oracle"] == (pytest.approx(2.5), 100.0)
    points = quality_cost_points(board.table, ["alpha", "beta"], CANDIDATE)
    assert points["org/model-3"] == (pytest.approx(4.0), 25.0)


def test_a_release_curve_follows_the_releases(compute, bench_file):
    (board,) = compute(bench_file(["toys.Toy"], seeds=[0], data_release={"founders": 2, "best": 1, "probes": 8}))
    assert [fold["newest"] for fold in board.release.folds] == ["org/model-2", "org/model-3"]
    assert [fold["released"] for fold in board.release.folds] == ["2024-03", "2024-04"]
    # Two candidates each solve half of one dataset: one of the four that stays, and the newest.
    assert board.release.curves["upper bound"]["oracle"] == [[50.0, 50.0]]
    assert board.release.curves["method"]["Toy"] == [[50.0, 50.0]]
    assert board.release.curves["control"]["random"] == [[25.0, 25.0]]


def test_release_dates_that_are_missing_fail_the_curve_alone(compute, bench_file, tmp_path, toy_records):
    import shutil

    folder = tmp_path / "undated"
    shutil.copytree(toy_records, folder)
    models = json.loads((folder / "models.json").read_text())
    (folder / "models.json").write_text(json.dumps([m | {"release_date": None} for m in models]))
    path = bench_file(["toys.Toy"], seeds=[0], data_records=str(folder), data_release={"founders": 2, "best": 1})
    (board,) = compute(path)
    assert entry(board, "Toy").groups["all"].routed == 100.0
    assert board.failures == [s for s in board.failures if s.startswith("Toy (release), seed 0: ")]
    assert len(board.failures) == 1


def test_scores_that_are_no_probabilities_have_no_calibration(compute, bench_file):
    (board,) = compute(bench_file(["toys.Toy"], seeds=[0]))
    assert entry(board, "Toy").means["ece"]["all"] == pytest.approx(0.1, abs=1e-6)
    from satlight.baselines.base import log_odds

    assert np.isnan(log_odds(np.array([math.nan]))).all()


def test_nothing_computed_yet_gives_an_empty_board(bench_file):
    from pathlib import Path

    from satlight.bench.board import boards
    from satlight.bench.cells import plan
    from satlight.bench.config import load_config

    config = load_config(bench_file(["toys.Toy"]))
    (board,) = boards(config, plan(config), Path(config.output))
    assert (board.entries, board.methods) == ([], [])
    tables.print_boards([board], Console(file=io.StringIO()))


def test_every_leaderboard_is_a_group_by_on_the_outcome_tables(compute, bench_file, tmp_path):
    (board,) = compute(bench_file(["toys.BySeed"], data_unseen_tasks={"folds": 2}))
    table = pl.read_parquet(tmp_path / "out/cells/*/outcomes.parquet")
    assert table.schema == SCHEMA
    by_dataset = (
        table.filter(pl.col("protocol") == "ordinary")
        .group_by("role", "router", "seed", "dataset")
        .agg(pl.col("outcome", "cost").mean())
    )
    for row in by_dataset.filter(pl.col("role") == "method").iter_rows(named=True):
        figure = entry(board, row["router"]).datasets[row["dataset"]]
        assert figure.per_seed[row["seed"]] == pytest.approx(100 * row["outcome"])
    folds = table.filter(pl.col("protocol") == "unseen_tasks", pl.col("role") == "method")
    assert folds.group_by("seed", "row").len()["len"].unique().to_list() == [1]
    choice = folds.filter(pl.col("seed") == 0)
    assert (choice["candidate"].str.tail(1) == choice["instruction"].str.tail(1)).sum() < len(choice)
    assert choice["score"].is_not_null().all()


def test_stored_controls_are_the_measured_ones(compute, bench_file, toy_records, tmp_path):
    from satlight.evaluation.outcomes import controls_of

    compute(bench_file(["toys.Toy"], seeds=[0]))
    (problem,) = (tmp_path / "out/problems").iterdir()
    records = open_records(problem)
    test = records.filter(splits="test")
    measured = measure_controls(test, records.filter(splits=["train", "validation"]))
    tables = [pl.read_parquet(path) for path in (tmp_path / "out/cells").glob("*/outcomes.parquet")]
    stored = controls_of(pl.concat(tables), test.model_ids)
    assert list(stored) == list(measured)
    for name, control in measured.items():
        assert stored[name].outcomes.tolist() == control.outcomes.tolist()
        assert stored[name].known.tolist() == control.known.tolist()
        same = control.choices is stored[name].choices is None
        assert same or stored[name].choices.tolist() == control.choices.tolist()
