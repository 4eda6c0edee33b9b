"""State of a request while it passes from the middleware through litellm to the plugin."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from satlight.errors import SatlightError
from satlight.serving.engine import Decision


@dataclass
class RequestState:
    """One request for the model ``satlight``.

    Args:
        answer_id: Id of the answer, for feedback.
        rule: Decision rule.
        scope: What keeps conversations of different clients apart.
        conversation: Name of the conversation from the client, if any.
        decision: Set by the plugin.
        tried: Candidates that were asked; the last one answers.
        error: Why there can be no decision: a mistake of the client.
    """

    answer_id: str
    rule: str
    scope: str = ""
    conversation: str | None = None
    decision: Decision | None = None
    tried: list[str] = field(default_factory=list)
    error: SatlightError | None = None

    @property
    def candidate(self) -> str | None:
        """Candidate that answers."""
        return self.tried[-1] if self.tried else None

    @property
    def reason(self) -> str:
        """Why this candidate answers."""
        assert self.decision is not None
        return self.decision.reason if len(self.tried) == 1 else "failover"


CURRENT: ContextVar[RequestState | None] = ContextVar("satlight_request", default=None)
"""The request that this task works on; None = not for the model ``satlight``."""
