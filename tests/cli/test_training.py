"""`fit` in this process, on tiny random networks."""

import csv
import io
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
import yaml

from satlight.routing import Router


def test_fit_leaves_a_run_folder(run):
    assert {path.name for path in run.iterdir()} >= {"checkpoints", "config.yaml", "metrics.csv", "router"}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["init_args"]["router_llm"]["init_args"]["backbone"] == "tiny:llama"
    assert config["seed_everything"] == 0
    rows = list(csv.DictReader((run / "metrics.csv").open()))
    losses = [float(row["train_loss"]) for row in rows if row["train_loss"]]
    assert len(losses) == 8
    assert all(np.isfinite(losses))
    validated = [float(row["val_loss"]) for row in rows if row["val_loss"]]
    assert len(validated) == 2
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(np.argmin(validated))  # configs/full.yaml monitors the loss


def test_without_a_checkpoint_in_the_config_the_best_routed_accuracy_is_kept(tmp_path):
    from satlight.cli.training import _checkpoints

    best, last = _checkpoints(tmp_path, [])
    assert (best.monitor, best.mode, best.filename) == ("val_routed_accuracy", "max", "best")
    assert (last.monitor, last.filename) == (None, "last")
    assert [callback.filename for callback in _checkpoints(tmp_path, [best])] == ["last"]


def test_a_run_can_be_repeated_from_its_config(run, runs, command):
    again = command("fit", "-c", run / "config.yaml", "--name", "again")
    assert again.code is None, again.err
    first, second = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in (run, runs / "again" / "1")
    )
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        if isinstance(tensor, torch.Tensor):
            assert torch.equal(tensor, second[name]), name


def test_the_last_checkpoint_continues_in_the_same_folder(run, runs, words, command):
    shutil.copytree(run, runs / "resumed" / "1")
    words = [*words, "--name=resumed", "--trainer.max_epochs=3", "--ckpt_path=last"]
    result = command("fit", *words)
    assert result.code is None, result.err
    folder = runs / "resumed"
    assert [path.name for path in folder.iterdir()] == ["1"]
    assert torch.load(folder / "1" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 12
    rows = list(csv.DictReader((folder / "1" / "metrics.csv").open()))
    assert [int(row["step"]) for row in rows if row["train_loss"]] == [8, 9, 10, 11]
    assert (folder / "1" / "metrics.1.csv").read_text() == (run / "metrics.csv").read_text()


def test_the_last_checkpoint_is_the_last_even_where_it_is_not_the_best(run):
    last, best = (torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("last", "best"))
    assert (last["epoch"], last["global_step"]) == (1, 8)
    assert best["epoch"] <= last["epoch"]


def test_checkpoints_of_the_config_stand_beside_the_best(tmp_path, command, settings):
    overlay = tmp_path / "steps.yaml"
    overlay.write_text(
        "trainer:\n  callbacks:\n    - class_path: lightning.pytorch.callbacks.ModelCheckpoint\n"
        "      init_args: {every_n_train_steps: 3, save_last: true}\n"
    )
    words = [*settings(tmp_path / "runs"), "-c", str(overlay)]
    result = command("fit", *words)
    assert result.code is None, result.err
    folder = tmp_path / "runs" / "full" / "1"
    last = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["global_step"] == 6  # in mid-epoch
    assert (folder / "checkpoints" / "best.ckpt").is_file()
    assert (folder / "router" / "config.json").is_file()
    assert "router folder" in result.err


def test_a_user_written_module_is_trained_exported_and_routed_with(tmp_path, command, monkeypatch, settings):
    (tmp_path / "halved.py").write_text(
        "from satlight.modules import CapabilityEncoder\n\n\nclass Mine(CapabilityEncoder):\n"
        "    def score(self, block):\n        return super().score(block) / 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = [*settings(tmp_path / "runs"), "--model=halved.Mine", "--model.backbone=tiny:bert", "--name=mine"]
    result = command("fit", *words, "--trainer.max_epochs=1")
    assert result.code is None, result.err
    assert command("test", *words).code is None
    router = ("--router", tmp_path / "runs" / "mine" / "1" / "router", "What is 2+2?")
    refused = command("route", *router)
    assert refused.code == 1
    assert "class_path is 'halved.Mine'" in refused.err
    assert "--allow" in refused.err
    allowed = command("route", "--allow", "halved", *router)
    assert allowed.code is None, allowed.err
    assert len(json.loads(allowed.out)["ranking"]) == 6


def test_a_module_that_cannot_be_imported_again_trains_without_a_router_folder(
    tmp_path, command, monkeypatch, settings
):
    (tmp_path / "inner.py").write_text(
        "from satlight.modules import CapabilityEncoder\n\n\ndef make():\n"
        "    class Mine(CapabilityEncoder):\n        pass\n\n    return Mine\n\n\nMine = make()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = [*settings(tmp_path / "runs"), "--model=inner.Mine", "--model.backbone=tiny:bert", "--name=mine"]
    result = command("fit", *words, "--trainer.max_epochs=1")
    assert result.code is None, result.err
    assert "no router folder: make.<locals>.Mine cannot be stored" in result.err
    assert not (tmp_path / "runs" / "mine" / "1" / "router").exists()


def test_a_fit_that_is_told_to_stop_is_no_success(tmp_path, command, monkeypatch, settings):
    from satlight.modules import ModelSAT

    def stop(module, *_):
        if module.global_step == 5:  # in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ModelSAT, "on_train_batch_end", stop)
    ended = command("fit", *settings(tmp_path / "runs"))
    assert ended.code == 143
    assert "--ckpt_path last" in ended.err
    run = tmp_path / "runs/full/1"
    assert not (run / "router").exists()
    monkeypatch.undo()
    assert command("fit", *settings(tmp_path / "runs"), "--ckpt_path", "last").code is None
    assert (run / "router").is_dir()


def test_fast_dev_run_leaves_nothing(tmp_path, command, settings):
    result = command("fit", *settings(tmp_path / "runs"), "--trainer.fast_dev_run=true")
    assert result.code is None, result.err
    assert not (tmp_path / "runs").exists()


def test_capability_encoder_from_its_own_file(tmp_path, command, settings):
    encoder = tmp_path / "windows.yaml"
    encoder.write_text(
        "class_path: satlight.modules.CapabilityEncoder\n"
        "init_args:\n  backbone: tiny:bert\n  chunking: windows\n  max_tokens: 90\n"
    )
    result = command("fit", *settings(tmp_path / "runs"), "--trainer.max_epochs=1", "--model.encoder", encoder)
    assert result.code is None, result.err
    run = tmp_path / "runs" / "full" / "1"
    config = yaml.safe_load((run / "config.yaml").read_text())
    chosen = config["model"]["init_args"]["encoder"]["init_args"]
    assert (chosen["chunking"], chosen["max_tokens"]) == ("windows", 90)
    assert Router.from_pretrained(run / "router").module.encoder.chunking == "windows"
    # Without options, the run's own settings are used; another reading fits the checkpoint all the same.
    tested = command("test", *settings(tmp_path / "runs"))
    assert "chunking" not in tested.err
    tested = command("test", *settings(tmp_path / "runs"), "--model.encoder.chunking=results")
    assert "chunking is 'windows' in the run, 'results' given" in tested.err


def test_help_lists_every_verb(command):
    result = command("--help")
    assert result.code == 0
    for verb in ("fit", "validate", "test", "predict", "route", "export", "export-arena", "weights", "data"):
        assert verb in result.out


@pytest.mark.parametrize("words", [[], ["nonsense"], ["route"], ["export", "--checkpoint", "worst"]])
def test_words_that_are_no_command_exit_with_2(command, words):
    result = command(*words)
    assert result.code == 2
    assert "usage: " in result.err


def test_console_scripts_are_this_program():
    from importlib.metadata import entry_points

    scripts = {script.name: script.value for script in entry_points(group="console_scripts")}
    assert scripts["satlight"] == scripts["lightning"] == "satlight.cli:main"


def test_a_reader_that_goes_away_is_no_error(run, monkeypatch, call):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert call("route", "--router", run / "router", "--format", "json", "Hi") is None


def test_from_python_without_a_run(tmp_path, monkeypatch, settings):
    from satlight.cli.training import SatlightCLI

    monkeypatch.chdir(tmp_path)
    words = [w for w in settings(tmp_path / "runs") if not w.startswith("--runs")]
    cli = SatlightCLI(args=words, run=False)
    assert cli.model.router_llm.hidden_size == 32
    assert cli.datamodule.simulated.num_candidates == 6
    assert list(tmp_path.iterdir()) == []
