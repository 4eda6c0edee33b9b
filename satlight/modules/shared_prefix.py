"""Two ways to put instructions and candidates before a decoder: behind a shared prefix, and pair by pair.

Both are plain tensors for a decoder that takes ``inputs_embeds``, a 4-D additive mask, explicit position
ids and a key-value cache, so any Hugging Face decoder can read them. Every token may attend to itself, so
that no softmax runs over nothing (padding included).

Legend: B instructions, C candidates, P prefix tokens, S tokens of one candidate's branch, T all tokens, D features.
"""

from __future__ import annotations

import copy
import inspect
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

BRANCH_TOKENS = 128
"""Branch tokens read together, at most: K of them have a mask of K × K, and 1,000 candidates one of 10⁶ per
instruction. In passes of this size a branch token costs 128 masked keys more than it needs, less than the
prefix it reads, and cost and memory grow with the number of candidates, not with its square."""


@dataclass(frozen=True)
class Branches:
    """How the tokens of all candidates attend to a prefix that was read before.

    Args:
        mask_B1KT: Additive attention mask of K = C·S branch tokens over T = P + C·S tokens: 0 where
            attention is allowed, the dtype's minimum elsewhere.
        position_BK: int64 position ids.
        read_C: int64, the branch token whose hidden state is each candidate's.
    """

    mask_B1KT: Tensor
    position_BK: Tensor
    read_C: Tensor


@dataclass(frozen=True)
class Pairs:
    """One sequence per (instruction, candidate) pair; R = B·C, candidates vary fastest, T = S + P tokens.

    Args:
        embeds_RTD: Input embeddings.
        mask_R1TT: Additive attention mask.
        position_RT: int64 position ids.
        read_R: int64, the position whose hidden state is read: the last real token of the inquiry.
    """

    embeds_RTD: Tensor
    mask_R1TT: Tensor
    position_RT: Tensor
    read_R: Tensor


def additive_mask(allowed_RQT: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a bool (R, Q, T) "query may attend to token" matrix into an additive (R, 1, Q, T) mask."""
    mask = torch.zeros(allowed_RQT.shape, dtype=dtype, device=allowed_RQT.device)
    return mask.masked_fill_(~allowed_RQT, torch.finfo(dtype).min).unsqueeze(1)


def packed(embeds_BPD: Tensor, mask_BP: Tensor) -> tuple[Tensor, Tensor]:
    """Move the padding of each row to its right end, and drop what is padding in all rows; the order stays.

    Args:
        embeds_BPD: Embeddings.
        mask_BP: bool, True at real tokens.

    Example:
        >>> packed(torch.arange(3.0).reshape(1, 3, 1), torch.tensor([[True, False, True]]))[0].flatten().tolist()
        [0.0, 2.0]
    """
    longest = int(mask_BP.sum(dim=1).max())
    order_BP = torch.argsort(~mask_BP, dim=1, stable=True)[:, :longest]
    return embeds_BPD.gather(1, order_BP[..., None].expand(-1, -1, embeds_BPD.shape[2])), mask_BP.gather(1, order_BP)


def instruction_first(prefix_mask_BP: Tensor, branch_mask_CS: Tensor, dtype: torch.dtype) -> Branches:
    """[e_x, e_p, e_c1 | ... | e_cC]: the instruction is read once, every candidate is a branch behind it.

    A branch token sees the whole prefix and the earlier tokens of its own branch, never another candidate; all branches
    start at the same position id, the length of their row's prefix. A score therefore depends neither on padding nor on
    which other candidates stand in the block. The prefix itself, padded on the right, needs no mask but the causal one.

    Args:
        prefix_mask_BP: bool, True at real tokens of instruction and inquiry, padded on the right.
        branch_mask_CS: bool, True at real tokens of each candidate (S = 1 behind a capability encoder),
            padded on the right.
        dtype: Of the additive mask.

    Example:
        >>> prefix, branch = torch.ones(2, 5, dtype=torch.bool), torch.ones(3, 1, dtype=torch.bool)
        >>> branches = instruction_first(prefix, branch, torch.float32)
        >>> branches.mask_B1KT.shape, branches.position_BK[0].tolist(), branches.read_C.tolist()
        (torch.Size([2, 1, 3, 8]), [5, 5, 5], [0, 1, 2])
    """
    C, S = branch_mask_CS.shape
    device = prefix_mask_BP.device
    candidate_K = torch.arange(C, device=device).repeat_interleave(S)
    within_KK = (candidate_K[:, None] == candidate_K[None, :]) & torch.ones(
        C * S, C * S, dtype=torch.bool, device=device
    ).tril()
    within_KK = within_KK & branch_mask_CS.reshape(1, C * S) | torch.eye(C * S, dtype=torch.bool, device=device)
    B = len(prefix_mask_BP)
    allowed_BKT = torch.cat([prefix_mask_BP[:, None, :].expand(B, C * S, -1), within_KK[None].expand(B, -1, -1)], dim=2)
    position_BK = prefix_mask_BP.sum(dim=1)[:, None] + torch.arange(S, device=device).repeat(C)[None, :]
    read_C = torch.arange(C, device=device) * S + branch_mask_CS.sum(dim=1) - 1
    return Branches(additive_mask(allowed_BKT, dtype), position_BK, read_C)


def capability_first(prefix_BPD: Tensor, prefix_mask_BP: Tensor, branch_CSD: Tensor, branch_mask_CS: Tensor) -> Pairs:
    """[e_c, e_x, e_p], the paper's order: one sequence per (instruction, candidate) pair.

    Args:
        prefix_BPD: Embeddings of instruction and inquiry, padded on the right.
        prefix_mask_BP: bool, True at real tokens.
        branch_CSD: Embeddings of each candidate's tokens, padded on the right.
        branch_mask_CS: bool, True at real tokens.

    Reference: [Zhang et al. 2025, Eq. 3].
    """
    B, P, D = prefix_BPD.shape
    C, S, _ = branch_CSD.shape
    device = prefix_BPD.device
    embeds = torch.cat(
        [
            branch_CSD[None].expand(B, C, S, D).reshape(B * C, S, D),
            prefix_BPD[:, None].expand(B, C, P, D).reshape(B * C, P, D),
        ],
        dim=1,
    )
    real = torch.cat([branch_mask_CS.repeat(B, 1), prefix_mask_BP.repeat_interleave(C, dim=0)], dim=1)
    T = S + P
    allowed = torch.ones(T, T, dtype=torch.bool, device=device).tril() & real[:, None, :]
    allowed |= torch.eye(T, dtype=torch.bool, device=device)
    # Positions count real tokens only, so padding between branch and instruction leaves no gap.
    position = (real.cumsum(dim=1) - 1).clamp(min=0)
    last = S + prefix_mask_BP.sum(dim=1) - 1
    return Pairs(embeds, additive_mask(allowed, embeds.dtype), position, last.repeat_interleave(C))


def cache_name(decoder: nn.Module) -> str:
    """Return the name of a decoder's key-value cache, as an argument and in its output.

    transformers renames it in the course of version 5.
    """
    kind: Any = type(decoder)
    return _cache_name(kind)


@cache
def _cache_name(kind: Any) -> str:
    return "cache" if "cache" in inspect.signature(kind.forward).parameters else "past_key_values"


def prefix_reader(decoder: Any) -> Any:
    """The decoder for tokens of which only keys and values are wanted; what it returns is not to be used.

    The last layer's queries, attention output, and MLP are not read either, so that its linear layers other than those
    of keys and values are left out. A layer without a plain gated MLP keeps what it has.

    Args:
        decoder: A transformers decoder; parameters and hooks are shared with what is returned.
    """
    *lower, last = decoder.layers
    if not hasattr(getattr(last, "mlp", None), "down_proj"):
        return decoder
    attention: Any = getattr(last, "self_attn", None)
    square = {name: nn.Identity() for name in ("q_proj", "o_proj") if _keeps_width(getattr(attention, name, None))}
    unread = {"self_attn": _with(attention, **square)} if square else {}
    return _with(decoder, layers=nn.ModuleList([*lower, _with(last, mlp=nn.Identity(), **unread)]))


def _keeps_width(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Linear) and layer.in_features == layer.out_features


def last_layers(decoder: Any, count: int) -> Any:
    """The decoder's last ``count`` layers and its final norm as a decoder of its own.

    Its layers keep their places in a key-value cache that the whole decoder has filled.

    Args:
        decoder: A transformers decoder; parameters and hooks are shared with what is returned.
        count: At least 1.
    """
    return _with(decoder, layers=decoder.layers[len(decoder.layers) - count :])


def _with(module: nn.Module, **children: nn.Module) -> nn.Module:
    """The same module with some children exchanged; nothing is copied and ``module`` stays as it is."""
    other = copy.copy(module)
    other._modules = {**module._modules, **children}
    return other
