"""Costs, trade-off curves, hull, AIQ, zero router, nAUC, QNC: hand-computed, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import ConvexHull

from satlight.errors import SatlightError
from satlight.metrics import cost as C
from satlight.metrics import curves
from satlight.metrics.functional import choose

NAN = float("nan")
ALL_4x2 = torch.ones(4, 2, dtype=torch.bool)


def zoo(n=200, m=4, seed=0, unknown=0.0):
    """Outcomes, mask and costs in which dear candidates are better, with item-to-item spread."""
    g = torch.Generator().manual_seed(seed)
    outcome = (torch.rand(n, m, generator=g) < torch.linspace(0.3, 0.8, m)).float()
    known = torch.rand(n, m, generator=g) >= unknown
    cost = (1 + torch.arange(m)) ** 2 * (0.5 + torch.rand(n, m, generator=g))
    return outcome, known, torch.where(known, cost, NAN)


# -- costs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("price", [NAN, -0.1, float("inf")])
def test_an_unknown_price_is_an_error_that_names_the_record(price):
    cost = torch.tensor([[1.0, 2.0], [3.0, price]])
    with pytest.raises(SatlightError, match=r"1 of 4 records have no usable cost, the first in row 1 and column 1"):
        C.checked_costs(cost, torch.ones(2, 2, dtype=torch.bool))


def test_a_cell_without_a_record_needs_no_price():
    cost, known = torch.tensor([[1.0, NAN], [3.0, 4.0]]), torch.tensor([[True, False], [True, True]])
    assert C.checked_costs(cost, known).tolist() == [[1, 0], [3, 4]]
    assert C.mean_cost(torch.tensor([1, 1]), cost, known).item() == 4.0  # the first choice has no record
    assert C.mean_cost(torch.tensor([-1, 0]), cost, known).item() == 3.0
    assert math.isnan(C.mean_cost(torch.tensor([-1, -1]), cost, known))


def test_single_points_and_bounds_mask_what_is_unknown():
    outcome, cost = torch.tensor([[1.0, NAN], [0.0, 1.0]]), torch.tensor([[1.0, NAN], [3.0, 5.0]])
    known = torch.tensor([[True, False], [True, True]])
    assert [x.tolist() for x in C.single_points(outcome, known, cost)] == [[2, 5], [0.5, 1]]
    assert C.cost_bounds(cost, known) == (2.0, 3.0)
    assert C.cheapest_choices(cost, known).tolist() == [0, 0]
    nobody = torch.zeros(1, 2, dtype=torch.bool)
    assert C.cheapest_choices(cost[:1], nobody).tolist() == [-1]
    assert math.isnan(C.cost_bounds(cost[:1], nobody)[0])


# -- trade-off ---------------------------------------------------------------------------------------------


def test_curve_runs_from_the_router_to_the_cheapest_candidate():
    outcome, known, cost = zoo()
    price = C.single_points(outcome, known, cost)[0]
    score = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    cost_P, quality_P = C.trade_off_curve(score.sigmoid(), price, outcome, known, cost)
    routed = C.policy_point(choose(score), outcome, known, cost)
    assert (cost_P[0].item(), quality_P[0].item()) == pytest.approx([x.item() for x in routed])
    assert cost_P[-1].item() == pytest.approx(price[0].item())
    assert len(cost_P) > 20
    assert (cost_P.diff() <= 1e-9).float().mean() > 0.9


def test_equal_prices_leave_nothing_to_trade():
    outcome, known, _ = zoo()
    curve = C.trade_off_curve(torch.rand(200, 4), torch.full((4,), 2.0), outcome, known, torch.full((200, 4), 2.0))
    assert curve[0].tolist() == [2.0]


def test_a_missing_price_is_an_error():
    outcome, known, cost = zoo()
    with pytest.raises(SatlightError, match="1 of 4 prices are not finite numbers"):
        C.trade_off_curve(torch.rand(200, 4), torch.tensor([1.0, 2.0, NAN, 3.0]), outcome, known, cost)


# -- hull and AIQ ------------------------------------------------------------------------------------------


def test_hull_of_a_hand_made_case():
    # (3, 0.4) lies under the line from (1, 0.2) to (4, 0.8); (6, 0.7) is dearer and worse than (4, 0.8).
    hull = curves.non_decreasing_hull(
        torch.tensor([6.0, 1.0, 3.0, 4.0, 1.0, NAN]), torch.tensor([0.7, 0.2, 0.4, 0.8, 0.1, 0.9])
    )
    assert hull[0].tolist() == [1, 4]
    assert hull[1].tolist() == pytest.approx([0.2, 0.8])


def test_points_on_a_line_need_no_corner():
    hull = curves.non_decreasing_hull(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.25, 0.5, 0.75]))
    assert hull[0].tolist() == [1, 3]


@pytest.mark.parametrize("seed", range(5))
def test_hull_agrees_with_scipy(seed):
    points = np.random.default_rng(seed).random((40, 2))
    cost_H, quality_H = curves.non_decreasing_hull(*torch.tensor(points).T)
    # The upper side of scipy's hull, up to the best point; two points far below leave only that side.
    floor = [[points[:, 0].min(), -1.0], [points[:, 0].max(), -1.0]]
    vertices = ConvexHull(np.vstack([points, floor])).vertices
    corners = points[vertices[vertices < 40]]
    corners = corners[corners[:, 0].argsort()]
    corners = corners[: corners[:, 1].argmax() + 1]
    assert cost_H.tolist() == pytest.approx(corners[:, 0].tolist())
    assert quality_H.tolist() == pytest.approx(corners[:, 1].tolist())


def test_aiq_is_the_mean_height_between_the_bounds():
    cost, quality = torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.0])
    assert curves.aiq(cost, quality).item() == 0.75
    assert curves.aiq(cost, quality, high=5.0).item() == 0.875  # flat after the best policy
    assert curves.aiq(cost, quality, low=2.0, high=3.0).item() == 0.875
    assert curves.aiq(cost, quality, low=2.0, high=2.0).item() == 0.75


def test_aiq_where_everything_costs_the_same_is_the_best_quality():
    assert curves.aiq(torch.tensor([2.0, 2.0]), torch.tensor([0.4, 0.7])).item() == pytest.approx(0.7)
    assert curves.aiq(torch.tensor([0.0]), torch.tensor([0.25])).item() == 0.25
    assert math.isnan(curves.aiq(torch.tensor([NAN]), torch.tensor([NAN])))


def test_aiq_below_the_cheapest_policy_is_an_error():
    with pytest.raises(SatlightError, match=r"lower bound 0.5 is below the cheapest policy, which costs 1.0"):
        curves.aiq(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.0]), low=0.5)
    with pytest.raises(SatlightError, match=r"lower bound 3.0 is above the upper bound 2.0"):
        curves.aiq(torch.tensor([1.0, 3.0]), torch.tensor([0.5, 1.0]), low=3.0, high=2.0)


@pytest.mark.parametrize("seed", range(3))
def test_oracle_is_above_the_zero_router(seed):
    outcome, known, cost = zoo(seed=seed)
    single = C.single_points(outcome, known, cost)
    low, high = single[0].min().item(), single[0].max().item()
    oracle = C.trade_off_curve(outcome, cost, outcome, known, cost)
    zero = curves.aiq(*single, low=low, high=high).item()
    assert curves.aiq(*oracle, low=low, high=high).item() > zero
    assert curves.aiq(single[0][:2], single[1][:2], low=low, high=high).item() <= zero


def test_the_hull_is_above_every_policy_and_unmoved_by_worse_ones():
    outcome, known, cost = zoo()
    single = C.single_points(outcome, known, cost)
    hull = curves.non_decreasing_hull(*single)
    assert all(curves.quality_at(hull, c) >= q - 1e-12 for c, q in zip(*(x.tolist() for x in single), strict=True))
    worse = C.with_point(single, (single[0].max() + 1, single[1].min()))
    assert [x.tolist() for x in curves.non_decreasing_hull(*worse)] == [x.tolist() for x in hull]
    assert math.isnan(curves.quality_at(hull, single[0].min().item() - 1e-3))


# -- zero router -------------------------------------------------------------------------------------------

COST_M, QUALITY_M = torch.tensor([1.0, 2.0, 3.0, 9.0]), torch.tensor([0.2, 0.3, 0.8, 0.7])


@pytest.mark.parametrize(
    ("cost", "shares"),
    [
        (0.1, [1, 0, 0, 0]),  # nothing is as cheap as that
        (1.0, [1, 0, 0, 0]),
        (1.5, [0.75, 0, 0.25, 0]),  # the second candidate lies below the line from the first to the third
        (3.0, [0, 0, 1, 0]),
        (8.0, [0, 0, 1, 0]),  # the fourth is dearer and worse
    ],
)
def test_zero_router_mixes_neighbouring_corners(cost, shares):
    assert curves.zero_router_shares(COST_M, QUALITY_M, cost).tolist() == pytest.approx(shares)


def test_zero_router_spends_the_cost_and_reaches_the_hull():
    outcome, known, cost = zoo()
    cost_M, quality_M = C.single_points(outcome, known, cost)
    hull = curves.non_decreasing_hull(cost_M, quality_M)
    for target in torch.linspace(float(cost_M.min()), float(hull[0][-1]), 9).tolist():
        share_M = curves.zero_router_shares(cost_M, quality_M, target)
        assert share_M.sum().item() == pytest.approx(1)
        assert (share_M * cost_M).sum().item() == pytest.approx(target, rel=1e-5)
        assert (share_M * quality_M).sum().item() == pytest.approx(curves.quality_at(hull, target), rel=1e-5)


def test_zero_router_with_one_candidate_or_none_or_no_costs():
    one = torch.tensor([2.0])
    assert curves.zero_router_shares(one, torch.tensor([0.4]), 5.0).tolist() == [1]
    assert curves.zero_router_shares(one, torch.tensor([0.4]), float("nan")).isnan().all()
    assert curves.zero_router_shares(torch.tensor([NAN, 1.0]), torch.tensor([NAN, 0.5]), 1.0).tolist() == [0, 1]
    assert curves.zero_router_shares(one * NAN, one * NAN, 1.0).isnan().all()
    assert curves.zero_router_shares(torch.zeros(2), torch.tensor([0.4, 0.7]), 0.0).tolist() == [0, 1]


# -- nAUC and QNC ------------------------------------------------------------------------------------------


def test_nauc_joins_the_pareto_front():
    # (2, 0.25) stays, though it lies under the line from (1, 0) to (3, 1); (2.5, 0.2) is dominated.
    cost, quality = torch.tensor([1.0, 2.0, 2.5, 3.0]), torch.tensor([0.0, 0.25, 0.2, 1.0])
    assert curves.nauc(cost, quality, 1.0, 3.0).item() == pytest.approx((0.125 + 0.625) / 2)
    assert curves.nauc(cost, quality, 1.0, 5.0).item() == pytest.approx((0.125 + 0.625 + 2) / 4)
    assert curves.nauc(cost, quality, 1.0, 3.0) < curves.aiq(cost, quality, 1.0, 3.0)


def test_nauc_of_equal_costs_and_of_nothing():
    assert curves.nauc(torch.tensor([2.0, 2.0]), torch.tensor([0.4, 0.7]), 2.0, 2.0).item() == pytest.approx(0.7)
    assert math.isnan(curves.nauc(torch.tensor([NAN]), torch.tensor([0.5]), 0.0, 1.0))
    with pytest.raises(SatlightError, match=r"nAUC: the lower bound 1.0 is below the cheapest policy"):
        curves.nauc(torch.tensor([2.0]), torch.tensor([0.4]), 1.0, 2.0)


def test_qnc_is_the_cheapest_way_to_a_quality():
    cost, quality = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.8, 0.9])
    assert curves.qnc(cost, quality, 0.8, 4.0).item() == pytest.approx(0.5)
    assert curves.qnc(cost, quality, 0.85, 4.0).item() == pytest.approx(0.75)
    assert math.isnan(curves.qnc(cost, quality, 0.95, 4.0))
    assert math.isnan(curves.qnc(cost, quality, 0.5, 0.0))  # nothing is cheaper than free
