"""The causal LMs with a short name know language: a wrong conversion of their quantized files would not."""

from __future__ import annotations

import pytest
import torch

from satlight.backbones import weights
from satlight.backbones.loading import load_causal_lm
from satlight.backbones.store import Manifest

PLAIN = (
    "The museum opens at nine in the morning and closes at five. Children under twelve enter for free, and students "
    "pay half the price. On Sundays there is a guided tour that starts in the main hall and lasts about an hour."
)


@pytest.mark.parametrize(
    ("name", "continued"),
    [
        ("smollm2-135m", {"The capital of France is": " Paris", "The opposite of hot is": " cold"}),
        ("gemma3-270m", {"Two plus two equals": " four", "The opposite of hot is": " cold"}),
    ],
)
def test_text_is_continued_and_word_order_matters(name: str, continued: dict[str, str]) -> None:
    if not Manifest.is_intact(weights.WheelSource.parse(weights.EMBEDDED[name].name).folder):
        pytest.skip(f"satlight weights fetch {name}")
    decoder, _, tokenizer = load_causal_lm(name)
    head_VD = decoder.eval().get_input_embeddings().weight  # both have tied embeddings

    @torch.inference_mode()
    def log_odds(text: str) -> tuple[torch.Tensor, torch.Tensor]:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        return ids[0], decoder(input_ids=ids).last_hidden_state[0] @ head_VD.T

    def perplexity(text: str) -> float:
        ids, odds_TV = log_odds(text)
        return float(torch.nn.functional.cross_entropy(odds_TV[:-1], ids[1:]).exp())

    assert {text: tokenizer.decode(log_odds(text)[1][-1].argmax()) for text in continued} == continued
    shuffled = " ".join(sorted(PLAIN.split(), key=lambda word: word[::-1]))
    assert perplexity(PLAIN) < 40
    assert perplexity(shuffled) > 20 * perplexity(PLAIN)
