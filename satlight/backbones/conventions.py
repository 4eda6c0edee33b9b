"""Input conventions of text encoders: pooling, length, prefix. Needs no model library."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal

from satlight.errors import SatlightError
from satlight.files import read_json

Pooling = Literal["mean", "cls", "last"]

log = logging.getLogger(__name__)

ADVICE = "copy the model folder again, or remove the file"

# Flags of sentence-transformers' Pooling module that name a pooling satlight has.
_POOLING_FLAGS: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
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


_FAMILIES = (
    # E5 and its multilingual version; e5-mistral and -instruct pool and prompt differently.
    (r"(multilingual-)?e5-(small|base|large)(?!.*instruct)", EncoderConvention("mean", 512, "query: ", True)),
    (r"bge-(small|base|large|m3)", EncoderConvention("cls", 512, "", True)),
    (r"gte-(small|base|large)$", EncoderConvention("mean", 512, "", True)),
    (r"gte-(multilingual|modernbert|.*-v1\.5)", EncoderConvention("cls", 512, "", True)),
    (
        r"qwen3-embedding",
        EncoderConvention(
            "last",
            512,
            "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
            True,
        ),
    ),
    (r"embeddinggemma", EncoderConvention("mean", 512, "task: classification | query: ", True)),
)
"""Conventions by name, where a model has no files of sentence-transformers, or these name no default prompt."""


def _of_family(name: str) -> EncoderConvention:
    found = (known for pattern, known in _FAMILIES if re.search(rf"(^|[/_-]){pattern}", name, re.IGNORECASE))
    return next(found, EncoderConvention())


def read_convention(name: str, folder: Path | None, limit: int = 512) -> EncoderConvention:
    """Read the convention of an encoder from sentence-transformers' files, or infer it from the name.

    A file next to the weights takes precedence. What the files do not say follows from the family in the name: E5,
    BGE, GTE, Qwen3-Embedding, and EmbeddingGemma have their own pooling, prefix, and norm; all other models, e.g.
    RoBERTa, get mean pooling and no prefix.

    Args:
        name: Backbone name as the user wrote it.
        folder: Folder with the model's files; None = no files.
        limit: Maximum number of tokens the model reads.

    Returns:
        The convention; ``max_length`` is never above ``limit``.

    Raises:
        SatlightError: A file that cannot be read, or has other content than sentence-transformers writes.

    Example:
        >>> read_convention("BAAI/bge-large-en-v1.5", None).pooling
        'cls'
        >>> read_convention("intfloat/e5-large-v2", None).prefix
        'query: '
    """
    family = _of_family(name)
    modules = _read_modules(folder)
    if dense := [path for path, kind in modules if kind.endswith("Dense")]:
        log.warning(
            "%s has layers after pooling (%s), which satlight does not apply: vectors differ from the published ones",
            name,
            ", ".join(dense),
        )
    pooling_file = next((path for path, kind in modules if kind.endswith("Pooling")), "1_Pooling")
    flags = _read_object(folder, f"{pooling_file}/config.json")
    stated_pooling = [mode for flag, mode in _POOLING_FLAGS.items() if flags.get(flag)]
    pooling = stated_pooling[0] if stated_pooling else family.pooling
    stated = _read_object(folder, "sentence_bert_config.json", max_seq_length=int).get("max_seq_length")
    prompts = _read_object(folder, "config_sentence_transformers.json", prompts=dict, default_prompt_name=str)
    prefix = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "")
    if prefix is None:
        prefix = family.prefix
    if not isinstance(prefix, str) or (stated is not None and stated < 1):
        raise SatlightError(f"{folder}: the prefix {prefix!r:.80} or max_seq_length {stated!r} is invalid; {ADVICE}")
    normalize = any(kind.endswith("Normalize") for _, kind in modules) or (not modules and family.normalize)
    return EncoderConvention(pooling, min(stated or limit, limit), prefix, normalize)


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


def _read_modules(folder: Path | None) -> list[tuple[str, str]]:
    """Return path and type of each module in modules.json; none without the file."""
    if folder is None or not (path := folder / "modules.json").is_file():
        return []
    entries: Any = read_json(path, ADVICE)
    are_typed = isinstance(entries, list) and all(isinstance(one, dict) for one in entries)
    if not are_typed or not all(isinstance(one.get("type"), str) for one in entries):
        raise SatlightError(f"{path} is no list of modules with a type; {ADVICE}")
    modules = [(one.get("path"), one["type"]) for one in entries]
    if not all(isinstance(place, str) and ".." not in PurePath(place).parts for place, _ in modules):
        raise SatlightError(f"{path} names a module whose path is not below its folder; {ADVICE}")
    return modules


def _read_object(folder: Path | None, name: str, **kinds: type) -> dict[str, Any]:
    """Return the object in a file; empty without the file. Values of other types than ``kinds`` are refused."""
    if folder is None or not (path := folder / name).is_file():
        return {}
    content = read_json(path, ADVICE)
    if not isinstance(content, dict):
        raise SatlightError(f"{path} holds a {type(content).__name__}, not an object; {ADVICE}")
    for key, kind in kinds.items():
        if content.get(key) is not None and (isinstance(content[key], bool) or not isinstance(content[key], kind)):
            raise SatlightError(f"{path}: {key} is {content[key]!r:.80}, not of type {kind.__name__}; {ADVICE}")
    return content
