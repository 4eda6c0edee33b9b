"""A score depends on its instruction and its candidate, and on nothing else in the block."""

import pytest
import torch

from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.modules.shared_prefix import BRANCH_TOKENS, capability_first, instruction_first

ORDERS = ("instruction_first", "capability_first")
CLOSE = {"atol": 1e-5, "rtol": 0.0}


@pytest.fixture(params=ORDERS)
def order(request) -> str:
    return request.param


@pytest.fixture(params=["encoder", "text"])
def model(request, order) -> ModelSAT:
    """Both reading orders, each with candidates as one vector and as text of different lengths."""
    torch.manual_seed(1)
    encoder = CapabilityEncoder("tiny:bert") if request.param == "encoder" else None
    model = ModelSAT(RouterLLM("tiny:llama", order=order), encoder)
    if model.projector is not None:
        model.projector.linear.weight.data.mul_(10)  # the vectors differ little before a fit
    return model.eval()


@pytest.fixture
def score(model, make_block):
    return lambda instructions, capabilities: model.score(make_block(instructions, capabilities)).detach()


@torch.no_grad()
def test_scores_differ_between_instructions_and_candidates(score, instructions, capabilities):
    # Without this, every test below could pass on a constant.
    whole = score(instructions, capabilities)
    assert whole.dtype == torch.float32
    assert whole.shape == (4, 3)
    assert whole.std(dim=0).min() > 1e-2
    assert whole.std(dim=1).min() > 1e-3


@torch.no_grad()
def test_score_does_not_depend_on_padding(score, instructions, capabilities):
    whole = score(instructions, capabilities)
    for b, text in enumerate(instructions):
        assert torch.allclose(score([text], capabilities), whole[b : b + 1], **CLOSE)


@torch.no_grad()
def test_score_does_not_depend_on_the_other_candidates(score, instructions, capabilities):
    whole = score(instructions, capabilities)
    for c, capability in enumerate(capabilities):
        assert torch.allclose(score(instructions, [capability]), whole[:, c : c + 1], **CLOSE)
    assert torch.allclose(score(instructions, [capabilities[2], capabilities[0]]), whole[:, [2, 0]], **CLOSE)


@torch.no_grad()
def test_score_does_not_depend_on_batch_order(score, instructions, capabilities):
    whole = score(instructions, capabilities)
    rows, columns = [2, 0, 3, 1], [1, 2, 0]
    shuffled = score([instructions[b] for b in rows], [capabilities[c] for c in columns])
    assert torch.allclose(shuffled, whole[rows][:, columns], **CLOSE)


@torch.no_grad()
def test_equal_candidates_get_equal_scores(score, instructions, capabilities):
    twins = score(instructions, [capabilities[0], capabilities[1], capabilities[0]])
    assert torch.allclose(twins[:, 0], twins[:, 2], **CLOSE)


@torch.no_grad()
def test_passes_of_any_size_give_the_same_scores(model, make_block, instructions, capabilities):
    block = make_block(instructions, capabilities * 3)
    whole, calls = model.score(block), []
    model.router_llm.backbone.register_forward_hook(lambda *_: calls.append(1))
    for tokens in (1, 200, 600):
        calls.clear()
        model.router_llm.tokens_per_pass = tokens
        assert torch.allclose(model.score(block), whole, **CLOSE)
        if tokens == 1:
            assert len(calls) >= 9  # one pass per candidate


@torch.no_grad()
def test_a_thousand_candidates_get_the_scores_they_get_alone(instructions):
    torch.manual_seed(5)
    llm = RouterLLM("tiny:llama").eval()
    branch_CSD, mask_CS = torch.randn(1000, 1, llm.hidden_size), torch.ones(1000, 1, dtype=torch.bool)
    whole = llm(instructions[:2], branch_CSD, mask_CS)
    assert whole.std(dim=1).min() > 1e-2
    # The first, the last, and both sides of the first border between two passes.
    for c in (0, BRANCH_TOKENS - 1, BRANCH_TOKENS, 999):
        alone = llm(instructions[:2], branch_CSD[[c]], mask_CS[[c]])
        assert torch.allclose(whole[:, [c]], alone, **CLOSE)


def test_no_mask_grows_with_the_square_of_the_candidates(instructions):
    llm, shapes = RouterLLM("tiny:llama"), []
    llm.backbone.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(kwargs.get("attention_mask", torch.zeros(0)).shape), with_kwargs=True
    )
    prefix = llm.embed_instructions(instructions)[0].shape[1]
    for tokens in (1, 3):
        shapes.clear()
        mask_CS = torch.ones(300, tokens, dtype=torch.bool)
        llm(instructions, torch.randn(300, tokens, llm.hidden_size), mask_CS).sum().backward()  # in training too
        queries = [shape[2] for shape in shapes[1:]]
        assert sum(queries) == 300 * tokens
        assert max(queries) <= BRANCH_TOKENS
        assert all(shape[3] == shape[2] + prefix for shape in shapes[1:])


def test_gradients_do_not_depend_on_the_passes(instructions, monkeypatch):
    llm = RouterLLM("tiny:llama")
    branch_CSD, mask_CS = torch.randn(9, 1, llm.hidden_size), torch.ones(9, 1, dtype=torch.bool)
    found = []
    for tokens in (128, 4):
        monkeypatch.setattr("satlight.modules.router_llm.BRANCH_TOKENS", tokens)
        llm.zero_grad()
        llm(instructions, branch_CSD, mask_CS).square().mean().backward()
        found.append({name: p.grad.clone() for name, p in llm.named_parameters() if p.grad is not None})
    assert set(found[0]) == set(found[1])
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, atol=1e-4, rtol=1e-4), name


@torch.no_grad()
def test_candidates_of_the_last_layer_read_the_prefix_there(instructions):
    # The reference: the prefix's states before the last layer, the branch behind them, then that layer alone.
    torch.manual_seed(6)
    llm = RouterLLM("tiny:llama", candidate_layers=1).eval()
    branch_CSD, mask_CS = torch.randn(3, 1, llm.hidden_size), torch.ones(3, 1, dtype=torch.bool)
    got = llm(instructions[:1], branch_CSD, mask_CS)
    prefix_BPD, _ = llm.embed_instructions(instructions[:1])
    before_BPD = llm.backbone(inputs_embeds=prefix_BPD, output_hidden_states=True).hidden_states[1]
    for c in range(3):
        hidden = torch.cat([before_BPD, branch_CSD[c : c + 1]], dim=1)
        T = hidden.shape[1]
        rotary = llm.backbone.rotary_emb(hidden, torch.arange(T)[None])
        causal = torch.full((1, 1, T, T), torch.finfo(torch.float32).min).triu(1)
        last = llm.backbone.layers[1](hidden, attention_mask=causal, position_embeddings=rotary)
        expected = llm.backbone.norm(last)[:, -1] @ llm.head + llm.bias
        assert torch.allclose(got[:, c], expected, **CLOSE)


@torch.no_grad()
def test_fewer_candidate_layers_keep_every_pass_alike(instructions):
    llm = RouterLLM("tiny:llama", candidate_layers=1).eval()
    branch_CSD, mask_CS = torch.randn(300, 1, llm.hidden_size), torch.ones(300, 1, dtype=torch.bool)
    whole = llm(instructions, branch_CSD, mask_CS)
    for c in (0, 299):
        alone = llm(instructions, branch_CSD[[c]], mask_CS[[c]])
        assert torch.allclose(alone, whole[:, [c]], **CLOSE)
    every = RouterLLM("tiny:llama").eval()(instructions, branch_CSD, mask_CS)
    assert not torch.allclose(whole, every, atol=1e-2)


def test_reading_leaves_the_decoder_as_it_was(instructions):
    llm = RouterLLM("tiny:llama", candidate_layers=1)
    before = [name for name, _ in llm.backbone.named_modules()]
    llm(instructions, torch.randn(2, 1, llm.hidden_size), torch.ones(2, 1, dtype=torch.bool)).sum().backward()
    assert [name for name, _ in llm.backbone.named_modules()] == before
    lower = llm.backbone.layers[0].mlp.down_proj.weight.grad
    upper = llm.backbone.layers[1].mlp.down_proj.weight.grad
    assert lower.abs().max() > 0  # by way of the prefix
    assert upper.abs().max() > 0


def test_training_and_evaluation_give_the_same_scores(model, make_block, instructions, capabilities):
    block = make_block(instructions, capabilities)
    if model.projector is not None:
        model.projector.standardize = False  # in training its statistics would follow this block
    with torch.no_grad():
        evaluated = model.score(block)
    model.train()
    trained = model.score(block)
    assert trained.requires_grad
    assert torch.allclose(trained.detach(), evaluated, **CLOSE)


def test_no_gradient_flows_from_one_candidate_to_another(order, instructions):
    llm = RouterLLM("tiny:llama", order=order)
    branch_CSD = torch.randn(3, 4, llm.hidden_size, requires_grad=True)
    mask_CS = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
    score_BC = llm(instructions, branch_CSD, mask_CS)
    (gradient_CSD,) = torch.autograd.grad(score_BC[:, 1].sum(), branch_CSD)
    assert gradient_CSD[1, :2].abs().min() > 0
    assert gradient_CSD[[0, 2]].abs().max() == 0
    assert gradient_CSD[1, 2:].abs().max() == 0  # padding


@torch.no_grad()
def test_one_candidate_equals_a_plain_causal_pass(order):
    # The reference knows nothing of our masks, positions or caches: the decoder's own causal mask.
    torch.manual_seed(3)
    llm = RouterLLM("tiny:llama", order=order).eval()
    branch_CSD = torch.randn(1, 5, llm.hidden_size)
    prefix_BPD, prefix_mask_BP = llm.embed_instructions(["Why is the sky blue?"])
    assert prefix_mask_BP.all()
    parts = [prefix_BPD, branch_CSD] if order == "instruction_first" else [branch_CSD, prefix_BPD]
    hidden_BTD = llm.backbone(inputs_embeds=torch.cat(parts, dim=1)).last_hidden_state
    expected = hidden_BTD[:, -1] @ llm.head + llm.bias
    got = llm(["Why is the sky blue?"], branch_CSD, torch.ones(1, 5, dtype=torch.bool))
    assert torch.allclose(got[:, 0], expected, **CLOSE)


@torch.no_grad()
def test_several_instructions_and_candidates_equal_plain_causal_passes(order, instructions):
    torch.manual_seed(4)
    llm = RouterLLM("tiny:llama", order=order).eval()
    branch_CSD = torch.randn(3, 3, llm.hidden_size)
    length_C = torch.tensor([3, 1, 2])
    mask_CS = torch.arange(3)[None, :] < length_C[:, None]
    got = llm(instructions, branch_CSD, mask_CS)
    for b, text in enumerate(instructions):
        prefix_BPD, _ = llm.embed_instructions([text])
        for c, length in enumerate(length_C.tolist()):
            branch = branch_CSD[c : c + 1, :length]
            parts = [prefix_BPD, branch] if order == "instruction_first" else [branch, prefix_BPD]
            hidden = llm.backbone(inputs_embeds=torch.cat(parts, dim=1)).last_hidden_state[:, -1]
            assert torch.allclose(got[b, c], (hidden @ llm.head + llm.bias)[0], **CLOSE)


def test_branches_see_the_whole_prefix_and_themselves_alone():
    prefix_BP = torch.tensor([[True, True, True], [True, False, False]])
    branch_CS = torch.tensor([[True, True], [True, False]])
    branches = instruction_first(prefix_BP, branch_CS, torch.float32)
    assert branches.position_BK.tolist() == [[3, 4, 3, 4], [1, 2, 1, 2]]
    assert branches.read_C.tolist() == [1, 2]
    seen = (branches.mask_B1KT[:, 0] == 0).int().tolist()
    own = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]  # padding sees itself, so softmax is safe
    assert seen == [[[1, 1, 1, *row] for row in own], [[1, 0, 0, *row] for row in own]]


def test_pairs_leave_no_gap_where_padding_stands():
    prefix_BPD, branch_CSD = torch.zeros(1, 3, 4), torch.zeros(2, 2, 4)
    prefix_BP, branch_CS = torch.tensor([[True, True, False]]), torch.tensor([[True, True], [True, False]])
    pairs = capability_first(prefix_BPD, prefix_BP, branch_CSD, branch_CS)
    assert pairs.embeds_RTD.shape == (2, 5, 4)
    assert pairs.position_RT[0, :4].tolist() == [0, 1, 2, 3]
    assert pairs.position_RT[1][[0, 2, 3]].tolist() == [0, 1, 2]  # token 1 is padding
    assert pairs.read_R.tolist() == [3, 3]
    seen = (pairs.mask_R1TT[1, 0] == 0).int()
    assert seen[3].tolist() == [1, 0, 1, 1, 0]
    assert (seen.diagonal() == 1).all()
