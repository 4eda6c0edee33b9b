"""Plots: the artists that their data call for, axes with units, intervals drawn."""

import io

import matplotlib
import matplotlib.colors
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer

from satlight.evaluation import plots
from satlight.evaluation.plots import Estimate

ONE = Estimate(50, 45, 55)


def points():
    accuracy = {"knn": {"math": ONE, "code": Estimate(40, 30, 60, (38, 42))}, "mlp": {"math": ONE}}
    return plots.dataset_points(accuracy, {"best single": {"math": 48.0, "code": 39.0}})


def cost():
    curves = {"knn": ([2.0, 0.5, 1.0], [80.0, 40.0, 70.0])}
    singles = {"org/small": (0.5, 40.0), "org/twin": (0.501, 40.1), "org/large": (4.0, 82.0)}
    return plots.quality_cost(curves, singles, ([0.5, 4.0], [40.0, 82.0]), (1.0, 95.0))


def release():
    curves = {"knn": [ONE, Estimate(60, 58, 62)], "random": [Estimate(30), Estimate(31)]}
    return plots.curves_over(["2024-01 a", "2024-02 b"], curves, xlabel="release", controls=["random"])


def diagram():
    return plots.reliability({"knn": [(0.2, 0.3, 10), (0.8, 0.7, 40)]})


def heatmap():
    return plots.choice_heatmap(np.array([[0.25, 0.75], [0.0, 1.0]]), ["math", "code"], ["org/a", "org/b"])


ALL = (points, cost, release, diagram, heatmap)


@pytest.mark.parametrize("make", ALL)
def test_every_plot_can_be_saved_and_has_labelled_axes(make):
    figure = make()
    axes = figure.axes[0]
    if make is not heatmap:  # whose axes are names
        assert axes.get_ylabel()
    for kind in ("png", "svg"):
        figure.savefig(io.BytesIO(), format=kind)


def test_points_have_intervals_and_seeds_and_controls_are_lines():
    (axes,) = points().axes
    knn, mlp = (container for container in axes.containers if isinstance(container, ErrorbarContainer))
    assert knn[0].get_ydata().tolist() == [50, 40]
    assert np.isnan(mlp[0].get_ydata()[1])  # mlp has nothing on code
    assert [segment[:, 1].tolist() for segment in knn[2][0].get_segments()] == [[45, 55], [30, 60]]
    lines = [c for c in axes.collections if c.get_label() == "best single"]
    assert [segment[0][1] for segment in lines[0].get_segments()] == [48, 39]
    (seeds,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    assert seeds.get_offsets()[:, 1].tolist() == [38, 42]
    assert "%" in axes.get_ylabel()
    assert not axes.patches  # no bars, whose length would mislead where the axis does not start at 0


def test_a_point_without_an_interval_has_no_whisker():
    figure = plots.dataset_points({"knn": {"math": Estimate(52)}, "mlp": {"math": Estimate(55, 50, 60)}})
    (axes,) = figure.axes
    segments = [segment for lines in axes.collections for segment in lines.get_segments()]
    heights = [[end[1] for end in segment] for segment in segments if np.isfinite(segment).all() and len(segment)]
    assert heights == [[50, 60]]


@pytest.mark.parametrize("make", ALL)
def test_data_and_interval_stand_on_the_picture(make):
    figure = make()
    plots.entitle(figure, "RouterDC, all candidates: 7 candidates, 3 seeds", "95 % bootstrap interval")
    figure.savefig(io.BytesIO(), format="png")
    assert "RouterDC" in figure.get_suptitle()
    assert "95 % bootstrap interval" in figure.get_suptitle()


def test_costs_are_sorted_and_the_quality_end_is_marked():
    (axes,) = cost().axes
    curve, marker = axes.lines[:2]
    assert curve.get_xdata().tolist() == [0.5, 1.0, 2.0]
    assert (marker.get_xdata()[0], marker.get_ydata()[0]) == (2.0, 80.0)
    assert {line.get_label() for line in axes.lines} >= {"knn", "zero router (hull of singles)", "oracle"}
    assert "US dollars" in axes.get_xlabel()


def test_names_do_not_lie_on_each_other():
    (axes,) = cost().axes
    assert {text.get_text() for text in axes.texts} == {"small", "large"}  # corners of the hull first


def test_bands_are_drawn_for_routers_alone():
    (axes,) = release().axes
    assert len(axes.collections) == 1
    assert axes.lines[0].get_ydata().tolist() == [50, 60]
    assert axes.lines[1].get_color() == plots.CONTROL_COLOR
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2024-01 a", "2024-02 b"]


def test_markers_of_the_diagram_tell_the_number_of_cells():
    (axes,) = diagram().axes
    small, large = axes.collections[0].get_sizes()
    assert large == pytest.approx(68)
    assert small == pytest.approx(8 + 60 * 10 / 40)
    assert axes.collections[0].get_offsets().tolist() == [[0.2, 0.3], [0.8, 0.7]]


def test_heat_map_cells_hold_percentages_but_for_zeros():
    axes, bar = heatmap().axes
    assert [text.get_text() for text in axes.texts] == ["25", "75", "100"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]
    assert "%" in bar.get_ylabel()


def test_the_callers_style_is_left_alone():
    before = dict(matplotlib.rcParams)
    points()
    assert dict(matplotlib.rcParams) == before


def test_the_colours_can_be_told_apart_without_red_and_green():
    """Simulated deuteranopia (Machado et al. 2009): no two neighbours of the palette come close."""
    simulate = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    seen = np.array([matplotlib.colors.to_rgb(c) for c in plots.PALETTE[: plots_shown()]]) @ simulate.T
    distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert distance[~np.eye(len(seen), dtype=bool)].min() > 0.15


def plots_shown() -> int:
    from satlight.bench.figures import SHOWN

    return SHOWN
