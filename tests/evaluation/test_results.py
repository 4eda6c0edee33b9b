"""Results on disk and in the terminal."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import FrozenInstanceError, replace

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from satlight.errors import SatlightError
from satlight.evaluation import ControlResult, RoutingResults, evaluate, print_table
from satlight.records import PerformanceRecords
from satlight.types import Candidate


@pytest.fixture
def results() -> RoutingResults:
    """Two datasets, three candidates of two labs, simulated, one routed outcome unknown."""
    rng = np.random.default_rng(0)
    names = ["a_dataset_with_quite_a_long_name"] * 30 + ["[b]"] * 30
    table = pl.DataFrame(
        {
            "instruction_id": [f"i{i}" for i in range(60)],
            "dataset": names,
            "task": names,
            "split": ["test"] * 60,
            "instruction": ["?"] * 60,
        }
    )
    expected = rng.random((60, 3)).astype(np.float32)
    outcomes = (rng.random((60, 3)) < expected).astype(np.float32)
    known = np.ones((60, 3), dtype=bool)
    known[0, expected[0].argmax()] = False
    zoo = (Candidate("one/large"), Candidate("one/small"), Candidate("two/other"))
    records = PerformanceRecords(table, zoo, outcomes * known, known, expected=expected, name="toy", simulated=True)
    return evaluate(expected, records, records, resamples=100, seed=3)


def printed(results: RoutingResults, width: int = 110) -> str:
    console = Console(file=io.StringIO(), width=width)
    print_table(results, console)
    return console.file.getvalue()


def test_json_has_the_documented_shape(results, tmp_path):
    results.save(tmp_path / "run")
    content = json.loads((tmp_path / "run" / "results.json").read_text())
    keys = {"datasets", "groups", "candidates", "split", "score_column", "data", "seed", "calibration"}
    assert set(content) == keys
    assert list(content["datasets"]) == ["a_dataset_with_quite_a_long_name", "[b]"]
    assert set(content["data"]) == {"name", "fingerprint", "simulated", "costs"}
    assert content["candidates"] == ["one/large", "one/small", "two/other"]
    assert (content["split"], content["score_column"], content["seed"]) == ("test", "score", 3)
    needed = {"routed", "interval", "random", "best_single", "dataset_best", "dataset_oracle", "oracle"}
    needed |= {"gap_closed", "ece", "n", "brier", "task_best", "versus_best_single", "n_unknown", "share"}
    for entry in [*content["datasets"].values(), *content["groups"].values()]:
        assert needed <= set(entry)
        assert 0 <= entry["interval"][0] <= entry["routed"] <= entry["interval"][1] <= 100


def test_saving_and_loading_is_the_identity(results, tmp_path):
    results.save(tmp_path)
    assert RoutingResults.load(tmp_path) == results
    assert RoutingResults.load(tmp_path / "results.json") == results
    assert sorted(p.name for p in tmp_path.iterdir()) == ["choices.csv", "results.csv", "results.json"]


def test_csv_files_agree_with_the_results(results, tmp_path):
    results.save(tmp_path)
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert [(row["kind"], row["name"]) for row in rows] == [
        ("dataset", "a_dataset_with_quite_a_long_name"),
        ("dataset", "[b]"),
        ("group", "all"),
    ]
    assert float(rows[2]["routed"]) == results.groups["all"].routed
    assert float(rows[1]["interval_low"]) == results.datasets["[b]"].interval[0]
    choices = list(csv.DictReader((tmp_path / "choices.csv").open()))
    assert len(choices) == 9
    assert sum(float(row["share"]) for row in choices if row["name"] == "[b]") == pytest.approx(1, abs=1e-5)
    assert float(choices[-1]["single"]) == results.groups["all"].single["two/other"]


def test_a_failed_write_leaves_the_old_file(results, tmp_path, monkeypatch):
    results.save(tmp_path)
    before = (tmp_path / "results.json").read_text()
    group = replace(results.groups["all"], routed=float("nan"))  # JSON has no NaN, so writing fails
    results = replace(results, groups={"all": group})
    with pytest.raises(ValueError, match="Out of range float"):
        results.save(tmp_path)
    assert (tmp_path / "results.json").read_text() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "results.json cannot be read .*; write it with `lightning test`"),
        ("{", "results.json: not valid JSON .*; write it with `lightning test`"),
        ('{"groups": {}}', r"is not a results.json: got \['groups'\], expected the keys \['calibration'"),
        ("[]", "is not a results.json: got list"),
    ],
)
def test_bad_files_are_named(content, message, tmp_path):
    path = tmp_path / "results.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SatlightError, match=message):
        RoutingResults.load(path)


def test_an_entry_without_a_key_is_named(results, tmp_path):
    results.save(tmp_path)
    path = tmp_path / "results.json"
    content = json.loads(path.read_text())
    del content["groups"]["all"]["auroc"]
    path.write_text(json.dumps(content))
    with pytest.raises(SatlightError, match=r"is not a results.json of this version: .*'auroc'"):
        RoutingResults.load(path)


def test_results_cannot_be_changed(results):
    with pytest.raises(FrozenInstanceError):
        results.groups["all"].routed = 0.0


def test_table_fits_110_columns_with_every_figure(results):
    text = printed(results)
    assert all(len(line) <= 110 for line in text.splitlines())
    assert "Routing on toy (simulated), test split" in text
    entry = results.to_dict()["groups"]["all"]
    row = next(line for line in text.splitlines() if "mean all" in line).split()
    figures = [entry[k] for k in ("random", "best_single", "dataset_best", "task_best", "dataset_oracle", "oracle")]
    assert row[2:] == [
        f"{entry['n']}",
        f"{entry['routed']:.1f}",
        f"{entry['interval'][0]:.1f}–{entry['interval'][1]:.1f}",
        *(f"{figure:.1f}" for figure in figures),
        f"{100 * entry['gap_closed']:.0f}",
        f"{entry['ece']:.3f}",
        f"{entry['bayes_optimal']:.1f}",
        f"{100 * entry['reachable_gap_closed']:.0f}",
    ]


def test_table_takes_names_literally_and_tells_what_was_left_out(results):
    text = printed(results)
    assert "[b]" in text
    assert "1 of the instructions have no record of the routed candidate" in text
    assert "a_dataset_with_quit…" in text


def test_table_of_missing_figures_has_dashes(results):
    unknown = ControlResult(None, versus=(None, None))

    def without(entry):
        return replace(entry, controls=entry.controls | dict.fromkeys(("dataset_best", "best_single"), unknown))

    text = printed(
        replace(
            results,
            datasets={name: without(entry) for name, entry in results.datasets.items()},
            groups={name: without(entry) for name, entry in results.groups.items()},
        )
    )
    assert " – " in text
    assert "over best single" not in text


def test_table_has_a_dash_where_the_gap_is_too_small_for_a_share(results):
    group = replace(results.groups["all"], gap_closed=None, reachable_gap_closed=None)
    row = next(line for line in printed(replace(results, groups={"all": group})).splitlines() if "mean all" in line)
    assert [row.split()[i] for i in (-4, -1)] == ["–", "–"]
    assert "– = the way is below 2 points" in " ".join(printed(results).split())


def test_candidates_lose_their_institute_only_where_names_stay_distinct(results):
    assert "chose" in printed(results)
    assert "one/" not in printed(results)
    group = replace(results.groups["all"], share={"one/x": 0.75, "two/x": 0.25}, best_single_candidate=None)
    results = replace(results, candidates=["one/x", "two/x"], groups={"all": group})
    assert "all: chose one/x 75 %, two/x 25 %; 2 of 2 candidates" in printed(results)
