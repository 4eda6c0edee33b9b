"""Load the router folder and upstreams.yaml, and load them again when they change."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from satlight.errors import SatlightError
from satlight.routers import Router
from satlight.serving.engine import Engine, Loaded
from satlight.serving.settings import ServeSettings
from satlight.serving.upstreams import read_upstreams

log = logging.getLogger(__name__)
Signature = tuple[tuple[str, int, int, int], ...]


def load(settings: ServeSettings) -> Loaded:
    """Load the router and its upstreams.

    Raises:
        SatlightError: One of them cannot be read, or a candidate has no upstream.
    """
    upstreams = read_upstreams(settings.config)
    router = Router.from_pretrained(settings.router, allow=settings.allow)
    active = upstreams.active(router.model_ids, settings.default)
    if more := [name for name in upstreams.params if name not in router.model_ids]:
        log.warning("%s: %s are no candidates of the router; they get no routed requests", settings.config, more)
    loaded = Loaded(router, version(settings.router), upstreams, active)
    if settings.rule is not None:
        loaded.checked_rule(settings.rule)
    with suppress(SatlightError):  # the first call is slow; stored scores do not know the text
        router.route("Warm up.")
    return loaded


def version(folder: Path) -> str:
    """Return a digest of the files of a router folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        with path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]


def signature(settings: ServeSettings) -> Signature:
    """Return names, inodes, sizes and times of all files, which change when a file is replaced."""
    paths = [settings.config, *sorted(settings.router.rglob("*"))]
    stats = [(path, path.stat()) for path in paths if path.is_file()]
    return tuple((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


class Reloader:
    """Replace the router and upstreams of a running engine when their files change.

    Loading happens in a thread, while requests are served with what was loaded before. What cannot be loaded is
    reported, and the server continues with what it has.

    Args:
        engine: The engine.
        apply: Called with the new state before the engine uses it; tells litellm the new upstreams.
    """

    def __init__(self, engine: Engine, apply: Callable[[Loaded], None]) -> None:
        self.engine, self._apply = engine, apply
        self._seen = signature(engine.settings)

    async def watch(self) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(self.engine.settings.reload_seconds)
            await self.look()

    async def look(self) -> bool:
        """Load the files if they have changed; return whether the engine has something new."""
        settings = self.engine.settings
        current = self._seen
        try:
            current = await asyncio.to_thread(signature, settings)
            if current == self._seen:
                return False
            loaded = await asyncio.to_thread(load, settings)
            self._apply(loaded)
        except Exception as error:
            expected = isinstance(error, SatlightError | OSError)
            log.error("Reload failed, the server continues as before: %s", error, exc_info=not expected)
            self.engine.metrics.reloads.labels("failed").inc()
            return False
        finally:
            self._seen = current
        self.engine.loaded = loaded
        self.engine.metrics.reloads.labels("done").inc()
        log.info("Loaded router %s with the candidates %s", loaded.version, ", ".join(loaded.active))
        return True
