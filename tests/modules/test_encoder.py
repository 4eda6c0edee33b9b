"""The capability encoder: nothing is cut off, vectors are fresh when they must be, gradients are honest."""

import io
import itertools

import pytest
import torch

from satlight.backbones import text_encoder
from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder
from satlight.modules.encoder import Remembered
from satlight.types import Capability, Result

MANY = tuple(f'The model achieves accuracy {p}.0% on the task of "Task {p}".' for p in range(10, 22))
LONG = tuple("".join(c if c.isalnum() else " " for c in text) for text in MANY)


def noted(*texts: str) -> Capability:
    return Capability(notes=texts)


def tiny(**options) -> CapabilityEncoder:
    torch.manual_seed(0)
    return CapabilityEncoder("tiny:bert", **options)


def tokens(encoder: CapabilityEncoder, text: str) -> int:
    return len(encoder.text.tokenizer(encoder.text.convention.prefix + text)["input_ids"])


def texts_of(encoder: CapabilityEncoder, capability: Capability) -> list[str]:
    return [text for text, _ in encoder.chunks(capability)]


def mean_of_chunks(encoder: CapabilityEncoder, capability: Capability) -> torch.Tensor:
    """The reference: no cache, no sharing, one chunk at a time."""
    with torch.no_grad():
        return torch.stack([encoder.embed([text])[0] for text in texts_of(encoder, capability)]).mean(dim=0)


@pytest.fixture
def reads(monkeypatch):
    """The texts that an encoder reads, call by call."""

    def spy(encoder: CapabilityEncoder) -> list[list[str]]:
        calls: list[list[str]] = []
        embed = encoder.embed
        monkeypatch.setattr(encoder, "embed", lambda texts: (calls.append(list(texts)), embed(texts))[1])
        return calls

    return spy


def test_results_weigh_the_keywords_of_their_tasks():
    encoder = tiny().eval()
    law, maths = Result("law", "Law", 0.9, 20, 1.5), Result("maths", "Mathematics", 0.2, 20, -0.5)
    with torch.no_grad():
        expected = (1.5 * encoder.embed(["Law"]) - 0.5 * encoder.embed(["Mathematics"]) + encoder.embed(["New."])) / 3
        assert torch.allclose(encoder.encode([Capability((law, maths), ("New.",))]), expected, atol=1e-6)
        assert torch.allclose(encoder.encode([Capability((maths, law), ("New.",))]), expected, atol=1e-6)


# -- chunks ------------------------------------------------------------------------------------------------


def test_statements_are_chunks_of_their_own():
    assert texts_of(tiny(chunking="statements"), noted(*MANY)) == list(MANY)


@pytest.mark.parametrize("max_tokens", [64, 90, 128])
def test_windows_hold_whole_statements_within_the_limit_and_lose_none(max_tokens):
    encoder = tiny(chunking="windows", max_tokens=max_tokens)
    windows = texts_of(encoder, noted(*MANY))
    assert " ".join(windows) == " ".join(MANY)
    assert 1 < len(windows) < len(MANY)
    assert max(tokens(encoder, window) for window in windows) <= max_tokens
    assert all(window.endswith('".') for window in windows)
    # as many as fit: no window could have taken the next one's first statement
    for window, following in itertools.pairwise(windows):
        first = following.split('". ')[0]
        first += "" if first.endswith('".') else '".'
        assert tokens(encoder, f"{window} {first}") > max_tokens


@pytest.mark.parametrize("chunking", ["statements", "windows"])
def test_a_statement_longer_than_a_chunk_is_cut_between_words(chunking):
    encoder = tiny(chunking=chunking, max_tokens=24)
    chunks = texts_of(encoder, noted(" ".join(LONG), "It is new."))
    assert " ".join(chunks).split() == f"{' '.join(LONG)} It is new.".split()
    assert max(tokens(encoder, chunk) for chunk in chunks) <= 24


@pytest.mark.parametrize("chunking", ["results", "statements", "windows"])
@pytest.mark.parametrize("text", ["它擅长数学和法律" * 53, "x" * 200, "short " + "它" * 420, "👩‍🔬é" * 90])
def test_a_word_longer_than_a_chunk_is_cut_between_characters(chunking, text):
    encoder = tiny(chunking=chunking)
    capability = Capability((Result("sums", text, 0.5, 20, 1.0),), (text,))
    chunks = texts_of(encoder, capability)
    assert "".join(chunks).replace(" ", "").count(text.replace(" ", "")) == 2
    assert max(tokens(encoder, chunk) for chunk in chunks) <= 128
    assert encoder.eval().encode([capability]).isfinite().all()


def test_text_without_a_word_and_characters_longer_than_a_chunk():
    assert tiny().encode([noted(" " * 300)]).isfinite().all()
    with pytest.raises(SatlightError, match=r"'它' of a capability has 5 tokens, but encoder\.max_tokens is 4"):
        tiny(max_tokens=4).chunks(noted("它" * 20))


def test_max_tokens_beyond_the_embedder_is_an_error():
    with pytest.raises(SatlightError, match=r"encoder\.max_tokens is 129, but tiny:bert reads at most 128"):
        tiny(max_tokens=129)


def test_text_of_a_chunk_at_the_limit_counts_to_its_last_word():
    # A vector that ignored the end of a window would be the same for both.
    encoder = tiny(chunking="windows").eval()
    texts = [noted(*MANY[:-1], MANY[-1].replace("21.0", p)) for p in ("21.0", "99.0")]
    with torch.no_grad():
        vectors = encoder.encode(texts)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-4


def test_texts_of_similar_length_share_a_pass_in_evaluation_only(monkeypatch):
    encoder = tiny().eval()
    texts = [word * count for word, count in (("a ", 3), ("b ", 40), ("c ", 4), ("d ", 43), ("e ", 60))]
    shapes: list[tuple[int, int]] = []
    forward = encoder.text.backbone.forward

    def spy(**tokens):
        shapes.append(tuple(tokens["input_ids"].shape))
        return forward(**tokens)

    monkeypatch.setattr(encoder.text.backbone, "forward", spy)
    with torch.no_grad():
        apart = encoder.embed(texts)
        lengths = [tokens(encoder, text) for text in texts]
        assert shapes == [(1, lengths[4]), (2, lengths[3]), (2, lengths[2])]
        assert apart.shape == (5, 32)
        encoder.train().embed(texts)
    in_one_pass = encoder.eval().embed(texts)  # with gradient
    assert shapes[3:] == [(5, max(lengths))] * 2
    assert torch.allclose(apart, in_one_pass, atol=1e-5)
    assert (apart[0] - apart[2]).abs().max() > 1e-3


# -- vectors -----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("cost", [0, 10**9])
def test_pooling_does_not_see_padding(pooling, cost, monkeypatch):
    monkeypatch.setattr(text_encoder, "PASS_COST", cost)  # one pass per length, and one for all
    encoder = tiny(pooling=pooling).eval()
    texts = ["Sums.", MANY[0], "It is good at law."]
    together = encoder.embed(texts)
    assert torch.allclose(together, torch.cat([encoder.embed([text]) for text in texts]), atol=1e-5)
    hidden = encoder.text.backbone(**encoder.text.tokenizer("Sums.", return_tensors="pt")).last_hidden_state[0]
    expected = {"mean": hidden.mean(dim=0), "cls": hidden[0], "last": hidden[-1]}[pooling]
    assert torch.allclose(together[0], expected, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("chunking", ["statements", "windows"])
def test_a_capability_is_the_mean_of_its_chunks(chunking):
    encoder = tiny(chunking=chunking).eval()
    capabilities = [noted(*MANY), noted(*MANY[:2]), noted(MANY[0], MANY[0], MANY[3])]
    vectors = encoder.encode(capabilities)
    expected = torch.stack([mean_of_chunks(encoder, capability) for capability in capabilities])
    assert torch.allclose(vectors, expected, atol=1e-5)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-3


@torch.no_grad()
def test_statement_by_statement_the_order_does_not_matter():
    statements, windows = tiny().eval(), tiny(chunking="windows").eval()
    both = [noted(*MANY), noted(*MANY[::-1])]
    assert torch.allclose(*statements.encode(both), atol=1e-5)
    assert not torch.allclose(*windows.encode(both), atol=1e-3)


@torch.no_grad()
def test_normalised_vectors_have_length_one():
    encoder = tiny().eval()
    plain = encoder.embed(["Sums."])
    encoder.text.convention = type(encoder.text.convention)(max_length=128, normalize=True)
    assert torch.allclose(encoder.embed(["Sums."]), plain / plain.norm(), atol=1e-6)


@torch.no_grad()
def test_the_prefix_of_the_convention_is_read():
    encoder = tiny().eval()
    plain = encoder.embed(["query: Sums."])
    encoder.text.convention = type(encoder.text.convention)(max_length=128, prefix="query: ")
    assert torch.allclose(encoder.embed(["Sums."]), plain, atol=1e-6)


# -- cache and gradients -----------------------------------------------------------------------------------


def test_evaluation_reads_every_distinct_chunk_once(reads):
    encoder = tiny().eval()
    calls = reads(encoder)
    with torch.inference_mode():
        encoder.encode([noted(*MANY[:4]), noted(*MANY[2:6])])
        encoder.encode([noted(*MANY[:6])])
    assert sorted(text for call in calls for text in call) == sorted(MANY[:6])


@pytest.mark.parametrize("grad_chunks", [1, 3, None])
def test_evaluation_is_fresh_after_an_optimiser_step(grad_chunks):
    encoder = tiny(grad_chunks=grad_chunks)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    with torch.inference_mode():
        before = encoder.eval().encode([noted(*MANY)]).clone()
    for _ in range(2):
        optimizer.zero_grad()
        encoder.train().encode([noted(*MANY)]).square().sum().backward()
        optimizer.step()
        with torch.inference_mode():
            vector = encoder.eval().encode([noted(*MANY)])[0]
        assert torch.allclose(vector, mean_of_chunks(encoder, noted(*MANY)), atol=1e-5)
    assert not torch.allclose(vector, before[0], atol=1e-3)


def test_evaluation_is_fresh_after_loading_other_weights():
    encoder, other = tiny().eval(), tiny().eval()
    with torch.no_grad():
        encoder.encode([noted(*MANY)])
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        encoder.load_state_dict(other.state_dict())
        assert torch.allclose(encoder.encode([noted(*MANY)])[0], mean_of_chunks(other, noted(*MANY)), atol=1e-5)


def gradient(encoder: CapabilityEncoder) -> torch.Tensor:
    encoder.zero_grad()
    encoder.train().encode([noted(*MANY), noted(*MANY[:3])]).square().sum().backward()
    return torch.cat([p.grad.flatten() for p in encoder.text.backbone.parameters() if p.grad is not None])


def test_some_chunks_give_some_gradient_and_all_chunks_the_exact_one():
    exact = gradient(tiny(grad_chunks=None))
    assert torch.allclose(gradient(tiny(grad_chunks=len(MANY))), exact, atol=1e-6)
    some = gradient(tiny(grad_chunks=2))
    assert 0 < some.norm() < exact.norm()
    assert not torch.allclose(some, exact, atol=1e-4)


def test_in_training_only_the_chosen_chunks_are_read_again(reads):
    encoder = tiny(grad_chunks=2)
    calls = reads(encoder)
    encoder.train().encode([noted(*MANY)])
    assert sorted(calls[0]) == sorted(MANY)  # fills the cache
    assert len(calls[1]) == 2
    encoder.encode([noted(*MANY)])
    assert [len(call) for call in calls] == [12, 2, 2]


def test_vectors_without_gradient_are_exact_before_the_first_step():
    encoder = tiny(grad_chunks=1).train()
    assert torch.allclose(encoder.encode([noted(*MANY)])[0].detach(), mean_of_chunks(encoder, noted(*MANY)), atol=1e-5)


def test_the_state_of_training_survives_a_checkpoint(reads):
    encoder = tiny(grad_chunks=2)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        encoder.train().encode([noted(*MANY)]).square().sum().backward()
        optimizer.step()
    buffer = io.BytesIO()
    torch.save(encoder.state_dict(), buffer)
    buffer.seek(0)
    resumed = tiny(grad_chunks=2)
    resumed.load_state_dict(torch.load(buffer, weights_only=True))
    calls = reads(resumed)
    torch.manual_seed(7)
    expected = encoder.train().encode([noted(*MANY)]).detach()
    torch.manual_seed(7)
    assert torch.equal(resumed.train().encode([noted(*MANY)]).detach(), expected)
    assert [len(call) for call in calls] == [2]  # slightly old vectors came from the checkpoint
    assert not torch.allclose(expected[0], mean_of_chunks(encoder, noted(*MANY)), atol=1e-3)


def test_a_zoo_is_known_again_but_never_mistaken_for_another():
    def zoo(strength: float) -> list[Capability]:
        law, sums = Result("law", "Law", 0.5, 20, strength), Result("sums", "Sums", 0.5, 20, -strength)
        return [Capability((law,), ("New.",)), Capability((sums,))]

    encoder, plain = tiny().eval(), tiny().eval()
    first, expected = zoo(1.0), {}
    with torch.inference_mode():
        for strength in (1.0, 2.0, 3.0):  # equal texts, other numbers, and ids that Python may use again
            plain._shares._kept.clear()
            plain._results._kept.clear()
            expected[strength] = plain.encode(zoo(strength))
            assert torch.equal(encoder.encode(zoo(strength)), expected[strength])
            assert encoder.read_results(zoo(strength))[1].nan_to_num().tolist() == [[strength, 0], [0, -strength]]
        assert not torch.equal(expected[1.0], expected[2.0])
        assert torch.equal(encoder.encode(first), expected[1.0])
        assert torch.equal(encoder.encode(first[::-1]), expected[1.0].flip(0))
    encoder.train()
    encoder.encode(first).sum().backward()  # what evaluation remembered serves training too


def test_a_remembered_zoo_is_worked_out_once_and_only_a_few_are_kept():
    asked = []
    remembered = Remembered(lambda zoo: asked.append(zoo) or len(zoo), size=2)
    zoos = [[noted(f"candidate {i}")] * (i + 1) for i in range(3)]
    assert [remembered(zoos[i]) for i in (0, 1, 0, 1)] == [1, 2, 1, 2]
    assert len(asked) == 2
    assert [remembered(zoos[i]) for i in (2, 1, 0)] == [3, 2, 1]
    assert len(asked) == 4  # the first was dropped for the third
    assert len(remembered._kept) == 2


def test_a_frozen_encoder_reads_once_in_training_too_and_is_not_in_checkpoints(reads):
    encoder = tiny(trainable=False).train()
    calls = reads(encoder)
    for _ in range(3):
        assert not encoder.encode([noted(*MANY)]).requires_grad
    assert [len(call) for call in calls] == [12]
    checkpoint = {"state_dict": encoder.state_dict()}
    encoder.on_save_checkpoint(checkpoint)
    assert {name for name in checkpoint["state_dict"] if "_extra_state" not in name} == {"log_scale"}


# -- alone -------------------------------------------------------------------------------------------------


def test_alone_it_is_a_two_tower_router(make_block, instructions, capabilities):
    encoder = tiny(chunking="statements")
    block = make_block(instructions, capabilities)
    score_BC = encoder.score(block)
    with torch.no_grad():
        texts = torch.stack([encoder.embed([text])[0] for text in instructions])
        vectors = torch.stack([mean_of_chunks(encoder, capability) for capability in capabilities])
        cosine = torch.cosine_similarity(texts[:, None], vectors[None], dim=-1)
        assert torch.allclose(score_BC, encoder.log_scale.exp() * cosine, atol=1e-4)
    encoder.objective(score_BC, block.target_BC, block.known_BC)["loss"].backward()
    assert encoder.log_scale.grad.abs() > 0


@pytest.mark.parametrize("chunking", ["results", "statements", "windows"])
def test_chunks_are_plain_text_that_a_checkpoint_can_hold(chunking):
    chunks = tiny(chunking=chunking).chunks(Capability((Result("law", "Law", 0.9, 20, 1.5),)))
    assert [type(text) for text, _ in chunks] == [str]


@torch.no_grad()
def test_a_text_that_is_cut_is_counted_and_told_of_once(caplog):
    encoder = CapabilityEncoder("tiny:bert", max_tokens=16).eval()
    encoder.embed(["short"])
    assert encoder.text.shortened == 0
    assert not caplog.records
    encoder.embed(["word " * 50, "short", "other " * 50])
    encoder.embed(["third " * 50])
    assert encoder.text.shortened == 3
    assert [record.message.count("keep their head") for record in caplog.records] == [1]


@torch.no_grad()
def test_a_capability_in_chunks_loses_nothing():
    encoder = CapabilityEncoder("tiny:bert", chunking="statements", max_tokens=16).eval()
    encoder.encode([noted("word " * 50, "short")])
    assert encoder.text.shortened == 0


def test_identity_tells_candidates_apart_and_says_nothing_of_them():
    encoder = tiny(chunking="identity").eval()
    good, bad = (Capability((Result("law", "Law", 0.5 + s / 5, 20, s),)) for s in (2.0, -2.0))
    vectors = encoder.encode([good, bad, good])
    assert vectors[0].equal(vectors[2])
    assert vectors.norm(dim=1).tolist() == pytest.approx([1.0, 1.0, 1.0])
    assert abs(float(vectors[0] @ vectors[1])) < 0.7  # by results they are opposite
    assert encoder.encode([noted("One.", "Two.")]).equal(encoder.encode([noted("Two.", "One.")]))
