"""Evaluation of routers: controls, results, table. Works on scores and records of any origin."""

from satlight.evaluation.controls import Control, measure_controls
from satlight.evaluation.evaluate import evaluate
from satlight.evaluation.results import ControlResult, DatasetResult, GroupResult, RoutingResults
from satlight.evaluation.table import print_table
from satlight.records.groups import check_groups

__all__ = [
    "Control",
    "ControlResult",
    "DatasetResult",
    "GroupResult",
    "RoutingResults",
    "check_groups",
    "evaluate",
    "measure_controls",
    "print_table",
]
