"""Score requests in one thread, in small batches, with a bounded queue."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

log = logging.getLogger(__name__)
Job = TypeVar("Job")


class QueueFullError(Exception):
    """The queue of the scorer is full."""


class Scorer(Generic[Job]):
    """A worker thread that takes what waits, up to a batch, and scores it in one call.

    It never waits for a batch to fill: under light load a batch is one request, under heavy load it grows.

    Args:
        score: Returns a result or an exception for each of several jobs.
        batch_size: Maximum number of jobs in one call.
        queue_size: Maximum number of jobs that wait.
        observe: Called with the size of each batch.

    Example:
        >>> with Scorer(lambda numbers: [2 * n for n in numbers]) as scorer:
        ...     scorer.submit(21).result()
        42
    """

    def __init__(
        self,
        score: Callable[[Sequence[Job]], Sequence[Any]],
        batch_size: int = 32,
        queue_size: int = 1024,
        observe: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._score, self._batch_size, self._observe = score, batch_size, observe
        self._queue: queue.Queue[tuple[Job, Future] | None] = queue.Queue(queue_size)
        self._thread = threading.Thread(target=self._work, name="satlight-scorer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> Future:
        """Queue a job; cancel the future to drop the job.

        Raises:
            QueueFullError: Too many jobs wait.
        """
        future: Future = Future()
        try:
            self._queue.put_nowait((job, future))
        except queue.Full:
            raise QueueFullError from None
        return future

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return self._queue.qsize()

    def close(self) -> None:
        """Finish what is queued and stop the thread."""
        self._queue.put(None)
        self._thread.join()

    def __enter__(self) -> Scorer[Job]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _work(self) -> None:
        while (first := self._queue.get()) is not None:
            batch, last = [first], False
            while len(batch) < self._batch_size and not last:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                last = item is None
                if item is not None:
                    batch.append(item)
            self._score_batch([(job, future) for job, future in batch if future.set_running_or_notify_cancel()])
            if last:
                return

    def _score_batch(self, batch: list[tuple[Job, Future]]) -> None:
        if not batch:
            return
        self._observe(len(batch))
        try:
            results = self._score([job for job, _ in batch])
        except Exception as error:
            log.exception("Scoring a batch of %d requests failed", len(batch))
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                future.set_exception(result)
            else:
                future.set_result(result)
