"""Ask a candidate all items: several at a time, at a limited rate, again after errors that pass."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from satlight.errors import SatlightError
from satlight.routing.onboarding.cache import Answer

Asked_contra = TypeVar("Asked_contra", contravariant=True)
Thing = TypeVar("Thing")

BASE_SECONDS, MAX_SECONDS = 1.0, 60.0
"""First and longest wait before a further attempt, without Retry-After."""

LONGEST_WAIT = 600.0
"""A Retry-After above this is an error: the endpoint refuses for now."""


class Passing(Exception):  # noqa: N818 -- a state of the endpoint rather than an error of this program
    """An attempt failed for a reason that may pass: too many requests, a server error, a timeout.

    Args:
        reason: For the message after the last attempt.
        retry_after: Seconds that the endpoint asked to wait; None = it did not.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Ask(Protocol[Asked_contra]):
    """A function that asks the candidate one item.

    It raises :class:`Passing` for an attempt that may be repeated and SatlightError for anything else.
    """

    def __call__(self, asked: Asked_contra, /) -> Awaitable[Answer]: ...


@dataclass
class Pace:
    """How fast to ask.

    Args:
        concurrency: Requests at the same time, at least 1.
        retries: Further attempts for each item, at least 0.
        per_minute: Most requests per minute, retries included; None = no limit.
        sleep: Waits a number of seconds.
        random: Source of the jitter.

    Raises:
        SatlightError: A number out of range.
    """

    concurrency: int = 8
    retries: int = 5
    per_minute: float | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        for name, value, good, allowed in (
            ("--concurrency", self.concurrency, self.concurrency >= 1, "1 or more"),
            ("--retries", self.retries, self.retries >= 0, "0 or more"),
            ("--requests-per-minute", self.per_minute, self.per_minute is None or self.per_minute > 0, "above 0"),
        ):
            if not good:
                raise SatlightError(f"{name} is {value}; it must be {allowed}")


async def ask_all(
    items: Sequence[Thing], ask: Callable[[Thing], Awaitable[Answer]], keep: Callable[[Thing, Answer], None], pace: Pace
) -> None:
    """Ask every item and keep each answer as soon as it is there.

    The first error that does not pass ends the run: requests on their way are canceled, and kept answers stay.

    Args:
        items: What to ask.
        ask: See :class:`Ask`.
        keep: Called with each item and its answer, in any order.
        pace: How fast.

    Raises:
        SatlightError: From ``ask``, or an item failed in every attempt.
    """
    waiting = iter(items)
    gate = _Gate(pace)

    async def work() -> None:
        for item in waiting:  # shared by all workers
            keep(item, await _attempts(item, ask, gate))

    workers = [asyncio.ensure_future(work()) for _ in range(min(pace.concurrency, len(items)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def _attempts(item: Thing, ask: Callable[[Thing], Awaitable[Answer]], gate: _Gate) -> Answer:
    pace = gate.pace
    for attempt in range(pace.retries + 1):
        await gate.enter()
        try:
            return await ask(item)
        except Passing as failed:
            if failed.retry_after is not None and failed.retry_after > LONGEST_WAIT:
                raise SatlightError(
                    f"{failed}; it asks to wait {failed.retry_after:g} s. Answers so far are kept: run the command "
                    "again later"
                ) from failed
            if attempt == pace.retries:
                raise SatlightError(
                    f"{failed} ({attempt + 1} attempts). Answers so far are kept: check the endpoint and run the "
                    "command again; fewer requests at a time may help (--concurrency, --requests-per-minute)"
                ) from failed
            if failed.retry_after is not None:
                gate.pause(failed.retry_after)
            else:
                # Full jitter above half of the wait, so that workers that failed together do not return together.
                wait = min(BASE_SECONDS * 2**attempt, MAX_SECONDS)
                await pace.sleep(wait * (0.5 + 0.5 * pace.random.random()))
    raise AssertionError  # the loop returns or raises


class _Gate:
    """Let requests start at the allowed rate, and none while the endpoint asked to wait."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self._next = 0.0  # time on the event loop's clock
        self._lock = asyncio.Lock()

    def pause(self, seconds: float) -> None:
        self._next = max(self._next, asyncio.get_running_loop().time() + seconds)

    async def enter(self) -> None:
        async with self._lock:
            clock = asyncio.get_running_loop().time
            if (wait := self._next - clock()) > 0:
                await self.pace.sleep(wait)
            if self.pace.per_minute:
                self._next = max(self._next, clock()) + 60 / self.pace.per_minute
