"""Compare the time of `Router.route` for one instruction and for a batch with a MiniLM kNN vote."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import faiss
import numpy as np
import torch
from common import embedded_model, fresh_texts, in_turns, machine, parsed, parser, show, zoo

from satlight.routing import CapabilityRouter
from satlight.types import Candidate


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--candidates", type=int, default=29, help="M")
    options.add_argument("--candidate-layers", type=int, default=1, help="of the second router")
    options.add_argument("--rows", type=int, default=7000, help="instructions in the index")
    options.add_argument("--neighbors", type=int, default=20, help="k")
    options.set_defaults(repeats=50)
    args = parsed(options, argv)
    names = [Candidate(f"candidate-{m}") for m in range(args.candidates)]
    capabilities = zoo(args.candidates)
    routers = {
        "route": CapabilityRouter(embedded_model(args), names, capabilities),
        f"route, candidate_layers: {args.candidate_layers}": CapabilityRouter(
            embedded_model(args, candidate_layers=args.candidate_layers), names, capabilities
        ),
    }
    encoder = routers["route"].module.encoder
    # The time to search a flat index does not depend on its vectors.
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(args.rows, encoder.output_size)).astype(np.float32)
    faiss.normalize_L2(vectors)
    faiss.omp_set_num_threads(args.threads)
    index = faiss.IndexFlatIP(encoder.output_size)
    index.add(vectors)
    outcomes = rng.random((args.rows, args.candidates)) < 0.5

    @torch.inference_mode()
    def vote(texts: list[str]) -> np.ndarray:
        _, near = index.search(encoder.embed(texts).numpy(), min(args.neighbors, args.rows))
        return outcomes[near].mean(axis=1).argmax(axis=1)

    ways: dict[str, Callable[[list[str]], object]] = {name: router.route for name, router in routers.items()}
    ways["MiniLM kNN"] = vote

    def cases(count: int) -> dict[str, Callable[[], object]]:
        return {name: lambda way=way: way(fresh_texts(count, args.tokens)) for name, way in ways.items()}  # type: ignore[misc]

    wall = in_turns(cases(1), args.repeats, clock=time.perf_counter)
    cpu = in_turns(cases(1), args.repeats)
    batch = in_turns(cases(args.instructions), max(1, args.repeats // 10))
    base = np.median(cpu["MiniLM kNN"])
    rows = [
        [
            name,
            *(f"{1000 * np.percentile(seconds[name], q):.0f}" for seconds in (wall, cpu) for q in (50, 99)),
            f"{np.median(cpu[name]) / base:.2f}",
            f"{args.instructions / np.median(batch[name]):.1f}",
        ]
        for name in ways
    ]
    show(
        f"One instruction of {args.tokens} tokens, {args.candidates} candidates (ms)",
        ["", "wall p50", "p99", "CPU p50", "p99", "over kNN", f"batch of {args.instructions}: per CPU s"],
        rows,
        f"kNN: flat faiss index of {args.rows} rows, k = {args.neighbors}. {machine(args)}",
    )


if __name__ == "__main__":
    main()
