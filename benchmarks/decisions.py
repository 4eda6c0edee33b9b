"""Compare decisions per CPU second of a restored router with those of the same router read plainly.

python benchmarks/decisions.py [--router FOLDER] [--records FOLDER]

A router loaded from its folder, as `satlight route` and `satlight serve` do, keeps the weights of linear layers by
columns, and its encoder reads texts of similar length together. The plain router keeps weights by rows and pads all
texts of a call to the longest one. Both score the same texts, which are in no cache.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np
from common import embedded_model, fresh_texts, in_turns, machine, medians, parsed, parser, show, zoo
from torch import nn

from satlight import Router
from satlight.backbones import text_encoder
from satlight.modules import ModelSAT
from satlight.records import open_records
from satlight.routing import CapabilityRouter
from satlight.types import Candidate, Scores


def row_major(router: CapabilityRouter) -> CapabilityRouter:
    """Store the weights of linear layers by rows, as PyTorch creates them."""
    for part in router.module.modules():
        if isinstance(part, nn.Linear):
            part.weight.data = part.weight.data.contiguous()
    return router


class Plain:
    """A router with weights by rows whose encoder reads the texts of a call in one pass."""

    def __init__(self, router: CapabilityRouter) -> None:
        self.router = row_major(router)

    def score(self, texts: list[str]) -> Scores:
        """Score texts by all candidates."""
        with patch.object(text_encoder, "PASS_COST", 10**9):
            return self.router.score(texts)


def stream(options: argparse.Namespace) -> Callable[[int], list[str]]:
    """Return a function that gives the next ``count`` texts: of the records in random order, or random words."""
    if options.records is None:
        return lambda count: fresh_texts(count, options.tokens)
    texts = list(dict.fromkeys(open_records(options.records).texts))
    order = iter(np.random.default_rng(0).permutation(len(texts)))
    return lambda count: [texts[row] for row in islice(order, count)]


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--router", type=Path, help="router folder; default: random weights behind the backbones")
    options.add_argument("--candidates", type=int, default=29, help="M, without --router")
    options.add_argument("--records", type=Path, help="score the instructions of these records; default: words")
    options.set_defaults(layers=2, tokens=48, repeats=30)
    args = parsed(options, argv)
    with tempfile.TemporaryDirectory() as folder:
        source = args.router or Path(folder) / "router"
        if args.router is None:
            plain = embedded_model(args)
            module = ModelSAT(plain.router_llm, plain.encoder, task_attention=True, two_towers=True)
            names = [Candidate(f"candidate-{m}") for m in range(args.candidates)]
            CapabilityRouter(module, names, zoo(args.candidates)).save(source)
        restored = Router.from_pretrained(source)
        routers = {"plain": Plain(Router.from_pretrained(source)), "restored": restored}  # type: ignore[arg-type]
    texts = {name: stream(args) for name in routers}
    rows = []
    for count, repeats in ((1, args.repeats), (args.instructions, max(1, args.repeats // 5))):
        cases: dict[str, Callable[[], object]] = {
            name: lambda router=router, texts=texts[name], count=count: router.score(texts(count))  # type: ignore[misc]
            for name, router in routers.items()
        }
        seconds = medians(in_turns(cases, repeats))
        last, _ = (read(count) for read in texts.values())
        plain_BC, fast_BC = (router.score(last).log_odds_BC for router in routers.values())
        for name in routers:
            rows.append(
                [
                    f"{name}, {count} per call",
                    f"{1000 * seconds[name] / count:.1f}",
                    f"{count / seconds[name]:.1f}",
                    f"{seconds['plain'] / seconds[name]:.2f}",
                    f"{np.abs(fast_BC - plain_BC).max():.1e}",
                ]
            )
    source_of_texts = args.records or f"{args.tokens} tokens"
    title = f"Decisions among {len(restored.candidates)} candidates, instructions of {source_of_texts}"
    columns = ["", "CPU ms per decision", "decisions per CPU s", "ratio", "largest difference in log-odds"]
    show(title, columns, rows, machine(args))


if __name__ == "__main__":
    main()
