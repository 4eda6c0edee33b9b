"""Configs, tables, figures and folders for every logger of Lightning, through one interface.

Scalars need none: ``log`` of a module or callback sends them to all loggers. A logger that fails, e.g. without a
network, is reported once and never stops training.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from satlight.errors import SatlightError
from satlight.escaping import csv_text, markdown_text
from satlight.files import atomic_path, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

_MLFLOW_ID = "mlflow_id.txt"

Rows = Sequence[Mapping[str, Any]]


class Tracker:
    """Send tables, figures and summaries to the loggers of a trainer.

    Args:
        loggers: Any of CSVLogger, WandbLogger, TensorBoardLogger and MLFlowLogger; others get the config only.
        folder: Run folder, for plots of the CSVLogger; its tables are results.csv and choices.csv already.
    """

    def __init__(self, loggers: Sequence[Logger], folder: Path) -> None:
        self.loggers, self.folder = list(loggers), folder

    @rank_zero_only
    def config(self, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Log the resolved options, nested, and facts about code, packages and data."""
        for logger in self.loggers:
            try:
                if isinstance(logger, WandbLogger):
                    content = {"cli": dict(config), "facts": dict(facts)}
                    logger.experiment.config.update(content, allow_val_change=True)
                elif not isinstance(logger, CSVLogger):  # config.yaml and environment.json are next to its file
                    logger.log_hyperparams({"cli": dict(config), "facts": dict(facts)})
            except Exception as error:
                _failed(logger, error)

    @rank_zero_only
    def table(self, name: str, rows: Rows) -> None:
        """Log a table."""
        for logger in self.loggers if rows else []:
            try:
                if isinstance(logger, WandbLogger):
                    logger.log_table(name, columns=list(rows[0]), data=[list(row.values()) for row in rows])
                elif isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_text(name, markdown_table(rows))
                elif isinstance(logger, MLFlowLogger):
                    logger.experiment.log_text(logger.run_id, csv_text(rows), f"{name}.csv")
            except Exception as error:
                _failed(logger, error)

    @rank_zero_only
    def summary(self, values: Mapping[str, float | None]) -> None:
        """Log final figures."""
        known = {name: value for name, value in values.items() if value is not None}
        for logger in self.loggers:
            try:
                if isinstance(logger, WandbLogger):
                    logger.experiment.summary.update(dict(values))
                elif isinstance(logger, TensorBoardLogger | MLFlowLogger):
                    logger.log_metrics(known)
            except Exception as error:
                _failed(logger, error)

    @rank_zero_only
    def figure(self, name: str, figure: Figure) -> None:
        """Log a plot; it is also a PNG file in the run folder."""
        path = self.folder / f"{name}.png"
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=150)
        for logger in self.loggers:
            try:
                if isinstance(logger, WandbLogger):
                    logger.log_image(f"plots/{name}", [str(path)])
                elif isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image(f"plots/{name}", _pixels(path), dataformats="HWC")
                elif isinstance(logger, MLFlowLogger):
                    logger.experiment.log_artifact(logger.run_id, str(path), "plots")
            except Exception as error:
                _failed(logger, error)

    @rank_zero_only
    def router(self, folder: Path, name: str, aliases: Sequence[str]) -> None:
        """Log a router folder as an artifact (W&B and MLflow)."""
        for logger in self.loggers:
            try:
                if isinstance(logger, WandbLogger):
                    import wandb

                    artifact = wandb.Artifact(name, type="router")
                    artifact.add_dir(str(folder))
                    logger.experiment.log_artifact(artifact, aliases=["latest", *aliases])
                elif isinstance(logger, MLFlowLogger):
                    logger.experiment.log_artifacts(logger.run_id, str(folder), "router")
            except Exception as error:
                _failed(logger, error)


@rank_zero_only
def continue_mlflow(logger: MLFlowLogger, folder: Path) -> None:
    """Let a logger continue the MLflow run of a run folder, which keeps its id; an id in the config wins.

    Raises:
        SatlightError: MLflow cannot be used.
    """
    path = folder / _MLFLOW_ID
    if logger._run_id is None and path.is_file():
        logger._run_id = path.read_text(encoding="utf-8").strip()
    try:
        identity = logger.run_id
    except Exception as error:  # of the client, of its server or of its database
        raise SatlightError(
            f"MLflow at {logger._tracking_uri} cannot be used ({error}); check tracking_uri of the logger, or remove "
            f"the logger. If the run was deleted there, delete {path}"
        ) from error
    write_text(path, f"{identity}\n")


def _failed(logger: Logger, error: Exception) -> None:
    log.warning("%s could not log (%s: %s); the run continues", type(logger).__name__, type(error).__name__, error)


def _pixels(path: Path) -> Any:
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(BytesIO(path.read_bytes())).convert("RGB"))


def markdown_table(rows: Rows) -> str:
    """Return rows as a Markdown table.

    Example:
        >>> print(markdown_table([{"name": "a|b", "routed": 61.25}]))
        | name | routed |
        |---|---|
        | a\\|b | 61.25 |
    """
    lines = [[*rows[0]], *([_cell(value) for value in row.values()] for row in rows)]
    head, *body = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else markdown_text(str(value))
