"""Cells of the protocols with folds: unseen candidates, unseen tasks and the release curve.

Shape legend: N test instructions and M candidates of a fold.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import torch

from satlight.bench.cells import Cell
from satlight.bench.methods import predict
from satlight.bench.results import CellResult
from satlight.evaluation import Control
from satlight.evaluation.controls import matrices, numbered, oracle
from satlight.evaluation.outcomes import CONTROL, INFORMED, METHOD, UPPER_BOUND, OutcomeTable
from satlight.evaluation.protocols import PROTOCOLS, Setting
from satlight.files import write_table
from satlight.metrics import functional
from satlight.routing.scores import StoredScores

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


def run_protocol(cell: Cell, records: PerformanceRecords, folder: Path, output: Path) -> CellResult:
    """Train without a part of what is known, and choose where little or nothing was known.

    Under ``release`` a method is trained once, on the first releases, and a fold is a later release. Under
    the other protocols it is trained for each fold.

    Args:
        cell: A cell whose spec has the options of its protocol, and for unseen candidates or tasks
            ``informed``, the key of the method's ordinary cell.
        records: Records of the problem.
        folder: The cell's folder, which gets ``outcomes.parquet``.
        output: Folder of the bench.

    Returns:
        Facts of each fold, and the time to fit all of them.

    Raises:
        SatlightError: The records do not allow these folds or probes, or the method fails.
    """
    protocol = str(cell.protocol)
    once = protocol == "release"
    options = dict(cell.spec[protocol])
    if protocol != "unseen_tasks":
        options["train_datasets"] = cell.problem.train_datasets
    make = PROTOCOLS["incremental_release" if once else protocol]
    settings = list(make(records, seed=cell.problem.seed, **options))
    test = records.rows(records.splits == "test")
    position = {name: n for n, name in enumerate(_ids(test))}
    later = [str(setting.about["newest"]) for setting in settings] if once else []
    seconds, tables = 0.0, []
    for fold, setting in enumerate(settings, 1):
        rows = np.array([position[name] for name in _ids(setting.test)])
        if not once or fold == 1:
            judged = test if once else test.rows(rows)
            unseen = later or setting.about.get("unseen", ())
            prediction = predict(cell, setting.train, judged, output, unseen, None if once else fold)
            scores = StoredScores(_ids(judged), judged.model_ids, prediction.scores)
            seconds += prediction.fit_seconds or 0.0
        table = OutcomeTable(setting.test, cell.place, protocol, fold, rows)
        _add(table, METHOD, cell.method, scores)
        if not once:
            path = output / "cells" / cell.spec["informed"] / "scores.parquet"
            _add(table, INFORMED, cell.method, StoredScores.read(path))
        _add_controls(table, setting)
        tables.append(table.frame())
    write_table(pl.concat(tables), folder / "outcomes.parquet")
    return CellResult(folds=[dict(setting.about) for setting in settings], fit_seconds=seconds)


def _ids(records: PerformanceRecords) -> list[str]:
    return [str(name) for name in records.instructions["instruction_id"].to_list()]


def _add(table: OutcomeTable, role: str, router: str, scores: StoredScores) -> None:
    score_NM = scores.of(table.test)
    choice_N = functional.choose(torch.from_numpy(score_NM))
    table.add(role, router, Control.of(choice_N, *matrices(table.test)), score_NM)


def _add_controls(table: OutcomeTable, setting: Setting) -> None:
    test, train, known = setting.test, setting.train, matrices(setting.test)
    if "best" in setting.about:
        best = test.model_ids.index(setting.about["best"][0])
    else:
        best = functional.best_single(*matrices(train, test.model_ids), numbered(train.datasets)[0])
    table.add(CONTROL, "random", Control(*functional.random_outcomes(*known)))
    table.add(CONTROL, "best_single", Control.of(torch.full((test.shape[0],), best), *known))
    table.add(UPPER_BOUND, "oracle", Control.of(oracle(test), *known))
