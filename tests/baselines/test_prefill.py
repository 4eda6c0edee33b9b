"""Hidden states of a causal LM: of the last token, of the right layers, cached, stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from satlight.backbones.hidden_states import HiddenStates
from satlight.backbones.loading import load_causal_lm
from satlight.baselines import build
from satlight.errors import SatlightError
from satlight.routers import Router

TEXTS = ["Yes", "Predict whether the model can handle it.", "No the model"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))


def test_they_are_those_of_the_last_token_without_padding() -> None:
    states = HiddenStates("tiny:llama", layers=(2, 1))(TEXTS)
    decoder, _, tokenizer = load_causal_lm("tiny:llama")
    decoder.eval()
    for text, row in zip(TEXTS, states, strict=True):
        with torch.no_grad():
            hidden = decoder(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        np.testing.assert_allclose(row, torch.cat([hidden[1][0, -1], hidden[2][0, -1]]), atol=1e-5)


def test_they_are_computed_once_and_truncated(monkeypatch: pytest.MonkeyPatch) -> None:
    first = HiddenStates("tiny:llama", max_tokens=2)(["Yes No the", "Yes No can"])
    np.testing.assert_allclose(first[0], first[1], atol=1e-6)
    monkeypatch.setattr(HiddenStates, "read", None)
    assert np.array_equal(HiddenStates("tiny:llama", max_tokens=2)(["Yes No the"]), first[:1])
    with pytest.raises(TypeError):
        HiddenStates("tiny:llama", max_tokens=3)(["Yes No the"])  # other states, so nothing is cached


def test_messages() -> None:
    with pytest.raises(SatlightError, match="no texts"):
        HiddenStates("tiny:llama")([])
    with pytest.raises(SatlightError, match=r"layers=\[0, 1\]"):
        HiddenStates("tiny:llama", layers=(0, 1))
    with pytest.raises(SatlightError, match="max_tokens=0"):
        HiddenStates("tiny:llama", max_tokens=0)
    with pytest.raises(SatlightError, match="num_layers is 3, the model has 2"):
        HiddenStates("tiny:llama", layers=(3,))(["a"])
    with pytest.raises(SatlightError, match="need a causal LM"):
        HiddenStates("tiny:bert")(["a"])


def test_prefill_reads_them_and_its_folder_holds_the_network(tmp_path: Path, two_topics, new_texts) -> None:
    fixed = {"components": 16, "decay": 0.01, "steps": 250}
    router = build("prefill", fixed=fixed, backbone="tiny:llama", layers=(1, 2)).fit(two_topics)
    score = router.predict(new_texts, ["adds", "sorts", "weak"])
    assert score.std(axis=0).min() > 0  # the text makes a difference
    router.save(tmp_path / "router")
    loaded = Router.from_pretrained(tmp_path / "router")
    np.testing.assert_allclose(loaded.predict(new_texts, ["adds", "sorts", "weak"]), score, atol=1e-5)


def test_prefill_needs_whole_layers(two_topics, embed) -> None:
    def states(texts):
        return embed(texts)

    states.num_layers = 3
    with pytest.raises(SatlightError, match="4 features, which 3 layers cannot share"):
        build("prefill", fixed={"components": 16, "decay": 0.01, "steps": 250}).fit(two_topics, states)
