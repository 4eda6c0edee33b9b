"""Records where it is known who is right: one candidate solves sums, one sorts, one does neither."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
import pytest

from satlight.records import PerformanceRecords
from satlight.types import Candidate

SUMS, SORTS = "what is the sum", "sort this list"


@pytest.fixture
def embed() -> Callable[[Sequence[str]], np.ndarray]:
    """Four features that tell sums from sorts, with a little noise that follows from the text."""

    def embed(texts: Sequence[str]) -> np.ndarray:
        rows = []
        for text in texts:
            noise = np.random.default_rng(sum(map(ord, text))).normal(0, 0.05, 4)
            rows.append(np.array([text.startswith(SUMS), text.startswith(SORTS), 0.1, 0.1]) + noise)
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed


@pytest.fixture
def make_records() -> Callable[..., PerformanceRecords]:
    """Records out of lists; ``known`` is True everywhere unless given."""

    def make(
        texts: list[str],
        outcomes: Sequence[Sequence[float]],
        *,
        split: list[str],
        candidates: Sequence[str],
        datasets: list[str] | None = None,
        tasks: list[str] | None = None,
        known: np.ndarray | None = None,
    ) -> PerformanceRecords:
        datasets = datasets or ["d"] * len(texts)
        frame = pl.DataFrame(
            {
                "instruction_id": [f"i{row}" for row in range(len(texts))],
                "dataset": datasets,
                "task": tasks or datasets,
                "split": split,
                "instruction": texts,
            }
        )
        matrix = np.array(outcomes, dtype=np.float32)
        return PerformanceRecords(
            frame,
            tuple(map(Candidate, candidates)),
            matrix,
            np.ones(matrix.shape, dtype=bool) if known is None else known,
        )

    return make


@pytest.fixture
def two_topics(make_records) -> PerformanceRecords:
    """40 sums, which "adds" solves, and 40 sorts, which "sorts" solves; a quarter is for validation."""
    texts = [f"{SUMS} {n}" for n in range(40)] + [f"{SORTS} {n}" for n in range(40)]
    return make_records(
        texts,
        [[1, 0, 0]] * 40 + [[0, 1, 0]] * 40,
        split=["validation" if n % 4 == 0 else "train" for n in range(80)],
        candidates=["adds", "sorts", "weak"],
        datasets=["sums"] * 40 + ["sorts"] * 40,
    )


@pytest.fixture
def new_texts() -> list[str]:
    return [f"{SUMS} 91", f"{SORTS} 92", f"{SUMS} 93"]
