"""Task attention: results on the nearest core tasks as part of the score."""

import pytest
import torch

from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.modules.task_attention import TaskAttention
from satlight.modules.terms import Reading
from satlight.types import Block, Capability, Result

ZOO = [
    Capability(
        (Result("law", "Law and contracts", 0.9, 20, 1.5), Result("maths", "Mathematics, equations", 0.2, 20, -1.0))
    ),
    Capability(
        (Result("law", "Law and contracts", 0.4, 20, -0.5), Result("maths", "Mathematics, equations", 0.9, 20, 2.0))
    ),
    Capability(notes=("A note alone.",)),
]


def block(instructions):
    rows = torch.arange(len(instructions))
    return Block(instructions, ZOO, rows, torch.arange(len(ZOO)), torch.zeros_like(rows))


def connected(size, **options):
    attention = TaskAttention(**options)
    attention.connect(size, size, token_norm=1.0)
    return attention


def reading(instruction_BD, task_TD, strength_CT):
    return Reading(instruction_BD, None, None, lambda: (task_TD, strength_CT))


def attend(attention, encoder, instructions, capabilities):
    return attention(reading(encoder.read_instructions(instructions), *encoder.read_results(capabilities)))


def test_attention_is_the_softmax_weighted_mean_of_results():
    attention = connected(2, scale=2.0, temperature=0.5)
    instruction, tasks = torch.tensor([[0.6, 0.8]]), torch.eye(2)
    strength = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([0.6, 0.8]).div(0.5).softmax(dim=0)
    torch.testing.assert_close(attention(reading(instruction, tasks, strength))[0].detach(), 2.0 * weights)


def test_no_results_say_nothing():
    attention = connected(4)
    nothing = reading(torch.randn(3, 4), torch.zeros(0, 4), torch.zeros(2, 0))
    assert attention(nothing).tolist() == [[0.0, 0.0]] * 3


@torch.no_grad()
def test_an_instruction_that_is_a_task_follows_its_result():
    encoder = CapabilityEncoder("tiny:bert").eval()
    attention = connected(encoder.output_size, temperature=1e-4)
    got = attend(attention, encoder, ["Mathematics, equations", "Law and contracts"], ZOO)
    torch.testing.assert_close(got, 0.6 * torch.tensor([[-1.0, 2.0, 0.0], [1.5, -0.5, 0.0]]), atol=1e-3, rtol=0)


@torch.no_grad()
def test_scores_with_it_do_not_depend_on_the_rest_of_the_block():
    torch.manual_seed(0)
    model = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), task_attention=True).eval()
    texts = ["What is 2+2?", "Who owns a wall between two gardens?"]
    whole = model(block(texts))
    part = model(block(texts[1:]))
    torch.testing.assert_close(whole[1:], part, atol=1e-5, rtol=0)
    alone = block(texts)
    alone.capabilities = ZOO[1:2]
    torch.testing.assert_close(model(alone), whole[:, 1:2], atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_candidate_that_lacks_a_task_attends_to_its_own():
    encoder, attention = CapabilityEncoder("tiny:bert").eval(), connected(32, temperature=0.5)
    partly = Capability(ZOO[0].results[:1])
    together = attend(attention, encoder, ["What is 2+2?"], [partly, *ZOO])
    alone = attend(attention, encoder, ["What is 2+2?"], [partly])
    assert alone.item() == pytest.approx(0.6 * 1.5)
    assert together[0, 0].item() == pytest.approx(alone.item(), abs=1e-6)
    whole = attend(attention, encoder, ["What is 2+2?"], ZOO[:2])
    torch.testing.assert_close(together[:, 1:3], whole, atol=1e-6, rtol=0)
    assert together[0, 3] == 0


def test_gradients_are_finite_where_a_candidate_has_no_result():
    attention = connected(4)
    strength = torch.tensor([[1.0, torch.nan], [torch.nan, torch.nan]])
    attention(reading(torch.randn(3, 4), torch.randn(2, 4), strength)).sum().backward()
    assert all(p.grad.isfinite().all() for p in attention.parameters())


@torch.no_grad()
def test_the_cache_does_not_grow_with_every_instruction(monkeypatch):
    monkeypatch.setattr("satlight.modules.encoder.CACHE_LIMIT", 10)
    encoder = CapabilityEncoder("tiny:bert").eval()
    for number in range(40):
        got = encoder.read_instructions([f"Question {number}"])
        assert len(encoder._cache) <= 13
    expected = torch.nn.functional.normalize(encoder.embed(["Question 39"]), dim=-1)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)


def test_it_learns_with_the_projectors_rate():
    model = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), task_attention=True)
    rates = {id(p): group["lr"] for group in model._groups() for p in group["params"]}
    assert rates[id(model.task_attention.query.weight)] == rates[id(model.projector.linear.weight)]


def test_it_needs_an_encoder():
    with pytest.raises(SatlightError, match=r"task_attention is set but model\.encoder is null"):
        ModelSAT(RouterLLM("tiny:llama"), task_attention=True)
