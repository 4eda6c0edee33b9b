"""The routing plugin: it narrows litellm's candidate models to the one that is to be asked next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from satlight.errors import SatlightError
from satlight.serving.engine import Decision, Engine
from satlight.serving.state import CURRENT, RequestState
from satlight.serving.upstreams import MODEL

SIGNAL = "satlight"
"""Key of what this plugin tells litellm about its choice."""


class RoutingPlugin:
    """A litellm routing plugin (``litellm.types.router.RoutingPlugin``).

    litellm calls it for each attempt. The first call of a request decides; later calls, after an upstream has failed,
    take the next candidate of the same ranking.

    Args:
        engine: Makes the decisions; set before the server starts.
    """

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine

    async def run(self, context: Any) -> Any:
        """Narrow ``context.candidate_models``, a list of ``litellm_params.model``.

        Raises:
            SatlightError: An image that cannot be used, or no candidate that is left.
        """
        engine = self.engine
        if engine is None or context.metadata.get("model_group") != MODEL:
            return context
        state = CURRENT.get() or self._state(engine, context.metadata)
        if state.error is not None:
            raise state.error
        if state.decision is None:
            try:
                state.decision = await engine.decide(
                    context.structured_messages, state.rule, state.scope, state.conversation
                )
            except SatlightError as error:
                state.error = error
                raise
        models = engine.loaded.upstreams.models()
        left = [
            name
            for name in state.decision.order
            if name not in state.tried and models.get(name) in context.candidate_models
        ]
        if not left:
            raise SatlightError(f"All candidates failed or are gone: {state.tried}")
        state.tried.append(left[0])
        context.candidate_models = [models[left[0]]]
        context.signals[SIGNAL] = {
            "candidate": left[0],
            "rule": state.rule,
            "reason": state.reason,
            "order": [*state.decision.order],
            "tried": [*state.tried],
        }
        return context

    @staticmethod
    def _state(engine: Engine, metadata: Mapping[str, Any]) -> RequestState:
        """Return the state of a request that no middleware of satlight has seen, from its earlier attempts if any.

        litellm keeps the signals of an attempt in the metadata of the request. A client may have written them: names
        that are no candidates are left out.
        """
        state = RequestState("", engine.default_rule)
        earlier = metadata.get("routing_plugin_signals")
        own = earlier.get(SIGNAL) if isinstance(earlier, Mapping) else None
        if isinstance(own, Mapping) and all(isinstance(own.get(key), list) for key in ("order", "tried")):
            active = engine.loaded.active
            order, tried = ([name for name in own[key] if name in active] for key in ("order", "tried"))
            if order and tried:
                state.decision = Decision(tuple(order), state.rule, "rule", engine.loaded.version, "")
                state.tried = tried
        return state
