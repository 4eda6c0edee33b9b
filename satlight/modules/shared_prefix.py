"""Attention layouts in which many candidates share one instruction, and in which they do not.

Both layouts are plain tensors for a decoder that takes ``inputs_embeds``, a 4-D additive mask and
explicit position ids, so any Hugging Face decoder can read them. Every row may attend to itself, so that
no softmax runs over nothing (padding rows included).

Legend: B instructions, C candidates, P prefix tokens, S tokens of one candidate's branch, T = all tokens, D features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """One decoder pass.

    Args:
        embeds_RTD: Input embeddings of R sequences.
        mask_R1TT: Additive attention mask: 0 where attention is allowed, the dtype's minimum elsewhere.
        position_RT: int64 position ids.
        read_RK: int64, the K positions of every sequence whose hidden state is read.
    """

    embeds_RTD: Tensor
    mask_R1TT: Tensor
    position_RT: Tensor
    read_RK: Tensor


def additive_mask(allowed_RTT: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a bool (R, T, T) "may attend" matrix into an additive (R, 1, T, T) mask."""
    mask = torch.zeros(allowed_RTT.shape, dtype=dtype, device=allowed_RTT.device)
    return mask.masked_fill_(~allowed_RTT, torch.finfo(dtype).min).unsqueeze(1)


def instruction_first(
    prefix_BPD: Tensor, prefix_mask_BP: Tensor, branch_CSD: Tensor, branch_mask_CS: Tensor
) -> Layout:
    """[e_x, e_p, e_c1 | e_c2 | ... | e_cC]: the instruction is read once, every candidate is a branch behind it.

    A branch token sees the whole prefix and the earlier tokens of its own branch, never another candidate; all
    branches start at the same position id, the length of their row's prefix. A score therefore depends
    neither on padding nor on which other candidates stand in the block.

    Args:
        prefix_BPD: Embeddings of instruction and inquiry, padded on the right.
        prefix_mask_BP: bool, True at real tokens.
        branch_CSD: Embeddings of each candidate's branch (S = 1 behind a capability encoder), padded on the right.
        branch_mask_CS: bool, True at real tokens.

    Returns:
        A layout of R = B sequences with T = P + C·S tokens, read at K = C positions.

    Example:
        >>> layout = instruction_first(torch.zeros(2, 5, 4), torch.ones(2, 5, dtype=torch.bool),
        ...                            torch.zeros(3, 1, 4), torch.ones(3, 1, dtype=torch.bool))
        >>> layout.embeds_RTD.shape, layout.read_RK.tolist()
        (torch.Size([2, 8, 4]), [[5, 6, 7], [5, 6, 7]])
    """
    B, P, D = prefix_BPD.shape
    C, S, _ = branch_CSD.shape
    device = prefix_BPD.device
    branch_tokens = branch_CSD.reshape(1, C * S, D).expand(B, -1, -1)
    embeds = torch.cat([prefix_BPD, branch_tokens], dim=1)

    T = P + C * S
    allowed = torch.zeros(B, T, T, dtype=torch.bool, device=device)
    causal = torch.ones(P, P, dtype=torch.bool, device=device).tril()
    allowed[:, :P, :P] = causal & prefix_mask_BP[:, None, :]
    allowed[:, P:, :P] = prefix_mask_BP[:, None, :]
    same_candidate = torch.arange(C, device=device).repeat_interleave(S)
    within = (same_candidate[:, None] == same_candidate[None, :]) & torch.ones(
        C * S, C * S, dtype=torch.bool, device=device
    ).tril()
    allowed[:, P:, P:] = within & branch_mask_CS.reshape(1, 1, C * S)
    allowed |= torch.eye(T, dtype=torch.bool, device=device)

    length_B = prefix_mask_BP.sum(dim=1)
    prefix_position = torch.arange(P, device=device).expand(B, P)
    branch_position = length_B[:, None] + torch.arange(S, device=device).repeat(C)[None, :]
    last_C = branch_mask_CS.sum(dim=1) - 1
    read = P + torch.arange(C, device=device) * S + last_C
    return Layout(
        embeds,
        additive_mask(allowed, embeds.dtype),
        torch.cat([prefix_position, branch_position], dim=1),
        read.expand(B, C),
    )


def capability_first(
    prefix_BPD: Tensor, prefix_mask_BP: Tensor, branch_CSD: Tensor, branch_mask_CS: Tensor
) -> Layout:
    """[e_c, e_x, e_p], the paper's order: one sequence per (instruction, candidate) pair.

    Args: as in :func:`instruction_first`.

    Returns:
        A layout of R = B·C sequences (candidates vary fastest) with T = S + P tokens, read at K = 1 position,
        the last real token of the inquiry.

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
    real = torch.cat(
        [branch_mask_CS.repeat(B, 1), prefix_mask_BP.repeat_interleave(C, dim=0)],
        dim=1,
    )
    T = S + P
    allowed = torch.ones(T, T, dtype=torch.bool, device=device).tril() & real[:, None, :]
    allowed |= torch.eye(T, dtype=torch.bool, device=device)
    # Positions count real tokens only, so padding between branch and instruction leaves no gap.
    position = (real.cumsum(dim=1) - 1).clamp(min=0)
    last = S + prefix_mask_BP.sum(dim=1) - 1
    return Layout(embeds, additive_mask(allowed, embeds.dtype), position, last.repeat_interleave(C)[:, None])
