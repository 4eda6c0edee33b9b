"""satlight's decision in a litellm proxy that somebody else starts: a litellm config, and the plugin that it names."""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

import yaml

from satlight.files import write_text
from satlight.serving import reload
from satlight.serving.engine import Engine
from satlight.serving.metrics import Metrics
from satlight.serving.plugin import RoutingPlugin
from satlight.serving.settings import ServeSettings

CONFIG = "litellm.yaml"
MODULE = "satlight_plugin"


def standalone_plugin(router: str, config: str, default: str, **options: Any) -> RoutingPlugin:
    """Load a router and return litellm's routing plugin for it.

    Args:
        router: Router folder.
        config: upstreams.yaml.
        default: Candidate that answers when there is no decision in time.
        options: Further fields of :class:`~satlight.serving.settings.ServeSettings`, e.g. ``rule``.

    Raises:
        SatlightError: The router or upstreams cannot be loaded, or a setting is out of range.
    """
    settings = ServeSettings(Path(router), Path(config), default, **options)
    images = tempfile.TemporaryDirectory(prefix="satlight-images-")
    engine = Engine(settings, reload.load(settings), Metrics(), Path(images.name))
    atexit.register(images.cleanup)
    atexit.register(engine.close)
    return RoutingPlugin(engine)


def export_litellm(settings: ServeSettings, folder: Path) -> tuple[Path, Path]:
    """Write a litellm config that routes by a router, and the module of its plugin.

    The config names keys by their variables only. Both files belong in one folder: litellm looks for the module next to
    its config.

    Args:
        settings: Router, upstreams, default and rule; ``api_key_env`` names the variable with litellm's master key.
        folder: Folder to write to; made if necessary.

    Returns:
        The config and the module.

    Raises:
        SatlightError: The router or upstreams cannot be loaded.
    """
    loaded = reload.load(settings)
    content = loaded.upstreams.litellm_config(loaded.router.candidates, settings.api_key_env, f"{MODULE}.plugin")
    named = {
        "router": str(settings.router.absolute()),
        "config": str(settings.config.absolute()),
        "default": settings.default,
        "rule": settings.rule,
        "allow": tuple(settings.allow),
    }
    options = "".join(f"    {name}={value!r},\n" for name, value in named.items() if value)
    module = (
        '"""The routing plugin that litellm.yaml names; written by `satlight export-litellm`."""\n\n'
        "from satlight.serving.standalone import standalone_plugin\n\n"
        f"plugin = standalone_plugin(\n{options})\n"
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / CONFIG, folder / f"{MODULE}.py"
    write_text(paths[0], yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_text(paths[1], module)
    return paths
