"""The command line from training to a routed instruction, on tiny random networks, in this process."""

import csv
import io
import json
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
import yaml

from satlight.cli import main
from satlight.routing import Router

ROOT = Path(__file__).parents[2]
UNSEEN = "sim-coder-1b"


@dataclass
class Result:
    """What a command left behind: exit code (None = main returned), what it printed, what it said."""

    code: int | None
    out: str
    err: str


def call(*words: str | Path) -> int | None:
    try:
        returned = main([str(word) for word in words])
    except SystemExit as error:
        return int(error.code or 0)
    assert returned is None  # the console script hands it to sys.exit
    return None


@pytest.fixture
def command(capsys) -> Callable[..., Result]:
    def run(*words: str | Path) -> Result:
        capsys.readouterr()
        code = call(*words)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return run


def settings(runs: Path, **more: object) -> list[str]:
    """The main job's config on the debug overlay, small."""
    options = {
        "runs": runs,
        "trainer.accelerator": "cpu",
        "trainer.logger": "null",
        "trainer.max_epochs": 2,
        "trainer.enable_progress_bar": "false",
        "trainer.enable_model_summary": "false",
        "trainer.log_every_n_steps": 1,
        "data.simulated.num_instructions": 1500,
        "data.simulated.num_candidates": 6,
        "data.blocks_per_epoch": 4,
    }
    words = ["-c", str(ROOT / "configs/full.yaml"), "-c", str(ROOT / "configs/overlay/debug.yaml")]
    return words + [f"--{key}={value}" for key, value in (options | more).items()]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cli") / "runs"


@pytest.fixture(scope="module")
def words(runs) -> list[str]:
    groups = '{"hard": ["mathematics", "science"], "easy": ["writing"]}'
    return settings(runs, **{"data.unseen_candidates": f'["{UNSEEN}"]', "data.test_groups": groups})


@pytest.fixture(scope="module")
def run(runs, words) -> Path:
    """A trained run."""
    assert call("fit", *words) is None
    return runs / "full" / "1"


@pytest.fixture(scope="module")
def tested(run, words) -> Path:
    assert call("test", *words) is None
    return run


@pytest.fixture(scope="module")
def scores(run, words) -> pl.DataFrame:
    """What predict wrote."""
    assert call("predict", *words) is None
    return pl.read_parquet(run / "scores.parquet")


@pytest.fixture(scope="module")
def records():
    from satlight.records.simulated import SimulatedZoo

    return SimulatedZoo(num_instructions=1500, num_candidates=6).generate()


# -- fit ---------------------------------------------------------------------------------------------------


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
    validated = [float(row["val_routed_accuracy"]) for row in rows if row["val_routed_accuracy"]]
    assert len(validated) == 2
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(np.argmax(validated))


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


def test_checkpoints_of_the_config_stand_beside_the_best(tmp_path, command):
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


def test_a_user_written_module_is_trained_exported_and_routed_with(tmp_path, command, monkeypatch):
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


def test_a_module_that_cannot_be_imported_again_trains_without_a_router_folder(tmp_path, command, monkeypatch):
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


def test_a_fit_that_is_told_to_stop_is_no_success(tmp_path, command, monkeypatch):
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


def test_fast_dev_run_leaves_nothing(tmp_path, command):
    result = command("fit", *settings(tmp_path / "runs"), "--trainer.fast_dev_run=true")
    assert result.code is None, result.err
    assert not (tmp_path / "runs").exists()


def test_capability_encoder_from_its_own_file(tmp_path, command):
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
    # Tested with another reading of the candidates, which fits the checkpoint all the same:
    tested = command("test", *settings(tmp_path / "runs"))
    assert "chunking is 'results', but 'windows'" in tested.err


# -- test and predict --------------------------------------------------------------------------------------


def test_results_hold_every_key(tested, records):
    results = json.loads((tested / "results.json").read_text())
    about = {"candidates", "split", "score_column", "data", "seed", "calibration"}
    assert set(results) == {"datasets", "groups"} | about
    assert results["candidates"] == records.model_ids
    assert (results["split"], results["score_column"]) == ("test", "score")
    assert results["data"]["simulated"] is True
    assert len(results["data"]["fingerprint"]) == 16
    assert set(results["datasets"]) == set(records.datasets)
    assert set(results["groups"]) == {"hard", "easy"}
    keys = {"routed", "interval", "random", "best_single", "dataset_best", "dataset_oracle", "oracle"}
    for entry in (*results["datasets"].values(), *results["groups"].values()):
        assert keys | {"gap_closed", "ece", "n", "share"} <= set(entry)
        assert entry["interval"][0] <= entry["routed"] <= entry["interval"][1]
        assert entry["oracle"] >= entry["dataset_oracle"] >= entry["best_single"] - 1e-6
        assert 0 <= entry["ece"] <= 1
        assert sum(entry["share"].values()) == pytest.approx(1, abs=1e-4)
    hard = [results["datasets"][name]["routed"] for name in ("mathematics", "science")]
    assert results["groups"]["hard"]["routed"] == pytest.approx(np.mean(hard), abs=1e-4)
    assert results["groups"]["hard"]["n"] == sum(results["datasets"][name]["n"] for name in ("mathematics", "science"))


def test_tables_hold_what_results_hold(tested):
    results = json.loads((tested / "results.json").read_text())
    rows = {row["name"]: row for row in csv.DictReader((tested / "results.csv").open())}
    assert set(rows) == {*results["datasets"], *results["groups"]}
    assert float(rows["code"]["routed"]) == results["datasets"]["code"]["routed"]
    choices = list(csv.DictReader((tested / "choices.csv").open()))
    assert len(choices) == len(rows) * 6


def test_test_prints_the_table(tested, words, command):
    result = command("test", *words)
    assert result.code is None, result.err
    for word in ("simulated", "mathematics", "hard", "easy", "95 %", "best"):
        assert word in result.out


def test_predict_writes_the_whole_matrix(scores, records):
    test = records.filter(splits="test")
    assert scores.columns == ["instruction_id", *records.model_ids]
    assert sorted(scores["instruction_id"]) == sorted(test.instructions["instruction_id"])
    assert scores.drop("instruction_id").to_numpy().dtype == np.float32
    assert np.isfinite(scores.drop("instruction_id").to_numpy()).all()


def test_the_table_follows_from_the_scores(tested, scores, records):
    results = json.loads((tested / "results.json").read_text())
    test = records.filter(splits="test")
    order = dict(zip(scores["instruction_id"], range(len(scores)), strict=True))
    rows = [order[key] for key in test.instructions["instruction_id"]]
    chosen = scores.drop("instruction_id").to_numpy()[rows].argmax(axis=1)
    outcomes = test.outcomes[np.arange(len(rows)), chosen]
    for name, entry in results["datasets"].items():
        assert entry["routed"] == pytest.approx(100 * outcomes[test.datasets == name].mean(), abs=1e-3)
        assert entry["n"] == (test.datasets == name).sum()


def test_validate_repeats_the_validation_of_the_best_epoch(run, words, command):
    result = command("validate", *words)
    assert result.code is None, result.err
    rows = csv.DictReader((run / "metrics.csv").open())
    best = max(float(row["val_routed_accuracy"]) for row in rows if row["val_routed_accuracy"])
    assert f"{best:.5f}"[:-1] in result.out


def test_evaluation_keeps_the_curves_of_the_fit(tested, run, scores):
    assert "train_loss" in (run / "metrics.csv").read_text()
    assert {path.name for path in run.glob("*config.yaml")} >= {
        "config.yaml",
        "test_config.yaml",
        "predict_config.yaml",
    }


# -- the router folder -------------------------------------------------------------------------------------


def test_the_router_folder_gives_the_scores_of_predict(run, scores, records):
    router = Router.from_pretrained(run / "router")
    assert router.model_ids == records.model_ids
    assert router.about["unseen_in_training"] == [UNSEEN]
    assert router.about["data"]["simulated"] is True
    texts = dict(zip(records.instructions["instruction_id"], records.texts, strict=True))
    some = scores.head(40)
    got = router.score([texts[key] for key in some["instruction_id"]]).log_odds_BC
    assert np.allclose(got, some.drop("instruction_id").to_numpy(), atol=1e-4)
    assert got.std() > 1e-3


def test_an_unseen_candidate_is_admitted_as_if_it_had_been_exported(run, records):
    from satlight.types import AptitudeResults

    whole, part = (Router.from_pretrained(run / "router") for _ in range(2))
    column = whole.model_ids.index(UNSEEN)
    kept = [c for c in range(len(whole.candidates)) if c != column]
    part.candidates = tuple(whole.candidates[c] for c in kept)
    part.capabilities = tuple(whole.capabilities[c] for c in kept)
    ids = records.instructions["instruction_id"].to_list()
    rows = [row for row, key in enumerate(ids) if key in whole.test.item_ids]
    outcomes = records.outcomes[rows, records.model_ids.index(UNSEEN)]
    results = AptitudeResults(tuple(ids[row] for row in rows), tuple(records.texts[row] for row in rows), outcomes)
    admitted = part.admit(whole.candidates[column], results)
    assert admitted.capabilities[-1] == whole.capabilities[column]
    texts = ["What is 2+2?", "Name a river.", "Sort a list in Python."]
    expected = whole.score(texts, admitted.model_ids).log_odds_BC
    assert np.allclose(admitted.score(texts).log_odds_BC, expected, atol=1e-6)
    assert np.allclose(part.score(texts).log_odds_BC, expected[:, :-1], atol=1e-5)


def test_export_writes_the_same_router_elsewhere(run, tmp_path, command):
    result = command("export", run, "--to", tmp_path / "mine")
    assert result.code is None, result.err
    assert result.out.strip() == str(tmp_path / "mine")
    texts = ["What is 2+2?", "Name a river."]
    one, other = Router.from_pretrained(run / "router"), Router.from_pretrained(tmp_path / "mine")
    assert np.allclose(one.score(texts).log_odds_BC, other.score(texts).log_odds_BC, atol=1e-6)
    assert (tmp_path / "mine" / "aptitude.json").read_text() == (run / "router" / "aptitude.json").read_text()
    last = command("export", run, "--checkpoint", "last", "--to", tmp_path / "last")
    assert last.code is None
    weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.allclose(Router.from_pretrained(tmp_path / "last").module.router_llm.head, weights["router_llm.head"])


def test_export_of_what_is_no_run(run, tmp_path, command):
    result = command("export", tmp_path)
    assert result.code == 1
    assert "config.yaml does not exist" in result.err
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "config.yaml").write_text("model: {class_path: satlight.modules.Nothing}\ndata: {}\n")
    result = command("export", tmp_path / "run")
    assert result.code == 1
    assert "config.yaml is not what `fit`" in result.err


def test_route_one_instruction(run, command):
    result = command("route", "--router", run / "router", "--top-k", "2", "What is 2+2?")
    assert result.code is None, result.err
    (line,) = result.out.splitlines()
    answer = json.loads(line)
    assert answer["instruction"] == "What is 2+2?"
    expected = Router.from_pretrained(run / "router").route("What is 2+2?", top_k=2)
    assert answer["route"] == expected.best
    assert [choice["model_id"] for choice in answer["ranking"]] == [c.model_id for c in expected.choices]
    assert answer["ranking"][0]["probability"] == pytest.approx(expected.choices[0].probability, abs=1e-6)


def test_route_a_file_and_keep_its_other_keys(run, tmp_path, command):
    texts = ["What is 2+2?", "Naïve café?", "Name a river."]
    path = tmp_path / "requests.jsonl"
    path.write_text(
        "\n\n".join(json.dumps({"id": i, "instruction": text}) for i, text in enumerate(texts)), encoding="utf-8"
    )
    names = "sim-general-400b,sim-coder-1b"
    words = ("--router", run / "router", "--batch-size", "2", "--candidates", names)
    result = command("route", *words, "--file", path)
    assert result.code is None, result.err
    answers = [json.loads(line) for line in result.out.splitlines()]
    assert [(answer["id"], answer["instruction"]) for answer in answers] == list(enumerate(texts))
    for answer in answers:
        assert {choice["model_id"] for choice in answer["ranking"]} == set(names.split(","))
        assert answer["route"] == answer["ranking"][0]["model_id"]


def test_route_as_a_table(run, command):
    result = command("route", "--router", run / "router", "--format", "table", "[bold]What[/bold] is 2+2?")
    assert result.code is None, result.err
    assert "[bold]What[/bold] is 2+2?" in result.out
    assert "probability" in result.out
    assert sum(" %" in line for line in result.out.splitlines()) == 6


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--candidates", "gpt-9", "Hi"], "does not know the candidates ['gpt-9']"),
        (["--top-k", "0", "Hi"], "top_k is 0"),
        (["--file", "no.jsonl"], "--file no.jsonl: there is no such file"),
        (["--file", "no.jsonl", "Hi"], "not both"),
        ([" "], "The instruction is empty"),
    ],
)
def test_route_mistakes_are_named(run, command, more, message):
    result = command("route", "--router", run / "router", *more)
    assert result.code == 1
    assert result.err.startswith("error: ")
    assert message in result.err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: not valid JSON"),
        ('{"text": "Hi"}', "line 2: 'instruction' must be a text that is not empty, got None"),
        ('["Hi"]', "line 2: 'instruction' must be"),
        ('{"instruction": "  "}', "line 2: 'instruction' must be"),
    ],
)
def test_route_names_the_line(run, tmp_path, command, line, message):
    path = tmp_path / "requests.jsonl"
    path.write_text('{"instruction": "Hi"}\n' + line + "\n")
    result = command("route", "--router", run / "router", "--file", path)
    assert result.code == 1
    assert message in result.err


def test_route_without_a_router(tmp_path, command):
    result = command("route", "--router", tmp_path, "Hi")
    assert result.code == 1
    assert "config.json cannot be read" in result.err


# -- the records are flags of every command ----------------------------------------------------------------


def test_own_records_are_flags(records_folder, tmp_path, command):
    words = [
        *settings(tmp_path / "runs", **{"trainer.max_epochs": 1, "data.blocks_per_epoch": 3}),
        f"--data.records={records_folder}",
        "--data.score_column=correct",
        '--data.candidates=["*7b*"]',
        '--data.datasets=["alpha", "gamma"]',
        "--data.group_column=family",
        "--data.aptitude.num_shots=6",
        "--data.aptitude.min_shots=3",
        "--name=own",
    ]
    for verb in ("fit", "test", "predict"):
        result = command(verb, *words)
        assert result.code is None, result.err
    folder = tmp_path / "runs" / "own" / "1"
    results = json.loads((folder / "results.json").read_text())
    assert results["candidates"] == ["org/one-7b", "org/two-7b"]
    assert set(results["datasets"]) == {"alpha", "gamma"}
    assert results["score_column"] == "correct"
    assert results["datasets"]["gamma"]["dataset_best"] is None  # it has no train rows to choose on
    assert pl.read_parquet(folder / "scores.parquet").shape == (18 + 12, 3)
    router = Router.from_pretrained(folder / "router")
    assert router.about["data"]["name"] == "demo"
    assert router.capabilities[1].notes == ("It supports Chinese.",)
    # The same flags in one more place would be a mistake that is named.
    wrong = command("fit", *words, "--data.score_column=corect")
    assert wrong.code == 1
    assert "corect" in wrong.err


# -- mistakes ----------------------------------------------------------------------------------------------


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
def test_a_typo_names_the_key(tmp_path, command, word, message):
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
def test_a_wrong_value_ends_in_one_line_and_no_folder(tmp_path, command, word, message):
    result = command("fit", *settings(tmp_path / "runs"), word)
    assert result.code == 1
    last = result.err.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not list((tmp_path / "runs").glob("*/*"))


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
def test_no_checkpoint_of_that_name(tmp_path, command, verb):
    result = command(verb, *settings(tmp_path / "runs"), "--name=nobody")
    assert result.code == 1
    assert "nobody has a checkpoint best.ckpt" in result.err
    assert "lightning fit" in result.err


def test_a_checkpoint_file_that_is_not_there(tmp_path, command):
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


# -- words -------------------------------------------------------------------------------------------------


def test_help_lists_every_verb(command):
    result = command("--help")
    assert result.code == 0
    for verb in ("fit", "validate", "test", "predict", "route", "export", "export-arena", "weights", "data"):
        assert verb in result.out


@pytest.mark.parametrize("words", [[], ["nonsense"], ["route"], ["export"]])
def test_words_that_are_no_command_exit_with_2(command, words):
    result = command(*words)
    assert result.code == 2
    assert "usage: " in result.err


def test_console_scripts_are_this_program():
    from importlib.metadata import entry_points

    scripts = {script.name: script.value for script in entry_points(group="console_scripts")}
    assert scripts["satlight"] == scripts["lightning"] == "satlight.cli:main"


def test_a_reader_that_goes_away_is_no_error(run, monkeypatch):
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    monkeypatch.setattr("sys.stdout", Gone())
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert call("route", "--router", run / "router", "--format", "json", "Hi") is None


def test_from_python_without_a_run(tmp_path, monkeypatch):
    from satlight.cli.training import SatlightCLI

    monkeypatch.chdir(tmp_path)
    words = [w for w in settings(tmp_path / "runs") if not w.startswith("--runs")]
    cli = SatlightCLI(args=words, run=False)
    assert cli.model.router_llm.hidden_size == 32
    assert cli.datamodule.simulated.num_candidates == 6
    assert list(tmp_path.iterdir()) == []
