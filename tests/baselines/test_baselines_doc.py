"""docs/baselines.md: its table is complete, and its example works from the entry point on."""

import re
import sys
import tomllib
import types
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest

import satlight.baselines
from satlight.baselines import BUILT_IN, available, build
from satlight.routers import Router

PAGE = (Path(__file__).parents[2] / "docs" / "baselines.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.+?)```", PAGE, flags=re.DOTALL)


def test_the_table_lists_every_baseline_and_what_is_chosen():
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
    assert {name: re.findall(r"`(\w+)`", chosen) for name, chosen in rows} == {
        name: list(build(name).GRID) for name in BUILT_IN
    }


def test_the_example_is_short_registers_and_learns(make_records, monkeypatch, tmp_path):
    code = blocks("python")[-1]
    assert code.count("\n") <= 20
    mine = types.ModuleType("mine")
    exec(code, vars(mine))
    monkeypatch.setitem(sys.modules, "mine", mine)
    ((group, points),) = tomllib.loads(blocks("toml")[0])["project"]["entry-points"].items()
    found = EntryPoints(EntryPoint(name, value, group) for name, value in points.items())
    monkeypatch.setattr(satlight.baselines, "entry_points", lambda group: found.select(group=group))

    assert available()["by_length"] is mine.ByLength
    records = make_records(
        ["x" * n for n in range(1, 41)],
        [[1, 0]] * 20 + [[0, 1]] * 20,
        split=["validation" if n % 4 == 0 else "train" for n in range(40)],
        candidates=["short", "long"],
    )
    baseline = build("by_length").fit(records)
    assert baseline.chosen == {"bins": 2}
    baseline.save(tmp_path)
    loaded = Router.from_pretrained(tmp_path, allow=["mine"])
    assert np.array_equal(loaded.score(["x", "x" * 99]).log_odds_BC, baseline.score(["x", "x" * 99]).log_odds_BC)
    # 20 rows in each half, and the overall mean of 1/2 counts as one more
    assert baseline.predict(["x", "x" * 99], ["short"])[:, 0] == pytest.approx([20.5 / 21, 0.5 / 21])
