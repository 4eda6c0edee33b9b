"""Metrics on (N, M) matrices: torchmetrics classes here, plain functions in the submodules.

| module | what it measures |
|---|---|
| functional | routed accuracy, controls, gap closed |
| selection | Gain@R, Gain@B, Gap@O, V_R, V_B; entropy and collapse of the choices, rare solvers |
| forecast | Pr(correct): accuracy, AUROC, log loss, Brier, calibration |
| cost, curves | costs, trade-off curves, hull, zero router, AIQ, nAUC, QNC |
| strong_weak | two candidates: APGR, CPT |
| bootstrap, seeds | intervals over instructions, over seeds |

The classes are loaded on first use, so that evaluating scores does not import torchmetrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from satlight.files import lazy

if TYPE_CHECKING:
    from satlight.metrics.collected import *  # noqa: F403
    from satlight.metrics.modules import *  # noqa: F403

_COLLECTED = """AIQ APGR CPT NAUC QNC AccuracyRatio BrierScore ForecastAUROC ForecastAccuracy ForecastLogLoss GainAtB
    GainAtR GapAtO MeanCost RareSolverRecall RoutingCollapse SelectionEntropy"""

__getattr__, __all__ = lazy(__name__, collected=_COLLECTED, modules="CalibrationError RoutedAccuracy")
