"""Temperature scaling against scikit-learn, a hand-computed case, and bad input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from satlight.errors import SatlightError
from satlight.metrics.calibration import LIMITS, MAX_BIAS, Temperature, fit_candidates, fit_temperature
from satlight.metrics.forecast import expected_calibration_error, forecast_log_loss

ALL = torch.ones(1, 4, dtype=torch.bool)


@pytest.fixture
def cells():
    """Scores twice too large and 0.7 too high, a fifth of the cells unknown (and NaN, to be sure)."""
    g = torch.Generator().manual_seed(0)
    truth = torch.randn(400, 5, generator=g)
    outcome = (torch.rand(400, 5, generator=g) < truth.sigmoid()).float()
    known = torch.rand(400, 5, generator=g) < 0.8
    outcome[~known] = float("nan")
    return 2 * truth + 0.7, outcome, known


def test_it_is_logistic_regression_on_the_score(cells):
    score, outcome, known = cells
    fitted = fit_temperature(*cells)
    reference = LogisticRegression(C=np.inf, tol=1e-10).fit(score[known].numpy()[:, None], outcome[known].numpy())
    assert 1 / fitted.temperature == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    assert fitted.bias == pytest.approx(reference.intercept_[0], abs=1e-4)


def test_without_bias_it_is_logistic_regression_through_the_origin(cells):
    score, outcome, known = cells
    fitted = fit_temperature(*cells, with_bias=False)
    reference = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-10)
    reference.fit(score[known].numpy()[:, None], outcome[known].numpy())
    assert 1 / fitted.temperature == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    assert fitted.bias == 0


def test_it_lowers_loss_and_calibration_error_and_keeps_the_order(cells):
    score, outcome, known = cells
    calibrated = fit_temperature(*cells).apply(score)
    assert forecast_log_loss(calibrated, outcome, known) < forecast_log_loss(*cells) - 0.05
    assert expected_calibration_error(calibrated, outcome, known) < expected_calibration_error(*cells) / 3
    assert torch.equal(calibrated.argsort(dim=1), score.argsort(dim=1))


def test_soft_outcomes_count_in_parts():
    score = torch.tensor([[2.0, 2.0, -2.0, -2.0]])
    soft = fit_temperature(score, torch.tensor([[0.8, 0.8, 0.3, 0.3]]), ALL)
    # Two points, two parameters: sigmoid(±2 / T + b) is 0.8 and 0.3.
    upper, lower = np.log(0.8 / 0.2), np.log(0.3 / 0.7)
    assert soft.temperature == pytest.approx(4 / (upper - lower), rel=1e-4)
    assert soft.bias == pytest.approx((upper + lower) / 2, abs=1e-4)


def test_scores_that_mislead_end_at_the_base_rate():
    fitted = fit_temperature(torch.tensor([[3.0, 3.0, -3.0, -3.0]]), torch.tensor([[0.0, 0.0, 1.0, 0.0]]), ALL)
    assert fitted.temperature == LIMITS[1]  # never negative: the order of candidates is not the fit's to turn
    assert fitted.apply(torch.zeros(1)).sigmoid().item() == pytest.approx(0.25, abs=0.01)


def test_outcomes_without_variety_stay_finite():
    fitted = fit_temperature(torch.tensor([[1.0, -1.0, 1.0, 2.0]]), torch.ones(1, 4), ALL)
    assert LIMITS[0] <= fitted.temperature <= LIMITS[1]
    assert fitted.bias <= MAX_BIAS
    assert (fitted.apply(torch.tensor([1.0, -1.0, 1.0, 2.0])).sigmoid() > 0.99).all()


@pytest.fixture
def columns():
    """Scores of three candidates with another slope and bias each; the last one has three cells."""
    g = torch.Generator().manual_seed(0)
    truth, column = torch.randn(40003, generator=g), torch.arange(40003) % 2
    column[40000:] = 2
    outcome = (torch.rand(40003, generator=g) < truth.sigmoid()).float()
    slope, bias = torch.tensor([1.0, 4.0, 1.0]), torch.tensor([0.5, -2.0, 0.0])
    return slope[column] * truth + bias[column], outcome, column


def test_each_candidate_gets_its_own_slope_and_bias(columns):
    score, outcome, column = columns
    fitted = fit_candidates(*columns, ("plain", "loud", "rare", "absent"))
    assert set(fitted.candidates) == {"plain", "loud", "rare"}
    for m, name in enumerate(("plain", "loud")):
        mine = column == m
        alone = LogisticRegression(C=np.inf).fit(score[mine].numpy()[:, None], outcome[mine].numpy())
        own = fitted.candidates[name]
        assert 1 / own.temperature == pytest.approx(alone.coef_[0, 0], rel=0.05)
        assert own.bias == pytest.approx(alone.intercept_[0], abs=0.05)
    # In standardized scores, three cells hardly move a candidate from the mean of the slopes.
    slopes = [1 / own.temperature for own in fitted.candidates.values()]
    assert slopes[2] == pytest.approx((slopes[0] + slopes[1]) / 2, abs=0.05)


def test_the_calibration_of_all_is_that_without_candidates(columns):
    score, outcome, _ = columns
    total = fit_temperature(score, outcome, torch.ones_like(score, dtype=torch.bool))
    fitted = fit_candidates(*columns, ("a", "b", "c"))
    assert (fitted.temperature, fitted.bias) == (total.temperature, total.bias)


def test_it_is_applied_by_name_and_to_others_as_to_all():
    calibration = Temperature(2.0, 1.0, {"b": Temperature(1.0, -1.0)})
    assert calibration.apply(np.array([[4.0, 4.0, 4.0]]), ("a", "b", "new")).tolist() == [[3.0, 3.0, 3.0]]
    assert calibration.apply(np.array([[4.0, 2.0]]), ("b", "a")).tolist() == [[3.0, 2.0]]
    assert calibration.apply(4.0) == 3.0


def test_bad_input_is_refused():
    with pytest.raises(SatlightError, match="no outcome is known; pass validation rows"):
        fit_temperature(torch.zeros(1, 4), torch.zeros(1, 4), ~ALL)
    with pytest.raises(SatlightError, match="1 of 4 scores are not finite"):
        fit_temperature(torch.tensor([[0.0, 1.0, np.inf, 2.0]]), torch.zeros(1, 4), ALL)
    with pytest.raises(SatlightError, match=r"temperature is 0\.0 and bias is 1\.0"):
        Temperature(0.0, 1.0)
