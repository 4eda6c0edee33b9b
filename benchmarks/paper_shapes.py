"""Measure the paper's shapes on a GPU: a 3.8B router LLM, instructions of 256 tokens, 5 and 60 candidates.

Random weights take the same time as trained ones. ``--tiny`` runs the script on a CPU, to test it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial

import torch
from common import fresh_texts, in_turns, medians, show
from torch import Tensor, nn
from transformers import AutoModel, LlamaConfig, Phi3Config

from satlight.modules import RouterLLM

# Dense bf16 peaks of the data sheets, FLOP/s.
PEAKS = {"H100 PCIe": 756e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}


def router(tiny: bool, order: str, tokens: int, device: str) -> RouterLLM:
    """Return a RouterLLM with a random decoder of Phi-3-mini's shape in place of the tiny one."""
    llm = RouterLLM("tiny:llama", order=order, max_instruction_tokens=tokens)  # type: ignore[arg-type]
    if tiny:
        config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    else:
        config = Phi3Config()  # the 3.8B of Phi-3-mini-4k
    config.vocab_size = max(config.vocab_size, len(llm.tokenizer))
    with torch.device(device):
        llm.backbone = AutoModel.from_config(config, dtype=torch.bfloat16)
        llm.head = nn.Parameter(0.02 * torch.randn(config.hidden_size))
    llm.backbone.get_input_embeddings().requires_grad_(False)
    return llm.to(device)


def synchronized() -> float:
    """Return wall-clock seconds after all queued work is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def peak(args: argparse.Namespace) -> float | None:
    """Return the bf16 peak of the GPU in FLOP/s; None if unknown."""
    if args.peak_tflops is not None:
        return args.peak_tflops * 1e12
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((value for key, value in PEAKS.items() if key in name), None)


def measure(args: argparse.Namespace, order: str, device: str) -> list[list[str]]:
    """Return one row per zoo size: ms per decision, training tokens per second, fractions of the peak."""
    llm, best = router(args.tiny, order, args.tokens, device), peak(args)
    weights = sum(p.numel() for p in llm.backbone.layers.parameters())
    rows = []
    for size in args.candidates:
        branch = torch.randn(size, 1, llm.hidden_size, device=device, dtype=torch.bfloat16)
        mask = torch.ones(size, 1, dtype=torch.bool, device=device)

        def forward(instructions: int, branch: Tensor = branch, mask: Tensor = mask) -> Tensor:
            return llm(fresh_texts(instructions, args.tokens), branch, mask)

        def decide(forward: Callable[[int], Tensor] = forward) -> None:
            with torch.inference_mode():
                forward(1).argmax().item()

        def step(forward: Callable[[int], Tensor] = forward) -> None:
            forward(args.instructions).square().mean().backward()
            llm.zero_grad(set_to_none=True)

        decision = medians(in_turns({"": decide}, args.repeats, synchronized))[""]
        training = medians(in_turns({"": step}, args.repeats, synchronized))[""]
        prefix = llm.embed_instructions(fresh_texts(1, args.tokens))[0].shape[1]
        tokens = prefix + size if order == "instruction_first" else size * (prefix + 1)
        # 2 FLOPs per weight and token forward, 4 backward; attention is not counted.
        fractions = [
            "unknown" if best is None else f"{100 * flops / seconds / best:.1f} %"
            for flops, seconds in (
                (2 * weights * tokens, decision),
                (6 * weights * tokens * args.instructions, training),
            )
        ]
        rate = f"{tokens * args.instructions / training:,.0f}"
        rows.append([order, str(size), f"{1000 * decision:.1f}", fractions[0], rate, fractions[1]])
    return rows


def main(argv: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    options.add_argument("--tiny", action="store_true", help="two small layers, any device: a test only")
    options.add_argument("--tokens", type=int, default=256, help="L, of each instruction")
    options.add_argument("--candidates", type=int, nargs="+", default=[5, 60], help="M")
    options.add_argument("--instructions", type=int, default=4, help="B of a training step")
    options.add_argument("--repeats", type=int, default=10)
    options.add_argument("--peak-tflops", type=float, help="bf16 peak of the GPU, if not in the built-in list")
    options.add_argument("--orders", nargs="+", default=["instruction_first", "capability_first"])
    args = options.parse_args(argv)
    if not args.tiny and not torch.cuda.is_available():
        raise SystemExit(
            "paper_shapes.py needs a GPU with about 40 GB for a 3.8B model, and torch finds none. "
            "`--tiny` tests the script on a CPU; its figures are meaningless."
        )
    if args.tiny:
        args.tokens, args.repeats, args.instructions = 16, 1, 2
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    rows = [row for order in args.orders for row in partial(measure, args)(order, device)]
    show(
        "Tiny shapes: a test of the script" if args.tiny else "A 3.8B router LLM with random weights, bf16",
        ["order", "M", "ms per decision", "of peak", "training tokens/s", "of peak"],
        rows,
        f"Instructions of {args.tokens} tokens, blocks of {args.instructions}; a decision scores one "
        f"instruction. Training is forward and backward. {name}, "
        f"torch {torch.__version__}, medians of {args.repeats}",
    )


if __name__ == "__main__":
    main()
