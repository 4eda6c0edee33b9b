"""Results of the aptitude test of a new candidate, with its uncertainty.

Shape legend: L items, M known candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from satlight.routers import Router
from satlight.routing.onboarding.items import Item
from satlight.types import AptitudeResults, Request

Z_95 = 1.959964
"""Quantile of the normal distribution for intervals of 95 %."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Accuracy on a group of items.

    Args:
        name: Task, or "all items".
        items: Number of items.
        mean: Mean score in [0, 1].
        low: Lower end of its interval.
        high: Upper end.
    """

    name: str
    items: int
    mean: float
    low: float
    high: float


def wilson(mean: float, count: int) -> tuple[float, float]:
    """Return the interval (95 %) of a mean of scores in [0, 1].

    For scores between 0 and 1 it is wider than needed.

    Example:
        >>> [round(end, 3) for end in wilson(0.9, 20)]
        [0.699, 0.972]

    Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    square = Z_95**2 / count
    center = (mean + square / 2) / (1 + square)
    half = Z_95 * (mean * (1 - mean) / count + square / (4 * count)) ** 0.5 / (1 + square)
    return max(0.0, center - half), min(1.0, center + half)


def accuracies(items: Sequence[Item], scores: Sequence[float]) -> list[Accuracy]:
    """Return the accuracy on all items and on each task, tasks by name.

    Args:
        items: L items, at least one.
        scores: L scores in [0, 1].
    """
    tasks: dict[str, list[float]] = {}
    for item, score in zip(items, scores, strict=True):
        tasks.setdefault(item.task_key.strip("/") or "(no task)", []).append(score)
    groups = [("all items", list(scores)), *sorted(tasks.items())]
    means = [(name, len(own), float(np.mean(own))) for name, own in groups]
    return [Accuracy(name, count, mean, *wilson(mean, count)) for name, count, mean in means]


def results_of(items: Sequence[Item], scores: Sequence[float]) -> AptitudeResults:
    """Return scores as :meth:`satlight.routers.Router.admit` takes them."""
    images = tuple(item.images for item in items)
    return AptitudeResults(
        tuple(item.item_id for item in items),
        tuple(item.text for item in items),
        np.array(scores, dtype=np.float32),
        tuple(item.dataset for item in items) if any(item.dataset for item in items) else (),
        images if any(images) else (),
    )


@dataclass(frozen=True, slots=True)
class Place:
    """Place of the new candidate among the others, on some requests.

    Args:
        neighbors: Known candidates and the mean distance of their predicted probabilities, the nearest first.
        shares: Candidate → share of the requests that the router's rule sends to it.
    """

    neighbors: list[tuple[str, float]]
    shares: dict[str, float]


def place(router: Router, name: str, requests: Sequence[Request], batch_size: int = 32) -> Place:
    """Score requests with the new router.

    Args:
        router: With the new candidate.
        name: The new candidate.
        requests: At least one request.
        batch_size: Requests scored at once.
    """
    rankings = [
        ranking
        for start in range(0, len(requests), batch_size)
        for ranking in router.route(requests[start : start + batch_size])
    ]
    probability = {one: np.zeros(len(rankings)) for one in router.model_ids}
    for number, ranking in enumerate(rankings):
        for choice in ranking.choices:
            probability[choice.model_id][number] = choice.probability
    distance = {one: float(np.abs(own - probability[name]).mean()) for one, own in probability.items() if one != name}
    chosen = [ranking.best for ranking in rankings]
    shares = {one: chosen.count(one) / len(chosen) for one in router.model_ids}
    return Place(sorted(distance.items(), key=lambda pair: pair[1]), shares)
