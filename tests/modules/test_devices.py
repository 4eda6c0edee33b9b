"""Training on several devices: two processes on the CPU."""

import csv
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from satlight.backbones.loading import yes_no_token_ids
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM

ROOT = Path(__file__).parents[2]


def test_two_processes_train_both_stages_and_agree_on_the_validation(tmp_path):
    options = {
        "runs": tmp_path / "runs",
        "trainer.accelerator": "cpu",
        "trainer.devices": 2,
        "trainer.strategy": "ddp",
        "trainer.logger": "null",
        "trainer.max_epochs": 2,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "data.simulated.num_instructions": 1200,
        "data.simulated.num_candidates": 5,
        "data.blocks_per_epoch": 4,
    }
    configs = ["-c", str(ROOT / "configs/full.yaml"), "-c", str(ROOT / "configs/overlay/debug.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "satlight", "fit", *configs, *(f"--{key}={value}" for key, value in options.items())],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sync_dist" not in done.stderr
    run = tmp_path / "runs" / "full" / "1"
    assert (run / "router" / "config.json").is_file()
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    assert len([row for row in rows if row["val_loss"]]) == 2
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


@pytest.mark.parametrize("saved", [False, True])
def test_a_model_can_be_sent_to_a_spawned_process(saved, tmp_path, capabilities):
    llm = RouterLLM("tiny:llama")
    if saved:
        llm = RouterLLM(str(llm.stored_args(tmp_path, "llm")["backbone"]))
    model = ModelSAT(llm, CapabilityEncoder("tiny:bert"), task_attention=True, two_towers=True).eval()
    other = pickle.loads(pickle.dumps(model))
    ids = yes_no_token_ids(llm.tokenizer)
    assert torch.equal(other.router_llm.head_rows(ids), llm.head_rows(ids))
    assert torch.equal(other.encoder.encode(capabilities), model.encoder.encode(capabilities))


def test_no_parameter_of_the_whole_model_is_left_without_use():
    model = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"))
    assert not model.encoder.log_scale.requires_grad
    assert CapabilityEncoder("tiny:bert").log_scale.requires_grad
