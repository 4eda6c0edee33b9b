"""Messages of mistyped commands, and faults of the program."""

import pytest


def test_fit_alone_asks_for_a_config(command):
    for verb in ("fit", "test"):
        result = command(verb)
        assert result.code == 1
        assert f"lightning {verb} -c configs/full.yaml" in result.err


@pytest.mark.parametrize(
    ("word", "near"), [("--trainer.max_epoch=3", "--trainer.max_epochs"), ("--ckpt=3", "--ckpt_path")]
)
def test_an_abbreviation_is_refused_with_the_nearest_names(settings, tmp_path, command, word, near):
    result = command("fit", *settings(tmp_path / "runs"), word)
    assert result.code == 2
    assert f"is no option; did you mean {near}" in result.err
    assert not (tmp_path / "runs").exists()


def test_other_verbs_take_whole_names_only(command, tmp_path):
    result = command("export", tmp_path, "--check", "last")
    assert result.code == 2


@pytest.mark.parametrize("word", ["--seed_everything=-1", "--data.seed=-1", "--data.simulated.seed=-1"])
def test_negative_seeds_are_refused(settings, tmp_path, command, word):
    result = command("fit", *settings(tmp_path / "runs"), word)
    assert result.code == 1
    assert "-1" in result.err.strip().splitlines()[-1]


@pytest.mark.parametrize("content", [b"\xe9t\xe9: 1\n", b"a: \x00", b"[", b"- 1", b"[" * 3000])
def test_a_config_that_is_no_yaml_is_one_sentence(tmp_path, command, content):
    (tmp_path / "mine.yaml").write_bytes(content)
    result = command("fit", "-c", tmp_path / "mine.yaml")
    assert result.code == 1
    assert result.err.startswith(f"error: {tmp_path / 'mine.yaml'}")
    assert "Traceback" not in result.err


def test_faults_of_the_program_keep_their_traceback(monkeypatch, tmp_path):
    from satlight.cli import main

    monkeypatch.setattr("satlight.cli.export.run_export", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["export", str(tmp_path)])


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device", "/a/b"), "/a/b: No space left on device; make room there"),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "invalid"), "not valid Unicode"),
    ],
)
def test_errors_of_the_system_are_sentences(monkeypatch, command, tmp_path, error, message):
    def fail(_):
        raise error

    monkeypatch.setattr("satlight.cli.export.run_export", fail)
    result = command("export", tmp_path)
    assert result.code == 1
    assert message in result.err


def test_ctrl_c_anywhere(monkeypatch, command, tmp_path):
    def fail(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("satlight.cli.export.run_export", fail)
    result = command("export", tmp_path)
    assert (result.code, result.err) == (130, "interrupted\n")


def test_a_router_that_diverged_is_not_judged(run, words, command, monkeypatch):
    from satlight.modules import ModelSAT

    scores = ModelSAT.score
    monkeypatch.setattr(ModelSAT, "score", lambda module, block: scores(module, block) * float("nan"))
    for verb in ("test", "predict"):
        result = command(verb, *words)
        assert result.code == 1
        assert "its training diverged" in result.err
