"""``satlight export``: write a checkpoint of a run as a router folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from satlight.cli import runs
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
    module, data = _rebuild(run / runs.CONFIG)
    to = args.to.expanduser() if args.to else run / "router"
    print(export_router(module, data, checkpoint, to))


def _rebuild(config: Path) -> tuple[BlockRouter, CapabilityInstructionDataModule]:
    from jsonargparse import ArgumentError, ArgumentParser

    from satlight.cli.runs import read_config
    from satlight.data import CapabilityInstructionDataModule
    from satlight.modules import BlockRouter

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BlockRouter, "model")
    parser.add_subclass_arguments(CapabilityInstructionDataModule, "data")
    content = read_config(config)
    try:
        parsed = parser.parse_object({key: content[key] for key in ("model", "data")})
    except (ArgumentError, KeyError, TypeError) as error:
        raise SatlightError(
            f"{config} is not what `fit` of this version writes for a module and data of satlight: {error}"
        ) from error
    parts = parser.instantiate_classes(parsed)
    return parts.model, parts.data
