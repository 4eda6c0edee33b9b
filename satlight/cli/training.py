"""The training verbs: LightningCLI with run folders, checkpoints and a report after every test."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import lightning as L
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from satlight.callbacks.calibration import TemperatureScaling
from satlight.callbacks.report import RoutingReport
from satlight.callbacks.wandb_tables import WandbTables, offline_without_key, wandb_loggers
from satlight.cli import runs
from satlight.errors import SatlightError
from satlight.routing.export import export_router

log = logging.getLogger(__name__)


class SaveConfig(SaveConfigCallback):
    """Write config.yaml (fit) or VERB_config.yaml into the run folder and the nested config to W&B."""

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        for logger in wandb_loggers(trainer):
            nested = yaml.safe_load(self.parser.dump(self.config))
            logger.experiment.config.update({"cli": nested}, allow_val_change=True)


class SatlightCLI(LightningCLI):
    """Run ``fit``, ``validate``, ``test`` and ``predict`` for any satlight module and data module.

    Beyond LightningCLI: ``--name`` and ``--runs`` choose the run folder; ``--ckpt_path last`` continues the
    newest run of that name; ``test``, ``validate`` and ``predict`` take the newest run's best checkpoint
    when none is named; a CSVLogger and two ModelCheckpoints (best by ``val_routed_accuracy``, and last) are
    added unless configured otherwise.
    """

    def __init__(self, args: list[str] | None = None, run: bool = True) -> None:
        self.run_dir: Path | None = None
        super().__init__(
            args=args,
            run=run,
            seed_everything_default=0,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"callbacks": [TemperatureScaling(), RoutingReport(), WandbTables()]},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # config.yaml is the record; see docs/decisions.md
            parser_kwargs={"parser_mode": "omegaconf"},
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default=None, help="Name of the run (default: of the first config)")
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs")

    def before_instantiate_classes(self) -> None:
        if self.subcommand is None:  # SatlightCLI(run=False): objects for Python, no run
            return
        config = self.config[self.subcommand]
        if config.trainer.fast_dev_run:
            return
        name = config.name or _config_name(config)
        path = config.get("ckpt_path")
        if path is None and self.subcommand != "fit":
            path = "best"
        if path in ("best", "last"):
            path = str(runs.checkpoint(config.runs, name, path))
        if path is not None:
            if not Path(path).is_file():
                raise SatlightError(
                    f"--ckpt_path {path}: no such file; `best` and `last` stand for those of the newest run"
                )
            if not zipfile.is_zipfile(path):
                raise SatlightError(f"--ckpt_path {path} is not a checkpoint, or is truncated; choose another")
            config.ckpt_path = path
            self.run_dir = runs.folder_of(path)
            _compare_with_training(self.run_dir, config)
        elif "SATLIGHT_RUN_DIR" in os.environ:  # set by the main process for the other ranks
            self.run_dir = Path(os.environ["SATLIGHT_RUN_DIR"])
        else:
            self.run_dir = runs.create(config.runs, name)
            os.environ["SATLIGHT_RUN_DIR"] = str(self.run_dir)
        log.info("run folder: %s", self.run_dir)
        self.save_config_kwargs["config_filename"] = (
            "config.yaml" if self.subcommand == "fit" else f"{self.subcommand}_config.yaml"
        )
        config.trainer.default_root_dir = str(self.run_dir)
        for logger in _as_list(config.trainer.logger):
            if str(getattr(logger, "class_path", "")).endswith("WandbLogger"):
                offline_without_key()
                if logger.init_args.save_dir == ".":
                    logger.init_args.save_dir = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        if self.run_dir is None:
            return super().instantiate_trainer(**kwargs)
        given = self._get(self.config_init, "trainer")
        loggers = _as_list(given.logger)
        if self.subcommand != "fit":
            # A new CSVLogger would delete the curves of fit; results go to default_root_dir.
            kwargs["logger"] = loggers or False
        elif given.logger is not False and not any(isinstance(x, CSVLogger) for x in loggers):
            _keep_metrics(self.run_dir)
            # First in the list, so that it determines the log folder.
            kwargs["logger"] = [CSVLogger(self.run_dir, name="", version=""), *loggers]
        callbacks = _as_list(given.callbacks)
        if given.enable_checkpointing is not False:
            callbacks += _checkpoints(self.run_dir / "checkpoints", callbacks)
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def after_fit(self) -> None:
        """Export the best checkpoint, so that every run ends with a usable router."""
        if self.run_dir is None or not self.trainer.is_global_zero:
            return
        for callback in self.trainer.checkpoint_callbacks:
            best = getattr(callback, "best_model_path", "")
            if best and getattr(callback, "monitor", None):
                try:
                    folder = export_router(self.model, self.datamodule, best, self.run_dir / "router")
                    log.info("router folder: %s", folder)
                except SatlightError as error:  # a module of the user's own; the training stands
                    log.warning("no router folder: %s", error)
                return

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the command line takes precedence (LightningCLI would merge the checkpoint last)."""


def _checkpoints(folder: Path, given: list[Any]) -> list[ModelCheckpoint]:
    """Return the checkpoints to add unless the config has its own: the best epoch and the last one."""
    own = [callback for callback in given if isinstance(callback, ModelCheckpoint)]
    added = []
    if not any(callback.monitor for callback in own):
        added.append(ModelCheckpoint(folder, "best", "val_routed_accuracy", mode="max", enable_version_counter=False))
    if not any(callback.save_last for callback in own):
        # Not `save_last` of the best one: that writes only when there is a new best.
        added.append(ModelCheckpoint(folder, "last", enable_version_counter=False))
    return added


def _keep_metrics(run_dir: Path) -> None:
    """Rename the curves of an interrupted fit: metrics.csv → metrics.1.csv, metrics.2.csv, ..."""
    if (metrics := run_dir / "metrics.csv").is_file():
        metrics.rename(run_dir / f"metrics.{len(list(run_dir.glob('metrics.*.csv'))) + 1}.csv")


def _compare_with_training(run_dir: Path, config: Any) -> None:
    """Warn where the module or its reading of candidates differs from the one that was trained.

    A checkpoint fits any module of the same shape; with other settings it would silently route badly.
    """
    if not (run_dir / "config.yaml").is_file():
        return
    trained = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    for key, skip in (("model", ("objective", "optimizer")), ("data", ())):
        now, then = _flat(config[key].as_dict()), _flat(trained.get(key) or {})
        for name in sorted(now.keys() & then.keys()):
            counts = key == "model" or name.startswith("init_args.aptitude.")
            if counts and not set(skip) & set(name.split(".")) and now[name] != then[name]:
                log.warning(
                    "%s.%s is %r, but %r in %s, which trained this checkpoint",
                    *(key, name, now[name], then[name], run_dir / "config.yaml"),
                )


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dictionaries to dotted keys; tuples become lists."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: list(tree) if isinstance(tree, tuple) else tree}
    return {name: value for key in tree for name, value in _flat(tree[key], f"{prefix}{key}.").items()}


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _config_name(config: Any) -> str:
    """``configs/full.yaml`` → ``full``; ``experiments/routerdc/config.yaml`` → ``routerdc``."""
    for path in config.get("config") or []:
        path = Path(str(path))
        return path.resolve().parent.name if path.stem == "config" else path.stem
    return "unnamed"


def run(argv: list[str]) -> None:
    """Run a training verb with command-line arguments."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="jsonargparse")
    warnings.filterwarnings("ignore", message="(?s).*instantiate_classes.*|.*add_instantiator.*|.*skip_none.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*`tensorboardX` has been removed.*")
    warnings.filterwarnings("ignore", message=".*Previous log files in this directory will be deleted.*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode.*")
    # A relative and an absolute path of the same folder count as different.
    warnings.filterwarnings("ignore", message=".*The dirpath has changed from.*")
    # The data module resumes within an epoch; Lightning looks for this ability in the DataLoader.
    warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
    if "LOCAL_RANK" not in os.environ:
        os.environ.pop("SATLIGHT_RUN_DIR", None)  # left by an earlier run in this process
    try:
        SatlightCLI(args=argv)
    except SIGTERMException as error:  # to Lightning a success
        log.error("ended by SIGTERM before completion; continue with `fit --ckpt_path last`")
        raise SystemExit(128 + signal.SIGTERM) from error
    except BaseException:
        with contextlib.suppress(KeyError, OSError):  # no folder was created, or it is not empty
            Path(os.environ["SATLIGHT_RUN_DIR"]).rmdir()
        raise
    sys.stdout.flush()
