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
    from satlight import export, weights_commands
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
    for commands in (routing_commands, export, weights_commands, data_commands):
        commands.add_parser(subparsers)
    return parser


def _show_log() -> None:
    """What satlight has to say goes to stderr; Lightning's advice on other products does not."""
    log = logging.getLogger("satlight")
    if not log.handlers:
        log.addHandler(logging.StreamHandler())
        log.propagate = False
    log.setLevel(logging.INFO)
    advice = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    advice.addFilter(lambda record: "litlogger" not in record.getMessage())


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
    except SatlightError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except BrokenPipeError:  # `satlight ... | head`
        sys.stderr.close()


if __name__ == "__main__":
    main()
