"""The training verbs: LightningCLI with run folders, checkpoints and a report after every test."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.fabric.plugins.io import CheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from safetensors import SafetensorError

from satlight.callbacks.calibration import TemperatureScaling
from satlight.callbacks.checkpoint_io import SafeCheckpointIO
from satlight.callbacks.devices import WorldSize
from satlight.callbacks.live import LiveScalars
from satlight.callbacks.loggers import Tracker
from satlight.callbacks.report import RoutingReport
from satlight.callbacks.result_tables import ResultTables
from satlight.callbacks.wandb_run import finish, mark_failed
from satlight.cli import runs, settings
from satlight.cli.record import RunRecord, prepare_loggers, router_aliases
from satlight.data import RoutingDataModule
from satlight.data.trained_on import TrainedOn
from satlight.errors import SatlightError
from satlight.files import clean
from satlight.routing.export import export_router
from satlight.storage.checkpoints import read_checkpoint

log = logging.getLogger(__name__)

RANK_FOLDER = "SATLIGHT_RUN_DIR"
"""Environment variable in which the main process tells the other ranks the run folder."""


class SatlightCLI(LightningCLI):
    """Run ``fit``, ``validate``, ``test`` and ``predict`` for any satlight module and data module.

    Beyond LightningCLI: ``--name`` and ``--runs`` choose the run folder; ``--ckpt_path last`` continues the
    newest run of that name; ``test``, ``validate`` and ``predict`` use the settings and the best checkpoint of
    the newest run of that name; a CSVLogger and two ModelCheckpoints (best by ``val_routed_accuracy``, and
    last) are added unless configured otherwise.
    """

    def __init__(self, args: list[str] | None = None, run: bool = True) -> None:
        self.run_dir: Path | None = None
        self.started, self.record = False, ""
        self._created = self._has_run = False
        self._renamed: tuple[Path, Path] | None = None
        argv = self.argv = sys.argv[1:] if args is None else list(args)
        try:
            super().__init__(
                args=settings.complete(argv) if run and argv and argv[0] in self.subcommands() else argv,
                run=run,
                parser_class=settings.Parser,
                seed_everything_default=0,
                save_config_callback=None,  # RunRecord writes it
                trainer_defaults={"callbacks": [TemperatureScaling(), LiveScalars(), RoutingReport(), ResultTables()]},
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,  # config.yaml is the record; see docs/decisions.md
                parser_kwargs={"parser_mode": "omegaconf"},
            )
        except BaseException:
            self._discard()
            raise

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(allow_abbrev=False, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str, default=None, help="Name of the run (default: of the first config)")
        parser.add_argument("--runs", type=str, default="runs", help="Folder of all runs")
        parser.add_argument(
            "--other-data", action="store_true", help="Use the router on data other than the run's: RUN/other/DATA"
        )

    def _set_seed(self) -> None:
        seed = self._get(self.config, "seed_everything")
        if not isinstance(seed, bool) and not (isinstance(seed, int) and 0 <= seed < 2**32):
            raise SatlightError(f"--seed_everything {seed}: a seed lies in [0, {2**32 - 1}]")
        super()._set_seed()

    def before_instantiate_classes(self) -> None:
        if self.subcommand is None:  # SatlightCLI(run=False): objects for Python, no run
            return
        config = self.config[self.subcommand]
        if config.get("weights_only") is False:
            raise SatlightError(
                "weights_only is false, but checkpoints are always read without running code from them; remove it"
            )
        settings.expand(config)
        self.record = self._dump(config)
        if config.trainer.fast_dev_run:
            return
        path = config.get("ckpt_path")
        run = runs.folder_of(path) if path else None
        if path is not None:
            read_checkpoint(path)
        if run is not None and (self.subcommand != "fit" or run in _resolved(runs.existing(config.runs, config.name))):
            self.run_dir, self._has_run = run, True
            self._compare(run, config)
        elif RANK_FOLDER in os.environ:  # set by the main process for the ranks that it starts
            self.run_dir = Path(os.environ[RANK_FOLDER])
        elif not _is_main():  # torchrun and SLURM start each rank; only the first one writes, and it tells the others
            self.run_dir = Path(config.runs) / config.name / "0"
        else:
            self.run_dir, self._created = runs.create(config.runs, config.name), True
            os.environ[RANK_FOLDER] = str(self.run_dir)
        log.info("run folder: %s", self.run_dir)

    def _dump(self, config: Namespace) -> str:
        """Return the configuration as YAML, without the checkpoint that ``fit`` continues from."""
        config = config.clone()
        if self.subcommand == "fit":
            config.ckpt_path = None
        return self._parser(self.subcommand).dump(config, skip_unset=False)

    def _compare(self, run: Path, config: Namespace) -> None:
        """Refuse data settings other than the run's; warn of another module or reading of candidates."""
        model, data = settings.compare(run, config)
        for line in model:
            log.warning("%s (%s)", line, run)
        if data and not config.other_data:
            raise settings.refuse(run, data, str(self.subcommand))

    @property
    def _out_dir(self) -> Path:
        """Return the folder of results: the run's, or one of its own for other data."""
        assert self.run_dir is not None
        config = self.config[self.subcommand]
        if not config.other_data or not self._has_run or self.subcommand == "fit":
            return self.run_dir
        source = str(config.data.get("init_args", {}).get("records", "data"))
        return self.run_dir / "other" / (Path(source).stem or "data")

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        given = self._get(self.config_init, "trainer")
        plugins = _as_list(given.plugins)
        if any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            raise SatlightError("trainer.plugins names a CheckpointIO; satlight reads and writes checkpoints itself")
        kwargs["plugins"] = [*plugins, SafeCheckpointIO()]
        if isinstance(self.datamodule, RoutingDataModule):
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")  # the data module is
        loggers, callbacks = _as_list(given.logger), _as_list(given.callbacks)
        if given.enable_checkpointing is False:  # also switches off the checkpoints of the config
            callbacks = [callback for callback in callbacks if not isinstance(callback, ModelCheckpoint)]
        if self.run_dir is None:
            return super().instantiate_trainer(callbacks=callbacks, **kwargs)
        if isinstance(self.datamodule, RoutingDataModule):
            self.datamodule.setup(str(self.subcommand))  # before any file is written
        kwargs["default_root_dir"] = str(self._out_dir)
        prepare_loggers(loggers, self._out_dir, self.config[self.subcommand])
        if self.subcommand != "fit":
            # A new CSVLogger would delete the curves of fit; results go to default_root_dir.
            kwargs["logger"] = loggers or False
        elif given.logger is not False and not any(isinstance(x, CSVLogger) for x in loggers):
            self._keep_metrics()
            # First in the list, so that it determines the log folder.
            kwargs["logger"] = [CSVLogger(self.run_dir, name="", version=""), *loggers]
        if self.subcommand == "fit" and _is_main():
            # Also of earlier runs: one that was killed in its first checkpoint is never continued.
            earlier = runs.existing(self.run_dir.parent.parent, self.run_dir.parent.name)
            clean(*(folder for run in (self.run_dir, *earlier) for folder in (run, run / "checkpoints")))
        if given.enable_checkpointing is not False:
            callbacks += _checkpoints(self.run_dir / "checkpoints", callbacks)
        _ignore_own_folder(self.run_dir)
        try:
            return super().instantiate_trainer(callbacks=[*callbacks, WorldSize(), RunRecord(self)], **kwargs)
        except (ValueError, MisconfigurationException) as error:  # e.g. FSDP without a GPU
            raise SatlightError(f"Lightning's Trainer does not take these options: {error}") from error

    def _keep_metrics(self) -> None:
        """Rename the curves of an interrupted fit: metrics.csv → metrics.1.csv, metrics.2.csv, ..."""
        assert self.run_dir is not None
        if _is_main() and (metrics := self.run_dir / "metrics.csv").is_file():
            number = len(list(self.run_dir.glob("metrics.*.csv"))) + 1
            self._renamed = metrics, metrics.rename(self.run_dir / f"metrics.{number}.csv")

    def _discard(self) -> None:
        """Leave no trace of a verb that failed before it did anything."""
        if self.started or self.run_dir is None:
            return
        if self._created:
            finish(exit_code=1)  # W&B writes into the folder
            shutil.rmtree(self.run_dir, ignore_errors=True)
            runs.remove_empty(self.run_dir.parent, self.config[self.subcommand].runs)
        elif self._renamed is not None and not self._renamed[0].exists():
            self._renamed[1].rename(self._renamed[0])

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return super()._prepare_subcommand_kwargs(subcommand) | {"weights_only": True}

    def before_fit(self) -> None:
        """Refuse a training that never validates: it would end without a best checkpoint."""
        trainer = self.trainer
        every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
        if self.run_dir is None or not trainer.checkpoint_callbacks:
            return
        if trainer.limit_val_batches == 0 or (every and epochs and 0 < epochs < every):
            raise SatlightError(
                f"No validation would run (trainer.check_val_every_n_epoch is {every}, trainer.max_epochs {epochs}, "
                f"trainer.limit_val_batches {trainer.limit_val_batches}), so there would be no best checkpoint and "
                "no router. Validate at least once."
            )

    def before_test(self) -> None:
        """Tell the data module which rows must not be judged."""
        self._judge_only_new("test")

    def before_validate(self) -> None:
        """Tell the data module which validation rows of other data must not be judged."""
        if self.config[self.subcommand].other_data:
            self._judge_only_new("validation")

    def _judge_only_new(self, split: str) -> None:
        """Leave out rows of the split whose text or group the router was trained on."""
        if self.run_dir is None or not isinstance(self.datamodule, RoutingDataModule):
            return
        self.datamodule.judged_split = split
        if (path := self.run_dir / runs.TRAINED_ON).is_file():
            self.datamodule.not_judged = TrainedOn.load(path)
        else:
            log.warning("%s does not exist, so rows that were trained on cannot be recognized", path)

    def after_fit(self) -> None:
        """Export the best checkpoint, so that every run ends with a usable router.

        Raises:
            SatlightError: There is no best checkpoint, or the router cannot be written.
        """
        if self.run_dir is None or not self.trainer.is_global_zero:
            return
        callbacks: list[Any] = [c for c in self.trainer.checkpoint_callbacks if getattr(c, "monitor", None)]
        if not callbacks:
            log.warning("no router folder: trainer.enable_checkpointing is false, so there is no checkpoint")
            return
        best = next((path for c in callbacks if (path := c.best_model_path) and Path(path).is_file()), None)
        if best is None:
            raise SatlightError(
                f"fit ended without a best checkpoint in {self.run_dir}, so there is no router: {callbacks[0].monitor} "
                "was never computed. Let the validation run (trainer.check_val_every_n_epoch, "
                "trainer.val_check_interval, trainer.max_steps) and train again."
            )
        try:
            folder = export_router(self.model, self.datamodule, best, self.run_dir / "router")
            log.info("router folder: %s", folder)
            config = self.config[self.subcommand]
            Tracker(self.trainer.loggers, self.run_dir).router(folder, f"router-{config.name}", router_aliases(config))
        except SatlightError as error:
            if isinstance(error.__cause__, OSError | SafetensorError):
                raise
            log.warning("no router folder: %s", error)  # a module of the user's own; the training stands

    def _parse_ckpt_path(self) -> None:
        """Do nothing: the command line takes precedence (LightningCLI would merge the checkpoint last)."""


class _ParserOnly(SatlightCLI):
    """Build the parser and stop."""

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        raise _BuiltError(parser)


class _BuiltError(Exception):
    """Carries the parser out of the constructor of LightningCLI, which would otherwise parse and run."""


def training_parser() -> LightningArgumentParser:
    """Return the parser of the training verbs."""
    try:
        with warnings.catch_warnings():
            ignore_noise()
            _ParserOnly(args=["fit", "--help"])
    except _BuiltError as built:
        return built.args[0]
    raise AssertionError("LightningCLI did not parse its arguments")


def _checkpoints(folder: Path, given: list[Any]) -> list[ModelCheckpoint]:
    """Return the checkpoints to add unless the config has its own: the best epoch and the last one."""
    own = [callback for callback in given if isinstance(callback, ModelCheckpoint)]
    for callback in own:
        if callback.dirpath is None:  # Lightning would look for it in the folder of another logger in `test`
            callback.dirpath = str(folder)
    added = []
    if not any(callback.monitor for callback in own):
        added.append(ModelCheckpoint(folder, "best", "val_routed_accuracy", mode="max", enable_version_counter=False))
    if not any(callback.save_last for callback in own):
        # Not `save_last` of the best one: that writes only when there is a new best.
        added.append(ModelCheckpoint(folder, "last", enable_version_counter=False))
    return added


def _is_main() -> bool:
    """Return True in the process that writes the run folder, before the strategy has numbered the processes."""
    return rank_zero_only.rank == 0 and os.environ.get("NODE_RANK", "0") in ("", "0")  # type: ignore[attr-defined]


def _resolved(paths: list[Path]) -> list[Path]:
    return [path.resolve() for path in paths]


def _as_list(value: Any) -> list[Any]:
    if value is None or isinstance(value, bool):
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def _ignore_own_folder(run_dir: Path) -> None:
    """Silence warnings about files in the run folder, which satlight keeps."""
    folder = re.escape(str(run_dir.resolve()))
    warnings.filterwarnings("ignore", message=f"Checkpoint directory {folder}/checkpoints exists and is not empty")
    for path in (folder, re.escape(str(run_dir))):
        warnings.filterwarnings("ignore", message=f"Experiment logs directory {path}/* exists and is not empty")


def ignore_noise() -> None:
    """Silence warnings that ask nothing of the user: about Lightning's own use of its libraries."""
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="jsonargparse")
    warnings.filterwarnings("ignore", message="(?s).*instantiate_classes.*|.*add_instantiator.*|.*skip_none.*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    warnings.filterwarnings("ignore", message=".*LightningCLI's args parameter.*")
    # Blocks are built from memory within a step; workers would only copy the records.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # Modules that the config freezes are in eval mode on purpose.
    warnings.filterwarnings("ignore", message=".*module\\(s\\) in eval mode.*")


def run(argv: list[str], process_ends: bool = False) -> None:
    """Run a training verb with command-line arguments.

    Args:
        argv: The verb and its arguments.
        process_ends: End the W&B run, which a Python program could still log to.

    Raises:
        SystemExit: With code 130 after Ctrl-C, 143 after SIGTERM.
    """
    if "LOCAL_RANK" not in os.environ:
        os.environ.pop(RANK_FOLDER, None)  # left by an earlier run in this process
    if not _is_main():
        logging.getLogger("satlight").setLevel(logging.WARNING)  # the main process says it
    handler, code = signal.getsignal(signal.SIGINT), 1
    try:
        with warnings.catch_warnings():
            ignore_noise()
            SatlightCLI(args=argv)
        code = 0
    except SIGTERMException as error:  # to Lightning a success
        log.error("ended by SIGTERM before completion; continue with `fit --ckpt_path last`")
        raise SystemExit(128 + signal.SIGTERM) from error
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning makes it code 1
            raise KeyboardInterrupt from error
        raise
    finally:
        if signal.getsignal(signal.SIGINT) is not handler:  # Lightning ignores Ctrl-C after the first one
            signal.signal(signal.SIGINT, handler)
        if process_ends:
            finish(code)
            if code:
                mark_failed()
    sys.stdout.flush()
