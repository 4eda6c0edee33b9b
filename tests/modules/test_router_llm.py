"""The router LLM: instructions that are too long, score heads, what trains and what is frozen."""

import logging

import pytest
import torch

from satlight.backbones.loading import yes_no_token_ids
from satlight.errors import SatlightError
from satlight.modules import LoraSpec, ModelSAT, RouterLLM


def tiny(**options) -> RouterLLM:
    torch.manual_seed(0)
    return RouterLLM("tiny:llama", **options)


def one_step(module, block, lr=0.1) -> dict[str, torch.Tensor]:
    """Take an optimiser step as training would; return what every parameter was before."""
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = torch.optim.AdamW(module._groups(), lr=lr, weight_decay=0.1)
    module.train()
    module.objective(module.score(block), block.target_BC, block.known_BC)["loss"].backward()
    optimizer.step()
    return before


def moved(module, before) -> set[str]:
    return {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}


@pytest.fixture
def block(make_block, instructions, capabilities):
    return make_block(instructions, capabilities)


def test_long_instructions_keep_head_and_tail(caplog):
    llm = tiny(max_instruction_tokens=9).eval()
    text = "abcdefghijklmnopqrstuvwxyz"  # one token per letter
    with caplog.at_level(logging.WARNING, logger="satlight"):
        long, mask = llm.embed_instructions([text])
        short, _ = llm.embed_instructions(["abcdewxyz"])
        assert torch.equal(long, short)
        assert mask.all()
        assert llm.shortened == 1
        llm.embed_instructions([text, "abc", text])
    assert llm.shortened == 3
    assert len(caplog.records) == 1
    assert "26 tokens" in caplog.text
    assert "max_instruction_tokens=9" in caplog.text


def test_instructions_of_the_largest_length_stay_whole():
    llm = tiny(max_instruction_tokens=9)
    nine, _ = llm.embed_instructions(["abcdefghi"])
    other, _ = llm.embed_instructions(["abcdeXghi"])
    assert llm.shortened == 0
    assert not torch.equal(nine, other)


def test_tokens_are_counted_as_they_are_read(instructions):
    llm = tiny(max_instruction_tokens=40)
    _, mask_BP = llm.embed_instructions(instructions)
    around = len(llm._begin) + len(llm._inquiry)
    counts = llm.count_tokens(instructions)
    assert counts == (mask_BP.sum(dim=1) - around).tolist()
    assert max(counts) == 40
    assert ModelSAT(llm).count_tokens(instructions) == counts


def test_the_inquiry_survives_a_long_instruction():
    llm = tiny(max_instruction_tokens=4, inquiry="Can it?")
    prefix_BPD, _ = llm.embed_instructions(["z" * 300])
    tail = llm.backbone.get_input_embeddings()(torch.tensor(llm._ids("\nCan it?")))
    assert torch.equal(prefix_BPD[0, -len(tail) :], tail)


def test_capability_text_too_long_for_the_router_llm(make_block):
    text = ("The model achieves accuracy 85.0% on the task of everything. " * 200,)
    with pytest.raises(SatlightError, match=r"of \d+ tokens .* do not fit in the router LLM's 4096 positions"):
        tiny().score(make_block(["Hi"], [text]))


def test_max_instruction_tokens_beyond_the_positions_is_refused():
    with pytest.raises(SatlightError, match=r"max_instruction_tokens is 5000.*4096 positions"):
        tiny(max_instruction_tokens=5000)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_instruction_tokens", 1),
        ("freeze_layers", 3),
        ("freeze_layers", -1),
        ("num_layers", 3),
        ("candidate_layers", 0),
        ("candidate_layers", 3),
    ],
)
def test_numbers_out_of_range_are_named(option, value):
    with pytest.raises(SatlightError, match=rf"{option} is {value}"):
        tiny(**{option: value})


def test_candidates_that_come_first_pass_through_every_layer():
    with pytest.raises(SatlightError, match=r"candidate_layers is 1, but with order 'capability_first'"):
        tiny(candidate_layers=1, order="capability_first")
    assert tiny(candidate_layers=2, order="capability_first").candidate_layers == 2


@pytest.mark.parametrize(("option", "value"), [("order", "sideways"), ("score_head", "maybe")])
def test_unknown_words_are_named(option, value):
    with pytest.raises(SatlightError, match=rf"{option}.*'{value}'"):
        tiny(**{option: value})


@torch.no_grad()
def test_score_heads_read_the_vocabulary_head():
    text, branch = ["Is it so?"], torch.randn(2, 1, 32)
    mask = torch.ones(2, 1, dtype=torch.bool)
    scores = {head: tiny(score_head=head).eval()(text, branch, mask) for head in ("yes", "yes_no", "regression")}
    llm = tiny().eval()
    prefix_BPD, _ = llm.embed_instructions(text)
    inputs = torch.cat([prefix_BPD.expand(2, -1, -1), branch], dim=1)
    vocabulary = llm.backbone(inputs_embeds=inputs).last_hidden_state[:, -1] @ (
        llm.backbone.get_input_embeddings().weight.T  # tied
    )
    yes, no = yes_no_token_ids(llm.tokenizer)
    assert torch.allclose(scores["yes"][0], vocabulary[:, yes], atol=1e-5)
    assert torch.allclose(scores["yes_no"][0], vocabulary[:, yes] - vocabulary[:, no], atol=1e-5)
    assert scores["regression"].abs().max() < 1  # starts nearly undecided


def test_a_regression_head_learns(block):
    llm = tiny(score_head="regression")
    one_step(llm, block)
    assert llm.head.abs().min() > 0
    assert llm.eval().score(block).std() > 0


def test_num_layers_keeps_the_first_layers():
    whole, first = tiny(), tiny(num_layers=1)
    assert (len(whole.backbone.layers), len(first.backbone.layers)) == (2, 1)
    assert sum(p.numel() for p in first.parameters()) < sum(p.numel() for p in whole.parameters())


def test_by_default_everything_but_the_embeddings_trains(block):
    llm = tiny()
    changed = moved(llm, one_step(llm, block))
    assert set(dict(llm.named_parameters())) - changed == {"backbone.embed_tokens.weight"}


def test_unfrozen_embeddings_train(block):
    llm = tiny(freeze_embeddings=False)
    assert "backbone.embed_tokens.weight" in moved(llm, one_step(llm, block))
    assert llm.frozen_names() == set()


def test_frozen_layers_stay_and_are_not_in_checkpoints(block):
    llm = tiny(freeze_layers=1)
    changed = moved(llm, one_step(llm, block))
    frozen = {name for name, _ in llm.named_parameters()} - changed
    assert "backbone.embed_tokens.weight" in frozen
    assert {name for name in frozen if ".layers.0." in name} == frozen - {"backbone.embed_tokens.weight"}
    assert any(".layers.1." in name for name in changed)
    checkpoint = {"state_dict": llm.state_dict()}
    llm.on_save_checkpoint(checkpoint)
    assert not frozen & set(checkpoint["state_dict"])
    assert changed <= set(checkpoint["state_dict"])


def test_lora_trains_adapters_and_head_alone(block):
    llm = tiny(lora=LoraSpec(r=2, target_modules=["q_proj", "v_proj"]))
    # B starts at zero, so A moves from the second step on.
    first = one_step(llm, block)
    changed = moved(llm, first) | moved(llm, one_step(llm, block))
    adapters = {name for name in first if "lora_" in name}
    assert len(adapters) == 2 * 2 * 2  # layers × targets × (A, B)
    assert changed == adapters | {"head", "bias"}
    checkpoint = {"state_dict": llm.state_dict()}
    llm.on_save_checkpoint(checkpoint)
    assert set(checkpoint["state_dict"]) == changed


def test_lora_checkpoint_restores_the_scores(block):
    spec = LoraSpec(r=2, dropout=0.0, target_modules=["q_proj", "v_proj"])
    llm = tiny(lora=spec)
    one_step(llm, block)
    checkpoint = {"state_dict": llm.state_dict()}
    llm.on_save_checkpoint(checkpoint)
    other = tiny(lora=spec)
    with torch.no_grad():
        expected = llm.eval().score(block)
        assert not torch.allclose(other.eval().score(block), expected, atol=1e-3)
        other.on_load_checkpoint(checkpoint)
        other.load_state_dict(checkpoint["state_dict"])
        assert torch.allclose(other.score(block), expected, atol=1e-6)


@torch.no_grad()
def test_bfloat16_scores_come_out_as_float32(block):
    llm = tiny(dtype="bfloat16").eval()
    assert llm.backbone.dtype == torch.bfloat16
    score = llm.score(block)
    assert score.dtype == torch.float32
    assert torch.allclose(score, tiny().eval().score(block), atol=0.5)
