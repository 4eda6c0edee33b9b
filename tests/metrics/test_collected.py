"""The collecting torchmetrics classes: batch by batch they equal the functions on everything."""

from __future__ import annotations

import inspect
import math
import pickle

import pytest
import torch
from jsonargparse import ArgumentParser

from satlight import metrics
from satlight.errors import SatlightError
from satlight.metrics import cost, curves, forecast, functional, selection, strong_weak

CPT = {"weak": 0, "strong": 2, "share": 0.5}
PRICE = torch.tensor([1.0, 2.0, 5.0])


@pytest.fixture
def matrix():
    g = torch.Generator().manual_seed(0)
    score, known = torch.randn(40, 3, generator=g), torch.rand(40, 3, generator=g) < 0.9
    outcome = (torch.rand(40, 3, generator=g) < torch.tensor([0.4, 0.5, 0.8])).float()
    return score, outcome, known, torch.tensor([0] * 25 + [3] * 15), PRICE * torch.rand(40, 3, generator=g)


def expected(matrix):
    score, outcome, known, group, price = matrix
    choice = functional.choose(score)
    pair = (score[:, 2] - score[:, 0], outcome[:, 0], outcome[:, 2], known[:, 0] & known[:, 2])
    single = cost.single_points(outcome, known, price)
    curve = cost.router_curve(score, PRICE, outcome, known, price)
    cheapest = cost.policy_point(cost.cheapest_choices(price, known), outcome, known, price)
    return {
        "ForecastAccuracy": ((), forecast.forecast_accuracy(score, outcome, known)),
        "ForecastAUROC": ((), forecast.forecast_auroc(score, outcome, known)),
        "ForecastLogLoss": ((), forecast.forecast_log_loss(score, outcome, known)),
        "BrierScore": ((), forecast.brier_score(score, outcome, known)),
        "AccuracyRatio": ((0.5,), functional.routed_accuracy(score, outcome, known) / 0.5),
        "GainAtR": ((), selection.gain_at_r(score, outcome, known, group)),
        "GainAtB": ((2,), selection.gain_at_b(score, outcome, known, 2, group)),
        "GapAtO": ((), selection.gap_at_o(score, outcome, known, group)),
        "SelectionEntropy": ((), selection.selection_entropy(choice, 3)),
        "RareSolverRecall": ((1,), selection.rare_solver_recall(choice, outcome, known, 1)),
        "APGR": ((0, 2), strong_weak.apgr(*pair)),
        "CPT": ((0, 2, 0.5), strong_weak.cpt(*pair, share=0.5)),
        "MeanCost": ((), cost.mean_cost(choice, price, known)),
        "RoutingCollapse": ((), selection.routing_collapse(choice, outcome, known, price)),
        "AIQ": ((PRICE,), curves.aiq(*curve, single[0].min().item(), single[0].max().item())),
        "NAUC": ((PRICE,), curves.nauc(*cost.with_point(curve, cheapest), *cost.cost_bounds(price, known))),
        "QNC": ((PRICE, 1), curves.qnc(*curve, single[1][1].item(), single[0][1].item())),
    }


def test_every_class_equals_its_function(matrix):
    cases = expected(matrix)
    assert set(cases) == set(metrics.__all__) - {"RoutedAccuracy", "CalibrationError"}
    for name, (arguments, value) in cases.items():
        metric = getattr(metrics, name)(*arguments)
        for start in range(0, 40, 7):
            metric.update(*(x[start : start + 7] for x in matrix))
        assert not math.isnan(value), name
        torch.testing.assert_close(metric.compute().double(), value.double(), msg=name)


def test_signatures_are_those_of_the_functions_settings():
    assert str(inspect.signature(metrics.RareSolverRecall)) == "(at_most: int = 3) -> None"
    assert str(inspect.signature(metrics.QNC)) == "(price: torch.Tensor, best: int) -> None"
    with pytest.raises(TypeError, match="missing a required argument: 'best'"):
        metrics.GainAtB(beste=1)


def test_pickled_metrics_keep_settings_and_blocks(matrix):
    metric = metrics.QNC(PRICE, best=1)
    metric.update(*matrix)
    copy = pickle.loads(pickle.dumps(metric))
    assert copy.best == 1
    torch.testing.assert_close(copy.compute(), metric.compute())


def test_a_config_names_a_metric_and_its_settings():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(metrics.collected.MatrixMetric, "metric")
    config = parser.parse_object({"metric": {"class_path": "satlight.metrics.CPT", "init_args": CPT}})
    assert config.metric.init_args.share == 0.5


def test_two_devices_gather(matrix):
    first, second = metrics.GainAtR(), metrics.GainAtR()
    first.update(*(x[:30] for x in matrix[:4]))
    second.update(*(x[30:] for x in matrix[:4]))
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), selection.gain_at_r(*matrix[:4]))


def test_nothing_seen_is_nan_and_reset_forgets(matrix):
    metric = metrics.SelectionEntropy()
    metric.update(*matrix[:3])
    metric.reset()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert math.isnan(metric.compute())


def test_half_precision_is_accepted_and_groups_may_be_left_out(matrix):
    metric = metrics.GainAtR()
    metric.update(matrix[0].bfloat16(), *matrix[1:3])
    torch.testing.assert_close(metric.compute(), selection.gain_at_r(matrix[0].bfloat16().float(), *matrix[1:3]))


@pytest.mark.parametrize("build", [metrics.MeanCost, metrics.RoutingCollapse, lambda: metrics.AIQ(PRICE)])
def test_costs_are_demanded(build, matrix):
    with pytest.raises(SatlightError, match=r"update got no cost_BC; it measures costs"):
        build().update(*matrix[:4])


def test_an_unknown_price_is_an_error(matrix):
    metric = metrics.MeanCost()
    metric.update(*matrix[:4], torch.full((40, 3), torch.nan))
    with pytest.raises(SatlightError, match="have no usable cost"):
        metric.compute()
