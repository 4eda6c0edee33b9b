"""Result tables for Weights & Biases. Does nothing without a WandbLogger."""

from __future__ import annotations

import os
from netrc import NetrcParseError, netrc
from typing import Any
from urllib.parse import urlsplit

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import WandbLogger

from satlight.callbacks.report import RoutingReport


def wandb_loggers(trainer: L.Trainer) -> list[WandbLogger]:
    """Return the trainer's W&B loggers."""
    return [logger for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def offline_without_key() -> None:
    """Switch W&B to offline mode if there is no API key, instead of prompting or failing."""
    if "WANDB_MODE" in os.environ or os.environ.get("WANDB_API_KEY"):
        return
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        has_key = netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, NetrcParseError):
        has_key = False
    if not has_key:
        os.environ["WANDB_MODE"] = "offline"


class WandbTables(Callback):
    """Log the test table and the choices as W&B tables, and the groups' routed accuracy in the summary.

    List it after :class:`~satlight.callbacks.report.RoutingReport` among the callbacks.
    """

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
