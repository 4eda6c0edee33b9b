"""The routing plugin: it narrows litellm's candidate models to the one that is to be asked next."""

from __future__ import annotations

from typing import Any

from satlight.errors import SatlightError
from satlight.serving.engine import Engine
from satlight.serving.state import CURRENT, RequestState
from satlight.serving.upstreams import MODEL


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
        state = CURRENT.get() or RequestState("", engine.default_rule)
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
        context.signals["satlight"] = {"candidate": left[0], "rule": state.rule, "reason": state.reason}
        return context
