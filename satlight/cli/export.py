"""``satlight export``: write a checkpoint of a run as a router folder."""

from __future__ import annotations

import argparse
import io
import json
import sys
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from satlight.cli import runs
from satlight.cli.startup import import_torchmetrics_alone
from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.data import CapabilityInstructionDataModule
    from satlight.modules import BlockRouter


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "export",
        help="write a trained router as a folder that needs neither data nor pretrained weights",
        description="Write a checkpoint of a run as a router folder. `fit` does so with the best one, into RUN/router.",
    )
    parser.add_argument("run_dir", type=Path, nargs="?", metavar="RUN", help="run folder, e.g. runs/full/1")
    parser.add_argument("--name", help="instead of RUN: name of a run, of which the newest is taken")
    parser.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="folder of all runs")
    parser.add_argument("--checkpoint", default="best", choices=("best", "last"))
    parser.add_argument("--to", type=Path, metavar="DIR", help="default: RUN/router")
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> None:
    """Rebuild module and data from the run's config.yaml, load the checkpoint, write the folder."""
    from satlight.routing.export import export_router

    if (args.run_dir is None) == (args.name is None):
        raise SatlightError("export takes a run folder, e.g. runs/full/1, or --name NAME (one of the two)")
    if args.name is not None:
        run = runs.checkpoint(args.runs.expanduser(), args.name, args.checkpoint).parent.parent
    else:
        run = args.run_dir.expanduser()
    checkpoint = run / "checkpoints" / f"{args.checkpoint}.ckpt"
    for path in (run / runs.CONFIG, checkpoint):
        if not path.is_file():
            raise SatlightError(f"{path} does not exist; RUN is a folder that `fit` wrote, e.g. runs/full/1")
    import_torchmetrics_alone()
    module, data = rebuild(run)
    to = args.to.expanduser() if args.to else run / "router"
    print(export_router(module, data, checkpoint, to))


def rebuild(run: Path) -> tuple[BlockRouter, CapabilityInstructionDataModule]:
    """Build module and data from the run's settings, as ``test`` does."""
    from satlight.cli import settings
    from satlight.cli.training import SatlightCLI, ignore_noise

    content = settings.of_run(run)
    usage = io.StringIO()
    try:
        with warnings.catch_warnings(), redirect_stderr(usage):
            ignore_noise()
            cli = SatlightCLI(args=["--config", json.dumps(content), "--trainer.logger=false"], run=False)
    except SystemExit as error:
        problem = usage.getvalue().partition("error: ")[2].strip()
        raise SatlightError(
            f"{run / runs.CONFIG} is not what `fit` of this version writes for a module and data of satlight: {problem}"
        ) from error
    except SatlightError as error:
        raise SatlightError(f"{run / runs.CONFIG}: {error}") from error
    sys.stderr.write(usage.getvalue())
    return cast("tuple[BlockRouter, CapabilityInstructionDataModule]", (cli.model, cli.datamodule))
