"""The exported litellm config in litellm's own loader, and the plugin without satlight's server."""

import asyncio
import json

import pytest
import yaml

from satlight.errors import SatlightError
from satlight.serving.settings import ServeSettings


@pytest.fixture
def exported(standin, router_folder, tmp_path, command_line):
    """A config for three upstreams, of which the one for mathematics is down."""
    ports = {skill: standin.free_port() for skill in standin.SKILLS[:3]}
    processes = [standin.start_upstream(skill, ports[skill]) for skill in ("code", "law")]
    standin.write_upstreams(tmp_path / "upstreams.yaml", ports)
    words = ("--router", router_folder, "--config", tmp_path / "upstreams.yaml", "--default", "law")
    command_line("export-litellm", *words, "--to", tmp_path / "gateway")
    yield tmp_path / "gateway"
    standin.stop(*processes)


@pytest.fixture
def command_line():
    from satlight.cli import main

    return lambda *words: main([str(word) for word in words])


def test_litellm_loads_the_config_and_routes_by_it(exported, standin, monkeypatch):
    pytest.importorskip("litellm.proxy", reason="pip install satlight[serve]")
    pytest.importorskip("prometheus_client")
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    from litellm.proxy.proxy_server import ProxyConfig

    async def answers() -> dict[str, str]:
        router, models, _ = await ProxyConfig().load_config(None, str(exported / "litellm.yaml"))
        assert {entry["model_name"] for entry in models} == {"satlight", "math", "code", "law"}
        found = {}
        for skill in ("code", "law", "math"):
            messages = [{"role": "user", "content": standin.instructions(skill)[3]}]
            response = await router.acompletion(model="satlight", messages=messages)
            found[skill] = response.choices[0].message.content.split(":")[0]
        return found

    found = asyncio.run(answers())
    assert (found["code"], found["law"]) == ("code", "law")
    assert found["math"] in ("code", "law")  # its upstream is down


def test_the_files_hold_names_of_keys_only(standin, router_folder, tmp_path, command_line, monkeypatch):
    pytest.importorskip("prometheus_client")
    monkeypatch.setenv("UPSTREAM_KEY", "sk-upstream-secret-9876543210")
    monkeypatch.setenv("MASTER_KEY", "sk-master-secret-0123456789")
    config = tmp_path / "upstreams.yaml"
    standin.write_upstreams(config, {"math": 1, "code": 2, "law": 3}, api_key_env="UPSTREAM_KEY")
    words = ("--router", router_folder, "--config", config, "--default", "law", "--to", tmp_path / "gateway")
    command_line("export-litellm", *words, "--api-key-env", "MASTER_KEY", "--rule", "cheapest@0.5")
    texts = [path.read_text() for path in (tmp_path / "gateway").iterdir()]
    assert not any("secret" in text for text in texts)
    content = yaml.safe_load((tmp_path / "gateway/litellm.yaml").read_text())
    assert content["general_settings"]["master_key"] == "os.environ/MASTER_KEY"
    assert content["router_settings"]["plugins"] == ["satlight_plugin.plugin"]
    module: dict = {}
    exec((tmp_path / "gateway/satlight_plugin.py").read_text(), module)
    engine = module["plugin"].engine
    assert (engine.default_rule, engine.settings.default) == ("cheapest@0.5", "law")
    engine.close()


def test_an_unknown_default_is_refused_before_anything_is_written(standin, router_folder, tmp_path, capsys):
    from satlight.serving.standalone import export_litellm

    standin.write_upstreams(tmp_path / "upstreams.yaml", {"math": 1, "code": 2, "law": 3})
    settings = ServeSettings(router_folder, tmp_path / "upstreams.yaml", "none")
    pytest.importorskip("prometheus_client")
    with pytest.raises(SatlightError, match="'none' is not a candidate"):
        export_litellm(settings, tmp_path / "gateway")
    assert not (tmp_path / "gateway").exists()


@pytest.mark.parametrize("earlier", [None, 1, {"order": "code", "tried": []}, {"order": ["no"], "tried": ["no"]}])
def test_signals_of_a_client_cannot_break_a_decision(make_engine, standin, earlier):
    from types import SimpleNamespace

    from satlight.serving.plugin import RoutingPlugin

    text = standin.instructions("code")[0]
    context = SimpleNamespace(
        structured_messages=[{"role": "user", "content": text}],
        candidate_models=["openai/math", "openai/code", "openai/law"],
        metadata={"model_group": "satlight", "routing_plugin_signals": {"satlight": earlier}},
        signals={},
    )
    asyncio.run(RoutingPlugin(make_engine()).run(context))
    assert context.candidate_models == ["openai/code"]
    signal = json.loads(json.dumps(context.signals))["satlight"]
    assert (signal["candidate"], signal["tried"], signal["order"][0]) == ("code", ["code"], "code")
