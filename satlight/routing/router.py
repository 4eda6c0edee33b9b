"""A trained module with its zoo and aptitude test as a router."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from satlight.backbones.layout import column_major
from satlight.capability.aptitude import AptitudeTest
from satlight.capability.text import CapabilityText
from satlight.errors import SatlightError
from satlight.files import read_json
from satlight.images import MAX_SIDE, read_image
from satlight.modules import BlockRouter, Part
from satlight.routers import Router
from satlight.routing.format1 import read_capabilities
from satlight.storage import folder as files
from satlight.storage.classes import build
from satlight.storage.typed import typed
from satlight.types import AptitudeResults, Block, Candidate, Capability, Request, Temperature

_STATE_OF_TRAINING = ("val_", "objective.")


class CapabilityRouter(Router):
    """A module that reads capability representations: Model-SAT, or a part of it used alone.

    Args:
        module: A trained :class:`~satlight.modules.ModelSAT`, :class:`~satlight.modules.RouterLLM`,
            :class:`~satlight.modules.CapabilityEncoder` or other block router; put in eval mode.
        candidates: M candidates.
        capabilities: Their capability representations.
        about: Facts kept with the router, e.g. what it was trained on.
        calibration: Temperature and bias of the probabilities; None = none.
        test: The aptitude test behind the capabilities; None = no candidate can be admitted.
        text: How capabilities are written.

    Example:
        >>> from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
        >>> module = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"))
        >>> notes = [Capability(notes=(f"It is {word}.",)) for word in ("good", "poor")]
        >>> router = CapabilityRouter(module, [Candidate("a"), Candidate("b")], notes)
        >>> router.score(["What is 2+2?"]).log_odds_BC.shape
        (1, 2)
        >>> len(router.route("What is 2+2?").choices)
        2
    """

    not_stored = ("candidates", "capabilities", "about", "calibration", "test", "text")

    def __init__(
        self,
        module: BlockRouter,
        candidates: Sequence[Candidate],
        capabilities: Sequence[Capability],
        about: Mapping[str, Any] | None = None,
        calibration: Temperature | None = None,
        test: AptitudeTest | None = None,
        text: CapabilityText | None = None,
    ) -> None:
        if len(candidates) != len(capabilities) or not candidates:
            raise SatlightError(
                f"A router needs one capability per candidate and at least one, got {len(candidates)} "
                f"candidates and {len(capabilities)} capabilities"
            )
        self.module = module.eval()
        self.candidates, self.capabilities = tuple(candidates), tuple(capabilities)
        self.about = about or {}
        self.calibration = calibration or Temperature()
        self.test, self.text = test, text or CapabilityText()

    @property
    def reads_images(self) -> bool:
        """True if the module has a vision encoder."""
        return self.module.reads_images

    @torch.inference_mode()
    def log_odds(self, requests: Sequence[Request], candidates: Sequence[str]) -> np.ndarray:
        place = {name: column for column, name in enumerate(self.model_ids)}
        columns = [place[name] for name in candidates]
        images = [tuple(read_image(path, max_side=MAX_SIDE) for path in request.images) for request in requests]
        block = Block(
            [request.text for request in requests],
            [self.capabilities[c] for c in columns],
            rows=torch.arange(len(requests)),
            columns=torch.tensor(columns),
            groups=torch.zeros(len(requests), dtype=torch.long),
            images=images if any(images) else None,
        )
        return self.module.score(block).float().cpu().numpy()

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        """Add a candidate by its results on the core items; see :meth:`satlight.routers.Router.admit`.

        Raises:
            SatlightError: A name that the router has already, a router without aptitude test, or results on
                none of its core items.

        Reference: [Zhang et al. 2025, §4]; a new candidate needs its aptitude test only.
        """
        if self.test is None:
            raise SatlightError(
                "This router was built without its aptitude test, so that results cannot be read; export it "
                "from its run (`satlight export RUN`)"
            )
        other = self._with(candidate)
        capability = self.text.of(self.test, results, candidate.notes)
        other.capabilities = (*self.capabilities, capability)
        return other

    def remove(self, model_id: str) -> Self:
        """Remove a candidate with its capability; see :meth:`satlight.routers.Router.remove`."""
        other = super().remove(model_id)
        pairs = zip(self.candidates, self.capabilities, strict=True)
        other.capabilities = tuple(capability for one, capability in pairs if one.model_id != model_id)
        return other

    # -- folder --------------------------------------------------------------------------------------------

    def write(self, folder: Path) -> dict[str, Any]:
        """Write weights and aptitude.json."""
        apart = _saved_apart(self.module)
        weights = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.module.state_dict().items()
            if isinstance(tensor, Tensor) and not apart(name)
        }
        save_file(weights, folder / files.WEIGHTS)
        written = [asdict(capability) for capability in self.capabilities]
        content = {
            "test": self.test and self.test.to_dict(),
            "text": asdict(self.text),
            "capabilities": dict(zip(self.model_ids, written, strict=True)),
        }
        files.write_json(folder / files.APTITUDE, content)
        return {}

    @classmethod
    def restore(
        cls, folder: Path, config: Mapping[str, Any], candidates: tuple[Candidate, ...], allow: Sequence[str]
    ) -> Self:
        """Build the module, load its weights, read aptitude.json."""
        where = str(folder / files.CONFIG)
        args = {key: build(value, folder, allow, where) for key, value in config["init_args"].items()}
        module = args["module"]
        if not isinstance(module, BlockRouter):
            raise SatlightError(
                f"{where}: module is a {type(module).__name__}, which scores no blocks; allowed are modules "
                "that extend BlockRouter"
            )
        _load_weights(module, folder)
        column_major(module)
        names = [candidate.model_id for candidate in candidates]
        if config["format"] == files.FORMAT_1:
            return cls(candidates=candidates, capabilities=read_capabilities(folder, names), **args)
        content = read_json(folder / files.APTITUDE, files.ADVICE)
        with files.sound(folder / files.APTITUDE):
            capabilities = [typed(Capability, content["capabilities"][name], name) for name in names]
            for result in (result for capability in capabilities for result in capability.results):
                if not 0 <= result.accuracy <= 1:
                    raise ValueError(f"the accuracy on {result.task} is {result.accuracy}, not in [0, 1]")
            test = content["test"] and AptitudeTest.from_dict(content["test"], str(folder / files.APTITUDE))
            text = typed(CapabilityText, content["text"], "text")
        return cls(candidates=candidates, capabilities=capabilities, test=test, text=text, **args)


def _saved_apart(module: BlockRouter) -> Any:
    """Tell names of tensors that router.safetensors does not hold.

    Backbones have folders of their own; metric states, caches and objectives are not part of a router.
    """
    prefixes = []
    for name, part in module.named_modules():
        if isinstance(part, Part):
            own = (*part.weights_apart, *_STATE_OF_TRAINING)
            prefixes += [f"{name}.{prefix}" if name else prefix for prefix in own]
    return lambda name: name.startswith(tuple(prefixes)) or name.endswith("_extra_state")


def _load_weights(module: BlockRouter, folder: Path) -> None:
    path = folder / files.WEIGHTS
    with files.sound(path):
        missing, unexpected = module.load_state_dict(load_file(path), strict=False)
    apart = _saved_apart(module)
    lost = [name for name in missing if not apart(name)]
    if unexpected or lost:
        raise SatlightError(f"{path} lacks {lost[:3]} and has the unknown {unexpected[:3]}. {files.AGAIN}")
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not tensor.isfinite().all():
            own = folder / name.partition(".")[0]
            where = path if not apart(name) else own if own.is_dir() else folder
            raise SatlightError(
                f"{where}: the weights {name} are not finite (NaN or infinity); the router diverged in "
                "training or the file is damaged. Export another checkpoint"
            )
