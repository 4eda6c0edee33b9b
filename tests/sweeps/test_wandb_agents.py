"""`wandb sweep` and two `wandb agent` processes run satlight unchanged, against a stand-in for W&B's server."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def load_server():
    spec = importlib.util.spec_from_file_location("wandb_server", Path(__file__).with_name("wandb_server.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # for its dataclasses
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server():
    with load_server().WandbServer() as server:
        yield server


@pytest.fixture
def env(server, tmp_path) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"
    python_path = f"{ROOT}{os.pathsep}{clean.get('PYTHONPATH', '')}"
    own = {"PATH": programs, "PYTHONPATH": python_path, "WANDB_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    return clean | own | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40}


@pytest.mark.slow
def test_two_agents_run_three_points(server, env, tmp_path):
    options = {
        "runs": tmp_path / "runs",
        "trainer.accelerator": "cpu",
        "trainer.enable_progress_bar": "false",
        "data.simulated": "{num_instructions: 1500, num_candidates: 3}",
        "data.blocks_per_epoch": 2,
    }
    overlays = [ROOT / "configs" / name for name in ("quickstart.yaml", "overlay/debug.yaml", "overlay/wandb.yaml")]
    files = [word for path in overlays for word in ("-c", str(path))]
    command = ["${env}", "lightning", "fit", *files, *(f"--{key}={value}" for key, value in options.items()), "${args}"]
    points = [
        "trainer.max_epochs=1",
        "data.records=no/such/records",
        "trainer.max_epochs=1 + model.objective=InstructionContrastive + data.sampler=TaskBlocks",
    ]
    sweep = {"program": "lightning", "command": command, "method": "grid", "parameters": {"config": {"values": points}}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    wandb = [sys.executable, "-m", "wandb"]
    made = [*wandb, "sweep", "--entity", "me", "--project", "p", str(tmp_path / "sweep.yaml")]
    subprocess.run(made, env=env, cwd=tmp_path, check=True, timeout=60)
    agents = []
    for number in range(2):
        with (tmp_path / f"agent{number}.log").open("wb") as log:
            words = [*wandb, "agent", "--entity", "me", "--project", "p", "sweep1"]
            agents.append(subprocess.Popen(words, env=env, cwd=tmp_path, stdout=log, stderr=subprocess.STDOUT))
    try:
        assert [agent.wait(240) for agent in agents] == [0, 0]
    finally:
        for agent in agents:
            agent.kill()
    logs = "".join((tmp_path / f"agent{number}.log").read_text() for number in range(2))
    by_point = {run.args["config"]: run for run in server.runs.values()}
    assert list(by_point) == points, logs
    assert [by_point[point].exitcode for point in points] == [0, 1, 0], logs
    assert {run.agent for run in by_point.values()} == {"agent1", "agent2"}
    assert "no/such/records" in logs
    good = by_point[points[2]]
    assert good.config["cli"]["model"]["init_args"]["objective"]["class_path"].endswith("InstructionContrastive")
    assert good.config["facts"]["fingerprint"]
    assert (good.fields["groupName"], good.fields["jobType"]) == ("all candidates", "ModelSAT")
    assert "InstructionContrastive" in good.fields["tags"]
    assert 0 < good.summary["val_routed_accuracy"] <= 1
    assert good.summary["val_oracle"] >= good.summary["val_best_single"]
    routers = [one for one in server.artifacts if one["artifactTypeName"] == "router"]
    assert {one["artifactCollectionName"] for one in routers} == {"router-quickstart"}
    assert {alias["alias"] for alias in routers[0]["aliases"]} == {"latest", "best", "all-candidates"}
