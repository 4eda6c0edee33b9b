"""What happens before a verb runs: where messages go, and imports made quicker."""

from __future__ import annotations

import logging
import sys


class _Stderr(logging.Handler):
    """Writes to what sys.stderr is when there is something to say, not to what it was at the start."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _no_advice(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()


def show_log() -> None:
    """What satlight has to say goes to stderr; Lightning's advice on other products does not."""
    log = logging.getLogger("satlight")
    if not log.handlers:
        log.addHandler(_Stderr())
        log.propagate = False
    log.setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advice)


def import_torchmetrics_alone() -> None:
    """Import torchmetrics with transformers hidden from it, which saves seconds at every start.

    It would import transformers for BERTScore alone.
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
