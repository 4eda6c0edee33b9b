"""Counters of the server in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Callable

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """The counters of one server.

    Example:
        >>> metrics = Metrics()
        >>> metrics.answers.labels("org/a", "rule").inc()
        >>> 'satlight_answers_total{candidate="org/a",reason="rule"} 1.0' in metrics.text()
        True
    """

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self._registry = registry = CollectorRegistry()
        self.answers = Counter(
            "satlight_answers", "Routed answers, by candidate and reason", ["candidate", "reason"], registry=registry
        )
        self.refused = Counter("satlight_refused", "Requests refused, by status", ["status"], registry=registry)
        self.reloads = Counter("satlight_reloads", "Reloads, by result", ["result"], registry=registry)
        self.feedback = Counter("satlight_feedback", "Records of feedback written", registry=registry)
        self.decision_seconds = Histogram(
            "satlight_decision_seconds", "Time of a decision, with waiting", buckets=_SECONDS, registry=registry
        )
        self.batch_size = Histogram(
            "satlight_batch_size", "Requests scored at once", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self._waiting = Gauge("satlight_waiting", "Requests that wait for a decision", registry=registry)

    def watch_queue(self, waiting: Callable[[], float]) -> None:
        """Read the length of the queue whenever the metrics are read."""
        self._waiting.set_function(waiting)

    def text(self) -> str:
        """Return all metrics."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry).decode()
