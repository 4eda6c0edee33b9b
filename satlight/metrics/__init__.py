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

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satlight.metrics.collected import (
        AIQ,
        APGR,
        CPT,
        NAUC,
        QNC,
        AccuracyRatio,
        BrierScore,
        ForecastAccuracy,
        ForecastAUROC,
        ForecastLogLoss,
        GainAtB,
        GainAtR,
        GapAtO,
        MeanCost,
        RareSolverRecall,
        RoutingCollapse,
        SelectionEntropy,
    )
    from satlight.metrics.modules import CalibrationError, RoutedAccuracy

__all__ = [
    "AIQ",
    "APGR",
    "CPT",
    "NAUC",
    "QNC",
    "AccuracyRatio",
    "BrierScore",
    "CalibrationError",
    "ForecastAUROC",
    "ForecastAccuracy",
    "ForecastLogLoss",
    "GainAtB",
    "GainAtR",
    "GapAtO",
    "MeanCost",
    "RareSolverRecall",
    "RoutedAccuracy",
    "RoutingCollapse",
    "SelectionEntropy",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from satlight.metrics import collected, modules

    return getattr(modules if hasattr(modules, name) else collected, name)
