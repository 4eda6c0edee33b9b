"""Entry point of the command line; ``lightning`` and ``satlight`` are the same program.

Training verbs (fit, validate, test, predict) go to :class:`satlight.cli.training.SatlightCLI`; the others
are small argparse commands. Nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import argparse
import sys

from satlight.cli.startup import import_torchmetrics_alone, score_only, show_log
from satlight.errors import SatlightError

TRAINING_VERBS = {
    "fit": "train a router",
    "validate": "compute the validation metrics of a checkpoint",
    "test": "print routed accuracy next to every control, with intervals",
    "predict": "write the scores of every instruction and candidate",
}

SCORING_VERBS = ("route", "export-arena")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs; the training verbs are listed for the help only."""
    from satlight.cli import arena, bench, data, export, route, weights

    parser = argparse.ArgumentParser(
        prog="satlight",
        description="Route each instruction to the LLM that will answer it best.",
        epilog="`satlight fit -h` and the like show the options of a training verb.",
    )
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, text in TRAINING_VERBS.items():
        subparsers.add_parser(verb, help=text, add_help=False)
    for verb_module in (route, export, weights, data, bench, arena):
        verb_module.add_parser(subparsers)
    return parser


def _own_error(error: BaseException | None) -> SatlightError | None:
    """Find the SatlightError in a chain of exceptions; jsonargparse wraps what a constructor raises."""
    while error is not None and not isinstance(error, SatlightError):
        error = error.__cause__ or error.__context__
    return error


def main(args: list[str] | None = None) -> None:
    """Run one command; the console scripts ``lightning`` and ``satlight`` call this.

    Args:
        args: Command-line arguments; None = those of this process.

    Raises:
        SystemExit: With code 1 after a user error, 2 after an argument that cannot be parsed.

    Returns None, since the console script passes the result to ``sys.exit``.
    """
    argv = sys.argv[1:] if args is None else list(args)
    show_log()
    try:
        if argv and argv[0] in TRAINING_VERBS:
            import_torchmetrics_alone()
            from satlight.cli.training import run

            run(argv)
        else:
            parsed = build_parser().parse_args(argv)
            if args is None and parsed.verb in SCORING_VERBS:  # not in a process that may also train
                score_only()
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
