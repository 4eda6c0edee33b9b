"""Metrics on (N, M) matrices; the torchmetrics classes are here, plain functions in the submodules."""

from satlight.metrics.modules import CalibrationError, RoutedAccuracy

__all__ = ["CalibrationError", "RoutedAccuracy"]
