"""The bench's YAML: defaults, and error messages for mistakes."""

from pathlib import Path

import pytest
import yaml

from satlight.bench.cells import plan
from satlight.bench.config import load_config
from satlight.errors import SatlightError

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "configs" / "bench").glob("*.yaml"))


def test_defaults_and_names(bench_file, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.yaml").write_text("{}")
    methods = [
        "knn",
        "toys.Toy",
        {"config": str(tmp_path / "mine/config.yaml"), "overrides": ["--trainer.max_epochs=1"]},
        {"scores": "runs/old_{seed}/scores.parquet", "name": "old"},
    ]
    config = load_config(bench_file(methods))
    assert [(m.name, m.kind) for m in config.methods] == [
        ("knn", "baseline"),
        ("Toy", "baseline"),
        ("mine", "config"),
        ("old", "scores"),
    ]
    assert (config.name, config.timeout, config.data[0].settings) == ("toy", 1800.0, ["all"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": []}, "'methods' is empty; give at least one entry"),
        ({"methods": [{"name": "x"}]}, r"methods\[0\]: got none of baseline, config, scores"),
        ({"methods": [{"baseline": "knn", "config": "a.yaml"}]}, "has exactly one of them"),
        ({"methods": [{"config": "no/such.yaml"}]}, "training config no/such.yaml does not exist"),
        ({"methods": ["knn", "knn"]}, r"\['knn'\] occur twice"),
        (
            {"methods": [{"scores": "s.parquet", "options": {"k": 1}}]},
            "'options' requires 'baseline', but the method has 'scores'",
        ),
        (
            {"methods": [{"baseline": "knn", "settings": ["al"]}]},
            r"settings \['al'\], which no data has; available: all",
        ),
        ({"seeds": []}, "'seeds' is empty"),
        ({"seeds": [1, 1]}, r"seeds: \['1'\] occur twice"),
        ({"seeds": ["one"]}, r"toy.yaml: Parser key \"seeds\": Expected a <class 'int'>. Got value: one"),
        ({"timeout": 0}, "timeout is 0.0; it must be positive"),
        ({"workers": 0}, "workers is 0"),
        ({"sedes": [0]}, "Option 'sedes' is not accepted; allowed keys: methods, data, name"),
        ({"data_setings": ["all"]}, r"data\[0\]: Option 'setings' is not accepted; allowed keys: name, "),
        ({"data_settings": []}, "settings is empty"),
        ({"data_simulated": {"size": 3}}, "'simulated' does not accept option 'size'"),
        ({"data_release": {"best": 3}}, '"release".*arguments are required: founders'),
        ({"data_release": {"founders": 2}, "data_settings": ["size-smaller-mixed"]}, "zoo setting 'all'"),
    ],
)
def test_mistakes_are_named(bench_file, change, message):
    change = {"methods": ["knn"]} | change
    with pytest.raises(SatlightError, match=message):
        load_config(bench_file(change.pop("methods"), **change))


@pytest.mark.parametrize(
    ("methods", "change", "message"),
    [
        (["nonesuch"], {}, "There is no baseline 'nonesuch'; available: 'knn'"),
        (["toys.Nothing"], {}, "'toys.Nothing' cannot be imported"),
        (["toys.np.ndarray"], {}, "cannot be imported"),
        (["toys.Toy"], {"data_groups": {"g": ["gamma"]}}, "The group 'g' names"),
        (["toys.Toy"], {"data_train_datasets": ["gamma"]}, "train_datasets names"),
        (["toys.Toy"], {"data_settings": ["no-such-zoo"]}, "There is no zoo setting 'no-such-zoo'"),
        (["toys.Toy"], {"data_test_fraction": 0.5}, "marks 20 test rows"),
    ],
)
def test_a_bench_that_cannot_run_stops_before_it_starts(bench_file, tmp_path, methods, change, message):
    with pytest.raises(SatlightError, match=message):
        plan(load_config(bench_file(methods, **change)))
    assert not (tmp_path / "out/cells").exists()


def test_every_method_sees_the_same_rows_of_a_seed(bench_file, tmp_path):
    from satlight.records import open_records

    cells = plan(load_config(bench_file(["toys.Toy", "toys.Crash"], data_train_datasets=["alpha"])))
    keys = {(cell.problem.seed, cell.problem.key) for cell in cells}
    assert len(keys) == 2
    splits = [open_records(tmp_path / "out/problems" / key).splits.tolist() for _, key in sorted(keys)]
    assert splits[0] != splits[1]  # the validation draw
    assert all(split.count("validation") == 4 and split.count("test") == 20 for split in splits)


def test_a_method_can_be_for_some_settings_only(bench_file, tmp_path):
    (tmp_path / "two.yaml").write_text("name: two\ncandidates: ['*-0', '*-3']\n")
    two = str(tmp_path / "two.yaml")
    methods = ["toys.Toy", {"baseline": "toys.Toy", "name": "small", "settings": [two]}]
    cells = plan(load_config(bench_file(methods, seeds=[0], data_settings=["all", two])))
    found = {(cell.method, cell.problem.setting) for cell in cells if cell.kind == "baseline"}
    assert found == {("Toy", "all"), ("Toy", two), ("small", two)}


def test_seeds_run_one_after_the_other(bench_file):
    cells = plan(load_config(bench_file(["toys.Toy", "toys.Crash"])))
    assert [cell.problem.seed for cell in cells if cell.kind == "baseline"] == [0, 0, 1, 1]


def test_a_changed_scores_file_is_another_cell(bench_file, tmp_path):
    file = tmp_path / "s-0.parquet"
    config = load_config(bench_file([{"scores": str(tmp_path / "s-{seed}.parquet")}], seeds=[0]))
    keys = set()
    for content in (None, b"one", b"two"):
        if content is not None:
            file.write_bytes(content)
        keys.add(plan(config)[-1].key)
    assert len(keys) == 3


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_benches_name_what_there_is(path, monkeypatch):
    from satlight.bench.cells import baseline_class
    from satlight.records.zoo import load_setting

    monkeypatch.chdir(ROOT)
    config = load_config(path)
    for method in config.methods:
        if method.baseline is not None:
            assert baseline_class(method.baseline)
    for data in config.data:
        for setting in data.settings:
            assert setting == "all" or load_setting(setting)
        inside = {name for members in (data.groups or {}).values() for name in members}
        assert inside <= set(data.datasets or inside)
    assert yaml.safe_load(path.read_text()).get("wandb") is None


def test_a_baseline_that_can_do_without_may_be_given_embeddings(bench_file):
    methods = ["toys.Toy", {"name": "with", "baseline": "toys.Toy", "embeddings": True}, "toys.Needy"]
    cells = {cell.method: cell for cell in plan(load_config(bench_file(methods, seeds=[0])))}
    assert cells["Toy"].spec.get("embedder") is None
    assert cells["with"].spec["embedder"] == cells["Needy"].spec["embedder"] == "minilm"
    assert cells["embedding"].key in cells["with"].needs
