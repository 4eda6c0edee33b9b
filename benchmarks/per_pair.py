"""Compare the cells per second of a block with the straightforward way: one sequence per pair.

The per-pair implementation is the same model with the same weights: each (instruction, candidate) pair as
[e_c, e_x, e_p], padded to a fixed length, through a decoder with its full vocabulary head. Its cost is
linear in the number of pairs, so only a few are measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from common import block, embedded_model, fresh_texts, in_turns, machine, medians, parsed, parser, show, zoo
from torch import Tensor

from satlight.backbones.head_rows import yes_no_token_ids
from satlight.modules import ModelSAT
from satlight.types import Capability


def per_pair_scores(
    model: ModelSAT, texts: list[str], capabilities: list[Capability], length: int, whole_head: bool
) -> Tensor:
    """Return the scores of the pairs (text i, capability i), float (pairs,).

    Args:
        model: Model whose parts are used unchanged.
        texts: Instructions, one per pair.
        capabilities: Capabilities, one per pair.
        length: Padded length of each sequence, in tokens.
        whole_head: True computes logits at every position, as a causal LM does; False at the last token only.
    """
    llm = model.router_llm
    prefix, mask = llm.embed_instructions(texts)
    candidates, _ = model.embed_capabilities(capabilities)
    padding = length - prefix.shape[1] - 1
    embeds = F.pad(torch.cat([candidates, prefix], dim=1), (0, 0, 0, padding))
    real = F.pad(F.pad(mask, (1, 0), value=True), (0, padding))
    hidden = llm.backbone(inputs_embeds=embeds, attention_mask=real.long(), use_cache=False).last_hidden_state
    rows, last = torch.arange(len(texts)), mask.sum(dim=1)
    vocabulary = llm.backbone.get_input_embeddings().weight
    logits = (hidden @ vocabulary.T)[rows, last] if whole_head else hidden[rows, last] @ vocabulary.T
    yes, no = yes_no_token_ids(llm.tokenizer)
    return logits[:, yes] - logits[:, no]


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--pairs", type=int, default=4, help="pairs measured of the per-pair implementation")
    options.add_argument("--length", type=int, default=256, help="instruction tokens it pads to")
    args = parsed(options, argv)
    if args.quick:
        args.length = 32
    model = embedded_model(args)
    capabilities = zoo(29)
    model.embed_capabilities(capabilities)
    around = len(model.router_llm.embed_instructions([""])[1][0]) + 1
    ways = {
        "per pair, fixed length, whole head": (around + args.length, True),
        "per pair, fixed length, head at the last token": (around + args.length, False),
        "per pair, no padding, head at the last token": (around + args.tokens, False),
    }

    def scores(size: int) -> Tensor:
        return model.score(block(fresh_texts(args.instructions, args.tokens), capabilities[:size]))

    def pairs(length: int, whole_head: bool) -> Tensor:
        texts = fresh_texts(args.pairs, args.tokens)
        return per_pair_scores(model, texts, capabilities[: args.pairs], length, whole_head)

    def scoring(forward: Callable[[], Tensor]) -> None:
        model.eval()
        with torch.inference_mode():
            forward()

    def training(forward: Callable[[], Tensor]) -> None:
        model.train()
        score = forward()
        F.binary_cross_entropy_with_logits(score, torch.rand_like(score).round()).backward()
        model.zero_grad()

    forwards: dict[str, Callable[[], Tensor]] = {name: partial(pairs, *way) for name, way in ways.items()}
    cells = dict.fromkeys(ways, args.pairs)
    for size in (7, 29):
        forwards[f"block, M = {size}"] = partial(scores, size)
        cells[f"block, M = {size}"] = args.instructions * size
    model.encoder.requires_grad_(False)  # its cost is the same in both cases and is not compared
    cases = {
        f"{kind.__name__} {name}": partial(kind, forward)
        for kind in (scoring, training)
        for name, forward in forwards.items()
    }
    seconds = medians(in_turns(cases, args.repeats))
    rate = {case: cells[case.split(" ", 1)[1]] / value for case, value in seconds.items()}
    rows = [
        [
            name,
            *(
                text
                for kind in ("scoring", "training")
                for text in (
                    f"{rate[f'{kind} {name}']:.1f}",
                    *(f"{rate[f'{kind} block, M = {m}'] / rate[f'{kind} {name}']:.1f}" for m in (7, 29)),
                )
            ),
        ]
        for name in forwards
    ]
    show(
        "Cells per CPU second",
        ["", "scoring", "block of 7 over it", "of 29", "training", "block of 7 over it", "of 29"],
        rows,
        f"Instructions of {args.tokens} tokens; fixed length: room for {args.length}. A training cell is "
        f"forward and backward, without the optimizer. Blocks of {args.instructions}. {machine(args)}",
    )


if __name__ == "__main__":
    main()
