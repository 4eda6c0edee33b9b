"""Outputs of test and predict: the table, results.json, choices, scores."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from satlight.callbacks.calibration import TemperatureScaling
from satlight.callbacks.devices import reduced
from satlight.errors import SatlightError
from satlight.files import atomic_path, write_table
from satlight.storage.card import record_test

if TYPE_CHECKING:
    from satlight.data import CapabilityInstructionDataModule
    from satlight.evaluation import RoutingResults
    from satlight.records import PerformanceRecords
    from satlight.types import Block

log = logging.getLogger(__name__)


def run_folder(trainer: L.Trainer) -> Path:
    """Return the folder of this run."""
    return Path(trainer.default_root_dir)


class RoutingReport(Callback):
    """Print and save the table of ``test`` with every control; write the scores of ``predict``.

    ``test`` writes results.json, results.csv and choices.csv into the run's folder, ``predict`` writes
    scores.parquet there: a column instruction_id and one float32 column of log-odds per candidate. If the
    checkpoint holds a temperature, the results also contain the calibration error after scaling.

    Args:
        resamples: Number of bootstrap resamples of every interval.
        seed: Seed of the bootstrap.
    """

    def __init__(self, resamples: int = 2000, seed: int = 0) -> None:
        if resamples < 1 or seed < 0:
            raise SatlightError(f"RoutingReport: resamples is {resamples}, seed {seed}; they are at least 1 and 0")
        self.resamples, self.seed = resamples, seed
        self.results: RoutingResults | None = None
        self._scores: np.ndarray | None = None

    def _start(self, view: PerformanceRecords) -> None:
        self._view = view
        self._scores = np.full(view.shape, -np.inf, dtype=np.float32)

    def _collect(self, score_BC: Any, block: Block) -> None:
        assert self._scores is not None
        score_BC = score_BC.detach().float().cpu().numpy()
        if not np.isfinite(score_BC).all():
            raise SatlightError(
                "The router gives scores that are not finite numbers: its training diverged. Train it again with a "
                "lower learning rate (model.optimizer.lr) or with trainer.gradient_clip_val"
            )
        self._scores[block.rows.cpu().numpy()] = score_BC

    def _complete(self, trainer: L.Trainer) -> bool:
        """Collect the scores of all devices; False where nothing is to be written: on the other devices."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return False
        if trainer.world_size > 1:
            self._scores = reduced(trainer, torch.from_numpy(self._scores), "max").numpy()
        return trainer.is_global_zero

    def _data(self, trainer: L.Trainer) -> CapabilityInstructionDataModule:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        return data

    # -- test ----------------------------------------------------------------------------------------------

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from satlight.evaluation import check_groups

        data = self._data(trainer)
        self.results = None
        self._start(data.eval_view("test").records)
        if data.test_groups is not None:
            check_groups(data.test_groups, sorted(set(self._view.datasets.tolist())))

    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self._collect(outputs, batch)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        from rich.console import Console

        from satlight.evaluation import evaluate, print_table

        if not self._complete(trainer):
            return
        assert self._scores is not None
        done = np.isfinite(self._scores).all(1)
        if not done.all():
            raise SatlightError(
                f"Only {done.sum()} of {len(done)} test instructions were scored (trainer.limit_test_batches?), and "
                "partial results would not be comparable. Test without limits."
            )
        data = self._data(trainer)
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        self.results = evaluate(
            self._scores,
            self._view,
            data.control_records(),
            data.test_groups,
            seed=self.seed,
            resamples=self.resamples,
            core=data.aptitude.item_ids,
            calibration=next((c.fitted for c in callbacks if isinstance(c, TemperatureScaling)), None),
        )
        folder = run_folder(trainer)
        self.results.save(folder)
        ckpt_path: Any = trainer.ckpt_path
        if (folder / "router").is_dir() and Path(str(ckpt_path)).name == "best.ckpt":  # what was exported
            record_test(folder / "router", _card_rows(self.results))
        # The table needs 110 columns; in a log file or a narrow window too, so that no value is cut off.
        print_table(self.results, Console(width=max(110, Console().width)))
        log.info("results.json, results.csv and choices.csv are in %s", folder)

    def routed(self) -> tuple[PerformanceRecords, np.ndarray]:
        """Return the test records, and the columns of the candidates that the last test chose, int64 (N,)."""
        from satlight.metrics.functional import choose

        assert self._scores is not None
        return self._view, choose(torch.from_numpy(self._scores)).numpy()

    # -- predict -------------------------------------------------------------------------------------------

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = self._data(trainer)
        self._start(data.eval_view(data.predict_split).records)

    def on_predict_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self._collect(outputs, batch)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        import polars as pl

        if not self._complete(trainer):
            return
        assert self._scores is not None
        scores = np.where(np.isfinite(self._scores), self._scores, np.nan)  # limit_predict_batches leaves rows out
        table = pl.DataFrame({"instruction_id": self._view.instructions["instruction_id"]}).hstack(
            pl.DataFrame(scores, schema=self._view.model_ids)
        )
        path = run_folder(trainer) / "scores.parquet"
        with atomic_path(path) as temporary:
            write_table(table, temporary)
        log.info("wrote the scores of %d instructions x %d candidates to %s", *scores.shape, path)


def _card_rows(results: RoutingResults) -> dict[str, dict[str, float | int | None]]:
    """Return the rows of the test table in a model card, in percent."""
    columns = ("random", "best_single", "dataset_best", "oracle")
    rows: dict[str, dict[str, float | int | None]] = {}
    for name, group in results.groups.items():
        low, high = group.interval
        controls = {key: group.controls[key].accuracy for key in columns if key in group.controls}
        rows[name] = {"instructions": group.n, "routed": group.routed, "low": low, "high": high, **controls}
    return rows
