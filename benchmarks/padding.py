"""Measure the share of padding in blocks, bucketed by bytes and by tokens of the router LLM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from common import parsed, parser, show

from satlight.data import CapabilityInstructionDataModule, RandomBlocks, SimulatedSpec, TaskBlocks
from satlight.data.blocks import BlockSpace
from satlight.data.stream import codes, lengths
from satlight.modules import RouterLLM


def waste(tokens_R: np.ndarray, blocks: list[np.ndarray]) -> str:
    """Return the share of padding if each block is as wide as its longest instruction."""
    padded = sum(len(rows) * tokens_R[rows].max() for rows in blocks)
    return f"{100 * (1 - sum(tokens_R[rows].sum() for rows in blocks) / padded):.1f} %"


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--records", default="simulated", help="as data.records")
    options.add_argument("--score-column", default="score")
    options.set_defaults(tokens=256)
    args = parsed(options, argv)
    simulated = SimulatedSpec(1500, 4) if args.quick else SimulatedSpec()
    data = CapabilityInstructionDataModule(args.records, args.score_column, simulated=simulated)
    data.setup("fit")
    view = data.train_view()
    llm = RouterLLM("tiny:llama" if args.quick else "smollm2-135m", num_layers=1, max_instruction_tokens=args.tokens)
    around = len(llm.embed_instructions([""])[1][0])
    tokens_R = np.array(llm.count_tokens(view.records.texts)) + around
    keys = {"bytes": lengths(view.records), "tokens": tokens_R}
    task_R = codes(view.records.task_keys)
    rows = []
    for name, sampler in (
        ("RandomBlocks(16)", RandomBlocks(16)),
        ("RandomBlocks(32)", RandomBlocks(32)),
        ("TaskBlocks(16)", TaskBlocks(16)),
    ):
        row = [name]
        for key_R in keys.values():
            space = BlockSpace(view.targets, view.records.known, key_R, task_R)
            plans = sampler.draw(space, np.random.default_rng(0))
            row.append(waste(tokens_R, [rows_B for rows_B, _ in plans]))
        rows.append(row)
    orders = [np.argsort(key_R, kind="stable") for key_R in keys.values()]
    rows.append(
        ["evaluation (64)"]
        + [waste(tokens_R, [order[i : i + 64] for i in range(0, len(order), 64)]) for order in orders]
    )
    show(
        f"Padding of {len(tokens_R)} training instructions of {view.records.name}",
        ["", *(f"by {key}" for key in keys)],
        rows,
        f"Prompt included ({around} tokens), truncated at {args.tokens}; mean {tokens_R.mean():.0f} tokens.",
    )


if __name__ == "__main__":
    main()
