"""The results of ``test`` in every logger: tables, figures per group, plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from satlight.callbacks.loggers import Tracker
from satlight.callbacks.report import RoutingReport, run_folder
from satlight.errors import SatlightError
from satlight.evaluation.examples import missed
from satlight.images import THUMBNAIL, read_image

if TYPE_CHECKING:
    from satlight.evaluation import RoutingResults

_MARKS = ("best_single", "dataset_best", "oracle")


class ResultTables(Callback):
    """Log the test table, the choices, the groups' routed accuracy and two plots; the plots are also in the run folder.

    If test instructions have images, the table ``missed`` in W&B shows some that were routed to a wrong candidate, with
    texts and thumbnails; others leave the machine as numbers only. List it after
    :class:`~satlight.callbacks.report.RoutingReport` among the callbacks.

    Args:
        examples: Maximum number of rows of the table ``missed``; 0 = no such table.
    """

    def __init__(self, examples: int = 24) -> None:
        if examples < 0:
            raise SatlightError(f"ResultTables: examples is {examples}; it must be 0 or more")
        self.examples = examples

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        reports: list[Any] = [c for c in trainer.callbacks if isinstance(c, RoutingReport)]  # type: ignore[attr-defined]
        results: RoutingResults | None = reports[0].results if reports else None
        if results is None:
            return
        tracker = Tracker(trainer.loggers, run_folder(trainer))
        tracker.table("test_table", results.rows())
        tracker.table("choices", results.choice_rows())
        values: dict[str, float | None] = {}
        for name, entry in results.groups.items():
            values |= {f"test/{name}/routed": entry.routed, f"test/{name}/gap_closed": entry.gap_closed}
        tracker.summary(values)
        for name, figure in _figures(results).items():
            tracker.figure(name, figure)
        if any(isinstance(logger, WandbLogger) for logger in trainer.loggers):
            tracker.table("missed", _missed(reports[0], self.examples))


def _figures(results: RoutingResults) -> dict[str, Any]:
    """Return the plots of a test by name of their files."""
    from satlight.evaluation.plots import Estimate, choice_heatmap, dataset_points

    entries = results.datasets
    if not entries or any(entry.routed is None for entry in entries.values()):
        return {}
    routed = {
        name: Estimate(*np.array([entry.routed, *entry.interval], dtype=float).tolist())
        for name, entry in entries.items()
    }
    marks = {
        control.replace("_", " "): {
            name: float("nan") if (one := entry.controls.get(control)) is None or one.accuracy is None else one.accuracy
            for name, entry in entries.items()
        }
        for control in _MARKS
    }
    share_DM = np.array([[entry.share[name] for name in results.candidates] for entry in entries.values()], dtype=float)
    return {
        "accuracy": dataset_points({"router": routed}, marks),
        "choices": choice_heatmap(share_DM, [*entries], results.candidates),
    }


def _missed(report: RoutingReport, limit: int) -> list[dict[str, Any]]:
    """Return rows of a W&B table: missed instructions with images, and their thumbnails."""
    import wandb

    records, choice_N = report.routed()
    seen_N = np.array([bool(images) for images in records.images])
    if not seen_N.any():
        return []
    return [
        {
            "instruction_id": one.instruction_id,
            "dataset": one.dataset,
            "images": [wandb.Image(read_image(image, max_side=THUMBNAIL)) for image in one.images],
            "instruction": one.text,
            "choice": one.choice,
            "outcome": one.outcome,
            "best": ", ".join(one.best),
        }
        for one in missed(records.rows(seen_N), choice_N[seen_N], limit)
    ]
