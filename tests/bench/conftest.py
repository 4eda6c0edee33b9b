"""A small bench: four candidates, hand-made records, and toy routers with the behavior that a test needs."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml

TOYS = '''
import os, time
import numpy as np
from satlight.baselines import Baseline

class Toy(Baseline):
    """Prefers the candidate whose number the instruction names."""
    needs_embeddings = False

    def __init__(self, seed: int = 0, count: str = "", seconds: float = 0.0):
        self.seed, self.count, self.seconds, self.chosen = seed, count, seconds, {"seed": seed}

    def fit(self, records, embed=None):
        assert set(records.splits) == {"train", "validation"}
        if self.count:
            with open(self.count, "a") as file:
                file.write(f"{self.seed}\\n")
        time.sleep(self.seconds)
        return self

    def predict(self, instructions, candidates):
        rows = [[0.9 if text.endswith(name[-1]) else 0.1 for name in candidates] for text in instructions]
        return np.array(rows, dtype=np.float32)

class Crash(Toy):
    def fit(self, records, embed=None):
        raise RuntimeError("no such luck")

class Dies(Toy):
    def fit(self, records, embed=None):
        os._exit(7)

class Killed(Toy):
    def fit(self, records, embed=None):
        os.kill(os.getpid(), 9)

class Exits(Toy):
    def fit(self, records, embed=None):
        raise SystemExit(3)

class NotANumber(Toy):
    def predict(self, instructions, candidates):
        return super().predict(instructions, candidates) * np.float32("nan")

class Where(Toy):
    """Records the parent process."""
    def fit(self, records, embed=None):
        time.sleep(self.seconds)
        with open(self.count, "a") as file:
            print(os.getppid(), file=file)
        return self

class Unlucky(Toy):
    """Fails until a file exists."""
    def fit(self, records, embed=None):
        if not os.path.exists(self.count):
            raise RuntimeError("not yet")
        return self

class BySeed(Toy):
    """Correct on everything for even seeds, only on beta for odd ones."""
    def predict(self, instructions, candidates):
        scores = super().predict(instructions, candidates)
        if self.seed % 2:
            wrong = [text.startswith("alpha") for text in instructions]
            scores[wrong] = [0.1, 0.1, 0.1, 0.9][: len(candidates)]
        return scores

class Needy(Toy):
    needs_embeddings = True
    def fit(self, records, embed=None):
        assert embed(records.texts).shape[0] == records.shape[0]
        return self
'''


@pytest.fixture(autouse=True)
def toys(tmp_path_factory, monkeypatch) -> None:
    """Make the module ``toys`` importable in this process and in those of the bench."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "toys.py").write_text(TOYS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    yield
    sys.modules.pop("toys", None)


@pytest.fixture(scope="session")
def toy_records(tmp_path_factory) -> Path:
    """Two datasets of 20 train and 10 test rows; each instruction is solved by the candidate it names.

    In ``alpha`` the instructions name candidates 0, 1, 0, 1, ...; in ``beta`` 2, 3, 2, 3, ... So every single
    candidate solves half of one dataset, and the toy router all.
    """
    folder = tmp_path_factory.mktemp("records") / "toy"
    folder.mkdir()
    rows = [
        {
            "instruction_id": f"{dataset}-{i}",
            "dataset": dataset,
            "task": dataset,
            "split": "train" if i < 20 else "test",
            "instruction": f"{dataset} question number {i} for {first + i % 2}",
        }
        for dataset, first in (("alpha", 0), ("beta", 2))
        for i in range(30)
    ]
    models = [{"model_id": f"org/model-{m}", "params_b": m + 1, "release_date": f"2024-0{m + 1}"} for m in range(4)]
    records = [
        {
            "instruction_id": row["instruction_id"],
            "model_id": model["model_id"],
            "score": float(row["instruction"][-1] == model["model_id"][-1]),
            "cost_usd": 0.001 * model["params_b"],
        }
        for row in rows
        for model in models
    ]
    pl.DataFrame(rows).write_parquet(folder / "instructions.parquet")
    pl.DataFrame(records).write_parquet(folder / "records.parquet")
    (folder / "models.json").write_text(json.dumps(models))
    return folder


@pytest.fixture
def bench_file(tmp_path, toy_records) -> Callable[..., Path]:
    """Write a bench's YAML: a list of methods, and other keys of the bench or (``data_...``) of its data."""

    def write(methods: list, **keys: object) -> Path:
        data = {"name": "toy", "records": str(toy_records)}
        data |= {key.removeprefix("data_"): value for key, value in keys.items() if key.startswith("data_")}
        content = {
            "methods": methods,
            "data": [data],
            "seeds": [0, 1],
            "output": str(tmp_path / "out"),
            "resamples": 50,
            "workers": 2,
        }
        content |= {key: value for key, value in keys.items() if not key.startswith("data_")}
        path = tmp_path / "toy.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def compute() -> Callable:
    """Compute the cells of a bench in this process, and return its leaderboards."""
    from satlight.bench import worker
    from satlight.bench.board import boards
    from satlight.bench.cells import plan, write_cell
    from satlight.bench.config import load_config
    from satlight.bench.results import CellResult

    def compute(path: Path) -> list:
        config = load_config(path)
        output = Path(config.output)
        cells = plan(config)
        for cell in cells:
            folder = output / "cells" / cell.key
            if not folder.is_dir():
                folder.mkdir(parents=True)
                write_cell(cell, folder)
                try:
                    result = worker.run_cell(cell, folder, output)
                except Exception as error:
                    result = CellResult(str(error), type(error).__name__)
                result.write(folder)
        return boards(config, cells, output)

    return compute
