"""Terms: one class and one line in ``terms`` add a part to the score of Model-SAT."""

import lightning as L
import pytest
import torch

from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, OptimizerSpec, RouterLLM, ScoreTerm, VisionEncoder
from satlight.modules.model_sat import OPTIONS
from satlight.routing import CapabilityRouter, Router
from satlight.types import Candidate, Capability, Result, Stage

ZOO = [
    Capability((Result("law", "Law and contracts", 0.5, 20, law), Result("math", "Mathematics", 0.5, 20, math)))
    for law, math in ((1.5, -1.0), (-0.5, 2.0))
]


class MeanResult(ScoreTerm):
    """The candidate's mean result, whatever the instruction."""

    name = "mean_result"

    def __init__(self, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, reading):
        _, strength_CT = reading.results
        return self.scale * strength_CT.nanmean(dim=1).expand(len(reading.instruction_BD), -1)


def model(*terms, **options) -> ModelSAT:
    torch.manual_seed(0)
    return ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), terms=list(terms), **options)


@pytest.fixture
def block(make_block, instructions):
    return make_block(instructions, ZOO)


@torch.no_grad()
def test_a_term_of_your_own_is_added_to_the_score(block):
    plain, longer = (model(two_towers=True).eval()(block), model(MeanResult(2.0), two_towers=True).eval()(block))
    torch.testing.assert_close(longer - plain, torch.tensor([[0.5, 1.5]]).expand(4, -1), atol=1e-5, rtol=0)


def test_it_trains_saves_and_pauses_like_a_built_in_one(block):
    router = model(MeanResult(), task_attention=True, optimizer=OptimizerSpec(lr=1e-3, projector_scale=4.0))
    assert [term.name for term in router.terms] == ["task_attention", "mean_result"]
    rates = {id(p): group["lr"] for group in router._groups() for p in group["params"]}
    assert rates[id(router.mean_result.scale)] == 4e-3
    assert "mean_result.scale" in router.state_dict()
    router.enter(Stage(trainable=router.connectors()))
    assert router.connectors() == ("projector", "mean_result")
    assert router.mean_result.scale.requires_grad
    assert not router.task_attention.scale.requires_grad
    router.enter(Stage())
    assert router.task_attention.scale.requires_grad
    router(block).sum().backward()
    assert router.mean_result.scale.grad != 0


def test_config_adds_one_in_a_line():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser()
    parser.add_subclass_arguments(L.LightningModule, "model")
    words = [
        "--model=satlight.modules.ModelSAT",
        "--model.router_llm.backbone=tiny:llama",
        "--model.encoder=satlight.modules.CapabilityEncoder",
        "--model.encoder.backbone=tiny:bert",
        "--model.terms+=satlight.modules.two_towers.TwoTowers",
        "--model.terms.width=16",
    ]
    router = parser.instantiate_classes(parser.parse_args(words)).model
    assert router.two_towers.query[0].out_features == 16


@pytest.mark.parametrize("option", OPTIONS)
def test_options_are_shorthands_of_terms(option):
    by_option, by_term = (
        model(*terms, vision=VisionEncoder("tiny:conv"), **options)
        for terms, options in (((), {option: True}), ((OPTIONS[option](),), {}))
    )
    assert by_option.state_dict().keys() == by_term.state_dict().keys()
    for left, right in zip(by_option.parameters(), by_term.parameters(), strict=True):
        assert torch.equal(left, right)


def test_terms_that_cannot_be_are_named():
    with pytest.raises(SatlightError, match=r"model\.terms is set but model\.encoder is null"):
        ModelSAT(RouterLLM("tiny:llama"), terms=[MeanResult()])
    with pytest.raises(SatlightError, match="the name 'mean_result' of MeanResult is taken"):
        model(MeanResult(), MeanResult())


def test_a_router_with_a_term_of_your_own_is_saved_and_loaded(tmp_path):
    router = CapabilityRouter(model(MeanResult(2.0)), [Candidate("a"), Candidate("b")], ZOO)
    router.save(tmp_path / "router")
    with pytest.raises(SatlightError, match=r"class_path is '.*MeanResult'; allowed are classes of satlight"):
        Router.from_pretrained(tmp_path / "router")
    loaded = Router.from_pretrained(tmp_path / "router", allow=[MeanResult.__module__])
    assert loaded.module.mean_result.scale.item() == 2.0
    expected = router.score(["What is 2+2?"]).log_odds_BC
    assert loaded.score(["What is 2+2?"]).log_odds_BC == pytest.approx(expected, abs=1e-5)
