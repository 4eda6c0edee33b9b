"""Two towers and the instruction's vector as a token: they start without effect and learn."""

import pytest
import torch

from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.modules.terms import Reading
from satlight.modules.two_towers import TwoTowers
from satlight.types import Block, Capability, Result

ZOO = [
    Capability((Result("law", "Law and contracts", 0.9, 20, law), Result("maths", "Mathematics", 0.5, 20, maths)))
    for law, maths in ((1.5, -1.0), (-0.5, 2.0), (0.5, 0.5))
]
TEXTS = ["What is 2+2?", "Who owns a wall between two gardens?"]


def block(texts, zoo):
    rows = torch.arange(len(texts))
    return Block(texts, zoo, rows, torch.arange(len(zoo)), torch.zeros_like(rows))


def model(**options):
    torch.manual_seed(0)
    return ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), **options)


def connected(size, **options):
    towers = TwoTowers(**options)
    towers.connect(size, size, token_norm=1.0)
    return lambda x, c: towers(Reading(x, c, c, lambda: None)), towers


def test_the_score_is_query_times_key():
    score, towers = connected(3, width=2, rank=4)
    torch.nn.init.normal_(towers.query[2].weight)
    x, c = torch.randn(2, 3), torch.randn(5, 3)
    by_hand = [[torch.dot(towers.query(3**0.5 * x[b]), towers.key(c[m])).item() for m in range(5)] for b in range(2)]
    torch.testing.assert_close(score(x, c), torch.tensor(by_hand))


def test_they_start_at_nothing_and_learn():
    score, towers = connected(4)
    x, c = torch.nn.functional.normalize(torch.randn(6, 4), dim=1), torch.randn(3, 4)
    assert not score(x, c).any()
    target = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]] * 3)
    optimizer = torch.optim.Adam(towers.parameters(), lr=0.02)
    for _ in range(200):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(score(x, c), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (score(x, c).argmax(1) == target.argmax(1)).all()


@torch.no_grad()
@pytest.mark.parametrize("order", ["instruction_first", "capability_first"])
@pytest.mark.parametrize("option", ["two_towers", "instruction_vector"])
def test_scores_do_not_depend_on_the_rest_of_the_block(option, order):
    torch.manual_seed(0)
    router = ModelSAT(RouterLLM("tiny:llama", order=order), CapabilityEncoder("tiny:bert"), **{option: True})
    for parameter in router.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    router.eval()
    whole = router(block(TEXTS, ZOO))
    torch.testing.assert_close(router(block(TEXTS[1:], ZOO)), whole[1:], atol=1e-5, rtol=0)
    torch.testing.assert_close(router(block(TEXTS, ZOO[2:])), whole[:, 2:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_router_llm_reads_the_vector():
    router = model(instruction_vector=True).eval()
    before = router(block(TEXTS, ZOO))
    router.instruction_projector.linear.weight.mul_(-1)
    assert not torch.allclose(router(block(TEXTS, ZOO)), before, atol=1e-5)


@torch.no_grad()
def test_the_vector_stands_behind_the_beginning_of_the_prompt():
    llm = RouterLLM("tiny:llama").eval()
    token = torch.full((2, llm.hidden_size), 7.0)
    plain, plain_mask = llm.embed_instructions(TEXTS)
    embeds, mask = llm.embed_instructions(TEXTS, (token[:, None], torch.ones(2, 1, dtype=torch.bool)))
    place = len(llm._begin)
    torch.testing.assert_close(embeds[:, place], token)
    torch.testing.assert_close(torch.cat([embeds[:, :place], embeds[:, place + 1 :]], dim=1), plain)
    assert mask.sum(1).tolist() == (plain_mask.sum(1) + 1).tolist()


def test_stage_1_trains_them_with_the_projector():
    router = model(two_towers=True, instruction_vector=True, task_attention=True)
    trained = {name.split(".")[0] for name, _ in router.named_parameters()} & set(router.connectors())
    assert trained == {"projector", "two_towers", "instruction_projector"}


def test_they_learn_with_the_projectors_rate():
    router = model(two_towers=True, instruction_vector=True)
    rates = {id(p): group["lr"] for group in router._groups() for p in group["params"]}
    projector = rates[id(router.projector.linear.weight)]
    assert rates[id(router.two_towers.key.weight)] == projector
    assert rates[id(router.instruction_projector.linear.weight)] == projector


@pytest.mark.parametrize("option", ["two_towers", "instruction_vector"])
def test_they_need_an_encoder(option):
    with pytest.raises(SatlightError, match=rf"{option} is set but model\.encoder is null"):
        ModelSAT(RouterLLM("tiny:llama"), **{option: True})
