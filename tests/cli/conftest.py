"""Fixtures of the command line: a trained run on tiny random networks, in this process."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest

from satlight.capability import AptitudeTest, CoreTask
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


# -- onboarding: an aptitude test, and a model that takes it -----------------------------------------------


def _the_test(answers: bool = True) -> AptitudeTest:
    """Six sums, and four questions with options, of which B is right."""
    sums = tuple(f"What is {k} + {k}?" for k in range(6))
    law = tuple(f"Is paragraph {k} law?" for k in range(4))
    return AptitudeTest(
        (
            CoreTask("sums", "Sums", tuple(f"s{k}" for k in range(6)), sums, "d", tuple(str(2 * k) for k in range(6))),
            CoreTask("law", "Law", tuple(f"l{k}" for k in range(4)), law, "d", ("B",) * 4, (), (("no", "yes"),) * 4),
        )
        if answers
        else (CoreTask("sums", "Sums", tuple(f"s{k}" for k in range(6)), sums, "d"),),
        *(((0.5, 0.5), (0.1, 0.3)) if answers else ((0.5,), (0.1,))),
    )


@pytest.fixture(scope="session")
def the_test() -> Callable[..., AptitudeTest]:
    return _the_test


@pytest.fixture
def folder(make_router, tmp_path) -> Path:
    """A router folder with an aptitude test of ten items."""
    router = make_router(test=_the_test())
    router.save(tmp_path / "router")
    return tmp_path / "router"


def _state(folder: Path) -> dict[str, str]:
    """Digests of the files of a folder."""
    return {str(path): hashlib.md5(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def _reply(prompt: str) -> str:
    """A stand-in model that adds well and knows half of the law."""
    if "+" in prompt:
        return f"Let me add.\nThe answer is {2 * int(prompt.split()[2])}."
    return "The answer is (B)" if "paragraph 1" in prompt or "paragraph 3" in prompt else "I cannot say."


@pytest.fixture(scope="session")
def state() -> Callable[[Path], dict[str, str]]:
    return _state


@pytest.fixture(scope="session")
def reply() -> Callable[[str], str]:
    return _reply
