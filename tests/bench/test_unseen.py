"""Protocols with unseen candidates and tasks: what a method must not see, and figures computed by hand."""

import io
import json

import polars as pl
import pytest
from rich.console import Console

from satlight.bench import tables
from satlight.bench.board import UnseenTable
from satlight.bench.cells import plan
from satlight.bench.config import load_config
from satlight.bench.figures import board_plots
from satlight.bench.report import html_report
from satlight.errors import SatlightError
from satlight.evaluation.leaderboard import unseen_rows

WATCHER = '''
import json
import numpy as np
from toys import Toy

class Watcher(Toy):
    """Records what it is given, and prefers the candidate with the most known outcomes."""

    def fit(self, records, embed=None):
        self.known = dict(zip(records.model_ids, records.known.sum(0).tolist()))
        seen = {"known": self.known, "datasets": sorted(set(records.datasets.tolist()))}
        with open(self.count, "a") as file:
            print(json.dumps(seen), file=file)
        return self

    def predict(self, instructions, candidates):
        row = [0.1 + 0.01 * self.known[name] for name in candidates]
        return np.array([row] * len(instructions), dtype=np.float32)
'''


@pytest.fixture
def watcher(tmp_path, monkeypatch):
    (tmp_path / "watch.py").write_text(WATCHER)
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = tmp_path / "seen.jsonl"
    return (
        {"name": "Watcher", "baseline": "watch.Watcher", "options": {"count": str(seen)}},
        lambda: [json.loads(line) for line in seen.read_text().splitlines()],
    )


def test_of_unseen_candidates_only_the_probes_are_known(compute, bench_file, watcher):
    method, seen = watcher
    options = {"folds": 2, "probes": 4}
    (board,) = compute(bench_file([method], seeds=[0], data_unseen_candidates=options))
    ordinary, *folds = seen()
    assert set(ordinary["known"].values()) == {40}
    unseen = [fold["unseen"] for fold in board.unseen[0].folds]
    assert sorted(name for names in unseen for name in names) == [f"org/model-{m}" for m in range(4)]
    for fold, names in zip(folds, unseen, strict=True):
        assert {fold["known"][name] for name in names} == {4}
        assert {n for name, n in fold["known"].items() if name not in names} == {40}


def test_unseen_tasks_are_no_part_of_training_and_judged_once(compute, bench_file, watcher):
    method, seen = watcher
    (board,) = compute(bench_file([method, "toys.Toy"], seeds=[0], data_unseen_tasks={"folds": 2}))
    ordinary, *folds = seen()
    assert ordinary["datasets"] == ["alpha", "beta"]
    assert sorted(fold["datasets"] for fold in folds) == [["alpha"], ["beta"]]
    rows = {row.name: row for row in board.unseen[0].rows}
    # Toy reads the answer off the instruction; a constant choice is right half of the time on one dataset.
    figure = rows["Toy"].figure
    assert (figure.routed, figure.seed_half_width, figure.interval) == (100.0, None, [100.0, 100.0])
    assert (rows["Toy"].informed, rows["Toy"].loss) == (100.0, [0.0, 0.0, 0.0])
    assert rows["random"].figure.routed == 25.0
    assert rows["oracle"].figure.routed == 100.0
    # The best of the other dataset solves nothing of this one.
    assert rows["best_single"].figure.routed == 0.0
    assert figure.versus_best_single == [100.0, 100.0, 100.0]


def test_a_table_by_hand():
    half = [1, 1, 0, None]
    outcomes = {
        ("method", "a", 0): [1, 1, 1, 1],
        ("method", "a", 1): [0, 0, 0, 0],
        **{("informed", "a", seed): [1, 1, 1, 1] for seed in (0, 1)},
        **{("control", "random", seed): [0, 0, 0, 0] for seed in (0, 1)},
        **{("control", "best_single", seed): half for seed in (0, 1)},
        **{("upper bound", "oracle", seed): [1, 1, 1, 1] for seed in (0, 1)},
    }
    table = pl.DataFrame(
        [
            {"role": role, "router": router, "seed": seed, "fold": 1, "row": row, "outcome": outcome}
            | {"dataset": "one" if row < 2 else "two", "cost": None}
            for (role, router, seed), values in outcomes.items()
            for row, outcome in enumerate(values)
        ],
        infer_schema_length=None,
    )
    rows, notes = unseen_rows(table, "both", ["one", "two"], resamples=20)
    assert notes == ["compared on 50 % of the instructions of two: those on which all policies have an outcome"]
    assert [row.name for row in rows] == ["oracle", "a", "best_single", "random"]
    row = rows[1]
    assert row.figure.routed == 50.0  # mean of the seeds 100 and 0
    assert row.figure.seed_half_width == pytest.approx(12.7062 * 50, rel=1e-4)
    assert row.informed == 100.0
    assert row.loss == [-50.0, -50.0, -50.0]
    # Best single: 100 on the first dataset, 0 on the known outcome of the second.
    assert row.figure.versus_best_single[0] == 0.0
    title = UnseenTable("unseen_candidates", "both", rows, [{"probes": 8}, {}]).title
    assert title == "unseen candidates: 2 folds, 8 probe instructions, both"


def test_the_tables_stand_in_every_report(compute, bench_file):
    path = bench_file(
        ["toys.Toy", "toys.Crash"],
        seeds=[0],
        data_unseen_candidates={"folds": 2, "probes": 4},
        data_unseen_tasks={"folds": 2},
    )
    (board,) = compute(path)
    out = io.StringIO()
    tables.print_boards([board], Console(file=out, width=200))
    plots = board_plots(board)
    assert {"toy-all-unseen-candidates", "toy-all-unseen-tasks"} <= {plot.name for plot in plots}
    page = html_report("b", [board], {"toy/all": plots}, "")
    for text in (out.getvalue(), tables.markdown([board]), page):
        for title in ("nseen candidates: 2 folds, 4 probe instructions, all", "nseen tasks: 2 folds, all"):
            assert title in text
        assert "trained on all" in text
        assert "Crash (unseen tasks), seed 0: " in text
    stored = json.loads(tables.to_json([board]))[0]["unseen"]
    assert [table["protocol"] for table in stored] == ["unseen_candidates", "unseen_tasks"]


def test_the_ordinary_cell_comes_first(bench_file):
    config = load_config(bench_file(["toys.Toy"], seeds=[0], data_unseen_tasks={"folds": 2}))
    cells = {cell.title: cell for cell in plan(config)}
    ordinary = cells["Toy · toy · all · seed 0"]
    assert ordinary.key in cells["Toy (unseen tasks) · toy · all · seed 0"].needs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_unseen_tasks": {"fold": 2}}, "Option 'fold' is not accepted"),
        ({"data_unseen_candidates": {"folds": 2}, "data_settings": ["size-smaller-mixed"]}, "'all'"),
    ],
)
def test_bad_options_are_errors(bench_file, options, message):
    with pytest.raises(SatlightError, match=message):
        load_config(bench_file(["toys.Toy"], **options))
