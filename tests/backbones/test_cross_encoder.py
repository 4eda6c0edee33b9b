"""Cross-encoders: any order, any batch, from a folder as from code; other models are refused."""

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, BertConfig

from satlight.backbones import cross_encoder, tiny
from satlight.backbones.cross_encoder import load_cross_encoder
from satlight.errors import SatlightError

PAIRS = [("What is 2+2?", "4"), ("What is 2+2?", "I do not know, sorry."), ("Name a river.", "The Rhine")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Saves a tiny classifier (or, with labels=0, an embedder) as a model folder."""

    def make(labels: int):
        path = tmp_path_factory.mktemp("reranker") / str(labels)
        config, tokenizer = tiny.tiny_config_and_tokenizer("tiny:bert")
        config = BertConfig(**{**config.to_dict(), "num_labels": max(labels, 1)})
        auto = AutoModelForSequenceClassification if labels else AutoModel
        torch.manual_seed(1)
        auto.from_config(config).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return make


def test_a_pair_scores_the_same_in_any_order_and_company(monkeypatch):
    encoder = load_cross_encoder("tiny:bert")
    together = encoder(PAIRS)
    assert together.dtype == np.float32
    assert len(set(together.round(4))) == 3
    assert np.allclose(encoder(PAIRS[::-1])[::-1], together, atol=1e-6)
    monkeypatch.setattr(cross_encoder, "BATCH", 1)
    assert np.allclose(encoder(PAIRS), together, atol=1e-5)


def test_the_output_is_read_with_its_instruction():
    encoder = load_cross_encoder("tiny:bert")
    first, second = encoder([("What is 2+2?", "4"), ("What is 2+3?", "4")])
    assert first != pytest.approx(second, abs=1e-4)


def test_long_pairs_are_cut_to_what_it_reads():
    score = load_cross_encoder("tiny:bert")([("What is this? " * 200, "long " * 200)])
    assert np.isfinite(score).all()


def test_tiny_ones_are_always_the_same_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    one, two = load_cross_encoder("tiny:bert")(PAIRS), load_cross_encoder("tiny:bert")(PAIRS)
    assert np.array_equal(one, two)
    assert torch.equal(before, torch.get_rng_state())


def test_a_folder_gives_the_logit_of_its_head(folder):
    path = folder(1)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    _, tokenizer = tiny.tiny_config_and_tokenizer("tiny:bert")
    with torch.inference_mode():
        expected = model(**tokenizer(*PAIRS[1], return_tensors="pt")).logits[0, 0].item()
    assert load_cross_encoder(str(path))(PAIRS)[1] == pytest.approx(expected, abs=1e-5)


def test_of_two_classes_it_is_the_second_over_the_first(folder):
    path = folder(2)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    _, tokenizer = tiny.tiny_config_and_tokenizer("tiny:bert")
    with torch.inference_mode():
        logits = model(**tokenizer(*PAIRS[0], return_tensors="pt")).logits[0]
    assert load_cross_encoder(str(path))(PAIRS)[0] == pytest.approx((logits[1] - logits[0]).item(), abs=1e-5)


def test_other_models_are_refused(folder):
    with pytest.raises(SatlightError, match="has 3 classes; a re-ranker has one output"):
        load_cross_encoder(str(folder(3)))
    with pytest.raises(SatlightError, match=r"lacks \d tensors.*an embedder without a classification head"):
        load_cross_encoder(str(folder(0)))
    with pytest.raises(SatlightError, match="tiny:gone"):
        load_cross_encoder("tiny:gone")
