"""Mistakes end in one sentence that names them."""

import re
import shutil

import pytest


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--model.temprature=3", "'temprature'"),
        ("--model.router_llm.freze_layers=1", "'freze_layers'"),
        ("--data.sampler.instruction=1", "'instruction'"),
        ("--trainer.max_epocs=1", "max_epocs"),
        ("--model.router_llm.order=sideways", "sideways"),
        ("--model.optimizer.lr=fast", "lr"),
    ],
)
def test_a_typo_names_the_key(tmp_path, command, word, message, settings):
    result = command("fit", *settings(tmp_path / "runs"), word)
    assert result.code == 2
    assert message in result.err.splitlines()[-1] + result.err.rpartition("error:")[2]
    assert not (tmp_path / "runs").exists()


def test_a_typo_in_a_file_names_the_key(tmp_path, command):
    path = tmp_path / "mine.yaml"
    path.write_text("modle:\n  class_path: satlight.modules.ModelSAT\n")
    result = command("fit", "-c", path)
    assert result.code == 2
    assert "modle" in result.err.rpartition("error:")[2]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--model.router_llm.freeze_layers=9", "router_llm.freeze_layers is 9; the backbone has 2 layers"),
        ("--data.targets.shrinkage=9", "data.targets.shrinkage is 9.0; it must lie in [0, 1]"),
        ("--model.encoder.backbone=tiny:gpt", "'tiny:gpt' is unknown"),
        ("--data.records=/no/such", "'/no/such' do not exist"),
        ("--data.unseen_candidates=[nobody]", "nobody"),
        ("--data.zoo=unseen", "data.unseen_candidates names none"),
        ("--data.simulated.num_instructions=200", "too few core items"),
    ],
)
def test_a_wrong_value_ends_in_one_line_and_no_folder(tmp_path, command, word, message, settings):
    result = command("fit", *settings(tmp_path / "runs"), word)
    assert result.code == 1
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_no_checkpoint_of_that_name(tmp_path, command, verb, settings):
    result = command(verb, *settings(tmp_path / "runs"), "--name=nobody")
    assert result.code == 1
    assert "nobody has a checkpoint best.ckpt" in result.err
    assert "lightning fit" in result.err


def test_a_checkpoint_file_that_is_not_there(tmp_path, command, settings):
    for word in ("--ckpt_path=nowhere.ckpt", "--ckpt_path=last"):
        result = command("fit", *settings(tmp_path / "runs"), word)
        assert result.code == 1
        assert "error: " in result.err
    assert not (tmp_path / "runs").exists()


def test_a_checkpoint_of_another_model_is_named(run, words, command):
    best = run / "checkpoints" / "best.ckpt"
    result = command("test", *words, f"--ckpt_path={best}", "--model.router_llm.num_layers=1")
    assert result.code == 1
    assert "written by another model" in result.err
    assert "router_llm.backbone.layers.1." in result.err


def test_a_damaged_checkpoint_is_named(run, words, tmp_path, command):
    path = tmp_path / "broken.ckpt"
    path.write_bytes((run / "checkpoints" / "best.ckpt").read_bytes()[:1000])
    result = command("test", *words, f"--ckpt_path={path}")
    assert result.code == 1
    assert str(path) in result.err


def test_a_part_of_the_test_set_is_no_table(run, words, command, tmp_path):
    shutil.copytree(run, tmp_path / "runs" / "full" / "1")
    (tmp_path / "runs" / "full" / "1" / "results.json").unlink(missing_ok=True)
    result = command("test", *words, f"--runs={tmp_path / 'runs'}", "--trainer.limit_test_batches=0.5")
    assert result.code == 1
    assert re.search(r"Only \d+ of \d+ test instructions", result.err)
    assert not (tmp_path / "runs" / "full" / "1" / "results.json").exists()


def test_a_group_of_unknown_datasets_is_named_before_the_scoring(run, words, command):
    result = command("test", *words, '--data.test_groups={"all": ["maths"]}')
    assert result.code == 1
    assert "'maths'" in result.err
