"""Every configuration of experiments/ still trains: one step on tiny networks and a small zoo."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIGS = [
    path
    for path in sorted((ROOT / "experiments").rglob("*.yaml"))
    if "methods" not in yaml.safe_load(path.read_text())  # a bench; tests/test_docs.py parses it
]
TINY = {
    "trainer.fast_dev_run": "true",
    "trainer.logger": "null",
    "trainer.accelerator": "cpu",
    "trainer.enable_progress_bar": "false",
    "trainer.enable_model_summary": "false",
    "data.simulated": "{num_instructions: 1500, num_candidates: 6}",
    "data.score_column": "score",
    "data.blocks_per_epoch": 2,
}
OF_THE_DATA = (
    "train_datasets", "test_groups", "unseen_candidates", "zoo_preset", "datasets", "candidates", "split_column",
    "group_column",
)  # fmt: skip
"""Options that name parts of the real records, which the simulated ones lack."""


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_one_step(path, command, monkeypatch):
    monkeypatch.chdir(ROOT)
    content = yaml.safe_load(path.read_text())
    base = [] if {"trainer", "model", "data"} <= content.keys() else ["-c", "configs/full.yaml"]
    given = content.get("data", {}).get("init_args", {})
    options = TINY | {
        f"data.{key}": "split" if key == "split_column" else "null" for key in OF_THE_DATA if given.get(key) is not None
    }
    words = [*base, "-c", str(path), "-c", "configs/overlay/debug.yaml"]
    done = command("fit", *words, *(f"--{key}={value}" for key, value in options.items()))
    assert done.code is None, done.err
