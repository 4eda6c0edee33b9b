"""Measure the cost of a pass against the size of the zoo, in both reading orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from common import block, embedded_model, fresh_texts, in_turns, machine, medians, parsed, parser, show, zoo

from satlight.modules import ModelSAT

SIZES = (1, 7, 29, 100, 1000)


@torch.inference_mode()
def score(model: ModelSAT, instructions: int, tokens: int, capabilities: list) -> None:
    """Score one block of new instructions."""
    model.score(block(fresh_texts(instructions, tokens), capabilities))


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--candidate-layers", type=int, default=1, help="of the second column")
    options.add_argument("--limit", type=float, default=60, help="seconds for a pass of capability_first")
    args = parsed(options, argv)
    sizes = SIZES[:3] if args.quick else SIZES
    capabilities = zoo(max(sizes))
    models = {
        "instruction_first": embedded_model(args),
        f"candidate_layers: {args.candidate_layers}": embedded_model(args, candidate_layers=args.candidate_layers),
        "capability_first": embedded_model(args, order="capability_first"),
    }
    for model in models.values():
        with torch.inference_mode():
            model.embed_capabilities(capabilities)  # cached from here on, as in deployment
    cases: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        pair = 0.0
        for size in sizes:
            case = partial(score, model, args.instructions, args.tokens, capabilities[:size])
            if name == "capability_first":
                if pair * size > args.limit:
                    continue
                pair = pair or medians(in_turns({"": case}, 1))[""]
            cases[f"{name} {size}"] = case
    seconds = medians(in_turns(cases, args.repeats))

    def cell(name: str, size: int) -> str:
        if f"{name} {size}" not in seconds:
            return "not run"
        value = seconds[f"{name} {size}"]
        return f"{value / seconds[f'{name} 1']:.2f} ({1000 * value / args.instructions:.0f} ms)"

    show(
        "Cost of scoring M candidates over that of one (CPU time per instruction)",
        ["M", *models],
        [[size, *(cell(name, size) for name in models)] for size in sizes],
        f"Blocks of {args.instructions}, {args.tokens} tokens; capability vectors cached. {machine(args)}",
    )


if __name__ == "__main__":
    main()
