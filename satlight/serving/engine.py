"""Decide which candidate answers: a router with its rule, the scorer, deadlines and sticky conversations."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from satlight.costs import require_costs
from satlight.errors import SatlightError
from satlight.routers import Router
from satlight.serving import conversation
from satlight.serving.metrics import Metrics
from satlight.serving.pictures import ImageStore
from satlight.serving.scorer import QueueFullError, Scorer
from satlight.serving.settings import ServeSettings
from satlight.serving.upstreams import Upstreams
from satlight.types import Ranking, Request

log = logging.getLogger(__name__)
CONVERSATIONS = 10_000
"""Number of sticky conversations to remember."""


@dataclass(frozen=True)
class Loaded:
    """A router with its upstreams; replaced as a whole.

    Args:
        router: The router.
        version: Digest of the router folder.
        upstreams: Content of upstreams.yaml.
        active: Candidates that may be chosen.
    """

    router: Router
    version: str
    upstreams: Upstreams
    active: tuple[str, ...]

    def checked_rule(self, text: str) -> str:
        """Return a decision rule in its text form; see :meth:`Engine.checked_rule`."""
        rule = self.router.rule_for(text)
        if rule.needs_costs:
            zoo = [one for one in self.router.candidates if one.model_id in self.active]
            require_costs(zoo, f"The rule {rule.text}")
        rule.choose(np.zeros((1, 1)), np.zeros((1, 1)))  # raises if a threshold is missing
        return rule.text


@dataclass(frozen=True)
class Decision:
    """The candidates of a request in the order in which they are asked.

    Args:
        order: Names of the candidates.
        rule: Decision rule.
        reason: ``rule``, ``sticky``, or why the default answers: ``deadline``, ``queue_full``, ``no_text``, ``error``.
        version: Version of the router.
        text: The routed text.
        ranking: All candidates with P(correct); None = there was no decision.
        seconds: Time until the decision, with waiting.
    """

    order: tuple[str, ...]
    rule: str
    reason: str
    version: str
    text: str
    ranking: Ranking | None = None
    seconds: float = 0.0

    def probability(self, candidate: str) -> float | None:
        """Return P(correct) of a candidate, if known."""
        choices = self.ranking.choices if self.ranking else ()
        return next((choice.probability for choice in choices if choice.model_id == candidate), None)


@dataclass(frozen=True)
class _Job:
    loaded: Loaded
    text: str
    rule: str
    images: tuple[str, ...] = ()


class Engine:
    """Decide for requests of any number of clients.

    Args:
        settings: Options of the server.
        loaded: Router and upstreams; assign :attr:`loaded` to exchange them.
        metrics: Counters.
        image_folder: Private folder for images of requests.
    """

    def __init__(self, settings: ServeSettings, loaded: Loaded, metrics: Metrics, image_folder: Path) -> None:
        self.settings, self.loaded, self.metrics = settings, loaded, metrics
        self._images = ImageStore(image_folder, settings.image_hosts)
        self._sticky = conversation.LRU[str](CONVERSATIONS)
        self._scorer = Scorer(self._rank, settings.batch_size, settings.queue_size, metrics.batch_size.observe)
        metrics.watch_queue(lambda: self._scorer.waiting)

    @property
    def default_rule(self) -> str:
        """Decision rule of the model name ``satlight``."""
        return self.settings.rule or self.loaded.router.rule.text

    def checked_rule(self, text: str) -> str:
        """Return a decision rule in its text form.

        Raises:
            SatlightError: No rule, or one that the router cannot apply: a cost or a fitted threshold is missing.
        """
        return self.loaded.checked_rule(text)

    def is_key(self, given: str) -> bool:
        """Return whether a client may use the server: no key is required, or it is the right one."""
        variable = self.settings.api_key_env
        return variable is None or secrets.compare_digest(given.encode(), os.environ.get(variable, "").encode())

    async def decide(
        self, messages: Sequence[conversation.Message], rule: str, scope: str = "", name: str | None = None
    ) -> Decision:
        """Decide for a conversation; without a decision in time, the default candidate comes first.

        Args:
            messages: Conversation in OpenAI's format.
            rule: Text form of the decision rule.
            scope: What keeps sticky conversations of different clients apart.
            name: Name of the conversation from the client; None = it is known by its beginning.

        Raises:
            SatlightError: An image that cannot be read or is not allowed, for a router that sees.
        """
        settings, loaded = self.settings, self.loaded
        text = conversation.routed_text(messages, settings.context_turns, settings.window_chars)
        urls = tuple(conversation.image_urls(messages)) if loaded.router.reads_images else ()
        if not text and not urls:
            return self._default(rule, text, "no_text")
        key = conversation.conversation_key(messages, f"{scope}\0{rule}", name) if settings.sticky else None
        if key and (kept := self._sticky.get(key)) in loaded.active:
            assert kept is not None
            others = (one for one in self._default(rule, text, "").order if one != kept)
            return Decision((kept, *others), rule, "sticky", loaded.version, text)
        start = time.perf_counter()
        decision = await self._in_time(_Job(loaded, text, rule, urls))
        decision = replace(decision, seconds=time.perf_counter() - start)
        self.metrics.decision_seconds.observe(decision.seconds)
        if key and decision.ranking is not None:
            self._sticky.put(key, decision.order[0])
        return decision

    async def rank(self, texts: Sequence[str], rule: str) -> list[Decision]:
        """Decide for plain texts without a deadline, for ``/v1/route``.

        Raises:
            QueueFullError: Too many requests wait.
        """
        loaded = self.loaded
        futures: list[Future] = []
        try:
            futures.extend(self._scorer.submit(_Job(loaded, text, rule)) for text in texts)
        except QueueFullError:
            for future in futures:
                future.cancel()
            raise
        return [await asyncio.wrap_future(future) for future in futures]

    def close(self) -> None:
        """Stop the scorer."""
        self._scorer.close()

    async def _in_time(self, job: _Job) -> Decision:
        try:
            future = asyncio.wrap_future(self._scorer.submit(job))
            return await asyncio.wait_for(future, self.settings.deadline_ms / 1000)
        except QueueFullError:
            return self._default(job.rule, job.text, "queue_full")
        except TimeoutError:
            return self._default(job.rule, job.text, "deadline")
        except SatlightError:
            if job.images:
                raise
            return self._default(job.rule, job.text, "error")
        except Exception:
            return self._default(job.rule, job.text, "error")

    def _default(self, rule: str, text: str, reason: str) -> Decision:
        """Return the order that begins with the default candidate."""
        first = self.settings.default
        others = (name for name in self.loaded.active if name != first)
        return Decision((first, *others), rule, reason, self.loaded.version, text)

    def _rank(self, jobs: Sequence[_Job]) -> list[Decision | Exception]:
        """Score a batch, in the scorer's thread: one call per router and rule."""
        results: list[Decision | Exception | None] = [None] * len(jobs)
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        requests: dict[int, Request] = {}
        for n, job in enumerate(jobs):
            try:
                requests[n] = Request(job.text, self._images.files(job.images))
                groups[job.loaded.version, job.rule].append(n)
            except SatlightError as error:
                results[n] = error
        for numbers in groups.values():
            first = jobs[numbers[0]]
            rankings = first.loaded.router.route([requests[n] for n in numbers], first.loaded.active, rule=first.rule)
            for n, ranking in zip(numbers, rankings, strict=True):
                order = tuple(choice.model_id for choice in ranking.choices)
                results[n] = Decision(order, first.rule, "rule", first.loaded.version, jobs[n].text, ranking)
        return [result for result in results if result is not None]
