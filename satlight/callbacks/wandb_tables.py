"""Result tables for Weights & Biases. Does nothing without a WandbLogger."""

from __future__ import annotations

import logging
import os
import sys
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from satlight.callbacks.report import RoutingReport
from satlight.errors import SatlightError
from satlight.evaluation.examples import missed
from satlight.images import THUMBNAIL, read_image

log = logging.getLogger(__name__)


def wandb_loggers(loggers: L.Trainer | list[Any]) -> list[WandbLogger]:
    """Return the W&B loggers of a trainer or list."""
    found = loggers.loggers if isinstance(loggers, L.Trainer) else loggers
    return [logger for logger in found if isinstance(logger, WandbLogger)]


def keep_in(logger: WandbLogger, folder: Path) -> None:
    """Let a logger write into ``folder``, unless the config names another folder.

    Also drops an option that Lightning always passes, and of which W&B warns that it has no effect.
    """
    if logger._save_dir in (None, "."):
        logger._save_dir = logger._wandb_init["dir"] = str(folder)
    os.environ.setdefault("WANDB_QUIET", "true")  # results are in the run folder and in W&B
    if logger._wandb_init.get("anonymous") is None:
        logger._wandb_init.pop("anonymous", None)


def finish(exit_code: int = 0) -> None:
    """End the W&B run of this process, if there is one.

    Without this, W&B's background process prints a summary, in color even into files.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    folder = Path(wandb.run.dir).parent
    if wandb.run.offline and exit_code == 0:
        log.info("W&B run, not uploaded: wandb sync %s", folder)
    wandb.finish(exit_code=exit_code)


def has_key() -> bool:
    """Return True if there is an API key for the W&B server in use."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


def offline_without_key() -> None:
    """Switch W&B to offline mode if there is no API key, instead of prompting or failing."""
    if "WANDB_MODE" not in os.environ and not has_key():
        os.environ["WANDB_MODE"] = "offline"


class WandbTables(Callback):
    """Log the test table and the choices as W&B tables, and the groups' routed accuracy in the summary.

    If test instructions have images, the table ``missed`` shows some that were routed to a wrong candidate, with texts
    and thumbnails; others leave the machine as numbers only. List it after
    :class:`~satlight.callbacks.report.RoutingReport` among the callbacks.

    Args:
        examples: Maximum number of rows of the table ``missed``; 0 = no such table.
    """

    def __init__(self, examples: int = 24) -> None:
        if examples < 0:
            raise SatlightError(f"WandbTables: examples is {examples}; it must be 0 or more")
        self.examples = examples

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        reports: list[Any] = [c for c in trainer.callbacks if isinstance(c, RoutingReport)]  # type: ignore[attr-defined]
        results = reports[0].results if reports else None
        if results is None:
            return
        for logger in wandb_loggers(trainer):
            for key, rows in (("test_table", results.rows()), ("choices", results.choice_rows())):
                if rows:
                    logger.log_table(key, columns=list(rows[0]), data=[list(row.values()) for row in rows])
            for name, entry in results.groups.items():
                logger.experiment.summary[f"test/{name}/routed"] = entry.routed
                logger.experiment.summary[f"test/{name}/gap_closed"] = entry.gap_closed
            if rows := _missed(reports[0], self.examples):
                logger.log_table("missed", columns=list(rows[0]), data=[list(row.values()) for row in rows])


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
