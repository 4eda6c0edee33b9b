"""Task attention: results on the nearest core tasks as part of the score."""

import pytest
import torch

from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.modules.task_attention import TaskAttention
from satlight.types import Block, Result

ZOO = [
    (
        Result("good at law", "Law and contracts", 1.5),
        Result("poor at maths", "Mathematics, equations", -1.0),
    ),
    (
        Result("poor at law", "Law and contracts", -0.5),
        Result("good at maths", "Mathematics, equations", 2.0),
    ),
    ("A note alone.",),
]


def block(instructions):
    rows = torch.arange(len(instructions))
    return Block(instructions, ZOO, rows, torch.arange(len(ZOO)), torch.zeros_like(rows))


def test_attention_is_the_softmax_weighted_mean_of_results():
    attention = TaskAttention(2, scale=2.0, temperature=0.5)
    instruction, tasks = torch.tensor([[0.6, 0.8]]), torch.eye(2)
    strength = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weights = torch.tensor([0.6, 0.8]).div(0.5).softmax(dim=0)
    torch.testing.assert_close(attention(instruction, tasks, strength)[0].detach(), 2.0 * weights)


def test_no_results_say_nothing():
    attention = TaskAttention(4)
    assert attention(torch.randn(3, 4), torch.zeros(0, 4), torch.zeros(2, 0)).tolist() == [[0.0, 0.0]] * 3


@torch.no_grad()
def test_an_instruction_that_is_a_task_follows_its_result():
    encoder = CapabilityEncoder("tiny:bert").eval()
    attention = TaskAttention(encoder.output_size, temperature=1e-4)
    got = attention(*encoder.read_results(["Mathematics, equations", "Law and contracts"], ZOO))
    torch.testing.assert_close(
        got, 0.6 * torch.tensor([[-1.0, 2.0, 0.0], [1.5, -0.5, 0.0]]), atol=1e-3, rtol=0
    )


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


def test_it_learns_with_the_projectors_rate():
    model = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), task_attention=True)
    rates = {id(p): group["lr"] for group in model._groups() for p in group["params"]}
    assert rates[id(model.task_attention.query.weight)] == rates[id(model.projector.linear.weight)]


def test_it_needs_an_encoder():
    with pytest.raises(SatlightError, match=r"task_attention is true but model\.encoder is null"):
        ModelSAT(RouterLLM("tiny:llama"), task_attention=True)
