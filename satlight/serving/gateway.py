"""The server process: litellm's proxy with satlight's plugin, middleware and endpoints."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from satlight.errors import SatlightError
from satlight.serving import endpoints, reload
from satlight.serving.engine import Engine, Loaded
from satlight.serving.feedback import FeedbackLog
from satlight.serving.metrics import Metrics
from satlight.serving.middleware import BODY, OWN_PATHS, Gate, error_body
from satlight.serving.plugin import RoutingPlugin
from satlight.serving.providers import Proxy, import_proxy
from satlight.serving.scorer import QueueFullError
from satlight.serving.settings import ServeSettings

log = logging.getLogger(__name__)

plugin = RoutingPlugin()
"""litellm's config names this object by its dotted path."""


def run(settings: ServeSettings) -> None:
    """Serve until interrupted.

    Raises:
        SatlightError: litellm is missing, or the router or upstreams cannot be loaded.
    """
    loaded = reload.load(settings)
    with tempfile.TemporaryDirectory(prefix="satlight-serve-") as private:
        config = Path(private) / "litellm.yaml"
        content = loaded.upstreams.litellm_config(loaded.router.candidates, settings.api_key_env)
        config.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        proxy = import_proxy(config, with_key=settings.api_key_env is not None)
        images = Path(private) / "images"
        images.mkdir()
        engine = Engine(settings, loaded, Metrics(), images)
        plugin.engine = engine
        try:
            _serve(proxy, engine)
        finally:
            engine.close()


def _serve(proxy: Proxy, engine: Engine) -> None:
    import uvicorn

    settings = engine.settings
    gate = Gate(proxy.server.app, engine)
    feedback = None if settings.feedback is None else FeedbackLog(settings.feedback, settings.feedback_text)
    _add_endpoints(proxy, gate, feedback)

    def apply(loaded: Loaded) -> None:
        proxy.server.llm_router.set_model_list(loaded.upstreams.model_list(loaded.router.candidates))

    inner = proxy.server.app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[Any]:
        async with inner(app) as state:
            watcher = asyncio.create_task(reload.Reloader(engine, apply).watch())
            yield state
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher

    proxy.server.app.router.lifespan_context = lifespan
    uvicorn.run(gate, host=settings.host, port=settings.port, loop="asyncio", log_level="warning", access_log=False)


def _add_endpoints(proxy: Proxy, gate: Gate, feedback: FeedbackLog | None) -> None:
    """Add the endpoints in front of litellm's, behind litellm's authentication."""
    from fastapi import APIRouter, Depends, Request
    from fastapi.responses import JSONResponse

    async def route(request: Request) -> JSONResponse:
        try:
            return JSONResponse(await endpoints.route(gate.engine, request.scope[BODY]))
        except QueueFullError:
            return JSONResponse(error_body(503, "Too many requests wait for a decision; try again"), 503)
        except SatlightError as error:
            return JSONResponse(error_body(400, str(error)), 400)

    async def grade(request: Request) -> JSONResponse:
        try:
            known = await endpoints.feedback(gate.answers, feedback, request.scope[BODY])
        except SatlightError as error:
            return JSONResponse(error_body(400, str(error)), 400)
        if not known:
            return JSONResponse(error_body(404, "No recent answer has this id (header x-satlight-id)"), 404)
        gate.engine.metrics.feedback.inc()
        return JSONResponse({"status": "ok"})

    # FastAPI evaluates annotations in the module's scope, where Request is not.
    handlers: tuple[Callable, ...] = (route, grade)
    own = APIRouter(dependencies=[Depends(proxy.authenticate)])
    for path, handler in zip(OWN_PATHS, handlers, strict=True):
        handler.__annotations__ = {"request": Request, "return": JSONResponse}
        own.add_api_route(path, handler, methods=["POST"], response_model=None)
    proxy.server.app.router.routes[:0] = own.routes
