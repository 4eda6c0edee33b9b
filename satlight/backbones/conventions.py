"""Input conventions of text encoders: pooling, length, prefix. Needs no model library."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Pooling = Literal["mean", "cls", "last"]

# Flags of sentence-transformers' Pooling module that name a pooling satlight has.
_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
# The models of the E5 paper; e5-mistral and other later relatives pool and prompt differently.
_E5 = re.compile(r"(^|[/_-])(multilingual-)?e5-(small|base|large)", re.IGNORECASE)
_BGE = re.compile(r"(^|[/_-])bge-(small|base|large|m3)", re.IGNORECASE)
_PROMPT_NAME = "default"


@dataclass(frozen=True)
class EncoderConvention:
    """Input format and pooling that an encoder was trained with.

    Args:
        pooling: How token states become one vector: their mean, the first one (``cls``), or the last one.
        max_length: Longest input in tokens, special tokens included.
        prefix: Text prepended to every input, e.g. E5's ``"query: "``.
        normalize: Whether the vector is scaled to length 1.

    Example:
        >>> EncoderConvention(prefix="query: ").pooling
        'mean'
    """

    pooling: Pooling = "mean"
    max_length: int = 512
    prefix: str = ""
    normalize: bool = False


def read_convention(name: str, folder: Path | None, limit: int = 512) -> EncoderConvention:
    """Read the convention of an encoder from sentence-transformers' files, or infer it from the name.

    A file next to the weights takes precedence. Without one, E5 models get mean pooling and the prefix
    ``"query: "``, BGE models the first token, and all other models mean pooling and no prefix.

    Args:
        name: Backbone name as the user wrote it.
        folder: Folder with the model's files; None = no files.
        limit: Maximum number of tokens the model reads.

    Returns:
        The convention; ``max_length`` is never above ``limit``.

    Example:
        >>> read_convention("BAAI/bge-large-en-v1.5", None).pooling
        'cls'
        >>> read_convention("intfloat/e5-large-v2", None).prefix
        'query: '
    """
    is_e5, is_bge = bool(_E5.search(name)), bool(_BGE.search(name))
    modules = _read_json(folder, "modules.json", default=[])
    pooling_file = next((m["path"] for m in modules if m["type"].endswith("Pooling")), "1_Pooling")
    flags = _read_json(folder, f"{pooling_file}/config.json", default={})
    stated_pooling = [mode for flag, mode in _POOLING_FLAGS.items() if flags.get(flag)]
    pooling = stated_pooling[0] if stated_pooling else ("cls" if is_bge else "mean")
    stated = _read_json(folder, "sentence_bert_config.json", default={}).get("max_seq_length")
    prompts = _read_json(folder, "config_sentence_transformers.json", default={})
    prefix = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "")
    if prefix is None:
        prefix = "query: " if is_e5 else ""
    normalize = any(m["type"].endswith("Normalize") for m in modules) or (not modules and (is_e5 or is_bge))
    return EncoderConvention(pooling, min(int(stated or limit), limit), prefix, normalize)


def write_convention(convention: EncoderConvention, folder: Path, dimension: int) -> None:
    """Write ``convention`` in the file format of sentence-transformers, which this module reads too.

    Args:
        convention: What to write.
        folder: Existing folder of the saved encoder.
        dimension: Vector dimension D.
    """
    flags: dict[str, Any] = {flag: mode == convention.pooling for flag, mode in _POOLING_FLAGS.items()}
    steps = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if convention.normalize:
        steps.append(("2_Normalize", "Normalize"))
    contents: dict[str, Any] = {
        "1_Pooling/config.json": {"word_embedding_dimension": dimension, **flags},
        "sentence_bert_config.json": {"max_seq_length": convention.max_length, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {_PROMPT_NAME: convention.prefix},
            "default_prompt_name": _PROMPT_NAME,
        },
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (path, kind) in enumerate(steps)
        ],
    }
    for path, content in contents.items():
        target = folder / path
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _read_json(folder: Path | None, path: str, default: Any) -> Any:
    if folder is None or not (folder / path).is_file():
        return default
    return json.loads((folder / path).read_text(encoding="utf-8"))
