"""Every option of Model-SAT in every precision: two training steps, a validation and a test."""

import warnings

import lightning as L
import pytest
import torch

from satlight.losses import InstructionContrastive, WeightedSum
from satlight.losses.objectives import CandidateContrastive, Pointwise, RoutingRegret
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.modules.base import OptimizerSpec

PRECISIONS = ("32-true", "bf16-true", "64-true", "bf16-mixed", "16-mixed", "16-true")


def trained(module, block, precision):
    """Validate, train for two steps, validate and test on CPU; return the log and the scores."""
    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=2,
        limit_val_batches=1,
        val_check_interval=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    blocks = torch.utils.data.DataLoader([block, block], batch_size=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.validate(module, blocks, verbose=False)
        trainer.fit(module, blocks, blocks)
        logged = dict(trainer.logged_metrics)
        trainer.test(module, blocks, verbose=False)
        scores = trainer.predict(module, blocks)
    return logged, scores


ENCODERS = {
    "results": {},
    "statements": {"chunking": "statements", "grad_chunks": 1},
    "windows": {"chunking": "windows", "trainable": False},
    "identity": {"chunking": "identity"},
}
MODELS = {
    "terms": {"task_attention": True, "two_towers": True, "instruction_vector": True},
    "perturbations": {"perturbations": 2},
}
LLMS = {
    "instruction_first": {"score_head": "regression", "candidate_layers": 1},
    "capability_first": {"order": "capability_first", "score_head": "yes"},
    "bfloat16": {"dtype": "bfloat16"},
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("llm", LLMS)
def test_it(llm, model, encoder, precision, make_block, instructions, capabilities):
    block = make_block(instructions, capabilities)
    module = ModelSAT(RouterLLM("tiny:llama", **LLMS[llm]), CapabilityEncoder("tiny:bert", **ENCODERS[encoder]), **MODELS[model])
    logged, scores = trained(module, block, precision)
    assert all(s.dtype == torch.float32 for s in scores)
    assert all(s.isfinite().all() for s in scores)
