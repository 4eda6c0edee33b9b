"""Share code between the benchmarks: the built-in model, texts of a given length, interleaved timing, tables.

Legend: B instructions and C candidates of a block, M candidates of a zoo.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.types import Block, Capability, Result

# One token each for SmolLM2's tokenizer and for the tiny one, so that the number of words is that of tokens.
WORDS = ("what", "is", "and", "the", "on", "of", "can", "test", "task", "by", "or", "model")
_RNG = np.random.default_rng(0)


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--quick", action="store_true", help="tiny random networks: tests the script only")
    options.add_argument("--layers", type=int, default=3, help="first layers of SmolLM2-135M that are kept")
    options.add_argument("--instructions", type=int, default=16, help="B, instructions in a block")
    options.add_argument("--tokens", type=int, default=128, help="of each instruction")
    options.add_argument("--repeats", type=int, default=3, help="measurements of each case")
    options.add_argument("--dtype", default="float32", help="of the router LLM")
    options.add_argument("--threads", type=int, default=1, help="of torch")
    return options


def parsed(options: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the options, apply ``--quick``, and configure torch."""
    args = options.parse_args(argv)
    if args.quick:
        args.layers, args.instructions, args.tokens, args.repeats = 2, 2, 16, 1
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    return args


def embedded_model(args: argparse.Namespace, **router_llm: object) -> ModelSAT:
    """Return Model-SAT with the built-in backbones, or with tiny random ones for ``--quick``."""
    decoder, encoder = ("tiny:llama", "tiny:bert") if args.quick else ("smollm2-135m", "minilm")
    sizes = {"num_layers": args.layers, "max_instruction_tokens": args.tokens, "dtype": args.dtype}
    llm = RouterLLM(decoder, **sizes, **router_llm)  # type: ignore[arg-type]
    return ModelSAT(llm, CapabilityEncoder(encoder)).eval()


def zoo(size: int, tasks: int = 50) -> list[Capability]:
    """Return capabilities of M random candidates on the same core tasks."""
    rng = np.random.default_rng(1)
    keywords = [" ".join(rng.choice(WORDS, 5)) + f" {t}" for t in range(tasks)]
    strength_MT = rng.normal(size=(size, tasks))
    return [
        Capability(tuple(Result(words, words, 0.5, 20, z) for words, z in zip(keywords, row, strict=True)))
        for row in strength_MT.tolist()
    ]


def fresh_texts(count: int, tokens: int) -> list[str]:
    """Return instructions of exactly ``tokens`` tokens that are in no cache."""
    return [" ".join(_RNG.choice(WORDS, tokens)) for _ in range(count)]


def block(instructions: list[str], capabilities: list[Capability]) -> Block:
    """Return a block with random outcomes."""
    B, C = len(instructions), len(capabilities)
    return Block(
        instructions,
        capabilities,
        rows=torch.arange(B),
        columns=torch.arange(C),
        groups=torch.zeros(B, dtype=torch.long),
        target_BC=torch.rand(B, C).round(),
        known_BC=torch.ones(B, C, dtype=torch.bool),
    )


def in_turns(
    cases: dict[str, Callable[[], object]], repeats: int, clock: Callable[[], Any] = time.process_time, warm_up: int = 1
) -> dict[str, list[Any]]:
    """Measure the seconds of each case in the order A B C A B C, so that load affects all alike.

    Args:
        cases: Functions to run, by name.
        repeats: Measurements of each case.
        clock: Default: CPU seconds of this process, which depend least on other load on the machine.
        warm_up: Runs of each case before measuring.
    """
    for case in list(cases.values()) * warm_up:
        case()
    seconds: dict[str, list[Any]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            start = clock()
            case()
            seconds[name].append(clock() - start)
    return seconds


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median of each case."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], notes: str) -> None:
    """Print a table with notes on the measurement."""
    table = Table()
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*[str(cell) for cell in row])
    Console(width=110).print(title, table, notes, sep="\n", highlight=False)


def machine(args: argparse.Namespace) -> str:
    """Describe model, software, and machine of a measurement."""
    model = "tiny random networks" if args.quick else f"SmolLM2-135M, first {args.layers} layers, and MiniLM"
    return (
        f"{model}; torch {torch.__version__}, {platform.machine()}, {args.threads} thread(s), {args.dtype}; "
        f"medians of {args.repeats}, in turns"
    )
