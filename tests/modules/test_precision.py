"""Every option of Model-SAT and every overlay in every precision: training steps, a validation and a test."""

import warnings
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from satlight.errors import SatlightError
from satlight.losses import CandidateContrastive, InstructionContrastive, Pointwise, RoutingRegret, WeightedSum
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM, VisionEncoder, VisualLearners
from satlight.modules.terms import ScoreTerm

CONFIGS = Path(__file__).parents[2] / "configs"
# On CPU, Lightning takes bf16-mixed for 16-mixed; a GPU takes the gradient scaler.
PRECISIONS = ("32-true", "64-true", "bf16-true", "bf16-mixed", "16-mixed")
QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


class Linear(ScoreTerm):
    """A term of a user, who knows nothing of precisions."""

    name = "mine"

    def connect(self, in_features: int, out_features: int, token_norm: float) -> None:
        self.layer = nn.Linear(in_features, in_features)

    def forward(self, reading):
        return self.layer(reading.instruction_BD) @ reading.standard_CD.T


def model_sat(encoder=None, llm=None, **options):
    return ModelSAT(RouterLLM("tiny:llama", **llm or {}), CapabilityEncoder("tiny:bert", **encoder or {}), **options)


MODULES = {
    "default": model_sat,
    "terms": lambda: model_sat(
        {"trainable": False},
        {"score_head": "regression", "candidate_layers": 1, "freeze_layers": 1},
        task_attention=True,
        two_towers=True,
        instruction_vector=True,
        terms=[Linear()],
        objective=WeightedSum({"row": CandidateContrastive(), "cell": Pointwise()}, {"row": 1.0, "cell": 0.5}),
    ),
    "paper": lambda: model_sat(
        {"chunking": "windows", "grad_chunks": None, "pooling": "last"},
        {"order": "capability_first", "score_head": "yes", "freeze_embeddings": False},
        perturbations=2,
        objective=InstructionContrastive(),
    ),
    "statements": lambda: model_sat(
        {"chunking": "statements", "grad_chunks": 1}, {"dtype": "bfloat16"}, two_towers=True, objective=RoutingRegret()
    ),
    "identity": lambda: model_sat(
        {"chunking": "identity", "pooling": "cls"}, {"order": "capability_first"}, task_attention=True
    ),
    "images": lambda: model_sat(
        vision=VisionEncoder("tiny:conv", trainable=True),
        visual_towers=True,
        visual_learners=VisualLearners(rank=4),
        instruction_vector=True,
    ),
    "frozen eyes": lambda: model_sat(
        {"trainable": False},
        {"order": "capability_first"},
        vision=VisionEncoder("tiny:vit", dtype="bfloat16"),
        visual_learners=VisualLearners(rank=4, layers=[1]),
    ),
    "llm alone": lambda: RouterLLM("tiny:llama"),
    "encoder alone": lambda: CapabilityEncoder("tiny:bert", chunking="statements"),
}


def run(module, block, precision, **options):
    """Validate, train for two steps with validations, test and predict; return losses and scores."""
    trainer = L.Trainer(precision=precision, max_steps=2, val_check_interval=1, **QUIET, **options)
    blocks = torch.utils.data.DataLoader([block, block], batch_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.validate(module, blocks, verbose=False)
        trainer.fit(module, blocks, blocks)
        logged = {name: float(value) for name, value in trainer.logged_metrics.items()}
        trainer.test(module, blocks, verbose=False)
        return logged, trainer.predict(module, blocks)[0]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", MODULES)
def test_every_option_trains_in_every_precision(name, precision, make_block, instructions, capabilities):
    torch.manual_seed(0)
    module = MODULES[name]()
    before = {key: tensor.clone() for key, tensor in module.named_parameters()}
    block = make_block(instructions, capabilities)
    if module.reads_images:
        block.images = [(IMAGE,), (), (IMAGE[:20], IMAGE), ()]
    logged, score_BC = run(module, block, precision)
    assert score_BC.dtype == torch.float32
    assert score_BC.isfinite().all()
    assert {"train_loss", "val_loss", "val_routed_accuracy", "val_ece"} <= set(logged)
    assert all(torch.tensor(list(logged.values())).isfinite())
    moved = {key for key, p in module.named_parameters() if not torch.equal(p.float(), before[key].float())}
    for part in (
        *("router_llm.head", "projector.linear.weight", "two_towers.key.weight", "mine.layer.weight"),
        *("visual_projector.linear.weight", "visual_towers.query.2.weight", "visual_learners.learners.1.out.weight"),
        "vision.backbone.network.stem.0.weight",
    ):
        assert part not in before or part in moved or before[part].std() == 0, part
    small = [
        p
        for key, p in module.named_parameters()
        if not key.startswith(("router_llm.b", "encoder.t", "b", "t", "vision."))
    ]
    assert all(p.dtype == torch.float32 for p in small)


def test_scores_in_half_precision_are_close_and_distinct(make_block, instructions, capabilities):
    torch.manual_seed(0)
    module = MODULES["terms"]().eval()
    block = make_block(instructions, capabilities)
    with torch.no_grad():
        exact_BC = module(block)
        with torch.autocast("cpu", torch.bfloat16):
            mixed_BC = module(block)
        half_BC = module.bfloat16()(block)
    for score_BC in (mixed_BC, half_BC):
        assert score_BC.dtype == torch.float32
        assert torch.allclose(score_BC, exact_BC, atol=0.1)
        assert not torch.equal(score_BC, score_BC.bfloat16().float())  # not rounded, so ties stay rare


def test_outcomes_are_not_rounded(make_block, instructions, capabilities):
    target_BC = torch.full((4, 3), 0.7001)
    block = make_block(instructions, capabilities, target_BC=target_BC)
    logged, _ = run(MODULES["encoder alone"](), block, "bf16-true")
    assert logged["val_routed_accuracy"] == pytest.approx(0.7001, abs=1e-6)


def test_float16_weights_are_evaluated_but_not_trained(make_block, instructions, capabilities):
    block = make_block(instructions, capabilities)
    with pytest.raises(SatlightError, match=r"is float16.*bf16-true, bf16-mixed or 16-mixed"):
        run(model_sat(), block, "16-true")
    trainer = L.Trainer(precision="16-true", **QUIET)
    (score_BC,) = trainer.predict(model_sat(), torch.utils.data.DataLoader([block], batch_size=None))
    assert score_BC.isfinite().all()


def fit_config(*words):
    """Two training steps, a validation and a test of configs/full.yaml with overlays and parts, on tiny networks."""
    from satlight.cli.training import SatlightCLI

    options = {
        "trainer.accelerator": "cpu",
        "trainer.logger": "false",
        "trainer.max_steps": 2,
        "trainer.accumulate_grad_batches": 1,
        "trainer.limit_val_batches": 1,
        "trainer.val_check_interval": 1,
        "trainer.enable_checkpointing": "false",
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "data.blocks_per_epoch": 2,
        "data.simulated.num_instructions": 1200,
        "data.simulated.num_candidates": 5,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cli = SatlightCLI(
            args=[
                *("-c", str(CONFIGS / "full.yaml"), *words, "-c", str(CONFIGS / "overlay" / "debug.yaml")),
                *(f"--{key}={value}" for key, value in options.items()),
            ],
            run=False,
        )
        cli.trainer.fit(cli.model, cli.datamodule)
        assert cli.trainer.global_step == 2
        assert torch.tensor(list(cli.trainer.logged_metrics.values())).isfinite().all()
        cli.trainer.limit_test_batches = 1  # the report needs all of them
        cli.trainer.callbacks[:] = [one for one in cli.trainer.callbacks if type(one).__name__ != "RoutingReport"]
        cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    return cli


PARTS = {part: sorted((CONFIGS / part).glob("*.yaml")) for part in ("encoder", "router_llm", "objective")}


@pytest.mark.parametrize("number", range(max(map(len, PARTS.values()))))
def test_every_part_trains_in_half_precision(number):
    words = [word for part, files in PARTS.items() for word in (f"--model.{part}", str(files[number % len(files)]))]
    fit_config(*words, "--trainer.precision", "bf16-true")


@pytest.mark.parametrize("overlay", sorted(path.stem for path in (CONFIGS / "overlay").glob("*.yaml")))
def test_every_overlay_trains(overlay):
    cli = fit_config("-c", str(CONFIGS / "overlay" / f"{overlay}.yaml"))
    if overlay == "paper_scale":
        assert cli.trainer.precision == "bf16-mixed"
        assert type(cli.model.objective) is InstructionContrastive
        assert (cli.datamodule.sampler.instructions, cli.datamodule.sampler.candidates) == (4, 1)
        assert cli.config.data.init_args.targets.shrinkage == 0
        assert cli.model.router_llm.frozen_parameters() == []
        assert [type(one).__name__ for one in cli.trainer.callbacks].count("TwoStageTuning") == 1
        assert "EarlyStopping" not in [type(one).__name__ for one in cli.trainer.callbacks]
