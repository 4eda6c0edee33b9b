"""Prepare a process before its verb runs: logging and faster imports."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class _Stderr(logging.Handler):
    """Write to the current ``sys.stderr``, not to the one at the time of setup."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop Lightning's advertisements for other products, and its announcement of what Ctrl-C does."""
    message = record.getMessage()
    return "litlogger" not in message and "Detected KeyboardInterrupt" not in message


def show_log() -> None:
    """Send satlight's log messages to stderr; write characters that the terminal lacks as ``?``."""
    for stream in (sys.stdout, sys.stderr):
        if "utf" not in (getattr(stream, "encoding", None) or "utf").lower() and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    log = logging.getLogger("satlight")
    if not log.handlers:
        log.addHandler(_Stderr())
        log.propagate = False
    log.setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_is_news)


def score_only() -> None:
    """Declare that this process only scores, so that no trainer is imported.

    Call it before :mod:`satlight.modules` is imported, in a process that will not train: see
    :mod:`satlight.modules.lightning_module`.
    """
    os.environ["SATLIGHT_SCORING_ONLY"] = "1"


@contextmanager
def without_garbage_collection() -> Iterator[None]:
    """Skip garbage collection while large libraries and models load.

    Loading creates millions of objects that stay alive. Repeated collections of them take about a fifth
    of the start-up time, so they are also exempt from all later collections.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def import_torchmetrics_alone() -> None:
    """Import torchmetrics while transformers is hidden from it, which saves seconds at start-up.

    torchmetrics would import transformers for BERTScore only.
    """
    from importlib.metadata import PackageNotFoundError
    from unittest import mock

    from lightning_utilities.core import imports

    version = imports._version

    def hidden(name: str) -> str:
        if name == "transformers":
            raise PackageNotFoundError(name)
        return version(name)

    with mock.patch.object(imports, "_version", hidden):
        import torchmetrics  # noqa: F401
