"""The record of a run: its options, and the code, packages and data that it was made with."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import MLFlowLogger, WandbLogger

from satlight.callbacks import wandb_run
from satlight.callbacks.loggers import Tracker, continue_mlflow
from satlight.cli import runs
from satlight.data import RoutingDataModule
from satlight.files import write_text
from satlight.storage.provenance import RUN_FACTS, provenance


class CommandLine(Protocol):
    """Parts of the command line that a record needs: its arguments, and its resolved options as YAML."""

    argv: list[str]
    record: str
    started: bool


class RunRecord(Callback):
    """Write config.yaml (fit) or VERB_config.yaml once the verb works on accepted data and weights.

    A refused checkpoint therefore leaves the record of a run as it was. ``fit`` also writes what it trains on and
    environment.json, and sends options and environment to the loggers.

    Args:
        cli: The command line that runs the verb.
    """

    def __init__(self, cli: CommandLine) -> None:
        self.cli = cli

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, runs.CONFIG)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not trainer.is_global_zero:
            return
        folder = Path(trainer.default_root_dir)
        facts = {"command": self.cli.argv, "python": platform.python_version(), **provenance()}
        if isinstance(data, RoutingDataModule):
            data.trained_on().save(folder / runs.TRAINED_ON)
            facts |= {"data": data.records.name, "fingerprint": data.records.fingerprint}
        write_text(folder / RUN_FACTS, json.dumps(facts, indent=2))
        Tracker(trainer.loggers, folder).config(yaml.safe_load(self.cli.record), facts)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._write(trainer, "validate_config.yaml")

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "test_config.yaml")

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._write(trainer, "predict_config.yaml")

    def _write(self, trainer: L.Trainer, name: str) -> None:
        self.cli.started = True
        if trainer.is_global_zero:
            write_text(Path(trainer.default_root_dir) / name, self.cli.record)


def prepare_loggers(loggers: Sequence[Any], folder: Path, config: Any) -> None:
    """Let W&B write into the run folder, as a run named after its method and zoo setting, and start it.

    Each verb continues the run of ``fit``, in W&B and in MLflow.

    Args:
        loggers: All loggers of the config.
        folder: Run folder.
        config: Resolved options of the verb.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            wandb_run.offline_without_key()
            wandb_run.keep_in(logger, folder)
            wandb_run.describe(logger, folder, **labels(config))
            wandb_run.start(logger)
        elif isinstance(logger, MLFlowLogger):
            continue_mlflow(logger, folder)


def labels(config: Any) -> dict[str, Any]:
    """Return zoo setting, method and tags of a run from its resolved options."""
    model, data = config.model, config.data.get("init_args", {})
    setting, records = data.get("zoo_preset"), data.get("records")
    objective = (model.get("init_args") or {}).get("objective")
    tags = [Path(str(records)).stem if records else None, _class(objective), f"seed {config.get('seed_everything')}"]
    return {
        "group": Path(str(setting)).stem if setting else "all candidates",
        "job_type": _class(model) or "router",
        "tags": [tag for tag in tags if tag],
    }


def router_aliases(config: Any) -> list[str]:
    """Return the aliases of the artifact of a run's router besides ``latest``."""
    found = labels(config)
    return ["best", found["group"].replace(" ", "-").replace("/", "-")]


def _class(part: Any) -> str | None:
    path = part.get("class_path") if hasattr(part, "get") else None
    return str(path).rsplit(".", 1)[-1] if path else None
