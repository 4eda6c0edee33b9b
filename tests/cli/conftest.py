"""Fixtures of the command line: a trained run on tiny random networks, in this process."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from satlight.cli import main

ROOT = Path(__file__).parents[2]


@dataclass
class Result:
    """Outcome of a command: exit code (None = main returned), what it printed, what it said."""

    code: int | None
    out: str
    err: str


def _call(*words: str | Path) -> int | None:
    try:
        returned = main([str(word) for word in words])
    except SystemExit as error:
        return int(error.code or 0)
    assert returned is None  # the console script hands it to sys.exit
    return None


@pytest.fixture
def command(capsys) -> Callable[..., Result]:
    def run(*words: str | Path) -> Result:
        capsys.readouterr()
        code = _call(*words)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def _settings(runs: Path, **more: object) -> list[str]:
    """The main job's config on the debug overlay, small."""
    options = {
        "runs": runs,
        "trainer.accelerator": "cpu",
        "trainer.logger": "null",
        "trainer.max_epochs": 2,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "trainer.log_every_n_steps": 1,
        "data.simulated.num_instructions": 1500,
        "data.simulated.num_candidates": 6,
        "data.blocks_per_epoch": 4,
    }
    words = ["-c", str(ROOT / "configs/full.yaml"), "-c", str(ROOT / "configs/overlay/debug.yaml")]
    return words + [f"--{key}={value}" for key, value in (options | more).items()]


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cli") / "runs"


@pytest.fixture(scope="session")
def words(runs, unseen) -> list[str]:
    groups = '{"hard": ["mathematics", "science"], "easy": ["writing"]}'
    return _settings(runs, **{"data.unseen_candidates": f'["{unseen}"]', "data.test_groups": groups})


@pytest.fixture(scope="session")
def run(runs, words) -> Path:
    """A trained run."""
    assert _call("fit", *words) is None
    return runs / "full" / "1"


@pytest.fixture(scope="session")
def tested(run, words) -> Path:
    assert _call("test", *words) is None
    return run


@pytest.fixture(scope="session")
def scores(run, words) -> pl.DataFrame:
    """Scores that predict wrote."""
    assert _call("predict", *words) is None
    return pl.read_parquet(run / "scores.parquet")


@pytest.fixture(scope="session")
def records():
    from satlight.records.simulated import SimulatedZoo

    return SimulatedZoo(num_instructions=1500, num_candidates=6).generate()


@pytest.fixture(scope="session")
def unseen() -> str:
    """The candidate that training does not see."""
    return "sim-coder-1b"


@pytest.fixture(scope="session")
def settings() -> Callable[..., list[str]]:
    """The options of a small run."""
    return _settings


@pytest.fixture(scope="session")
def call() -> Callable[..., int | None]:
    """Run a command and return its exit code; None = main returned."""
    return _call
