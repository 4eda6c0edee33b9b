"""Options and upstreams.yaml: what is refused before the server starts, and what litellm is told."""

import re
from pathlib import Path

import pytest
import yaml

from satlight.cli import main
from satlight.errors import SatlightError
from satlight.serving.settings import ServeSettings
from satlight.serving.upstreams import FAILOVERS, read_upstreams
from satlight.types import Candidate


def upstreams(tmp_path: Path, content) -> Path:
    path = tmp_path / "upstreams.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def settings(**options) -> ServeSettings:
    return ServeSettings(Path("router"), Path("upstreams.yaml"), default="a", **options)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org", ""])
def test_another_address_needs_a_key(host, monkeypatch):
    with pytest.raises(SatlightError, match="--api-key-env"):
        settings(host=host)
    monkeypatch.setenv("KEY", "short")
    with pytest.raises(SatlightError, match="16 characters"):
        settings(host=host, api_key_env="KEY")
    monkeypatch.setenv("KEY", "sk-0123456789abcdef")
    assert settings(host=host, api_key_env="KEY").host == host


@pytest.mark.parametrize("option", [{"deadline_ms": 0}, {"queue_size": -1}, {"port": 70000}, {"context_turns": -1}])
def test_values_out_of_range_are_named(option):
    with pytest.raises(SatlightError, match=next(iter(option)).replace("_", "-")):
        settings(**option)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("upstreams: [", "not valid YAML"),
        ({}, "no section `upstreams`"),
        ({"upstreams": {"a": {"api_base": "x"}}}, "without a text `model`"),
        ({"upstreams": {"a": "openai/a"}}, "without a text `model`"),
        ({"upstreams": {"a": {"model": "openai/a", "api_key": "sk-plain"}}}, "environment variable"),
        ({"upstreams": {"a": {"model": "openai/a", "api_key_env": "NOT_SET"}}}, "NOT_SET is not set"),
        ({"upstreams": {"a": {"model": "openai/m"}, "b": {"model": "openai/m"}}}, "'a' and 'b' have the same model"),
        ({"upstreams": {"satlight:a": {"model": "openai/m"}}}, "a name of the server itself"),
        ({"upstreams": {"a": {"model": "openai/m"}}, "exclude": "b"}, "a list of candidates"),
    ],
)
def test_mistakes_in_upstreams_are_named(tmp_path, content, message):
    with pytest.raises(SatlightError, match=re.escape(message)) as error:
        read_upstreams(upstreams(tmp_path, content))
    assert "sk-plain" not in str(error.value)


def test_every_candidate_has_an_upstream_or_is_excluded(tmp_path):
    content = {"upstreams": {"a": {"model": "openai/a"}, "new": {"model": "openai/new"}}, "exclude": ["c"]}
    read = read_upstreams(upstreams(tmp_path, content))
    assert read.active(["a", "c"], "a") == ("a",)
    with pytest.raises(SatlightError, match=r"candidates \['b'\]"):
        read.active(["a", "b"], "a")
    with pytest.raises(SatlightError, match=r"--default 'c' .* allowed are \['a'\]"):
        read.active(["a", "c"], "c")


def test_litellm_gets_groups_prices_failover_and_all_other_sections(tmp_path, monkeypatch):
    monkeypatch.setenv("UPSTREAM_KEY", "sk-secret")
    content = {
        "upstreams": {
            "a": {"model": "openai/a", "api_base": "http://127.0.0.1:1/v1"},
            "b": {"model": "anthropic/b", "api_key_env": "UPSTREAM_KEY", "input_cost_per_token": 5e-6},
            "c": {"model": "openai/c"},
        },
        "exclude": ["c"],
        "litellm_settings": {"drop_params": True},
        "router_settings": {"num_retries": 2, "fallbacks": [{"x": ["y"]}]},
        "environment_variables": {"A": "1"},
        "model_list": [{"model_name": "x", "litellm_params": {"model": "openai/x"}}],
    }
    zoo = [Candidate("a", price_in=1.0, price_out=2.0), Candidate("b", price_in=1.0), Candidate("c")]
    config = read_upstreams(upstreams(tmp_path, content)).litellm_config(zoo, "SERVER_KEY")
    groups = [(entry["model_name"], entry["litellm_params"]["model"]) for entry in config["model_list"]]
    assert groups == [
        ("satlight", "openai/a"), ("a", "openai/a"), ("satlight", "anthropic/b"), ("b", "anthropic/b"),
        ("c", "openai/c"), ("x", "openai/x"),
    ]  # fmt: skip
    a, b = config["model_list"][0]["litellm_params"], config["model_list"][2]["litellm_params"]
    assert (a["input_cost_per_token"], a["output_cost_per_token"], a["api_key"]) == (1e-6, 2e-6, "none")
    assert (b["input_cost_per_token"], b["api_key"]) == (5e-6, "os.environ/UPSTREAM_KEY")
    assert config["router_settings"]["fallbacks"] == [{"satlight": [*FAILOVERS]}, {"x": ["y"]}]
    assert config["router_settings"]["num_retries"] == 2
    assert config["litellm_settings"]["drop_params"] is True
    assert config["environment_variables"] == {"A": "1"}
    assert config["general_settings"]["master_key"] == "os.environ/SERVER_KEY"
    assert "sk-secret" not in yaml.safe_dump(config)


def test_without_litellm_the_command_names_what_to_install(tmp_path, router_folder, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "litellm", None)
    monkeypatch.setitem(sys.modules, "litellm.proxy", None)
    content = {"upstreams": {name: {"model": f"openai/{name}"} for name in ("math", "code", "law")}}
    config = str(upstreams(tmp_path, content))
    with pytest.raises(SystemExit):
        main(["serve", "--router", str(router_folder), "--config", config, "--default", "law"])
    assert "pip install satlight[serve]" in capsys.readouterr().err
