"""A run owns its settings: no verb judges a router on other data, or on rows it was trained on, unasked."""

import json
import shutil

import polars as pl
import pytest


@pytest.fixture(scope="module")
def mine(records_folder, tmp_path_factory, settings, call):
    """A run on own records, grouped by family."""
    runs = tmp_path_factory.mktemp("own") / "runs"
    more = {"trainer.max_epochs": 1, "data.blocks_per_epoch": 2, "data.aptitude.min_shots": 3, "data.seed": 4}
    own = {"data.records": records_folder, "data.score_column": "correct", "data.group_column": "family"}
    assert call("fit", *settings(runs, **more, **own), "--name=mine") is None
    return runs / "mine" / "1"


@pytest.mark.parametrize("verb", ["test", "validate", "predict"])
@pytest.mark.parametrize("by", ["name", "folder"])
def test_a_run_needs_no_config(mine, command, verb, by):
    words = ["--name=mine", "--runs", mine.parents[1]] if by == "name" else [mine]
    result = command(verb, *words)
    assert result.code is None, result.err
    assert (mine / f"{verb}_config.yaml").is_file()
    if verb == "test":
        results = json.loads((mine / "results.json").read_text())
        assert (results["score_column"], results["data"]["name"]) == ("correct", "demo")


def test_another_config_does_not_change_the_data_of_a_run(mine, command, tmp_path):
    (tmp_path / "full.yaml").write_text(
        "data:\n  class_path: satlight.data.CapabilityInstructionDataModule\n"
        "  init_args:\n    targets: {shrinkage: 0.5}\n    blocks_per_epoch: 100\n"
    )
    result = command("test", "-c", tmp_path / "full.yaml", "--name=mine", "--runs", mine.parents[1])
    assert result.code is None, result.err
    assert json.loads((mine / "results.json").read_text())["data"]["name"] == "demo"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--data.records=simulated", "data.records is "),
        ("--data.group_column=null", "data.group_column is 'family' in the run, None given"),
        ("--data.seed=5", "data.seed is 4 in the run, 5 given"),
        ("--data.aptitude.num_shots=7", "data.aptitude.num_shots is 20 in the run, 7 given"),
    ],
)
def test_other_data_settings_are_named(mine, command, word, message):
    before = {path: path.read_bytes() for path in mine.glob("*.json")}
    result = command("test", mine, word)
    assert result.code == 1
    assert message in result.err
    assert "--other-data" in result.err
    assert {path: path.read_bytes() for path in mine.glob("*.json")} == before


def test_what_is_reported_may_differ(mine, command):
    words = ["--data.test_groups={first: [alpha]}", "--data.eval_instructions=16", "--data.zoo=seen"]
    result = command("test", mine, *words)
    assert result.code is None, result.err
    assert "first" in result.out


def test_other_data_has_results_of_its_own(mine, command, tmp_path):
    run = tmp_path / "runs" / "mine" / "1"
    shutil.copytree(mine, run)
    assert command("test", run).code is None
    names = ("results.json", "results.csv", "choices.csv", "test_config.yaml", "router/README.md")
    before = {name: (run / name).read_bytes() for name in names}
    words = ("--data.records=simulated", "--data.score_column=score", "--data.group_column=null", "--other-data")
    result = command("test", run, *words, "--data.simulated.num_instructions=1500")
    assert result.code is None, result.err
    assert {name: (run / name).read_bytes() for name in names} == before
    assert json.loads((run / "other/simulated/results.json").read_text())["data"]["simulated"] is True


def test_rows_that_were_trained_on_are_not_judged(mine, records_folder, command, tmp_path):
    """The same records, split at random and without groups: most test rows share a group with training rows."""
    other = tmp_path / "again"
    shutil.copytree(records_folder, other)
    table = pl.read_parquet(other / "instructions.parquet")
    new = table.filter(pl.col("dataset") == "gamma").with_columns(split=pl.lit("test"))
    turned = table.filter(pl.col("dataset") != "gamma").with_columns(
        split=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("test")).otherwise(pl.lit("train")),
        instruction=pl.col("instruction").str.replace(" ", "   "),
    )
    pl.concat([turned, new]).write_parquet(other / "instructions.parquet")
    words = ("--data.records", other, "--data.group_column=null", "--other-data")
    result = command("test", mine, *words)
    assert result.code is None, result.err
    tested = pl.read_parquet(mine / "trained_on.parquet")
    assert set(tested["column"]) == {"instruction", "group family"}
    assert "test rows of again are left out: the router was trained on their text or group" in result.err
    results = json.loads((mine / "other" / "again" / "results.json").read_text())
    assert results["datasets"]["gamma"]["n"] == 12
    assert sum(entry["n"] for entry in results["datasets"].values()) < turned.filter(split="test").height


def test_validation_rows_that_were_trained_on_are_not_judged(mine, records_folder, command, tmp_path):
    """Training rows of the run become validation rows of the other data, next to new ones."""
    other = tmp_path / "later"
    shutil.copytree(records_folder, other)
    table = pl.read_parquet(other / "instructions.parquet")
    every_second = pl.int_range(pl.len()) % 2 == 0
    table.with_columns(
        split=pl.when(every_second).then(pl.lit("validation")).otherwise("split"), family=pl.lit(None, pl.String)
    ).write_parquet(other / "instructions.parquet")
    words = ("--data.records", other, "--data.group_column=null", "--other-data")
    result = command("validate", mine, *words)
    assert result.code is None, result.err
    assert "validation rows of later are left out: the router was trained on their text or group" in result.err
    assert command("validate", mine).code is None  # its own validation rows are judged
    assert "left out" not in command("validate", mine).err


def test_a_test_split_of_trained_rows_only_is_an_error(mine, records_folder, command, tmp_path):
    """Train and test exchanged, in the datasets that were trained on."""
    other = tmp_path / "exchanged"
    shutil.copytree(records_folder, other)
    table = pl.read_parquet(other / "instructions.parquet")
    names = {"train": "test", "test": "train"}
    table.with_columns(pl.col("split").replace(names)).write_parquet(other / "instructions.parquet")
    words = ("--data.records", other, "--data.datasets=[alpha, beta]", "--data.group_column=null", "--other-data")
    result = command("test", mine, *words)
    assert result.code == 1
    assert "so none can be judged" in result.err


def test_export_takes_a_name_and_works_from_anywhere(mine, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = command("export", "--name", "mine", "--runs", mine.parents[1], "--to", "here")
    assert result.code is None, result.err
    assert (tmp_path / "here" / "config.json").is_file()
    assert command("export").code == 1


def test_relative_records_are_found_from_anywhere(records_folder, tmp_path, command, settings, monkeypatch):
    shutil.copytree(records_folder, tmp_path / "data" / "mine")
    monkeypatch.chdir(tmp_path)
    more = {"trainer.max_epochs": 1, "data.blocks_per_epoch": 2, "data.aptitude.min_shots": 3}
    words = settings("runs", **more, **{"data.records": "data/mine", "data.score_column": "correct"})
    result = command("fit", *words)
    assert result.code is None, result.err
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for verb in ("test", "export"):
        result = command(verb, tmp_path / "runs/full/1")
        assert result.code is None, result.err
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_tilde_is_expanded_in_every_path(records_folder, tmp_path, command, settings, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(records_folder, tmp_path / "records")
    (tmp_path / "words.json").write_text('{"alpha-0": "letters"}')
    (tmp_path / "zoo.yaml").write_text("name: small\ncandidates: ['*7b*']\n")
    more = {"trainer.max_epochs": 1, "data.blocks_per_epoch": 2, "data.aptitude.min_shots": 3}
    paths = {"data.records": "~/records", "data.aptitude.keywords": "~/words.json", "data.zoo_preset": "~/zoo.yaml"}
    result = command("fit", *settings("~/runs", **more, **paths, **{"data.score_column": "correct"}), "--name=~/own")
    assert result.code is None, result.err
    assert (tmp_path / "own" / "1" / "router").is_dir()
    assert command("test", "--name=~/own", "--runs=~/runs").code is None
    assert command("test", "--ckpt_path=~/own/1/checkpoints/last.ckpt").code is None
    assert command("export", "~/own/1", "--to", "~/exported").code is None
    assert (tmp_path / "exported").is_dir()
    assert not (tmp_path / "~").exists()
