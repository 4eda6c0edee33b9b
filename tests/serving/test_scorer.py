"""The scorer's thread: batches, a bounded queue, errors."""

import threading
import time

import pytest

from satlight.serving.scorer import QueueFullError, Scorer


class Gated:
    """Waits in the first batch until it is let go, and keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered, self.go = threading.Event(), threading.Event()

    def __call__(self, jobs):
        self.batches.append([*jobs])
        self.entered.set()
        assert self.go.wait(20)
        return [10 * job for job in jobs]


def test_what_waits_is_scored_at_once_and_cancelled_jobs_are_dropped():
    gated = Gated()
    with Scorer(gated, batch_size=3) as scorer:
        futures = [scorer.submit(0)]
        assert gated.entered.wait(20)
        futures += [scorer.submit(job) for job in range(1, 6)]
        assert scorer.waiting == 5
        assert futures.pop(2).cancel()
        gated.go.set()
        assert [future.result(20) for future in futures] == [0, 10, 30, 40, 50]
    assert gated.batches == [[0], [1, 3], [4, 5]]


def test_a_full_queue_refuses_instead_of_growing():
    gated = Gated()
    with Scorer(gated, queue_size=2) as scorer:
        scorer.submit(0)
        assert gated.entered.wait(20)
        scorer.submit(1), scorer.submit(2)
        with pytest.raises(QueueFullError):
            scorer.submit(3)
        gated.go.set()


def test_errors_reach_their_own_job_and_the_thread_lives():
    def score(jobs):
        if jobs == ["broken"]:
            raise RuntimeError("no score")
        return [KeyError(job) if job == "bad" else job for job in jobs]

    with Scorer(score) as scorer:
        with pytest.raises(RuntimeError, match="no score"):
            scorer.submit("broken").result(20)
        with pytest.raises(KeyError):
            scorer.submit("bad").result(20)
        assert scorer.submit("good").result(20) == "good"


def test_closing_finishes_what_is_queued():
    done = []
    scorer = Scorer(lambda jobs: [time.sleep(0.01) or done.append(job) for job in jobs], batch_size=1)
    for job in range(5):
        scorer.submit(job)
    scorer.close()
    assert done == [0, 1, 2, 3, 4]
