"""Callbacks: the places where data and modules meet."""

from satlight.callbacks.report import RoutingReport
from satlight.callbacks.two_stage import TwoStageTuning

__all__ = ["RoutingReport", "TwoStageTuning"]
