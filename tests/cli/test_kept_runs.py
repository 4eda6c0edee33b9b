"""Nothing of a run is lost: after a move, a kill, a full disk, or a command that is refused."""

import os
import resource
import shutil
import subprocess
import sys
import time

import pytest
import torch


def state(path):
    return torch.load(path, weights_only=True)


@pytest.fixture
def copied(run, tmp_path):
    """A copy of the trained run in another place."""
    folder = tmp_path / "moved" / "full" / "1"
    shutil.copytree(run, folder)
    return folder


def test_a_moved_run_keeps_its_best_score(copied, words, command):
    best = copied / "checkpoints" / "best.ckpt"
    for name in ("best", "last"):  # a score that no later epoch reaches
        content = state(copied / "checkpoints" / f"{name}.ckpt")
        for callback in content["callbacks"].values():
            if callback.get("monitor") == "val_loss" and "best_k_models" in callback:
                callback |= {"best_model_score": torch.tensor(0.01), "kth_value": torch.tensor(0.01)}
                callback["best_k_models"] = {path: torch.tensor(0.01) for path in callback["best_k_models"]}
        torch.save(content, copied / "checkpoints" / f"{name}.ckpt")
    before = best.read_bytes()
    options = (f"--runs={copied.parents[1]}", "--ckpt_path=last", "--trainer.max_epochs=4")
    result = command("fit", *words, *options)
    assert result.code is None, result.err
    assert "dirpath" not in result.err
    assert best.read_bytes() == before
    assert state(copied / "checkpoints" / "last.ckpt")["global_step"] == 16
    shutil.rmtree(copied / "router")
    best.unlink()  # a lost best checkpoint is replaced by the next one
    result = command("fit", *words, *options, "--trainer.max_epochs=5")
    assert result.code is None, result.err
    assert best.is_file()
    assert (copied / "router").is_dir()


def test_a_refused_resume_changes_nothing(copied, words, command, contents):
    before = contents(copied)
    options = (f"--runs={copied.parents[1]}", "--ckpt_path=last", "--trainer.max_epochs=3")
    refusals = {
        "--model.router_llm.num_layers=1": "written by another model",
        "--data.simulated.seed=3": "data.simulated.seed is 0 in the run, 3 given",
        "--data.records=/no/such": "'/no/such' do not exist",
    }
    for word, message in refusals.items():
        result = command("fit", *words, *options, word)
        assert result.code == 1
        assert message in result.err or "data.records is 'simulated' in the run" in result.err
        assert contents(copied) == before


@pytest.mark.parametrize("verb", ["fit", "test"])
def test_a_checkpoint_elsewhere_starts_a_run_of_its_own(run, words, tmp_path, command, verb):
    (tmp_path / "sent").mkdir()
    file = tmp_path / "sent" / "some.ckpt"
    shutil.copy(run / "checkpoints" / "last.ckpt", file)
    options = (f"--ckpt_path={file}", f"--runs={tmp_path / 'runs'}", "--trainer.max_epochs=3")
    result = command(verb, *words, *options)
    assert result.code is None, result.err
    assert list((tmp_path / "sent").iterdir()) == [file]
    assert (tmp_path / "runs" / "full" / "1" / ("config.yaml" if verb == "fit" else "results.json")).is_file()


@pytest.mark.parametrize(
    "word", ["--data.records=/no/such", "--data.zoo_preset=no.yaml", "--ckpt_path=no.ckpt", "-cno.yaml"]
)
def test_a_mistyped_path_uses_no_number(settings, tmp_path, command, monkeypatch, word):
    monkeypatch.chdir(tmp_path)
    logger = {"trainer.logger": '{"class_path": "lightning.pytorch.loggers.WandbLogger"}'}
    result = command("fit", *settings(tmp_path / "runs", **logger), word)
    assert result.code in (1, 2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("word", ["--trainer.check_val_every_n_epoch=3", "--trainer.limit_val_batches=0"])
def test_a_fit_without_validation_is_refused(settings, tmp_path, command, word):
    result = command("fit", *settings(tmp_path / "runs"), word)
    assert result.code == 1
    assert "No validation would run" in result.err
    assert not (tmp_path / "runs").exists()


def test_a_fit_without_a_checkpoint_fails(settings, tmp_path, command):
    result = command(
        "fit", *settings(tmp_path / "runs"), "--trainer.check_val_every_n_epoch=2", "--trainer.max_steps=3"
    )
    assert result.code == 1
    assert "fit ended without a best checkpoint" in result.err


def test_leftovers_of_a_kill_are_removed(copied, words, command):
    for folder, name in ((copied, "router"), (copied / "checkpoints", "best.ckpt")):
        (folder / f".{name}.0123abcd").mkdir()
        (folder / f".{name}.0123abcd" / name).write_text("half")
        (folder / f".{name}.0123abcd.lock").touch()
    options = (f"--runs={copied.parents[1]}", "--ckpt_path=last", "--trainer.max_epochs=3")
    assert command("fit", *words, *options).code is None
    assert not [path for path in copied.rglob(".*")]


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path):
    """A limit on the size of files stands for a full disk."""
    code = (
        "import resource, sys, torch\nfrom satlight.errors import SatlightError\n"
        "from satlight.storage.checkpoints import write_checkpoint\n"
        "write_checkpoint({'state_dict': {'a': torch.ones(10)}}, sys.argv[1])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))\n"
        "try:\n    write_checkpoint({'state_dict': {'a': torch.ones(1_000_000)}}, sys.argv[1])\n"
        "except SatlightError as error:\n    print(error)\n"
    )
    path = tmp_path / "last.ckpt"
    result = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert f"cannot write {path}" in result.stdout
    assert state(path)["state_dict"]["a"].shape == (10,)
    assert list(tmp_path.iterdir()) == [path]
    assert resource.getrlimit(resource.RLIMIT_FSIZE)


def test_a_disk_that_fills_up_is_one_sentence(settings, tmp_path, command, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("satlight.files.os.replace", full)
    result = command("fit", *settings(tmp_path / "runs"))
    assert result.code == 1
    assert "No space left on device" in result.err
    assert "Traceback" not in result.err


def test_a_router_that_cannot_be_written_is_an_error(settings, tmp_path, command, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("satlight.routing.router.save_file", full)
    result = command("fit", *settings(tmp_path / "runs"), "--trainer.max_epochs=1")
    assert result.code == 1
    assert "No space left on device" in result.err


@pytest.mark.parametrize("kind", ["dangling", "file"])
def test_runs_that_is_no_folder(settings, tmp_path, command, kind):
    runs = tmp_path / "runs"
    runs.symlink_to(tmp_path / "gone") if kind == "dangling" else runs.write_text("")
    result = command("fit", *settings(runs))
    assert result.code == 1
    assert f"cannot write {runs}" in result.err


def test_validate_and_then_fit_in_one_process(settings, tmp_path, monkeypatch):
    from satlight.cli.training import SatlightCLI

    monkeypatch.chdir(tmp_path)
    words = [word for word in settings(tmp_path / "runs") if not word.startswith("--runs")]
    cli = SatlightCLI([*words, "--trainer.enable_checkpointing=false", "--trainer.max_epochs=1"], run=False)
    cli.trainer.validate(cli.model, cli.datamodule, verbose=False)
    cli.trainer.fit(cli.model, cli.datamodule)
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)


def test_ctrl_c_is_one_line_and_130(settings, tmp_path, command, monkeypatch):
    from satlight.modules import ModelSAT

    def stop(module, *_):
        if module.global_step == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(ModelSAT, "on_train_batch_end", stop)
    result = command("fit", *settings(tmp_path / "runs"))
    assert result.code == 130
    assert result.err.splitlines()[-1] == "interrupted; continue with `--ckpt_path last`"
    assert "Detected" not in result.err
    monkeypatch.undo()
    assert command("fit", *settings(tmp_path / "runs"), "--ckpt_path=last").code is None


def test_the_console_script_prints_no_color_into_pipes(settings, tmp_path):
    logger = {"trainer.logger": '{"class_path": "lightning.pytorch.loggers.WandbLogger"}', "trainer.max_epochs": 1}
    words = [sys.executable, "-m", "satlight", "fit", *settings(tmp_path / "runs", **logger)]
    environment = {**os.environ, "WANDB_MODE": "offline"}
    result = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    time.sleep(0.5)  # W&B's background process
    assert "\x1b" not in result.stdout + result.stderr
    assert "anonymous" not in result.stderr
    assert "wandb sync" in result.stderr
