"""Model-SAT: the three parts together."""

import pytest
import torch

from satlight.capability import perturbations
from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, OptimizerSpec, Projector, RouterLLM
from satlight.types import Capability, Result

RESULTS = tuple(Result(f"task-{p}", f"Task {p}", p / 100, 20, (p - 14) / 4) for p in range(10, 18))
ZOO = [Capability(RESULTS), Capability(RESULTS[::-1], ("It is new.",)), Capability(RESULTS[:3])]


def tiny(encoder: CapabilityEncoder | None, **options) -> ModelSAT:
    torch.manual_seed(0)
    return ModelSAT(RouterLLM("tiny:llama"), encoder, **options)


@pytest.fixture
def block(make_block, instructions):
    return make_block(instructions, ZOO)


@torch.no_grad()
def test_behind_an_encoder_a_candidate_is_one_projected_vector(block):
    model = tiny(CapabilityEncoder("tiny:bert")).eval()
    branch_CSD, mask_CS = model.embed_capabilities(ZOO)
    assert branch_CSD.shape == (3, 1, 32)
    assert mask_CS.all()
    expected = model.projector(model.encoder.encode(ZOO))
    assert torch.allclose(branch_CSD[:, 0], expected, atol=1e-6)
    assert torch.allclose(model(block), model.router_llm(block.instructions, branch_CSD, mask_CS), atol=1e-6)


@torch.no_grad()
def test_without_encoder_it_is_the_router_llm_alone(block):
    model = tiny(None).eval()
    assert model.projector is None
    assert torch.allclose(model(block), RouterLLM("tiny:llama").eval().score(block), atol=1e-6)


def test_the_first_training_block_fits_the_projector(block):
    model = tiny(CapabilityEncoder("tiny:bert"))
    model.eval().score(block)
    assert model.projector.spread == 0
    model.train().score(block)
    assert model.projector.spread > 0
    branch_CSD, _ = model.embed_capabilities(ZOO)
    spread = (branch_CSD - branch_CSD.mean(dim=0)).square().sum(dim=2).mean().sqrt()
    assert spread.item() == pytest.approx(model.router_llm.token_norm, rel=0.01)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["text", "windows"])
def test_perturbations_average_over_orders_of_the_results(block, kind):
    encoder = CapabilityEncoder("tiny:bert", chunking="windows") if kind == "windows" else None
    model = tiny(encoder, perturbations=3).eval()
    got = model(block)
    shuffled = [perturbations(capability, 3, seed=0) for capability in ZOO]
    model.perturbations = 1
    single = []
    for k in range(3):
        block.capabilities = [orders[k] for orders in shuffled]
        single.append(model(block))
    assert torch.allclose(got, torch.stack(single).mean(dim=0), atol=1e-5)
    assert (single[0] - single[1]).abs().max() > 1e-6


@torch.no_grad()
def test_an_encoder_that_sees_no_order_is_asked_once(block):
    model, passes = tiny(CapabilityEncoder("tiny:bert"), perturbations=4).eval(), []
    model.router_llm.register_forward_hook(lambda *_: passes.append(1))
    model(block)
    assert len(passes) == 1


def test_training_reads_one_order(block):
    model, passes = tiny(None, perturbations=4).train(), []
    model.router_llm.register_forward_hook(lambda *_: passes.append(1))
    model(block)
    assert len(passes) == 1


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(SatlightError, match="perturbations is 0"):
        tiny(None, perturbations=0)
    with pytest.raises(SatlightError, match=r"model\.projector is set but model\.encoder is null"):
        tiny(None, projector=Projector())


def test_encoder_and_projector_have_larger_learning_rates():
    model = tiny(
        CapabilityEncoder("tiny:bert"),
        optimizer=OptimizerSpec(lr=1e-3, encoder_scale=2.0, projector_scale=5.0, weight_decay=0.1),
    )
    groups = {group["name"]: group for group in model._groups()}
    rates = {name: group["lr"] for name, group in groups.items()}
    assert rates == {
        "router_llm": 1e-3,
        "router_llm_no_decay": 1e-3,
        "encoder": 2e-3,
        "encoder_no_decay": 2e-3,
        "projector": 5e-3,
        "projector_no_decay": 5e-3,
    }
    assert {name for name, group in groups.items() if group["weight_decay"]} == {"router_llm", "encoder", "projector"}
    trained = [id(p) for group in groups.values() for p in group["params"]]
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(trained) == len(set(trained))
    assert set(trained) == wanted  # frozen embeddings are in no group
    assert {id(p) for p in groups["projector"]["params"]} == {id(model.projector.linear.weight)}
