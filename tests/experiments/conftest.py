"""Run scripts of experiments/ as users do, on small simulated records."""

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from satlight.backbones.embedding import Embedder
from satlight.records import PerformanceRecords, save_records
from satlight.records.simulated import SimulatedZoo

FOLDER = Path(__file__).parents[2] / "experiments"


@pytest.fixture(scope="session")
def records() -> PerformanceRecords:
    """300 instructions, 6 candidates; each of the 8 datasets is one task, so that it has enough core items."""
    simulated = SimulatedZoo(num_instructions=300, num_candidates=6).generate()
    return replace(simulated, instructions=simulated.instructions.with_columns(task="dataset"))


@pytest.fixture(scope="session")
def folder(records: PerformanceRecords, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("records") / "small"
    save_records(records, path)
    return path


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., ModuleType]]:
    """Return a function that imports a script as when it is run, in an empty folder, with a tiny text embedder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))

    def load(name: str, **constants: object) -> ModuleType:
        monkeypatch.syspath_prepend(str((FOLDER / name).parent))
        module = importlib.import_module(Path(name).name)
        assert Path(str(module.__file__)) == FOLDER / f"{name}.py"
        if hasattr(module, "Embedder"):
            monkeypatch.setattr(module, "Embedder", lambda *_: Embedder("tiny:bert"))
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
        return module

    _forget()  # other tests may have imported a script of the same name from another folder
    yield load
    _forget()


def _forget() -> None:
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", "")).startswith(str(FOLDER)):
            del sys.modules[name]


@pytest.fixture
def output(
    load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Return a function that runs a script, with other constants, and returns what it prints."""

    def run(name: str, *argv: object, **constants: object) -> str:
        module = load(name, **constants)
        monkeypatch.setattr(sys, "argv", [name, *map(str, argv)])
        capsys.readouterr()
        module.main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def printed(output: Callable[..., str]) -> Callable[..., list[list[str]]]:
    """Return a function that runs a script and returns the rows of the tables that it prints."""

    def run(name: str, *argv: object, **constants: object) -> list[list[str]]:
        lines = [line for line in output(name, *argv, **constants).splitlines() if "|" in line]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]

    return run
