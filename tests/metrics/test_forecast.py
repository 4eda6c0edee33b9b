"""Forecast metrics against scikit-learn and a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from satlight.metrics import forecast

KNOWN_4 = torch.ones(1, 4, dtype=torch.bool)


@pytest.fixture
def cells():
    g = torch.Generator().manual_seed(0)
    score = (2 * torch.randn(60, 5, generator=g)).round(decimals=1)  # rounded, so that scores tie
    outcome = (torch.rand(60, 5, generator=g) < torch.sigmoid(score - 0.3)).float()
    known = torch.rand(60, 5, generator=g) < 0.8
    outcome[~known] = float("nan")
    return score, outcome, known


def flat(score, outcome, known):
    return outcome[known].numpy(), torch.sigmoid(score[known].double()).numpy()


def test_brier_score_equals_scikit_learn(cells):
    assert forecast.brier_score(*cells).item() == pytest.approx(sk.brier_score_loss(*flat(*cells)), rel=1e-5)


def test_log_loss_equals_scikit_learn(cells):
    assert forecast.forecast_log_loss(*cells).item() == pytest.approx(sk.log_loss(*flat(*cells)), rel=1e-5)


def test_auroc_equals_scikit_learn_with_ties(cells):
    assert forecast.forecast_auroc(*cells).item() == pytest.approx(sk.roc_auc_score(*flat(*cells)), rel=1e-9)


def test_accuracy_equals_scikit_learn(cells):
    truth, probability = flat(*cells)
    assert forecast.forecast_accuracy(*cells).item() == pytest.approx(sk.accuracy_score(truth, probability > 0.5))


def test_calibration_error_equals_loop(cells):
    truth, probability = flat(*cells)
    total = 0.0
    for k in range(15):
        inside = (probability >= k / 15) & (probability < (k + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(probability[inside].mean() - truth[inside].mean())
    assert forecast.expected_calibration_error(*cells).item() == pytest.approx(total, rel=1e-4)
    assert total > 0.02


def test_calibration_bins_hold_the_extremes():
    score = torch.tensor([[-200.0, 0.0, 200.0, 200.0]])
    _, outcome, count = forecast.calibration_bins(score, torch.ones(1, 4), KNOWN_4, bins=4)
    assert count.tolist() == [1, 0, 1, 2]
    assert outcome.tolist() == [1, 0, 1, 2]


def test_reliability_bins_equal_scikit_learn(cells):
    cells = (cells[0] + 0.01, *cells[1:])  # off the edge at 0.5, which scikit-learn puts into the lower bin
    truth, probability = flat(*cells)
    bins = forecast.reliability_bins(*cells, bins=10)
    accuracy, confidence = calibration_curve(truth, probability, n_bins=10)  # leaves out empty bins
    filled = [b for b in bins if b.count]
    assert [b.accuracy for b in filled] == pytest.approx(accuracy.tolist(), rel=1e-5)
    assert [b.confidence for b in filled] == pytest.approx(confidence.tolist(), rel=1e-5)
    assert [(b.low, b.high) for b in bins] == [(k / 10, (k + 1) / 10) for k in range(10)]
    assert sum(b.count for b in bins) == len(truth)
    ece = sum(b.count * abs(b.accuracy - b.confidence) for b in filled) / len(truth)
    assert forecast.expected_calibration_error(*cells, bins=10).item() == pytest.approx(ece, rel=1e-5)


def test_an_empty_reliability_bin_has_no_accuracy():
    low, high = forecast.reliability_bins(torch.full((1, 4), 2.0), torch.ones(1, 4), KNOWN_4, bins=2)
    assert (low.count, high.count, high.accuracy) == (0, 4, 1.0)
    assert math.isnan(low.accuracy)
    assert math.isnan(low.confidence)


def test_soft_outcomes_count_as_that_many_samples():
    score = torch.tensor([[1.0, -0.5, 0.3, 0.3]])
    soft = torch.tensor([[0.9, 0.2, 0.5, 0.1]])
    truth = np.concatenate([[1] * round(10 * t) + [0] * (10 - round(10 * t)) for t in soft[0].tolist()])
    repeated = np.repeat(score[0].numpy(), 10)
    auroc = forecast.forecast_auroc(score, soft, KNOWN_4).item()
    accuracy = forecast.forecast_accuracy(score, soft, KNOWN_4).item()
    log_loss = forecast.forecast_log_loss(score, soft, KNOWN_4).item()
    assert auroc == pytest.approx(sk.roc_auc_score(truth, repeated))
    assert accuracy == pytest.approx(sk.accuracy_score(truth, repeated > 0))
    assert log_loss == pytest.approx(sk.log_loss(truth, 1 / (1 + np.exp(-repeated))), rel=1e-5)


@pytest.mark.parametrize(
    "metric",
    [
        forecast.brier_score,
        forecast.expected_calibration_error,
        forecast.forecast_accuracy,
        forecast.forecast_auroc,
        forecast.forecast_log_loss,
    ],
)
def test_nothing_known_is_nan(metric):
    assert math.isnan(metric(torch.zeros(1, 4), torch.ones(1, 4), ~KNOWN_4).item())


def test_auroc_of_one_class_is_nan():
    assert math.isnan(forecast.forecast_auroc(torch.randn(1, 4), torch.ones(1, 4), KNOWN_4).item())
