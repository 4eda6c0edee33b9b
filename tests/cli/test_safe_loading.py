"""Checkpoints run no code, whatever an option, a file or the environment says; old ones still load."""

import os
import pickle

import pytest
import torch

from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.storage.checkpoints import read_checkpoint


class Hostile:
    """A pickle that leaves a file where it is loaded."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("how", ["option", "file", "environment", "plain"])
def test_no_switch_makes_a_checkpoint_run_code(words, tmp_path, command, monkeypatch, how):
    mark, path = tmp_path / "mark", tmp_path / "some.ckpt"
    torch.save({"state_dict": {}, "callbacks": Hostile(mark)}, path)
    more = [f"--ckpt_path={path}", f"--runs={tmp_path / 'runs'}"]
    if how == "environment":
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    if how == "option":
        more.append("--weights_only=false")
    if how == "file":
        (tmp_path / "unsafe.yaml").write_text(f"weights_only: false\nckpt_path: {path}\n")
        more = ["-c", str(tmp_path / "unsafe.yaml"), f"--runs={tmp_path / 'runs'}"]
    for verb in ("fit", "validate", "test", "predict"):
        result = command(verb, *words, *more)
        assert result.code == 1
        last = result.err.strip().splitlines()[-1]
        assert last.startswith("error: ")
        assert "weights_only=False" not in result.err
        assert not mark.exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04.", pickle.dumps([1]), b"[" * 5000, b"not a checkpoint"])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "some.ckpt"
    path.write_bytes(content)
    with pytest.raises(SatlightError, match=r"some\.ckpt is damaged, or is not a checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [[], 3, {}, {"state_dict": 1}, {"state_dict": {1: 2}}, {"state_dict": {}, "loops": 1}]
)
def test_checkpoints_of_another_shape_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "some.ckpt")
    with pytest.raises(SatlightError, match="is not a checkpoint"):
        read_checkpoint(tmp_path / "some.ckpt")
    with pytest.raises(SatlightError, match="cannot be read"):
        read_checkpoint(tmp_path)


def test_a_plugin_cannot_replace_the_reader(settings, tmp_path, command):
    plugin = '[{"class_path": "lightning.fabric.plugins.io.TorchCheckpointIO"}]'
    result = command("fit", *settings(tmp_path / "runs"), f"--trainer.plugins={plugin}")
    assert result.code == 1
    assert "CheckpointIO" in result.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("make", "prefix"),
    [
        (lambda: ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert")), "encoder."),
        (lambda: CapabilityEncoder("tiny:bert"), ""),
    ],
)
def test_checkpoints_of_the_earlier_layout_load(make, prefix):
    module = make()
    content = {"state_dict": dict(module.state_dict())}
    expected = set(content["state_dict"])
    content["state_dict"] = {
        name.replace(f"{prefix}text.backbone.", f"{prefix}backbone."): tensor
        for name, tensor in content["state_dict"].items()
    }
    assert set(content["state_dict"]) != expected
    other = make()
    other.on_load_checkpoint(content)
    other.load_state_dict(content["state_dict"])
    assert set(content["state_dict"]) == expected
