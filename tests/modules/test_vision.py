"""Model-SAT with images: reading orders, mixed blocks, towers, learners, stages, checkpoints."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from satlight.errors import SatlightError
from satlight.modules import (
    CapabilityEncoder,
    ModelSAT,
    OptimizerSpec,
    RouterLLM,
    VisionEncoder,
    VisualLearners,
    VisualProjector,
)
from satlight.modules.terms import Reading
from satlight.modules.vision import SeenImages
from satlight.modules.visual_learners import VisualLearner
from satlight.modules.visual_towers import VisualTowers
from satlight.types import Stage

ORDERS = ["instruction_first", "capability_first"]
RNG = np.random.default_rng(0)
A, B, C = (RNG.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((20, 30), (64, 64), (7, 50)))
MIXED = [(A,), (), (B, C), ()]
TEXT_ROWS = [1, 3]


def model(order="instruction_first", encoder="tiny:bert", noise=0.1, **options) -> ModelSAT:
    """A model whose every part has an effect."""
    torch.manual_seed(0)
    options = {"vision": VisionEncoder("tiny:conv", tokens=4)} | options
    made = ModelSAT(RouterLLM("tiny:llama", order=order), encoder and CapabilityEncoder(encoder), **options)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if not name.startswith("vision"):
                parameter.add_(noise * torch.randn_like(parameter))
    return made.eval()


FULL = {"visual_towers": True, "two_towers": True, "instruction_vector": True}


def full(order="instruction_first", **options) -> ModelSAT:
    return model(order, visual_learners=VisualLearners(rank=4), **(FULL | options))


@pytest.fixture
def block(make_block, instructions, capabilities):
    def build(images, rows=None):
        rows = range(len(instructions)) if rows is None else rows
        made = make_block([instructions[i] for i in rows], capabilities)
        made.images = images if images is None else [images[i] for i in rows]
        return made

    return build


# Vision encoder


def test_patches_are_averaged_in_a_square_grid():
    encoder = VisionEncoder("tiny:conv", tokens=16)
    backbone = encoder.backbone
    token_TD = backbone(backbone.prepare([A]))[0].reshape(8, 8, 32)
    assert torch.allclose(encoder([A])[0, 1], token_TD[:2, 2:4].mean(dim=(0, 1)), atol=1e-6)


def test_a_frozen_encoder_reads_an_image_once(monkeypatch):
    encoder, read = VisionEncoder("tiny:vit", tokens=4), []
    encoder.backbone.register_forward_hook(lambda module, args, output: read.append(len(args[0])))
    first = encoder([A, B, A.copy()])
    assert torch.equal(first[0], first[2])
    assert torch.equal(encoder([C, B])[1], first[1])
    assert read == [2, 1]
    assert not first.requires_grad
    monkeypatch.setattr("satlight.modules.vision.CACHE_BYTES", 2 * 4 * 4 * 32)  # two images
    encoder([A + 1])
    assert len(encoder._kept) == 2
    assert torch.allclose(encoder([A, B, C]), torch.cat([first[:2], encoder([C])]), atol=1e-6)


def test_a_trainable_encoder_keeps_nothing():
    encoder = VisionEncoder("tiny:conv", tokens=4, trainable=True)
    before = encoder([A, B, A])
    before.sum().backward()
    assert encoder.backbone.network.stem[0].weight.grad is not None
    with torch.no_grad():
        encoder.backbone.network.stem[0].weight.add_(1)
        assert not torch.allclose(encoder([A, B, A]), before)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tokens": 5}, "tokens is 5; allowed are the square numbers 1, 4, 9, ... up to 64"),
        ({"tokens": 81}, "tokens is 81"),
        ({"tokens": 0}, "tokens is 0"),
        ({"backbone": "small-conv"}, "trainable is false, but small-conv has no pretrained weights"),
    ],
)
def test_options_that_cannot_work_are_refused(options, says):
    with pytest.raises(SatlightError, match=says):
        VisionEncoder(**({"backbone": "tiny:conv"} | options))


def test_parts_that_need_a_vision_encoder_say_so():
    for option, value in (
        ("visual_projector", VisualProjector()),
        ("visual_learners", VisualLearners()),
        ("visual_towers", True),
    ):
        with pytest.raises(SatlightError, match=rf"model\.{option} is set but model\.vision is null"):
            model(vision=None, **{option: value})


def test_standardized_tokens_start_with_the_norm_of_a_token_embedding():
    projector = VisualProjector()
    projector.connect(64, 16, token_norm=3.0)
    token_ND = 5 + 0.1 * torch.randn(4000, 64)
    projector.follow(token_ND)
    assert projector(token_ND).norm(dim=1).pow(2).mean().sqrt().item() == pytest.approx(3.0, rel=0.05)
    projector.follow(torch.zeros(5, 64))  # images of one color
    assert projector.center.mean().item() == pytest.approx(5, rel=0.01)
    projector.follow(20 + 10 * torch.randn(4000, 64))
    assert projector.spread.item() == pytest.approx(0.9 * 0.8 + 0.1 * 80, rel=0.02)


# Blocks


def test_images_keep_their_order():
    token = torch.arange(3.0)[:, None, None].expand(3, 2, 1)
    soft, mask = SeenImages(token, 10 + token, torch.tensor([0, 2, 2]), 4).soft_tokens()
    assert soft.squeeze(2).tolist() == [[10, 10, 0, 0], [0, 0, 0, 0], [11, 11, 12, 12], [0, 0, 0, 0]]
    assert mask.tolist() == [[True, True, False, False], [False] * 4, [True] * 4, [False] * 4]
    mean, has = SeenImages(token, token, torch.tensor([0, 2, 2]), 4).means()
    assert mean[:, 0, 0].tolist() == [0, 0, 1.5, 0]
    assert has.tolist() == [True, False, True, False]


@torch.no_grad()
def test_image_tokens_stand_before_the_text_and_padding_on_the_right(instructions):
    llm = RouterLLM("tiny:llama").eval()
    soft = torch.stack([torch.full((2, 32), float(i)) for i in range(4)])
    mask = torch.tensor([[True, True], [False, False], [True, False], [False, False]])
    embeds, real = llm.embed_instructions(instructions, (soft, mask))
    plain, plain_real = llm.embed_instructions(instructions)
    start = len(llm._begin)
    for row, added in enumerate(mask.sum(dim=1).tolist()):
        length = int(plain_real[row].sum())
        assert real[row].tolist() == [i < length + added for i in range(real.shape[1])]
        expected = torch.cat([plain[row, :start], soft[row, :added], plain[row, start:length]])
        assert torch.equal(embeds[row, : length + added], expected)


@torch.no_grad()
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("encoder", ["tiny:bert", None])
def test_text_only_rows_score_as_without_the_image_path(block, order, encoder):
    options = FULL if encoder else {}
    seeing = model(order, encoder, visual_learners=VisualLearners(rank=4), **options)
    blind = model(order, encoder, vision=None, **(options | {"visual_towers": False} if encoder else {}))
    own = blind.state_dict()
    blind.load_state_dict({name: tensor for name, tensor in seeing.state_dict().items() if name in own})
    expected = blind(block(None))
    assert torch.equal(seeing(block(None)), expected)
    assert torch.equal(seeing(block([()] * 4)), expected)
    mixed = seeing(block(MIXED))
    assert torch.allclose(mixed[TEXT_ROWS], expected[TEXT_ROWS], atol=1e-6, rtol=0)
    assert not torch.isclose(mixed[[0, 2]], expected[[0, 2]], atol=1e-4).any()


@torch.no_grad()
@pytest.mark.parametrize("order", ORDERS)
def test_scores_do_not_depend_on_the_rest_of_the_block(block, order):
    router = full(order)
    whole = router(block(MIXED))
    for rows in ([0], [1], [2, 0], [3, 2]):
        assert torch.allclose(router(block(MIXED, rows)), whole[rows], atol=1e-5, rtol=0)
    part = block(MIXED)
    part.capabilities = part.capabilities[1:]
    assert torch.allclose(router(part), whole[:, 1:], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("order", ORDERS)
def test_the_order_of_images_matters_to_the_router_llm(block, order):
    router = model(order)
    one, other = router(block([(B, C)] * 4)), router(block([(C, B)] * 4))
    assert not torch.isclose(one, other, atol=1e-6).any()
    assert torch.equal(router(block([(B, B)] * 4)), router(block([(B, B.copy())] * 4)))


@torch.no_grad()
def test_with_images_the_whole_zoo_still_costs_one_pass(block):
    router, passes = full(), []
    router.router_llm.backbone.layers[0].register_forward_hook(lambda *_: passes.append(1))
    router(block(MIXED))
    assert len(passes) == 2  # the prefix with its images, and all candidates behind it


def test_a_text_only_module_refuses_images(block):
    for module in (model(vision=None), RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert")):
        assert not module.reads_images
        with pytest.raises(SatlightError, match=r"reads text only, but got instructions with 3 images"):
            module.score(block(MIXED))
        module.score(block([()] * 4))
    assert model().reads_images


def test_too_many_images_for_the_positions_of_the_router_llm(block):
    router = model(vision=VisionEncoder("tiny:conv", tokens=64))
    with pytest.raises(SatlightError, match="4480 tokens of images and vectors"):
        router(block([(A,) * 70, (), (), ()]))


# Visual towers and learners


def test_visual_towers_learn_from_the_image_alone():
    torch.manual_seed(0)
    towers = VisualTowers(width=16, rank=4, channels=4)
    towers.connect_images(4, 8)
    towers.connect(3, 3, 1.0)
    x, c, image = F.normalize(torch.ones(6, 3), dim=1), torch.randn(3, 3), F.normalize(torch.randn(6, 4, 8), dim=2)
    reading = Reading(x, c, c, lambda: None, image, torch.tensor([True] * 5 + [False]))
    assert not towers(reading).any()
    assert not towers(Reading(x, c, c, lambda: None)).any()
    target = F.one_hot(torch.tensor([0, 1, 2, 0, 1, 2]), 3).float()
    optimizer = torch.optim.Adam(towers.parameters(), lr=0.02)
    for _ in range(200):
        loss = F.binary_cross_entropy_with_logits(towers(reading)[:5], target[:5])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (towers(reading)[:5].argmax(1) == target[:5].argmax(1)).all()
    assert not towers(reading)[5].any()


def test_a_learner_starts_at_nothing_and_ignores_padding():
    torch.manual_seed(0)
    learner = VisualLearner(8, 4)
    hidden, image = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    mask = torch.tensor([[True, True, False, False, False], [False] * 5])
    assert not learner(hidden, image, mask).any()
    torch.nn.init.normal_(learner.out.weight)
    added = learner(hidden, image, mask)
    assert not added[1].any()
    cut = learner(hidden[:1], image[:1, :2], mask[:1, :2])
    torch.testing.assert_close(added[:1], cut)
    by_hand = torch.softmax(learner.query(hidden[0]) @ learner.key(image[0, :2]).T / 2, dim=1)
    torch.testing.assert_close(cut[0], learner.out(by_hand @ learner.value(image[0, :2])))


@torch.no_grad()
@pytest.mark.parametrize("order", ORDERS)
def test_learners_change_scores_of_images_only(block, order):
    router = model(order, visual_learners=VisualLearners(rank=4, layers=[1]))
    assert list(router.visual_learners.learners) == ["1"]
    before = router(block(MIXED))
    router.visual_learners.learners["1"].out.weight.neg_()
    after = router(block(MIXED))
    assert torch.equal(before[TEXT_ROWS], after[TEXT_ROWS])
    assert not torch.isclose(before[[0, 2]], after[[0, 2]], atol=1e-6).any()


def test_learners_that_cannot_be_are_refused():
    with pytest.raises(SatlightError, match=r"layers names \[2\]; the router LLM has layers 0 to 1"):
        model(visual_learners=VisualLearners(layers=[0, 2]))
    with pytest.raises(SatlightError, match="rank is 0"):
        VisualLearners(rank=0)


# Training


def test_parts_have_their_learning_rates():
    router = full(
        vision=VisionEncoder("tiny:conv", trainable=True),
        optimizer=OptimizerSpec(lr=1e-3, projector_scale=5.0, vision_scale=2.0),
    )
    rates = {id(p): group["lr"] for group in router._groups() for p in group["params"]}
    assert rates[id(router.vision.backbone.network.stem[0].weight)] == 2e-3
    for part in (router.visual_projector.linear.weight, router.visual_towers.key.weight):
        assert rates[id(part)] == 5e-3
    assert rates[id(router.visual_learners.learners["0"].out.weight)] == 5e-3


def test_stage_1_trains_the_projector_of_images_and_encoders_without_pretrained_weights():
    assert {"projector", "visual_projector", "visual_towers", "visual_learners"} <= set(full().connectors())
    assert "vision" not in full(vision=VisionEncoder("tiny:conv", trainable=True)).connectors()
    scratch = model(vision=VisionEncoder("small-conv", image_size=64, trainable=True))
    assert "vision" in scratch.connectors()
    scratch.enter(Stage("connectors", trainable=scratch.connectors()))
    assert all(p.requires_grad for p in scratch.vision.parameters())
    assert not scratch.router_llm.head.requires_grad


def test_checkpoints_leave_out_a_frozen_encoder(block):
    for trainable in (False, True):
        router = full(vision=VisionEncoder("tiny:conv", trainable=trainable))
        checkpoint = {"state_dict": dict(router.state_dict())}
        router.on_save_checkpoint(checkpoint)
        kept = any(name.startswith("vision.backbone.network.stem") for name in checkpoint["state_dict"])
        assert kept == trainable
        content = io.BytesIO()
        torch.save(checkpoint["state_dict"], content)
        other = full(vision=VisionEncoder("tiny:conv", trainable=trainable))
        with torch.no_grad():
            for parameter in (p for p in other.parameters() if p.requires_grad):
                parameter.add_(1)
        content.seek(0)
        checkpoint = {"state_dict": torch.load(content, weights_only=True)}
        other.on_load_checkpoint(checkpoint)
        other.load_state_dict(checkpoint["state_dict"])
        assert torch.equal(other.eval()(block(MIXED)), router(block(MIXED)))


@torch.no_grad()
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda router: pickle.loads(pickle.dumps(router))])
def test_a_copy_has_learners_of_its_own(block, copied):
    router = full()
    expected = router(block(MIXED))
    other = copied(router)
    assert torch.equal(other(block(MIXED)), expected)
    other.visual_learners.learners["1"].out.weight.neg_()
    assert not torch.isclose(other(block(MIXED))[0], expected[0], atol=1e-6).any()
    assert torch.equal(router(block(MIXED)), expected)


@torch.no_grad()
@pytest.mark.parametrize("order", ORDERS)
def test_the_router_learns_from_images(block, order):
    """Two images decide which candidate is right; the text is always the same."""
    torch.manual_seed(0)
    black, white = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)
    white[8:24, 8:24] = 128
    router = ModelSAT(
        RouterLLM("tiny:llama", order=order), CapabilityEncoder("tiny:bert", trainable=False),
        vision=VisionEncoder("tiny:conv", tokens=4, trainable=True),
    )  # fmt: skip
    made = block([(black,), (white,), (black,), (white,)])
    made.instructions = ["Count the squares."] * 4
    target = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]] * 2)
    optimizer = torch.optim.Adam(router.parameters(), lr=3e-3)
    with torch.enable_grad():
        for _ in range(60):
            loss = F.binary_cross_entropy_with_logits(router(made), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (router.eval()(made).argmax(1) == target.argmax(1)).all()
