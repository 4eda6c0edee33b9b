"""From a training run to a router folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.data import CapabilityInstructionDataModule
    from satlight.modules import BlockRouter


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
    from satlight.callbacks.calibration import temperature_of
    from satlight.capability.text import CapabilityText
    from satlight.routing.router import CapabilityRouter
    from satlight.storage.checkpoints import read_checkpoint

    content = read_checkpoint(checkpoint)
    try:
        module.on_load_checkpoint(content)
        module.load_state_dict(content["state_dict"])
        calibration = temperature_of(content)  # None: trained without it, probabilities as they are
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise SatlightError(
            f"{checkpoint} does not fit the module of its run ({error}). Give a checkpoint of that run, or train again"
        ) from error
    data.setup("fit")
    candidates = [c for c in data.records.candidates if c.model_id in {*data.seen, *data.unseen}]
    names = [candidate.model_id for candidate in candidates]
    about = {
        "data": data.records.facts(),
        "split": {key: getattr(data, key) for key in ("seed", "validation_fraction", "group_column", "split_column")},
        "unseen_in_training": data.unseen,
    }
    if data.task_clusters:
        about["task_clusters"] = {cluster.name: cluster.train for cluster in data.task_clusters}
    capabilities = data.capabilities(names)
    spec = data.aptitude_spec
    text = CapabilityText(shots=spec.shots, style=spec.style)
    router = CapabilityRouter(module.cpu(), candidates, capabilities, about, calibration, data.aptitude, text)
    router.save(folder)
    return Path(folder)
