"""docs/routers.md: its examples run, its tables are complete; and the router of docs/add_a_component.md works."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from satlight.baselines import BUILT_IN
from satlight.capability import AptitudeTest, CapabilityText
from satlight.cli import main
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.records.simulated import SimulatedZoo
from satlight.routers import ADMITTING, Router
from satlight.routing import CapabilityRouter
from satlight.storage import hub
from satlight.types import Candidate

PAGE = (Path(__file__).parents[2] / "docs" / "routers.md").read_text(encoding="utf-8")


@pytest.fixture
def run_folder(tmp_path, monkeypatch) -> Path:
    """Change to a folder with the run that the page names; its networks are tiny and random."""
    records = SimulatedZoo(num_instructions=1000, num_candidates=3).generate()
    test = AptitudeTest.design(records.filter(splits="train"), num_tasks=4, num_shots=5)
    module = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"))
    run = tmp_path / "runs" / "full" / "1"
    capabilities = CapabilityText().write(test, records)
    CapabilityRouter(module, records.candidates, capabilities, test=test).save(run / "router")
    scores = pl.DataFrame(np.eye(3, dtype=np.float32), schema=records.model_ids)
    scores.insert_column(0, pl.Series("instruction_id", ["a", "b", "c"])).write_parquet(run / "scores.parquet")

    def push(save: Callable[[Path], None], repo_id: str, private: bool, token: str | None) -> str:
        save(tmp_path / repo_id)
        return repo_id

    monkeypatch.setattr(hub, "push", push)  # test_hub.py talks to a server
    monkeypatch.chdir(tmp_path)
    return run


def test_the_examples_run(run_folder, capsys):
    names: dict[str, Any] = {}
    for number, block in enumerate(re.findall(r"```python\n(.+?)```", PAGE, flags=re.DOTALL)):
        exec(compile(block, f"docs/routers.md, block {number}", "exec"), names)
    assert Router.from_pretrained("larger-router").model_ids[-1] == "new-8b"
    assert Router.from_pretrained("stored-router").route("b").best == names["stored"].model_ids[1]
    assert names["address"] == "owner/name"
    capsys.readouterr()
    main(["route", "--router", "tfidf-router", "--format", "json", "Sort a list of numbers in Python."])
    assert '"route": "sim-' in capsys.readouterr().out


def test_the_tables_list_every_file_and_method(run_folder):
    for path in (run_folder / "router").iterdir():
        assert f"`{path.name}{'/' if path.is_dir() else ''}`" in PAGE
    methods = re.findall(r"^\| (`\w+`, .*?) \|", PAGE.partition("| `admit` |")[2], flags=re.MULTILINE)[-2:]
    able, unable = (set(re.findall(r"`(\w+)`", names)) for names in methods)
    assert able == set(ADMITTING[1:])
    assert unable == set(BUILT_IN) - able


def test_a_router_of_ones_own(mine, tmp_path):
    zoo = [Candidate("large", price_out=9.0), Candidate("small", price_out=1.0)]
    mine.Cheapest(zoo, weight=0.5).save(tmp_path)
    cheapest = Router.from_pretrained(tmp_path, allow=["mine"])
    assert cheapest.route("1+1?").best == "small"
    assert cheapest.score(["1+1?"]).log_odds_BC.tolist() == [[-4.5, -0.5]]
