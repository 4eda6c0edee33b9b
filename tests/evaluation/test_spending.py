"""Costs in reports: every figure of a small case by hand, what is missing, and RouterBench."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from satlight.evaluation import evaluate, print_table
from satlight.evaluation.controls import oracle
from satlight.evaluation.spending import Spending, cost_state
from satlight.metrics import curves
from satlight.metrics.cost import single_points
from satlight.records import PerformanceRecords, open_records
from satlight.types import Candidate

ROUTERBENCH = Path(__file__).parents[3] / "shared" / "data" / "routerbench"
NAN = float("nan")


def records(outcomes, costs, datasets=None) -> PerformanceRecords:
    """NaN in outcomes = no record; costs in US dollars per 1,000 calls, one row for all or one each."""
    outcomes = np.array(outcomes, dtype=np.float32)
    n, m = outcomes.shape
    names = list(datasets or "x" * n)
    table = pl.DataFrame(
        {
            "instruction_id": [f"i{i}" for i in range(n)],
            "dataset": names,
            "task": names,
            "split": ["test"] * n,
            "instruction": ["?"] * n,
        }
    )
    known = ~np.isnan(outcomes)
    costs = None if costs is None else np.broadcast_to(np.array(costs, dtype=np.float32) / 1000, (n, m)).copy()
    zoo = tuple(Candidate(f"c{i}") for i in range(m))
    return PerformanceRecords(table, zoo, np.nan_to_num(outcomes), known, costs=costs, name="toy")


TRAIN = records([[0, 1], [1, 1], [0, 1], [1, 1]], [1, 3])  # c0: $1, 0.5; c1: $3, 1.0
TEST = records([[1, 1], [0, 1], [0, 0], [1, 1]], [[1, 3], [1, 3], [2, 4], [1, 3]])
SCORE = np.array([[2.0, 1.0], [-1.0, 3.0], [1.0, 0.0], [2.0, 0.0]])


def test_every_cost_of_a_small_case():
    entry = evaluate(SCORE, TEST, TRAIN).to_dict()["groups"]["all"]
    assert entry["cost_routed"] == pytest.approx((1 + 3 + 2 + 1) / 4)
    assert entry["cost_random"] == pytest.approx((2 + 2 + 3 + 2) / 4)
    assert entry["cost_best_single"] == pytest.approx(13 / 4)
    assert entry["cost_oracle"] == pytest.approx((1 + 3 + 2 + 1) / 4)
    # $1.75 on train is 5/8 of c0 and 3/8 of c1; on test they cost 1.25 and 3.25 and reach 0.5 and 0.75.
    assert entry["zero_router"] == pytest.approx(100 * (5 / 8 * 0.5 + 3 / 8 * 0.75), abs=1e-4)
    assert entry["cost_zero_router"] == pytest.approx(5 / 8 * 1.25 + 3 / 8 * 3.25, abs=1e-4)
    assert entry["versus_zero_router"][0] <= entry["routed"] - entry["zero_router"] <= entry["versus_zero_router"][1]
    assert entry["rci"] == 0  # c1 is chosen where c0 fails
    assert entry["zero_router_aiq"] == pytest.approx(62.5)
    # The router reaches 0.75 for 1.75 where the mixture needs 3.25.
    assert entry["aiq"] == pytest.approx(100 * (0.25 * (0.5 + 0.75) / 2 + 0.75 * 0.75), abs=1e-3)
    assert entry["qnc"] == pytest.approx(1.75 / 3.25, abs=1e-4)
    assert entry["nauc"] == pytest.approx(entry["aiq"], abs=1e-3)


def test_the_oracle_takes_the_cheapest_of_the_best():
    test = records([[1, 1], [1, 1], [0, 1], [0, 0]], [[3, 1], [np.nan, 2], [1, 5], [2, 2]])
    assert oracle(test).tolist() == [1, 1, 1, 0]  # an unknown cost counts as the highest
    assert oracle(replace(test, costs=None)).tolist() == [0, 0, 1, 0]


def test_groups_are_means_over_datasets():
    test = records([[1, 1], [0, 1], [0, 0], [1, 1]], [[1, 3], [1, 3], [2, 4], [1, 3]], "xxxy")
    results = evaluate(SCORE, test, TRAIN)
    x, y, both = (
        results.to_dict()["datasets"]["x"],
        results.to_dict()["datasets"]["y"],
        results.to_dict()["groups"]["all"],
    )
    for key in ("cost_routed", "cost_zero_router", "zero_router", "rci"):
        assert both[key] == pytest.approx((x[key] + y[key]) / 2, abs=1e-5)
    assert both["cost_routed"] == pytest.approx((2 + 1) / 2)
    assert x["zero_router"] == pytest.approx(100 * (3 / 4 * 1 / 3 + 1 / 4 * 2 / 3), abs=1e-4)  # $1.5 on train


def test_collapse_onto_the_dearest_shows():
    entry = evaluate(np.array([[0.0, 1.0]] * 4), TEST, TRAIN).to_dict()["groups"]["all"]
    assert entry["rci"] == 0.75  # c1 is needed for the second alone
    assert entry["cost_routed"] == pytest.approx(entry["cost_best_single"])
    assert entry["zero_router"] == pytest.approx(entry["routed"])  # at that cost, c1 is what one gets


def test_without_costs_nothing_is_said_of_them():
    results = evaluate(SCORE, records(TEST.outcomes, None), TRAIN)
    assert results.data.costs == "none"
    assert not [key for key in results.to_dict()["groups"]["all"] if "cost" in key or "zero" in key or "aiq" in key]
    assert "per 1,000" not in printed(results)


def test_an_unknown_price_is_not_free():
    results = evaluate(SCORE, records(TEST.outcomes, [[1, NAN], [1, 3], [2, 4], [1, 3]]), TRAIN)
    assert results.data.costs == "incomplete"
    assert "cost_routed" not in results.to_dict()["groups"]["all"]
    assert "some records have no cost_usd, and an unknown price is not $0" in " ".join(printed(results).split())


def test_a_cell_without_a_record_needs_no_price():
    outcomes = [[1, NAN], [0, 1], [0, 0], [1, 1]]
    test = records(outcomes, [[1, NAN], [1, 3], [2, 4], [1, 3]])
    entry = evaluate(SCORE, test, TRAIN).to_dict()["groups"]["all"]
    assert cost_state(test) == "complete"
    assert entry["cost_routed"] == pytest.approx(2)  # of the last three, which the best single answered, too
    assert entry["cost_best_single"] == pytest.approx(10 / 3, abs=1e-4)
    assert entry["zero_router"] == pytest.approx(100 * (5 / 8 * 1 / 3 + 3 / 8 * 2 / 3), abs=1e-4)


@pytest.mark.parametrize("train", [None, records(TRAIN.outcomes, None), records(TRAIN.outcomes, [1, NAN])])
def test_without_prices_on_train_there_is_nothing_to_weigh(train):
    entry = evaluate(SCORE, TEST, train).to_dict()["groups"]["all"]
    assert entry["cost_routed"] == pytest.approx(1.75)
    assert entry["zero_router"] is entry["cost_zero_router"] is entry["aiq"] is entry["nauc"] is entry["qnc"] is None
    assert entry["zero_router_aiq"] == pytest.approx(62.5)


@pytest.mark.parametrize("price", [0, 2])
def test_equal_costs_leave_the_best_candidate(price):
    test, train = records(TEST.outcomes, [price, price]), records(TRAIN.outcomes, [price, price])
    entry = evaluate(SCORE, test, train).to_dict()["groups"]["all"]
    assert entry["cost_routed"] == entry["cost_random"] == price
    assert entry["zero_router"] == entry["best_single"] == entry["zero_router_aiq"] == entry["aiq"] == 75
    assert entry["qnc"] == (None if price == 0 else 1.0)


def test_one_candidate_and_one_instruction():
    one = records([[1]], [5])
    entry = evaluate(np.zeros((1, 1)), one, one).to_dict()["groups"]["all"]
    assert entry["zero_router"] == entry["aiq"] == entry["nauc"] == 100
    assert entry["qnc"] == 1
    assert entry["rci"] == 0


def test_zero_router_is_unknown_where_one_of_its_candidates_is():
    test = records([[1, NAN], [0, 1]], [1, 3])
    spending = Spending.of(test, TRAIN)
    control = spending.zero_router(torch.tensor([0, 1]))
    assert control.known.tolist() == [False, True]
    assert control.shares.tolist() == pytest.approx([0.5, 0.5])
    assert control.outcomes.tolist() == pytest.approx([0, 0.5])


def printed(results) -> str:
    console = Console(file=io.StringIO(), width=110)
    print_table(results, console)
    return console.file.getvalue()


def test_costs_are_printed_and_saved(tmp_path):
    results = evaluate(SCORE, TEST, TRAIN)
    text = " ".join(printed(results).split())
    assert "all: $1.75 per 1,000 instructions; zero router 59.4 for $2" in text
    assert "AIQ 71.9, of the zero router 62.5" in text
    results.save(tmp_path)
    saved = json.loads((tmp_path / "results.json").read_text())["groups"]["all"]
    assert saved["cost_routed"] == pytest.approx(1.75)
    assert "cost_zero_router" in (tmp_path / "results.csv").read_text().splitlines()[0]


@pytest.mark.skipif(not ROUTERBENCH.is_dir(), reason="the RouterBench records are not beside this checkout")
def test_routerbench_costs_and_the_oracle_above_the_zero_router():
    whole = open_records(ROUTERBENCH).filter(datasets="mbpp")
    train, test = whole.rows(np.arange(299) % 2 == 0), whole.rows(np.arange(299) % 2 == 1)
    oracle = np.where(test.outcomes > 0, 4.0, -4.0)
    entry = evaluate(oracle, test, train, resamples=10).to_dict()["groups"]["all"]
    assert entry["routed"] == entry["oracle"]
    assert entry["aiq"] > entry["zero_router_aiq"]
    singles = single_points(*(torch.from_numpy(np.array(x)) for x in (test.outcomes, test.known, test.costs)))
    assert entry["zero_router_aiq"] == pytest.approx(100 * curves.aiq(*singles).item(), abs=1e-4)
    assert entry["cost_best_single"] == pytest.approx(
        1000 * float(test.costs[:, test.model_ids.index("gpt-4-1106-preview")].mean()), rel=1e-4
    )
