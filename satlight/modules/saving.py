"""Writing backbones as folders (safetensors, config, tokenizer) that load_encoder and load_causal_lm read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from satlight.files import atomic_path
from satlight.modules.conventions import EncoderConvention, write_convention
from satlight.modules.head_rows import HeadRows, save_rows, yes_no_token_ids


def save_encoder(
    folder: Path | str, encoder: nn.Module, tokenizer: Any, convention: EncoderConvention
) -> None:
    """Write an encoder as a folder that :func:`load_encoder` (and sentence-transformers) reads back exactly.

    Args:
        folder: Target; replaced as a whole, never half-written.
        encoder: From :func:`load_encoder`.
        tokenizer: Its tokenizer.
        convention: How it wants to be read; stored, since the folder's name no longer tells the family.

    Example:
        >>> import tempfile
        >>> from satlight.modules.backbones import load_encoder
        >>> target = Path(tempfile.mkdtemp()) / "encoder"
        >>> encoder, tokenizer, convention = load_encoder("tiny:bert")
        >>> save_encoder(target, encoder, tokenizer, convention)
        >>> load_encoder(str(target))[2] == convention
        True
    """
    model = _savable(encoder)
    with atomic_path(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        write_convention(convention, temporary, model.config.hidden_size)


def save_causal_lm(folder: Path | str, decoder: nn.Module, tokenizer: Any, rows: HeadRows) -> None:
    """Write a decoder as a folder that :func:`load_causal_lm` reads back; LoRA adapters are merged in.

    The decoder in memory is left as it is. Of an untied head only the rows of "Yes" and "No" are stored.

    Args:
        folder: Target; replaced as a whole, never half-written.
        decoder: From :func:`load_causal_lm`.
        tokenizer: Its tokenizer.
        rows: Its reader of head rows.

    Example:
        >>> import tempfile, torch
        >>> from satlight.modules.backbones import load_causal_lm
        >>> target = Path(tempfile.mkdtemp()) / "router_llm"
        >>> decoder, rows, tokenizer = load_causal_lm("tiny:llama")
        >>> save_causal_lm(target, decoder, tokenizer, rows)
        >>> torch.equal(load_causal_lm(str(target))[1]([5]), rows([5]))
        True
    """
    model = _savable(decoder)
    with atomic_path(folder) as temporary:
        model.save_pretrained(temporary, state_dict=_merged_state_dict(model))
        tokenizer.save_pretrained(temporary)
        if not model.config.tie_word_embeddings:
            save_rows(temporary, yes_no_token_ids(tokenizer), rows)


def _merged_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """The state dict with every LoRA product added to its matrix, under the names the plain model has."""
    state = {
        key.replace(".base_layer.", "."): value
        for key, value in model.state_dict().items()
        if ".lora_" not in key
    }
    for name, layer in model.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight"):
            weight = state[f"{name}.weight"]
            delta = layer.get_delta_weight("default")
            state[f"{name}.weight"] = (weight.float() + delta.float()).to(weight.dtype)
    return state


def _savable(module: nn.Module) -> Any:
    if not hasattr(module, "save_pretrained"):
        raise TypeError(f"expected a module from load_encoder or load_causal_lm, got {type(module).__name__}")
    return module
