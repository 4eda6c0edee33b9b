"""Compare decisions per CPU second of a restored router with those of the same router with weights by rows.

python benchmarks/decisions.py [--router FOLDER]

A router loaded from its folder, as `satlight route` and `satlight serve` do, keeps the weights of linear layers by
columns. Both routers score the same texts, which are in no cache.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from common import embedded_model, fresh_texts, in_turns, machine, medians, parsed, parser, show, zoo
from torch import nn

from satlight import Router
from satlight.modules import ModelSAT
from satlight.routing import CapabilityRouter
from satlight.types import Candidate


def row_major(router: CapabilityRouter) -> CapabilityRouter:
    """Store the weights of linear layers by rows, as PyTorch creates them."""
    for part in router.module.modules():
        if isinstance(part, nn.Linear):
            part.weight.data = part.weight.data.contiguous()
    return router


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--router", type=Path, help="router folder; default: random weights behind the backbones")
    options.add_argument("--candidates", type=int, default=29, help="M, without --router")
    options.set_defaults(layers=2, tokens=48, repeats=30)
    args = parsed(options, argv)
    with tempfile.TemporaryDirectory() as folder:
        source = args.router or Path(folder) / "router"
        if args.router is None:
            plain = embedded_model(args)
            module = ModelSAT(plain.router_llm, plain.encoder, task_attention=True, two_towers=True)
            names = [Candidate(f"candidate-{m}") for m in range(args.candidates)]
            CapabilityRouter(module, names, zoo(args.candidates)).save(source)
        routers = {"by rows": row_major(Router.from_pretrained(source)), "restored": Router.from_pretrained(source)}  # type: ignore[arg-type]
    rows = []
    for count, repeats in ((1, args.repeats), (args.instructions, max(1, args.repeats // 5))):
        cases: dict[str, Callable[[], object]] = {
            name: lambda router=router, count=count: router.score(fresh_texts(count, args.tokens))  # type: ignore[misc]
            for name, router in routers.items()
        }
        seconds = medians(in_turns(cases, repeats))
        last = fresh_texts(count, args.tokens)
        plain_BC, fast_BC = (router.score(last).log_odds_BC for router in routers.values())
        for name in routers:
            rows.append(
                [
                    f"{name}, {count} per call",
                    f"{1000 * seconds[name] / count:.1f}",
                    f"{count / seconds[name]:.1f}",
                    f"{seconds['by rows'] / seconds[name]:.2f}",
                    f"{np.abs(fast_BC - plain_BC).max():.1e}",
                ]
            )
    title = f"Decisions among {len(routers['restored'].candidates)} candidates, instructions of {args.tokens} tokens"
    columns = ["", "CPU ms per decision", "decisions per CPU s", "ratio", "largest difference in log-odds"]
    show(title, columns, rows, machine(args))


if __name__ == "__main__":
    main()
