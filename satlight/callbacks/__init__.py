"""Callbacks: the connection between data and modules."""

from satlight.callbacks.calibration import TemperatureScaling
from satlight.callbacks.hard_negatives import HardNegatives
from satlight.callbacks.live import LiveScalars
from satlight.callbacks.report import RoutingReport
from satlight.callbacks.two_stage import TwoStageTuning

__all__ = ["HardNegatives", "LiveScalars", "RoutingReport", "TemperatureScaling", "TwoStageTuning"]
