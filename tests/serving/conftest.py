"""A router of known skills, and an engine without litellm."""

import base64
import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def standin() -> ModuleType:
    """The module that starts stand-in upstreams and servers."""
    spec = importlib.util.spec_from_file_location("standin_processes", ROOT / "benchmarks" / "standin" / "processes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def router_folder(standin, tmp_path_factory) -> Path:
    """A saved router of three candidates; copy it before changing it."""
    folder = tmp_path_factory.mktemp("serving") / "router"
    standin.skilled_router().save(folder)
    return folder


@pytest.fixture
def png_url() -> Callable[..., str]:
    """Data URLs of small images."""

    def make(color: str = "red") -> str:
        content = io.BytesIO()
        Image.new("RGB", (3, 2), color).save(content, "PNG")
        return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()

    return make


@pytest.fixture
def make_engine(standin, router_folder, tmp_path) -> Iterator[Callable]:
    """An engine with the options of a server; closed after the test."""
    pytest.importorskip("prometheus_client")
    from satlight.serving.engine import Engine
    from satlight.serving.metrics import Metrics
    from satlight.serving.reload import load
    from satlight.serving.settings import ServeSettings

    engines = []

    def make(router_folder=router_folder, **options) -> Engine:
        config = tmp_path / "upstreams.yaml"
        standin.write_upstreams(config, {"math": 1, "code": 2, "law": 3})
        settings = ServeSettings(router_folder, config, default="law", **({"deadline_ms": 20_000} | options))
        (tmp_path / "images").mkdir(exist_ok=True)
        engines.append(Engine(settings, load(settings), Metrics(), tmp_path / "images"))
        return engines[-1]

    yield make
    for engine in engines:
        engine.close()
