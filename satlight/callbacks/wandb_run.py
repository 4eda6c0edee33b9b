"""The Weights & Biases run of a run folder: where it lies, what it is called, and that it never stops training."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Sequence
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlsplit

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from satlight.errors import SatlightError
from satlight.files import unwritable, write_text

log = logging.getLogger(__name__)

_ID = "wandb_id.txt"


def keep_in(logger: WandbLogger, folder: Path) -> None:
    """Let a logger write into ``folder``, unless the config names another folder.

    Also drops an option that Lightning always passes, and of which W&B warns that it has no effect.
    """
    if logger._save_dir in (None, "."):
        logger._save_dir = logger._wandb_init["dir"] = str(folder)
    os.environ.setdefault("WANDB_QUIET", "true")  # results are in the run folder and in W&B
    if logger._wandb_init.get("anonymous") is None:
        logger._wandb_init.pop("anonymous", None)


@rank_zero_only
def describe(logger: WandbLogger, folder: Path, *, group: str, job_type: str, tags: Sequence[str]) -> None:
    """Name a run before it starts, and let it continue the W&B run of the folder; the config's own values win.

    Args:
        logger: A logger whose run has not started.
        folder: Run folder; it keeps the id of its W&B run.
        group: Zoo setting.
        job_type: Method.
        tags: For filters.
    """
    options = logger._wandb_init
    for key, value, variable in (
        ("group", group, "WANDB_RUN_GROUP"),
        ("job_type", job_type, "WANDB_JOB_TYPE"),
        ("tags", list(tags), "WANDB_TAGS"),
    ):
        if options.get(key) is None and variable not in os.environ:
            options[key] = value
    if options.get("id") is not None or "WANDB_RUN_ID" in os.environ:
        return
    path = folder / _ID
    if not path.is_file():
        write_text(path, f"{secrets.token_hex(4)}\n")
    options.update(id=path.read_text(encoding="utf-8").strip(), resume="allow")


@rank_zero_only
def start(logger: WandbLogger) -> None:
    """Start the run; without a connection, offline.

    Raises:
        SatlightError: The folder of the run cannot be written, e.g. because the disk is full.
    """
    import wandb

    try:
        _ = logger.experiment
    except OSError as error:
        raise unwritable(logger._wandb_init.get("dir") or "wandb", error) from error
    except wandb.errors.AuthenticationError as error:
        raise SatlightError(
            f"W&B refuses the API key: {error}; run `wandb login`, or set WANDB_MODE=offline"
        ) from error
    except wandb.Error as error:
        log.warning("W&B cannot be reached (%s); the run is logged offline, for `wandb sync`", error)
        os.environ["WANDB_MODE"] = "offline"
        wandb.teardown()
        logger._wandb_init["mode"] = "offline"
        _ = logger.experiment


def mark_failed() -> None:
    """Tell W&B's server that the run which an agent started has failed before it began."""
    if "WANDB_SWEEP_ID" not in os.environ or "WANDB_RUN_ID" not in os.environ or _ended:
        return
    import wandb

    try:
        wandb.init(dir=tempfile.mkdtemp(), settings=wandb.Settings(silent=True, init_timeout=20))
    except (OSError, wandb.Error) as error:
        log.warning("W&B was not told of the failure: %s", error)
    else:
        wandb.finish(exit_code=1)


_ended: list[str] = []
"""Ids of the W&B runs that this process has ended."""


def finish(exit_code: int = 0) -> None:
    """End the W&B run of this process, if there is one.

    Without this, W&B's background process prints a summary, in color even into files.
    """
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    _ended.append(wandb.run.id)
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
