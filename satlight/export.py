"""From a training run to a router folder; ``satlight export`` and the end of ``fit``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.data import CapabilityInstructionDataModule
    from satlight.modules import BlockRouter


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "export",
        help="write a trained router as a folder that needs neither data nor pretrained weights",
        description="Write a checkpoint of a run as a router folder. `fit` does so with the best one, into "
        "RUN/router.",
    )
    parser.add_argument("run_dir", type=Path, metavar="RUN", help="run folder, e.g. runs/full/1")
    parser.add_argument("--checkpoint", default="best", choices=("best", "last"))
    parser.add_argument("--to", type=Path, metavar="DIR", help="default: RUN/router")
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> None:
    """Rebuild module and data from the run's config.yaml, load the checkpoint, write the folder."""
    from satlight.cli import import_torchmetrics_alone

    checkpoint = args.run_dir / "checkpoints" / f"{args.checkpoint}.ckpt"
    for path in (args.run_dir / "config.yaml", checkpoint):
        if not path.is_file():
            raise SatlightError(f"{path} does not exist; RUN is a folder that `fit` wrote, e.g. runs/full/1")
    import_torchmetrics_alone()
    module, data = _rebuild(args.run_dir / "config.yaml")
    print(export_router(module, data, checkpoint, args.to or args.run_dir / "router"))


def _rebuild(config: Path) -> tuple[BlockRouter, CapabilityInstructionDataModule]:
    import yaml
    from jsonargparse import ArgumentError, ArgumentParser

    from satlight.data import CapabilityInstructionDataModule
    from satlight.modules import BlockRouter

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(BlockRouter, "model")
    parser.add_subclass_arguments(CapabilityInstructionDataModule, "data")
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    try:
        parsed = parser.parse_object({key: content[key] for key in ("model", "data")})
    except (ArgumentError, KeyError, TypeError) as error:
        raise SatlightError(
            f"{config} is not what `fit` of this version writes for a module and data of satlight: {error}"
        ) from error
    parts = parser.instantiate_classes(parsed)
    return parts.model, parts.data


def export_router(
    module: BlockRouter, data: CapabilityInstructionDataModule, checkpoint: Path | str, folder: Path | str
) -> Path:
    """Load ``checkpoint`` into ``module`` and write it with the whole zoo of ``data`` as a router folder.

    Args:
        module: The module that was trained.
        data: The data module it was trained on.
        checkpoint: A checkpoint of that training.
        folder: Where to.

    Returns:
        ``folder``.

    Raises:
        SatlightError: A checkpoint of another module.
    """
    import torch

    from satlight.callbacks.calibration import temperature_of
    from satlight.metrics.calibration import Temperature
    from satlight.routing import Router

    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"])
    data.setup("fit")
    candidates = [c for c in data.records.candidates if c.model_id in {*data.seen, *data.unseen}]
    names = [candidate.model_id for candidate in candidates]
    about = {
        "data": {
            "name": data.records.name,
            "fingerprint": data.records.fingerprint,
            "simulated": data.records.simulated,
            "score_column": data.records.score_column,
        },
        "unseen_in_training": data.unseen,
    }
    calibration = temperature_of(content) or Temperature()  # trained without it: probabilities as they are
    capabilities = data.capabilities(names)
    Router(module.cpu(), candidates, capabilities, about, calibration).save_pretrained(folder)
    data.aptitude.save(Path(folder) / "aptitude.json")
    return Path(folder)
