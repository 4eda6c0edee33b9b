"""Judging routers: controls, results, table. Works on scores and records, whatever made the scores."""

from satlight.evaluation.controls import Control, measure_controls
from satlight.evaluation.evaluate import check_groups, evaluate
from satlight.evaluation.results import RoutingResults
from satlight.evaluation.table import print_table

__all__ = ["Control", "RoutingResults", "check_groups", "evaluate", "measure_controls", "print_table"]
