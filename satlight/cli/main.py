"""Entry point of the command line; ``lightning`` and ``satlight`` are the same program.

Training verbs (fit, validate, test, predict) go to :class:`satlight.cli.training.SatlightCLI`; the others
are small argparse commands. Nothing heavy is imported before the verb is known.
"""

from __future__ import annotations

import argparse
import errno
import sys
from functools import partial
from typing import Any

from satlight.cli.startup import import_torchmetrics_alone, score_only, show_log
from satlight.errors import SatlightError

TRAINING_VERBS = {
    "fit": "train a router",
    "validate": "compute the validation metrics of a checkpoint",
    "test": "print routed accuracy next to every control, with intervals",
    "predict": "write the scores of every instruction and candidate",
}

SCORING_VERBS = ("route", "serve", "export-arena", "zoo")


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of all verbs; the training verbs are listed for the help only."""
    from satlight.cli import (
        arena,
        bench,
        calibrate,
        data,
        export,
        gateways,
        onboard,
        recommend,
        reproduce,
        route,
        serve,
        sweep,
        weights,
        zoo,
    )  # fmt: skip

    parser = argparse.ArgumentParser(
        prog="satlight",
        description="Route each instruction to the LLM that will answer it best.",
        epilog="`satlight fit -h` and the like show the options of a training verb.",
    )
    whole_names: Any = partial(argparse.ArgumentParser, allow_abbrev=False)
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=whole_names)
    for verb, text in TRAINING_VERBS.items():
        subparsers.add_parser(verb, help=text, add_help=False)
    for verb_module in (
        recommend, route, serve, calibrate, zoo, onboard, export, weights, data, bench, sweep, reproduce, arena,
        gateways,
    ):  # fmt: skip
        verb_module.add_parser(subparsers)
    return parser


def _sentence(error: BaseException) -> str | None:
    """Return what to tell the user, or None for a fault of the program.

    Looks through chains of exceptions: jsonargparse wraps what a constructor raises.
    """
    link: BaseException | None = error
    while link is not None and not isinstance(link, SatlightError):
        link = link.__cause__ or link.__context__
    if link is not None:
        return str(link)
    if isinstance(error, UnicodeError):
        return f"some input is not valid Unicode text ({error}); save files as UTF-8"
    if isinstance(error, OSError):
        names = " and ".join(str(name) for name in (error.filename, error.filename2) if name)
        remedy = "make room there" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the path and its rights"
        return f"{f'{names}: ' if names else ''}{error.strerror or error}; {remedy}"
    return None


def main(args: list[str] | None = None) -> None:
    """Run one command; the console scripts ``lightning`` and ``satlight`` call this.

    Args:
        args: Command-line arguments; None = those of this process.

    Raises:
        SystemExit: With code 1 after a user error, 2 after an argument that cannot be parsed, 130 after Ctrl-C.

    Returns None, since the console script passes the result to ``sys.exit``.
    """
    argv = sys.argv[1:] if args is None else list(args)
    show_log()
    try:
        if argv and argv[0] in TRAINING_VERBS:
            import_torchmetrics_alone()
            from satlight.cli.training import run

            run(argv, process_ends=args is None)
        else:
            parsed = build_parser().parse_args(argv)
            if args is None and parsed.verb in SCORING_VERBS:  # not in a process that may also train
                score_only()
            parsed.run(parsed)
    except BrokenPipeError:  # `satlight ... | head`
        sys.stderr.close()
    except KeyboardInterrupt:
        resume = {"fit": "; continue with `--ckpt_path last`", "sweep": "; the same command continues"}
        more = resume.get(argv[0], "") if argv else ""
        print(f"interrupted{more}", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if (sentence := _sentence(error)) is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
