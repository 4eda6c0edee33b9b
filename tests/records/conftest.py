"""Small records, in memory and on disk, that a test can spoil in one place."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from satlight.records import PerformanceRecords
from satlight.types import Candidate

MODELS = [{"model_id": "tiny-1b", "params_b": 1, "release_date": "2024-01"}, {"model_id": "org/large-70b"}]
INSTRUCTIONS = {
    "instruction_id": ["a", "b", "c"],
    "dataset": ["math", "math", "code"],
    "task": ["sums", None, "sorting"],
    "split": ["train", "test", "train"],
    "instruction": ["1+1?", "2+2?", "Sort a list."],
    "level": [1, 2, 3],
}
RECORDS = {
    "instruction_id": ["a", "a", "b", "c", "c"],
    "model_id": ["tiny-1b", "org/large-70b", "tiny-1b", "org/large-70b", "tiny-1b"],
    "score": [0.25, 1.0, 0.0, 1.0, 0.5],
    "cost_usd": [0.001, 0.01, None, 0.02, None],
    "strict": [0.0, 1.0, None, 1.0, 0.0],
}

WriteFolder = Callable[..., Path]


@pytest.fixture
def write_folder(tmp_path: Path) -> WriteFolder:
    """Write a records folder; ``records={"score": […]}`` replaces that column (None drops it), and so on."""

    def write(
        name: str = "demo", models: object = None, instructions: dict | None = None, records: dict | None = None
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for file, default, changes in (("instructions", INSTRUCTIONS, instructions), ("records", RECORDS, records)):
            columns = {key: value for key, value in {**default, **(changes or {})}.items() if value is not None}
            pl.DataFrame(columns, strict=False).write_parquet(folder / f"{file}.parquet")
        (folder / "models.json").write_text(json.dumps(MODELS if models is None else models))
        return folder

    return write


@pytest.fixture
def spoiled() -> Callable[[str, int, object], dict]:
    """A column of the records with one value replaced, for ``write_folder(records=…)``."""

    def spoil(column: str, row: int, value: object) -> dict:
        return {column: [value if place == row else old for place, old in enumerate(RECORDS[column])]}

    return spoil


@pytest.fixture
def make_records() -> Callable[..., PerformanceRecords]:
    """Records in memory out of texts; every other column has a default."""

    def make(texts: list[str], *, candidates: tuple[str, ...] = ("one", "two"), seed: int = 0, **columns):
        n = len(texts)
        frame = pl.DataFrame(
            {
                "instruction_id": columns.pop("ids", [f"i{row}" for row in range(n)]),
                "dataset": columns.pop("datasets", ["d"] * n),
                "task": columns.pop("tasks", ["t"] * n),
                "split": pl.Series(columns.pop("split", [None] * n), dtype=pl.String),
                "instruction": texts,
                **columns,
            }
        )
        outcomes = np.random.default_rng(seed).integers(0, 2, (n, len(candidates))).astype(np.float32)
        return PerformanceRecords(
            frame, tuple(Candidate(name) for name in candidates), outcomes, np.ones(outcomes.shape, dtype=bool)
        )

    return make


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Folder of real records beside the repository; the test is skipped where there is none."""

    def find(benchmark: str) -> Path:
        folder = (Path(__file__).parents[2] / ".." / "shared" / "data" / benchmark).resolve()
        if not folder.is_dir():
            pytest.skip(f"no real records at {folder}")
        return folder

    return find
