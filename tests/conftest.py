"""What tests all over the tree share: a quiet log, tiny blocks, and one trained run."""

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# One thread for each of pytest-xdist's processes: more of them than cores wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def plain_log() -> Iterator[None]:
    """Undo what the command line does to the log, so that caplog hears satlight in every test."""
    log = logging.getLogger("satlight")
    yield
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def make_block() -> Callable:
    """A block of instructions and capabilities; outcomes alternate unless given."""
    import torch

    from satlight.types import Block, Capability

    def make(instructions: list[str], capabilities: list, **tensors: torch.Tensor) -> Block:
        """Build it; plain tuples of texts become notes."""
        capabilities = [c if isinstance(c, Capability) else Capability(notes=c) for c in capabilities]
        b, c = len(instructions), len(capabilities)
        defaults = {
            "rows": torch.arange(b),
            "columns": torch.arange(c),
            "groups": torch.zeros(b, dtype=torch.long),
            "target_BC": ((torch.arange(b)[:, None] + torch.arange(c)[None, :]) % 2).float(),
            "known_BC": torch.ones(b, c, dtype=torch.bool),
        }
        return Block(list(instructions), list(capabilities), **(defaults | tensors))

    return make


@pytest.fixture(scope="session")
def make_router() -> Callable:
    """A router of three candidates around a tiny module; nothing that trains has its first value."""
    import torch

    from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
    from satlight.routing import CapabilityRouter
    from satlight.types import Candidate, Capability, Result

    zoo = [
        Candidate("org/good-7b", params_b=7.0, notes=("It supports Chinese.",)),
        Candidate("org/poor-1b", institute="org", price_in=0.1),
        Candidate("other/odd"),
    ]
    capabilities = [
        Capability((Result("sums", "Sums", 0.95, 20, 1.25),), ("It supports Chinese.",)),
        Capability((Result("sums", "Sums", 0.05, 20, -1.5), Result("law", "Law", 1 / 3, 20, 0.25))),
        Capability(notes=("It can count.", "It is new.")),
    ]

    def make(module=None, router_class=CapabilityRouter, **options) -> CapabilityRouter:
        torch.manual_seed(5)
        module = module or ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert", chunking="windows"))
        if getattr(module, "projector", None) is not None:
            module.train().projector.follow(module.encoder.encode(capabilities).detach())
        frozen = module.frozen_names()
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name not in frozen:
                    parameter.add_(0.05 * torch.randn_like(parameter))
        return router_class(module, zoo, capabilities, **options)

    return make


@pytest.fixture(scope="session")
def router(make_router):
    """A small ModelSAT router with a calibration."""
    from satlight.types import Temperature

    return make_router(about={"data": {"name": "demo"}}, calibration=Temperature(1.5, -0.25))


@pytest.fixture(scope="session")
def router_folder(router, tmp_path_factory) -> Path:
    """The folder of that router; copy it before changing it."""
    folder = tmp_path_factory.mktemp("router") / "mine"
    router.save(folder)
    return folder


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """The bytes of every file below a folder."""

    def read(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def records_folder(tmp_path_factory) -> Path:
    """A small records folder: three datasets (one without train rows), four candidates, two score columns."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("records") / "demo"
    folder.mkdir()
    rows = [
        {
            "instruction_id": f"{dataset}-{i}",
            "dataset": dataset,
            "task": f"{dataset}-{i % 2}" if dataset != "gamma" else "alpha-0",
            "split": "train" if i < train else "test",
            "instruction": f"{dataset} question {i}: what is {i} times {i % 7}?",
            "family": f"{dataset}-{i // 3}",
        }
        for dataset, size, train in (("alpha", 72, 54), ("beta", 72, 54), ("gamma", 12, 0))
        for i in range(size)
    ]
    models = [
        {"model_id": "org/one-7b", "params_b": 7},
        {"model_id": "org/two-7b", "params_b": 7, "notes": ["It supports Chinese."]},
        {"model_id": "org/three-70b", "params_b": 70},
        {"model_id": "other/four-1b", "params_b": 1},
    ]
    skill = {("alpha", 0): 0.9, ("beta", 1): 0.9}
    records = [
        {
            "instruction_id": row["instruction_id"],
            "model_id": model["model_id"],
            "score": round(float(rng.random()), 3),
            "correct": float(rng.random() < skill.get((row["dataset"], m), 0.45)),
        }
        for row in rows
        for m, model in enumerate(models)
    ]
    pl.DataFrame(rows).write_parquet(folder / "instructions.parquet")
    pl.DataFrame(records).write_parquet(folder / "records.parquet")
    (folder / "models.json").write_text(json.dumps(models))
    return folder
