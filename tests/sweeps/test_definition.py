"""The YAML of a sweep, and the commands that W&B's own agent makes of it."""

from pathlib import Path

import pytest
import yaml

from satlight.errors import SatlightError
from satlight.sweeps import read_sweep
from satlight.sweeps.definition import METRICS

ROOT = Path(__file__).parents[2]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))

SWEEP = {
    "program": "lightning",
    "command": ["${env}", "lightning", "fit", "-c", "configs/full.yaml", "${args}"],
    "method": "grid",
    "metric": {"name": "val_loss", "goal": "minimize"},
    "parameters": {"model.optimizer.lr": {"values": [0.1, 0.01]}, "seed_everything": {"values": [0, 1]}},
}


def read(tmp_path: Path, **changed):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(SWEEP | changed))
    return read_sweep(path)


def agent_argv(command: list[str], point: dict) -> list[str]:
    """The process that W&B's agent would start, by its own code."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

    parts = create_sweep_command_args({"args": {key: {"value": value} for key, value in point.items()}})
    parts |= {"env": ["/usr/bin/env"]}
    return [
        new
        for word in create_sweep_command(list(command))
        for new in (parts[word[2:-1]] if word.startswith("${") else [word])
    ]


@pytest.fixture(scope="module")
def check():
    from satlight.cli.sweep import PointChecker

    return PointChecker


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_wandb_runs_the_first_and_the_last_point(path, check, monkeypatch):
    monkeypatch.chdir(ROOT)
    sweep = read_sweep(path)
    command = yaml.safe_load(path.read_text())["command"]
    points = list(sweep.points()) if sweep.method == "grid" else sweep.corners()
    checker = check(sweep.argv, path)
    for point in (points[0], points[-1]):
        argv = agent_argv(command, point)
        assert argv[:2] == ["/usr/bin/env", "lightning"]
        assert argv[2:] == sweep.argv(point)
        config = checker.parse(point)  # the same arguments, by the parser of `fit`
        for key, value in point.items():
            if key == "config":  # several options in one
                assert set(value.split(" + ")) == {part for part in value.split(" + ") if _is_set(config, part)}
            else:
                assert _is_set(config, f"{key}={value}")
    checker.check_metric(sweep.metric, points[0])
    assert sweep.metric in METRICS


def _is_set(config, option: str) -> bool:
    """Return True if a resolved config holds what OPTION=VALUE says."""
    key, _, given = option.partition("=")
    value = config
    for name in key.split("."):
        value = value[name] if name in value else value["init_args"][name]
    if given.endswith(".yaml") and isinstance(value, str):
        return Path(value) == Path(given)
    if given.endswith(".yaml"):
        part = yaml.safe_load((ROOT / given).read_text())
        return value["class_path"].rsplit(".", 1)[1] == part["class_path"].rsplit(".", 1)[1]
    if hasattr(value, "class_path"):
        return value.class_path.endswith(f".{given}")
    return str(value) == given


def test_a_grid_has_all_points(tmp_path):
    points = list(read(tmp_path).points())
    assert [tuple(point.values()) for point in points] == [(0.1, 0), (0.1, 1), (0.01, 0), (0.01, 1)]


def test_random_points_are_in_range_repeatable_and_different(tmp_path):
    lr = {"distribution": "log_uniform_values", "min": 1e-5, "max": 1e-2}
    sweep = read(tmp_path, method="random", parameters={"a": lr, "b": {"min": 1, "max": 3}, "c": {"value": 7}})
    first, again = ([point for _, point in zip(range(50), sweep.points(3), strict=False)] for _ in range(2))
    assert first == again
    assert all(1e-5 <= point["a"] <= 1e-2 and point["c"] == 7 for point in first)
    assert {point["b"] for point in first} == {1, 2, 3}
    assert 10 < sum(point["a"] < 10**-3.5 for point in first) < 40  # uniform in the logarithm
    few = read(tmp_path, method="random", parameters={"b": {"min": 1, "max": 3}})
    assert sorted(point["b"] for point in few.points()) == [1, 2, 3]  # ends by itself


def test_corners_hold_every_value_and_both_ends(tmp_path):
    sweep = read(tmp_path, method="bayes", parameters={"a": {"min": 0.5, "max": 2.0}, "b": {"values": [1, 2, 3]}})
    assert sweep.corners() == [{"a": 0.5, "b": 1}, {"a": 2.0, "b": 2}, {"a": 2.0, "b": 3}]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"metric": {"name": "test/all/routed", "goal": "maximize"}}, "test rows and the training loss choose nothing"),
        ({"metric": {"name": "val_loss", "goal": "max"}}, "allowed are maximize and minimize"),
        ({"metric": "val_loss"}, "metric must have a name and a goal"),
        ({"method": "gird"}, "allowed are grid, random, bayes"),
        ({"methods": "grid"}, "unknown key 'methods'"),
        ({"command": None}, "must run `lightning fit`"),
        ({"command": ["${env}", "lightning", "fit", "-c", "a.yaml"]}, "every trial would be the same"),
        ({"command": ["lightning", "fit", "${args_no_hyphens}", "${args}"]}, "cannot be parsed by `fit`"),
        ({"parameters": {"a": {"values": [None, 1]}}}, "write the text 'null'"),
        ({"parameters": {"a": {"values": []}}}, "at least one value"),
        ({"parameters": {"a": 3}}, "write {values: "),
        ({"parameters": {}}, "parameters must be a mapping"),
        ({"parameters": {"a": {"min": 1, "max": 2}}}, "a grid needs values, but a is a range"),
        ({"method": "random", "parameters": {"a": {"min": 2, "max": 1}}}, "numbers min < max"),
        (
            {"method": "random", "parameters": {"a": {"min": 1, "max": 8, "distribution": "q_uniform"}}},
            "allowed are uniform, log_uniform_values, int_uniform",
        ),
        ({"run_cap": 0}, "run_cap is 0"),
    ],
)
def test_mistakes_are_named(tmp_path, changed, message):
    with pytest.raises(SatlightError) as caught:
        read(tmp_path, **changed)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"model.optimizer.rate": {"values": [0.1]}}, "model.optimizer.rate"),
        ({"config": {"values": ["model.objective=configs/objective/none.yaml"]}}, "none.yaml"),
        (
            {"config": {"values": ["configs/overlay/debug.yaml + configs/overlay/dbug.yaml"]}},
            "'configs/overlay/dbug.yaml'",
        ),
        ({"config": {"values": ["configs/overlay/debug.yaml + data.sampler=TaskBlok"]}}, "TaskBlok"),
        ({"trainer.max_epochs": {"values": ["many"]}}, "max_epochs"),
    ],
)
def test_points_that_fit_would_refuse(tmp_path, monkeypatch, check, parameter, message):
    monkeypatch.chdir(ROOT)
    sweep = read(tmp_path, parameters=parameter)
    with pytest.raises(SatlightError) as caught:
        check(sweep.argv, tmp_path / "mine.yaml")(next(sweep.points()))
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_a_metric_that_is_not_logged(tmp_path, monkeypatch, check):
    monkeypatch.chdir(ROOT)
    sweep = read(tmp_path)
    with pytest.raises(SatlightError, match="does not log; allowed are val_loss, val_routed_accuracy"):
        check(sweep.argv, tmp_path / "mine.yaml").check_metric("val_acc", next(sweep.points()))
