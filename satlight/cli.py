"""The command line: ``lightning`` and ``satlight`` are the same program.

Training verbs (fit, validate, test, predict) go to :class:`satlight.lightning_cli.SatlightCLI`; the others
are small argparse commands. Nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import argparse
import logging
import sys

from satlight.errors import SatlightError

TRAINING_VERBS = {
    "fit": "train a router",
    "validate": "validation metrics of a checkpoint",
    "test": "the table: routed accuracy beside every control, with intervals",
    "predict": "write the scores of every instruction and candidate",
}


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs; the training verbs only stand in its help."""
    from satlight import arena, export, weights_commands
    from satlight.bench import commands as bench_commands
    from satlight.records import commands as data_commands
    from satlight.routing import commands as routing_commands

    parser = argparse.ArgumentParser(
        prog="satlight",
        description="Route each instruction to the LLM that will answer it best.",
        epilog="`satlight fit -h` and the like show the options of a training verb.",
    )
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, text in TRAINING_VERBS.items():
        subparsers.add_parser(verb, help=text, add_help=False)
    for commands in (routing_commands, export, weights_commands, data_commands, bench_commands, arena):
        commands.add_parser(subparsers)
    return parser


class _Stderr(logging.Handler):
    """Writes to what sys.stderr is when there is something to say, not to what it was at the start."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def _no_advice(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage()


def _show_log() -> None:
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


def _own_error(error: BaseException | None) -> SatlightError | None:
    """The SatlightError that this is or comes from: jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, SatlightError):
        error = error.__cause__ or error.__context__
    return error


def main(args: list[str] | None = None) -> None:
    """Run one command; the console scripts ``lightning`` and ``satlight`` call this.

    Args:
        args: Words of the command line; None = those of this process.

    Raises:
        SystemExit: With code 1 after an error of the user's, 2 after a word that cannot be parsed.

    Returns None, since the console script passes the result to ``sys.exit``.
    """
    words = sys.argv[1:] if args is None else list(args)
    _show_log()
    try:
        if words and words[0] in TRAINING_VERBS:
            import_torchmetrics_alone()
            from satlight.lightning_cli import run

            run(words)
        else:
            parsed = build_parser().parse_args(words)
            parsed.run(parsed)
    except ValueError as error:
        if (own := _own_error(error)) is None:
            raise
        print(f"error: {own}", file=sys.stderr)
        raise SystemExit(1) from error
    except BrokenPipeError:  # `satlight ... | head`
        sys.stderr.close()


if __name__ == "__main__":
    main()
