"""Measure the peak memory of a pass against the size of the zoo, each in its own process (Linux, macOS)."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from collections.abc import Sequence

import torch
from common import block, embedded_model, fresh_texts, machine, parsed, parser, show, zoo

from satlight.modules import ModelSAT
from satlight.types import Block

SIZES = {"scoring": (1, 7, 29, 100, 1000), "training": (1, 7, 29, 100), "capability_first": (1, 7, 29)}


def peak_mb() -> float:
    """Return the peak resident memory of this process so far, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def run(model: ModelSAT, todo: Block, training: bool) -> None:
    """Run one pass."""
    if training:
        model.train().score(todo).square().mean().backward()
    else:
        with torch.inference_mode():
            model.eval().score(todo)


def _child(model: ModelSAT, todo: Block, training: bool, pipe: object) -> None:
    torch.set_num_threads(1)  # a forked process has none of its parent's threads
    before = peak_mb()
    run(model, todo, training)
    pipe.send(peak_mb() - before)  # type: ignore[attr-defined]


def extra_mb(model: ModelSAT, todo: Block, training: bool) -> float:
    """Return the peak memory of a pass beyond the loaded model, in MB."""
    fork = multiprocessing.get_context("fork")
    here, there = fork.Pipe()
    process = fork.Process(target=_child, args=(model, todo, training, there))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError:
        raise SystemExit(f"The pass died with exit code {process.exitcode}; it may have run out of memory.") from None
    finally:
        process.join()


def main(argv: Sequence[str] | None = None) -> None:
    args = parsed(parser(__doc__), argv)
    capabilities = zoo(29 if args.quick else 1000)
    first, pairs = embedded_model(args), embedded_model(args, order="capability_first")
    for model in (first, pairs):
        with torch.inference_mode():
            model.embed_capabilities(capabilities)
    columns = {
        "scoring": (first, False), "training": (first, True), "capability_first": (pairs, False)
    }  # fmt: skip
    sizes = [size for size in SIZES["scoring"] if size <= len(capabilities)]
    rows = []
    for size in sizes:
        todo = block(fresh_texts(args.instructions, args.tokens), capabilities[:size])
        found = [
            f"{extra_mb(model, todo, training):.0f}" if size in SIZES[name] else "not run"
            for name, (model, training) in columns.items()
        ]
        rows.append([size, *found])
    show(
        "Peak memory of a pass beyond the loaded model (MB)",
        ["M", "instruction_first, scoring", "training", "capability_first, scoring"],
        rows,
        f"{args.instructions} instructions of {args.tokens} tokens. {machine(args)}",
    )


if __name__ == "__main__":
    main()
