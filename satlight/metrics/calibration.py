"""Temperature scaling: calibrate Pr(correct) after training, without changing the choices.

Shape legend: N instructions and M candidates.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from satlight.errors import SatlightError
from satlight.types import Temperature

LIMITS = (0.01, 100.0)
"""Range of the search; uninformative scores end at the upper limit."""

MAX_BIAS = 20.0
"""Largest bias, in log-odds; reached only where every outcome is the same."""


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
