"""A causal LM on disk, as the hub has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def save_llama() -> Callable:
    """Return a function that writes head, safetensors and tokenizer of a causal LM."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from satlight.backbones.loading import load_causal_lm

    def save(folder: Path, dtype: torch.dtype = torch.float32, **changes: object) -> LlamaConfig:
        decoder, _, tokenizer = load_causal_lm("tiny:llama")
        values = decoder.config.to_dict() | {"num_hidden_layers": 3, "tie_word_embeddings": False} | changes
        config = LlamaConfig.from_dict(values)
        torch.manual_seed(1)
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return config

    return save
