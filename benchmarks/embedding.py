"""Measure how fast instructions are embedded, compared with batches of 64 sorted by characters."""

from __future__ import annotations

import copy
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from unittest.mock import patch

import numpy as np
import torch
from common import fresh_texts, in_turns, parsed, parser, show

from satlight.backbones import text_encoder
from satlight.backbones.embedding import Embedder
from satlight.backbones.text_encoder import TextEncoder
from satlight.backbones.vectors import VectorStore
from satlight.records import open_records


def before(encoder: TextEncoder, texts: Sequence[str]) -> np.ndarray:
    """Embed in batches of 64 sorted by characters, all threads on each batch: the reference."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    parts = []
    with torch.inference_mode(), patch.object(text_encoder, "PASS_COST", 10**9):
        for start in range(0, len(order), 64):
            parts.append(encoder([texts[row] for row in order[start : start + 64]]).float().numpy())
    return np.concatenate(parts)[np.argsort(order)]


def after(embedder: Embedder, texts: Sequence[str]) -> np.ndarray:
    """Embed as satlight does, into an empty cache."""
    known = os.environ.get("SATLIGHT_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SATLIGHT_CACHE"] = folder
        try:
            embedder.store = VectorStore("benchmark")
            return embedder(texts)
        finally:
            os.environ.pop("SATLIGHT_CACHE")
            if known is not None:
                os.environ["SATLIGHT_CACHE"] = known


def reduced(encoder: TextEncoder) -> dict[str, TextEncoder]:
    """Return copies in bfloat16, and with linear layers in 8 bits (dynamic, one scale per tensor)."""
    half, small = copy.deepcopy(encoder), copy.deepcopy(encoder)
    half.backbone = half.backbone.bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch announces that this function moves to another package
        small.backbone = torch.ao.quantization.quantize_dynamic(small.backbone, {torch.nn.Linear}, torch.qint8)
    return {"before, bfloat16": half, "before, int8": small}


def peak_mb() -> float:
    """Return the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(argv: Sequence[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--records", help="embed the train instructions of these records; default: words")
    options.add_argument("--count", type=int, default=10_000, help="texts")
    options.add_argument("--reduced", action="store_true", help="also bfloat16 and int8, by the reference's batches")
    options.set_defaults(threads=2)
    args = parsed(options, argv)
    count = 40 if args.quick else args.count
    if args.records:
        records = open_records(args.records)
        rows = np.random.default_rng(0).permutation(len(records.texts))[:count]
        texts = [records.texts[row] for row in rows]
    else:
        texts = fresh_texts(count, args.tokens - 2)  # each begins and ends with a special token
    embedder = Embedder("tiny:bert" if args.quick else "minilm")
    encoder = TextEncoder(embedder.backbone).eval().requires_grad_(False)
    after(embedder, texts[: len(texts) // 10])
    first_mb = peak_mb()
    found = after(embedder, texts)
    grown_mb = peak_mb() - first_mb

    encoders = {"before": encoder, **(reduced(encoder) if args.reduced else {})}
    cases: dict[str, Callable[[], np.ndarray]] = {
        name: (lambda one=one: before(one, texts)) for name, one in encoders.items()
    }
    cases["after"] = lambda: after(embedder, texts)
    both = in_turns(cases, args.repeats, lambda: np.array([time.perf_counter(), time.process_time()]), warm_up=0)
    seconds = {name: np.median(np.array(values), axis=0) for name, values in both.items()}
    reference = cases["before"]()
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    rows = []
    for name, (wall, cpu) in seconds.items():
        vectors = found if name == "after" else cases[name]()
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = (vectors * reference).sum(axis=1).min()
        ratios = [one / other for one, other in zip(both["before"], both[name], strict=True)]
        wall_ratio, cpu_ratio = np.median(ratios, axis=0)
        speed = [f"{len(texts) / wall:.1f}", f"{wall_ratio:.2f}", f"{len(texts) / cpu:.1f}", f"{cpu_ratio:.2f}"]
        rows.append([name, *speed, f"{cosine:.5f}"])
    show(
        f"Embedding {len(texts)} texts by {embedder.backbone}",
        ["", "texts/s", "ratio", "texts/CPU s", "ratio", "least cosine"],
        rows,
        f"torch {torch.__version__}, {args.threads} thread(s); medians of {args.repeats}, in turns. "
        f"Peak memory grew by {grown_mb:.0f} MB from a tenth of the texts to all of them.",
    )


if __name__ == "__main__":
    main()
