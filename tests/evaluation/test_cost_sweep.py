"""The cost-aware sweep on a case that can be done by hand."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.evaluation.cost_sweep import CostPoint, cost_sweep
from satlight.evaluation.protocols import Setting, domains
from satlight.records import PerformanceRecords
from satlight.types import Candidate

# Two candidates, cheap and dear. Prices are means on train: 1 and 3. Test costs differ from these.
OUTCOMES = [[0, 1], [1, 1], [0, 1], [1, 0], [0, 1]]
COSTS = [[1, 2], [1, 4], [2, 5], [2, 7], [1, 9]]
PROBABILITIES = np.array([[0.2, 0.9], [0.8, 0.9], [0.1, 0.3]])


@pytest.fixture
def records() -> PerformanceRecords:
    rows = pl.DataFrame(
        {
            "instruction_id": list("abcde"),
            "dataset": ["x", "x", "x", "x", "y"],
            "task": "t",
            "split": ["train", "train", "test", "test", "test"],
            "instruction": list("abcde"),
        }
    )
    return PerformanceRecords(
        rows,
        (Candidate("cheap"), Candidate("dear")),
        np.array(OUTCOMES, dtype=np.float32),
        np.ones((5, 2), dtype=bool),
        costs=np.array(COSTS, dtype=np.float32),
    )


def setting_of(records: PerformanceRecords) -> Setting:
    return next(domains(records))


def test_from_quality_alone_to_price_alone(records):
    points = cost_sweep(PROBABILITIES, setting_of(records))
    # Dear everywhere: x gives 1 and 0 for 5 and 7, y gives 1 for 9. Cheap everywhere: 0, 1 for 2, 2; 0 for 1.
    assert points[0] == CostPoint(0.0, cost=(6 + 9) / 2, quality=(0.5 + 1) / 2)
    assert points[-1] == CostPoint(float("inf"), cost=(2 + 1) / 2, quality=(0.5 + 0) / 2)
    # The price of dear is 2 higher: it pays for weights below 0.35, 0.05 and 0.1.
    for point in points:
        dear = [point.weight < limit for limit in (0.35, 0.05, 0.1)]
        cost = [COSTS[2 + row][int(choice)] for row, choice in enumerate(dear)]
        quality = [OUTCOMES[2 + row][int(choice)] for row, choice in enumerate(dear)]
        assert point.cost == pytest.approx((np.mean(cost[:2]) + cost[2]) / 2)
        assert point.quality == pytest.approx((np.mean(quality[:2]) + quality[2]) / 2)
    assert len({point.cost for point in points}) == 4
    assert [point.weight for point in points] == sorted(point.weight for point in points)


def test_an_unknown_outcome_is_left_out_of_both(records):
    records.known[2, 1] = False
    records.costs[2, 1] = np.nan  # no record, so no cost is needed
    point = cost_sweep(PROBABILITIES, setting_of(records))[0]
    assert (point.cost, point.quality) == ((7 + 9) / 2, (0 + 1) / 2)


def test_a_column_order_of_its_own(records):
    """Prices are found by name: the zoo may have other columns than train."""
    setting = setting_of(records)
    one = setting._replace(test=setting.test.filter(candidates="dear"))
    assert cost_sweep(PROBABILITIES[:, 1:], one) == [CostPoint(0.0, 7.5, 0.75)]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (PROBABILITIES - 1, r"scores go from -0\.9 to -0\.1, but .* log-odds"),
        (PROBABILITIES * np.nan, "log-odds"),
        (PROBABILITIES[:, :1], r"shape \(3, 1\), but 'records' has 3 test instructions x 2 candidates"),
    ],
)
def test_scores_that_are_no_probabilities(records, scores, message):
    with pytest.raises(SatlightError, match=message):
        cost_sweep(scores, setting_of(records))


def test_costs_that_are_not_known(records):
    with pytest.raises(SatlightError, match=r"'records' has no costs\. Use records with a column cost_usd"):
        cost_sweep(PROBABILITIES, setting_of(replace(records, costs=None)))
    unpriced = replace(records, costs=records.costs.copy())
    unpriced.costs[4, 0] = np.nan
    with pytest.raises(SatlightError, match="1 of 6 records have no usable cost"):
        cost_sweep(PROBABILITIES, setting_of(unpriced))
    absent = replace(records, known=records.known.copy())
    absent.known[:2, 1] = False
    with pytest.raises(SatlightError, match="No cost of 'dear' is known on train"):
        cost_sweep(PROBABILITIES, setting_of(absent))
