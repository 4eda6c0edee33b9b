"""Read the rows of "Yes" and "No" of a language-model head without building the head (V × D)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from satlight.errors import SatlightError

HeadRows = Callable[[Sequence[int]], Tensor]
"""Rows of the language-model head: token ids → float (len(ids), D), a copy."""

_HEAD_KEYS = ("lm_head.weight", "embed_out.weight", "output.weight")
_SAVED = "head_rows.safetensors"


def yes_no_token_ids(tokenizer: Any) -> tuple[int, int]:
    """Return the token ids of the answers "Yes" and "No" after a prompt.

    Prefer the tokens with a leading space (" Yes") if both are single tokens; otherwise use the plain ones.

    Args:
        tokenizer: Tokenizer of the router LLM.

    Returns:
        (id of Yes, id of No).

    Raises:
        SatlightError: With neither spelling both answers are single tokens.

    Example:
        >>> from satlight.backbones.loading import load_causal_lm
        >>> _, _, tokenizer = load_causal_lm("tiny:llama")
        >>> tokenizer.convert_ids_to_tokens(list(yes_no_token_ids(tokenizer)))
        ['ĠYes', 'ĠNo']
    """
    pieces: dict[str, list[int]] = {}
    for space in (" ", ""):
        for word in ("Yes", "No"):
            pieces[space + word] = tokenizer.encode(space + word, add_special_tokens=False)
        yes, no = pieces[space + "Yes"], pieces[space + "No"]
        if len(yes) == len(no) == 1 and yes != no:
            return yes[0], no[0]
    raise SatlightError(
        f"the tokenizer {type(tokenizer).__name__} splits the answers into several tokens ({pieces}); the "
        "routing score is read from one token. Choose a router LLM whose vocabulary has 'Yes' and 'No'."
    )


class _TiedRows:
    """Rows of a matrix in memory. A class, since processes started by spawn pickle it with the model."""

    def __init__(self, embeddings: nn.Module) -> None:
        self._embeddings = embeddings

    def __call__(self, token_ids: Sequence[int]) -> Tensor:
        weight = self._embeddings.weight
        assert isinstance(weight, Tensor)
        return weight.detach()[list(token_ids)].clone()


def tied_rows(embeddings: nn.Module) -> HeadRows:
    """Return a reader of the rows of a head that shares its matrix with the input embeddings.

    Args:
        embeddings: Module with a ``weight`` (V, D), read at every call.

    Example:
        >>> tied_rows(torch.nn.Embedding(8, 3))([1, 2]).shape
        torch.Size([2, 3])
    """
    return _TiedRows(embeddings)


def untied_rows(name: str, folder: Path, dtype: torch.dtype) -> HeadRows:
    """Return a reader of the rows of a head whose own matrix is stored in ``folder``.

    Args:
        name: Backbone name, for messages.
        folder: Folder with ``*.safetensors``, or one written by :func:`save_rows`.
        dtype: Data type of the returned rows.

    Raises:
        SatlightError: No head in the folder, or (when called) a row that was not saved.
    """
    saved = (folder / _SAVED).is_file()
    path, key = (folder / _SAVED, "rows") if saved else _find_head(name, folder)
    return partial(_stored_rows, path, key, dtype, saved)


def save_rows(folder: Path, token_ids: Sequence[int], rows: HeadRows) -> None:
    """Store the rows of ``token_ids`` in ``folder`` for :func:`untied_rows`."""
    stored = {"token_ids": torch.tensor(list(token_ids)), "rows": rows(token_ids).detach().cpu().contiguous()}
    save_file(stored, folder / _SAVED)


def _stored_rows(path: Path, key: str, dtype: torch.dtype, saved: bool, token_ids: Sequence[int]) -> Tensor:
    with safe_open(path, framework="pt") as file:
        if saved:
            ids = file.get_tensor("token_ids").tolist()
            if missing := [i for i in token_ids if i not in ids]:
                raise SatlightError(f"{path} holds the head rows of tokens {ids}, not of {missing}.")
            token_ids = [ids.index(i) for i in token_ids]
        table = file.get_slice(key)
        return torch.cat([table[i : i + 1] for i in token_ids]).to(dtype)


def _find_head(name: str, folder: Path) -> tuple[Path, str]:
    """Return file and key of the matrix of the head."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (not a dict)
                if key.endswith(_HEAD_KEYS):
                    return path, key
    raise SatlightError(
        f"backbone {name!r}: {folder} has no language-model head ({', '.join(_HEAD_KEYS)}) and its "
        "embeddings are not tied, so 'Yes' cannot be scored. Use the folder of a causal LM."
    )
