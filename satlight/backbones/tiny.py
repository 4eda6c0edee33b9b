"""Tokenizer and sizes of small random models for tests; nothing is downloaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from satlight.errors import SatlightError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

# Each is one token, with and without a leading space, so that capability texts stay short.
_WORDS = [
    *("Yes", "No", "The", "the", "model", "achieves", "accuracy", "on", "task", "of", "Predict", "whether"),
    *("can", "handle", "test", "instruction", "by", "indicating", "or", "what", "is", "and"),
]
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
MAX_LENGTH = {"tiny:bert": 128, "tiny:llama": 4096}


def tiny_tokenizer(wrap: bool) -> Tokenizer:
    """Build a byte-level BPE over a few words; any text round-trips, "Yes" and "No" are single tokens.

    Args:
        wrap: Enclose every text in ``<s>`` and ``</s>``, as BERT does.

    Example:
        >>> tiny_tokenizer(wrap=True).encode("Hi Yes").tokens
        ['<s>', 'H', 'i', 'ĠYes', '</s>']
    """
    vocabulary = [*SPECIAL.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in _WORDS:
        # the merge (Ġ, Yes) comes after those of "Yes", which both spellings share
        for parts in (list(word), ["Ġ", word]):
            left = parts[0]
            for right in parts[1:]:
                if (left, right) not in merges:
                    merges.append((left, right))
                    vocabulary.append(left + right)
                left += right
    ids = {token: i for i, token in enumerate(dict.fromkeys(vocabulary))}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if wrap:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", ids["<s>"]), ("</s>", ids["</s>"])]
        )
    return tokenizer


def tiny_config_and_tokenizer(name: str) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    """Build config and tokenizer of the tiny model ``name``: hidden size 32, 2 layers, 4 heads.

    Raises:
        SatlightError: Unknown name.
    """
    from transformers import BertConfig, LlamaConfig, PreTrainedTokenizerFast

    if name not in MAX_LENGTH:
        raise SatlightError(f"backbone {name!r} is unknown; allowed tiny models: {', '.join(MAX_LENGTH)}.")
    is_bert = name == "tiny:bert"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(wrap=is_bert), model_max_length=MAX_LENGTH[name], **SPECIAL
    )
    ids = {f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("pad", "bos", "eos")}
    sizes: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH[name], "vocab_size": len(tokenizer), **ids,
        "initializer_range": 0.2,  # ten times the usual, so that outputs differ visibly between inputs
    }  # fmt: skip
    if is_bert:
        return BertConfig(**sizes), tokenizer
    return LlamaConfig(**sizes, num_key_value_heads=2, tie_word_embeddings=True), tokenizer
