"""The torchmetrics classes: batch by batch, and over devices, they equal the functions on everything."""

from __future__ import annotations

import pytest
import torch

from satlight import metrics
from satlight.errors import SatlightError
from satlight.metrics import CalibrationError, RoutedAccuracy, forecast, functional


@pytest.fixture
def matrix():
    g = torch.Generator().manual_seed(0)
    score, known = torch.randn(40, 4, generator=g), torch.rand(40, 4, generator=g) < 0.8
    outcome = (torch.rand(40, 4, generator=g) < 0.5).float()
    group = torch.tensor([0] * 25 + [3] * 10 + [5] * 5)
    return score, outcome, known, group


def updated(metric, tensors, start=0, stop=None, step=7):
    for i in range(start, stop or len(tensors[0]), step):
        metric.update(*(x[i : min(i + step, stop or len(x))] for x in tensors))
    return metric


def macro_by_hand(score, outcome, known, group):
    per_group = [functional.routed_accuracy(*(x[group == g] for x in (score, outcome, known))) for g in group.unique()]
    return torch.stack(per_group).mean()


def test_macro_accumulates_to_the_mean_over_groups(matrix):
    metric = updated(RoutedAccuracy(), matrix)
    torch.testing.assert_close(metric.compute(), macro_by_hand(*matrix))
    routed_known = functional.outcomes_of(functional.choose(matrix[0]), matrix[1], matrix[2])[1]
    assert metric.counts()[0].item() == routed_known[:25].sum().item()
    assert metric.counts().sum().item() == routed_known.sum().item() < 40


def test_micro_accumulates_to_the_mean_over_instructions(matrix):
    metric = updated(RoutedAccuracy(average="micro"), matrix)
    torch.testing.assert_close(metric.compute(), functional.routed_accuracy(*matrix[:3]))


def test_groups_may_be_left_out(matrix):
    metric = updated(RoutedAccuracy(), matrix[:3])
    torch.testing.assert_close(metric.compute(), functional.routed_accuracy(*matrix[:3]))


def test_calibration_error_accumulates(matrix):
    metric = updated(CalibrationError(bins=10), matrix[:3])
    torch.testing.assert_close(metric.compute(), forecast.expected_calibration_error(*matrix[:3], bins=10))


@pytest.mark.parametrize(("build", "width"), [(RoutedAccuracy, 4), (CalibrationError, 3)])
def test_two_devices_add_up(matrix, build, width):
    tensors = matrix[:width]
    # The devices see different groups: the second has all of group 5, the first none of it.
    first, second = updated(build(), tensors, stop=23), updated(build(), tensors, start=23)
    first.merge_state(second)
    torch.testing.assert_close(first.compute(), updated(build(), tensors).compute())


def test_reset_forgets(matrix):
    metric = updated(RoutedAccuracy(), matrix)
    metric.reset()
    assert metric.count.sum().item() == 0


def test_half_precision_scores_are_accepted(matrix):
    metric = RoutedAccuracy()
    metric.update(matrix[0].bfloat16(), *matrix[1:])
    CalibrationError().update(matrix[0].bfloat16(), *matrix[1:3])
    assert 0 < metric.compute().item() < 1


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: RoutedAccuracy(average="weighted"), "average is 'weighted'; allowed are 'macro' and 'micro'"),
        (lambda: CalibrationError(bins=0), "bins is 0; it must be 1 or more"),
    ],
)
def test_bad_settings_say_what_is_allowed(act, message):
    with pytest.raises(SatlightError, match=message):
        act()


def test_too_many_groups_say_which_setting_to_raise(matrix):
    with pytest.raises(SatlightError, match="got group number 5, but num_groups is 3; raise num_groups"):
        RoutedAccuracy(num_groups=3).update(*matrix)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="has no attribute 'RoutedAcuracy'"):
        _ = metrics.RoutedAcuracy
