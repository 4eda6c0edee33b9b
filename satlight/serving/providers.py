"""The only importer of litellm: its client for one model, and its proxy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError


def import_litellm() -> Any:
    """Import litellm with its own table of prices, so that nothing is downloaded.

    Raises:
        SatlightError: It is missing.
    """
    _quiet()
    try:
        import litellm
    except ImportError as error:
        raise SatlightError(
            f"Asking an endpoint needs litellm ({error}); run `pip install satlight[onboard]`, or use --export and "
            "--results"
        ) from None
    litellm.suppress_debug_info = True
    litellm.telemetry = False
    return litellm


@dataclass(frozen=True)
class Proxy:
    """litellm's proxy.

    Args:
        server: Its module, with the application ``app`` and, once started, ``llm_router``.
        authenticate: FastAPI dependency that checks the key of a request.
    """

    server: Any
    authenticate: Any


def import_proxy(config: Path, with_key: bool) -> Proxy:
    """Import litellm's proxy, which reads its config and these variables when it starts.

    Args:
        config: litellm's YAML file.
        with_key: True if clients must send a key.

    Raises:
        SatlightError: litellm, or a package that its proxy needs, is missing.
    """
    _quiet()
    os.environ["CONFIG_FILE_PATH"] = str(config)
    if not with_key:  # the settings allow this on loopback only
        os.environ["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
    try:
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
        from litellm.proxy import proxy_server
        from litellm.proxy.auth.user_api_key_auth import user_api_key_auth
    except ImportError as error:
        raise SatlightError(f"`satlight serve` needs litellm ({error}); run `pip install satlight[serve]`") from None
    return Proxy(proxy_server, user_api_key_auth)


def _quiet() -> None:
    """Keep litellm from downloading prices when it is imported, and requests out of its log."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_LOG", "ERROR")
