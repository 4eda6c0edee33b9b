"""Temperature scaling: calibrate Pr(correct) after training; scores stay as they are.

Shape legend: N instructions, M candidates, and K known cells of the N × M matrix.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from satlight.errors import SatlightError
from satlight.types import Temperature

LIMITS = (0.01, 100.0)
"""Range of the search; uninformative scores end at the upper limit."""

MAX_BIAS = 20.0
"""Largest bias, in log-odds; reached only where every outcome is the same."""

STRENGTH = 16.0
"""Shrinkage of a candidate toward the calibration of all; chosen in experiments/calibration."""


def fit_temperature(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, *, with_bias: bool = True) -> Temperature:
    """Fit the temperature (and bias) with the lowest log loss, on *validation* rows.

    The loss is convex in 1 / temperature and bias, so the solution is unique where scores and outcomes vary.

    Args:
        score_NM: Log-odds (N, M), finite where known.
        outcome_NM: Outcomes (N, M) in [0, 1]; a soft one t counts as t right and 1 - t wrong.
        known_NM: bool (N, M), False where no record exists; such cells do not count.
        with_bias: False keeps the bias at 0.

    Returns:
        Temperature within :data:`LIMITS`, bias within ±:data:`MAX_BIAS`.

    Raises:
        SatlightError: No cell is known, or scores are not finite.

    Example:
        >>> import torch
        >>> score = torch.tensor([[4.0, 4.0, 4.0, 4.0, -4.0, -4.0, -4.0, -4.0]])  # 98 % sure, 75 % right
        >>> outcome = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0]])
        >>> fitted = fit_temperature(score, outcome, torch.ones(1, 8, dtype=torch.bool))
        >>> round(torch.sigmoid(fitted.apply(score))[0, 0].item(), 3)
        0.75

    Reference:
        [Guo et al. 2017, "On Calibration of Modern Neural Networks", §4.2]; with a bias it is Platt scaling
        of the score.
    """
    from scipy.optimize import minimize

    score = score_NM[known_NM].detach().double().cpu().numpy()
    outcome = outcome_NM[known_NM].detach().double().cpu().numpy()
    if not len(score):
        raise SatlightError("Cannot fit a temperature: no outcome is known; pass validation rows with records")
    if not np.isfinite(score).all():
        raise SatlightError(
            f"{(~np.isfinite(score)).sum()} of {len(score)} scores are not finite; scores are finite "
            "log-odds, so the router has diverged or overflowed"
        )

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, bias = parameters
        calibrated = slope * score + bias
        value = np.mean(np.logaddexp(0, calibrated) - outcome * calibrated)
        error = 0.5 * (1 + np.tanh(calibrated / 2)) - outcome  # sigmoid, without overflow
        return float(value), np.array([np.mean(error * score), np.mean(error)])

    limit = MAX_BIAS if with_bias else 0.0
    bounds = [(1 / LIMITS[1], 1 / LIMITS[0]), (-limit, limit)]
    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12)
    return Temperature(temperature=float(1 / found.x[0]), bias=float(found.x[1]))


def fit_candidates(score_K: Tensor, outcome_K: Tensor, column_K: Tensor, candidates: Sequence[str]) -> Temperature:
    """Fit temperature and bias of all, and of each candidate with shrinkage to their mean, on *validation* rows.

    The loss is the sum of the log losses plus :data:`STRENGTH` / 2 times the squared distances of the slopes and
    biases, for standardized scores, to their means over candidates: one with few cells gets nearly the mean.

    Args:
        score_K: Log-odds of the known cells.
        outcome_K: Their outcomes in [0, 1].
        column_K: int64, their candidates.
        candidates: M names.

    Returns:
        The calibration of all as in :func:`fit_temperature`, with one of each candidate that has a cell.

    Raises:
        SatlightError: No cell, or scores that are not finite.

    Example:
        >>> import torch
        >>> score, outcome = torch.tensor([2.0, -2.0] * 200), torch.tensor([1.0, 0.0, 0.0, 0.0] * 100)
        >>> fitted = fit_candidates(score, outcome, torch.arange(400) // 2 % 2, ("good", "poor"))
        >>> fitted.candidates["good"].bias > fitted.candidates["poor"].bias
        True
    """
    from scipy.optimize import minimize

    total = fit_temperature(score_K, outcome_K, torch.ones_like(score_K, dtype=torch.bool))
    score, outcome = (cells.detach().double().cpu().numpy() for cells in (score_K, outcome_K))
    middle, width = float(score.mean()), max(float(score.std()), 1e-6)
    x = (score - middle) / width
    seen, column = np.unique(column_K.cpu().numpy(), return_inverse=True)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        own_M2 = flat.reshape(-1, 2)
        calibrated = own_M2[column, 0] * x + own_M2[column, 1]
        apart_M2 = own_M2 - own_M2.mean(axis=0)
        value = np.sum(np.logaddexp(0, calibrated) - outcome * calibrated) + STRENGTH / 2 * np.sum(apart_M2**2)
        error = 0.5 * (1 + np.tanh(calibrated / 2)) - outcome  # sigmoid, without overflow
        gradient_M2 = np.stack([np.bincount(column, error * one) for one in (x, np.ones_like(x))], axis=1)
        return float(value), (gradient_M2 + STRENGTH * apart_M2).ravel()

    start = np.array([width / total.temperature, total.bias + middle / total.temperature])
    bounds = [(width / LIMITS[1], width / LIMITS[0]), (-MAX_BIAS, MAX_BIAS)] * len(seen)
    first = np.tile(start, len(seen))
    found = minimize(loss, first, jac=True, method="L-BFGS-B", bounds=bounds, tol=1e-12).x.reshape(-1, 2)
    own = {
        candidates[m]: Temperature(width / slope, bias - slope * middle / width)
        for m, (slope, bias) in zip(seen.tolist(), found.tolist(), strict=True)
    }
    return Temperature(total.temperature, total.bias, own)
