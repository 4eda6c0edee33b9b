"""The base of router modules: steps over blocks, optimizer, metrics, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from satlight.errors import SatlightError
from satlight.losses.objectives import Objective, Pointwise
from satlight.modules.lightning_module import SCORING_ONLY, LightningModule
from satlight.storage.classes import Configured
from satlight.types import Block, Stage


@dataclass
class OptimizerSpec:
    """AdamW with warm-up, decay and a learning rate per part.

    Args:
        lr: Peak learning rate of the router LLM (of all parameters in a module without parts).
        encoder_scale: Factor on ``lr`` for the capability encoder.
        projector_scale: Factor on ``lr`` for all other parts: projectors, terms and visual learners.
        weight_decay: Decoupled weight decay, on matrices only.
        warmup: Share of all steps during which the rate rises linearly from 0, in [0, 1).
        decay: Shape of the decay from the peak to ``final`` at the last step.
        final: Rate at the last step as a share of the peak.
        betas: Coefficients of AdamW's running averages.
        vision_scale: Factor on ``lr`` for the vision encoder; one that starts from random weights needs more than 1.

    Reference: encoder and connector learn faster than the LLM, [Zhang et al. 2025, §4, stage 2].
    """

    lr: float = 3e-4
    encoder_scale: float = 1.0
    projector_scale: float = 3.0
    weight_decay: float = 0.01
    warmup: float = 0.1
    decay: Literal["cosine", "linear", "none"] = "cosine"
    final: float = 0.05
    betas: tuple[float, float] = (0.9, 0.98)
    vision_scale: float = 1.0

    def factor(self, step: int, total: int) -> float:
        """Return the learning rate at ``step`` of ``total`` as a share of the peak.

        Example:
            >>> spec = OptimizerSpec(warmup=0.1, decay="linear", final=0.0)
            >>> [round(spec.factor(s, 100), 2) for s in (0, 9, 55, 100)]
            [0.1, 1.0, 0.5, 0.0]
        """
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / warm
        progress = min(1.0, (step - warm) / max(1, total - warm))
        if self.decay == "cosine":
            shape = 0.5 * (1 + math.cos(math.pi * progress))
        elif self.decay == "linear":
            shape = 1 - progress
        else:
            shape = 1.0
        return self.final + (1 - self.final) * shape if self.decay != "none" else 1.0

    def rate(self, part: str) -> float:
        """Return the peak learning rate of a part, see :meth:`BlockRouter.parts`."""
        scales = {"router_llm": 1.0, "encoder": self.encoder_scale, "vision": self.vision_scale}
        return self.lr * scales.get(part, self.projector_scale)


class Part(LightningModule, Configured):
    """A module of a router that has pretrained weights, which its config may freeze."""

    weights_apart: tuple[str, ...] = ()
    """Prefixes of the weights that :meth:`stored_args` writes into files of their own."""
    stored_folders: tuple[str, ...] = ()
    """Arguments that are folders of the router folder when a stored module is built."""

    def frozen_parameters(self) -> list[str]:
        """Return the names of the parameters of this module, without submodules, that its config freezes."""
        return []


class BlockRouter(Part):
    """A LightningModule that scores blocks; subclasses define :meth:`score`.

    Logs ``train_loss`` (and each part of a weighted objective), ``val_loss``, ``val_routed_accuracy``
    (macro mean over datasets, in [0, 1]) and ``val_ece``. Checkpoints exclude the parameters that the config
    freezes: these are loaded from the pretrained weights.

    Args:
        objective: Loss on a block; :class:`~satlight.losses.objectives.Pointwise` when None.
        optimizer: Learning rates and schedule.
    """

    def __init__(self, objective: Objective | None = None, optimizer: OptimizerSpec | None = None) -> None:
        super().__init__()
        self.objective: nn.Module = objective if objective is not None else Pointwise()
        self.optimizer_spec = optimizer if optimizer is not None else OptimizerSpec()
        if not SCORING_ONLY:  # torchmetrics is slow to import
            from satlight.metrics.modules import CalibrationError, RoutedAccuracy, WeightedMean

            self.val_loss = WeightedMean()
            self.val_routed_accuracy = RoutedAccuracy()
            self.val_ece = CalibrationError()
        self._base_seed: int | None = None
        self.stage = Stage()
        """The current stage of training; :meth:`enter` sets it."""
        self._paused: list[nn.Parameter] = []

    not_stored = ("objective", "optimizer")
    reads_images = False
    """True if it scores blocks with images; all others refuse them."""

    def score(self, block: Block) -> Tensor:
        """Return the log-odds that each candidate solves each instruction: float (B, C)."""
        raise NotImplementedError

    def check_images(self, images: Sequence[Sequence[Any]] | None) -> None:
        """Refuse images if this router reads text only.

        Raises:
            SatlightError: It reads no images, and an instruction has one.
        """
        if self.reads_images or not (number := sum(map(len, images or ()))):
            return
        raise SatlightError(
            f"{type(self).__name__} reads text only, but got instructions with {number} images. Train a ModelSAT with "
            "model.vision, or leave the images out"
        )

    def forward(self, block: Block) -> Tensor:
        return self.score(block)

    def configure_model(self) -> None:
        # Stages, cached chunks and candidates without results leave parameters without a gradient, and not always the
        # same ones; DDP must look for them. A strategy that sets the option keeps its value.
        options = getattr(self.trainer.strategy, "_ddp_kwargs", None)
        if options is not None:
            options.setdefault("find_unused_parameters", True)

    # -- steps ---------------------------------------------------------------------------------------------

    def on_train_batch_start(self, batch: Block, batch_idx: int) -> None:
        # Each step is a pure function of seed and step, so that a resumed run equals an uninterrupted one.
        if self._base_seed is None:
            self._base_seed = torch.initial_seed()
        # Blocks whose gradients are accumulated, and those of other devices, share a step, but not their random draws.
        step_seed = self._base_seed + 1_000_003 * (self.global_step + 1) + batch_idx + 500_009 * self.global_rank
        torch.manual_seed(step_seed % 2**63)

    def training_step(self, block: Block, batch_idx: int) -> Tensor:
        parts = self.objective(self.score(block), block.target_BC, block.known_BC, block.weight_BC)
        size = len(block.instructions)
        self.log("train_loss", parts["loss"], prog_bar=True, batch_size=size)
        for name, value in parts.items():
            if name != "loss":
                self.log(f"train_{name}", value, batch_size=size)
        return parts["loss"]

    def on_validation_epoch_start(self) -> None:
        # The reset after a validation without training leaves tensors that no later `fit` may change.
        self.val_loss.reset()
        self.val_routed_accuracy.reset()
        self.val_ece.reset()

    def validation_step(self, block: Block, batch_idx: int) -> Tensor:
        assert block.target_BC is not None
        assert block.known_BC is not None
        score_BC = self.score(block)
        parts = self.objective(score_BC, block.target_BC, block.known_BC, block.weight_BC)
        size = len(block.instructions)
        # A block without a known cell weighs nothing: another device counts it.
        self.val_loss.update(parts["loss"], size if block.known_BC.any() else 0)
        self.log("val_loss", self.val_loss, prog_bar=True, batch_size=size)
        self.val_routed_accuracy.update(score_BC, block.target_BC, block.known_BC, block.groups)
        self.val_ece.update(score_BC, block.target_BC, block.known_BC)
        self.log("val_routed_accuracy", self.val_routed_accuracy, prog_bar=True, batch_size=size)
        self.log("val_ece", self.val_ece, batch_size=size)
        return score_BC

    def test_step(self, block: Block, batch_idx: int) -> Tensor:
        return self.score(block)

    def predict_step(self, block: Block, batch_idx: int) -> Tensor:
        return self.score(block)

    # -- optimizer -----------------------------------------------------------------------------------------

    def parts(self) -> dict[str, nn.Module]:
        """Return the parts that have their own learning rate, by the name of their attribute."""
        return {}

    def connectors(self) -> tuple[str, ...]:
        """Return the names of the parts that stage 1 of two-stage tuning trains."""
        return ("projector",) if getattr(self, "projector", None) is not None else ()

    def enter(self, stage: Stage) -> None:
        """Train the parts of ``stage`` only, on its schedule; ``enter(Stage())`` trains everything again."""
        for parameter in self._paused:
            parameter.requires_grad_(True)
        self._paused = [p for name, p in self.named_parameters() if p.requires_grad and not stage.trains(name)]
        for parameter in self._paused:
            parameter.requires_grad_(False)
        self.stage = stage

    def _groups(self) -> list[dict[str, Any]]:
        spec = self.optimizer_spec
        owner = {id(p): name for name, part in self.parts().items() for p in part.parameters()}
        groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
        frozen = self.frozen_names()
        for name, parameter in self.named_parameters():
            if name not in frozen:
                if parameter.dtype == torch.float16:
                    raise SatlightError(
                        f"{name} is float16, in which AdamW's averages of small gradients are 0 and weights become "
                        "NaN; set trainer.precision to bf16-true, bf16-mixed or 16-mixed, and dtype to bfloat16 or "
                        "float32 (float16 can validate, test and predict)"
                    )
                groups.setdefault((owner.get(id(parameter), "router_llm"), parameter.ndim >= 2), []).append(parameter)
        if not groups:
            raise SatlightError(f"{type(self).__name__} has nothing to train: the config freezes every parameter")
        return [
            {
                "params": parameters,
                "name": f"{part}{'' if decays else '_no_decay'}",
                "lr": spec.rate(part),
                "weight_decay": spec.weight_decay if decays else 0.0,
            }
            for (part, decays), parameters in groups.items()
        ]

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self._groups(), betas=self.optimizer_spec.betas)
        if math.isinf(self.trainer.estimated_stepping_batches):
            raise SatlightError(
                "The learning rate needs an end of training; set trainer.max_epochs or trainer.max_steps"
            )
        total = int(self.trainer.estimated_stepping_batches)

        def factor(step: int) -> float:
            start, end = self.stage.first_step, self.stage.end_step
            return self.optimizer_spec.factor(step - start, (total if end is None else end) - start)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # -- checkpoints ---------------------------------------------------------------------------------------

    def frozen_names(self) -> set[str]:
        """Return the names of the parameters that the config freezes, without those that a stage freezes."""
        return {
            f"{prefix}.{name}" if prefix else name
            for prefix, module in self.named_modules()
            if isinstance(module, Part)
            for name in module.frozen_parameters()
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name in self.frozen_names():
            checkpoint["state_dict"].pop(name, None)
        checkpoint["satlight_seed"] = self._base_seed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._base_seed = checkpoint.get("satlight_seed")
        own, loaded = self.state_dict(), checkpoint["state_dict"]
        for name in loaded.keys() - own.keys():  # the layout of earlier checkpoints
            head, found, tail = name.partition("backbone.")
            if found and (renamed := f"{head}text.{found}{tail}") in own:
                loaded[renamed] = loaded.pop(name)
        for name in self.frozen_names():
            loaded.setdefault(name, own[name])
        for name, tensor in loaded.items():
            expected = own.get(name)
            if isinstance(tensor, Tensor) and isinstance(expected, Tensor) and tensor.shape != expected.shape:
                raise SatlightError(
                    f"The checkpoint was written by a model with other shapes: {name} is "
                    f"{tuple(tensor.shape)} there and {tuple(expected.shape)} here. Use the config it was "
                    "trained with (config.yaml in its run folder), or train a new model."
                )
        missing, unknown = sorted(set(own) - set(loaded)), sorted(set(loaded) - set(own))
        if missing or unknown:
            raise SatlightError(
                "The checkpoint was written by another model: "
                f"it lacks {missing[:3] or 'nothing'} and has {unknown[:3] or 'nothing'} that this model "
                "lacks. Use the config it was trained with (config.yaml in its run folder)."
            )
