"""Baselines: routers with ``fit(records)`` and ``predict(instructions, candidates)``.

The built-in ones are in :data:`BUILT_IN`; installed packages add theirs by an entry point of the group
``satlight.baselines`` (docs/baselines.md).
"""

from __future__ import annotations

import inspect
import logging
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from satlight.baselines.base import Baseline, Embed
from satlight.errors import SatlightError
from satlight.records.names import listed
from satlight.storage.classes import BASELINE_GROUP as ENTRY_POINT_GROUP

__all__ = ["BUILT_IN", "ENTRY_POINT_GROUP", "Baseline", "Embed", "available", "build"]

log = logging.getLogger(__name__)


BUILT_IN = {
    "knn": "satlight.baselines.knn:KNN",
    "tfidf_knn": "satlight.baselines.tfidf_knn:TfidfKNN",
    "cluster": "satlight.baselines.cluster:Cluster",
    "linear": "satlight.baselines.linear:Linear",
    "mlp": "satlight.baselines.mlp:MLP",
    "forest": "satlight.baselines.forest:Forest",
    "mf": "satlight.baselines.mf:MF",
    "irt": "satlight.baselines.irt:IRT",
    "gaussian_process": "satlight.baselines.gaussian_process:GaussianProcess",
    "few_results": "satlight.baselines.few_results:FewResults",
    "uniroute": "satlight.baselines.uniroute:UniRoute",
    "aptitude_knn": "satlight.baselines.aptitude_knn:AptitudeKNN",
    "inferred_dataset": "satlight.baselines.inferred_dataset:InferredDataset",
    "graph": "satlight.baselines.graph:Graph",
    "routerdc": "satlight.baselines.routerdc:RouterDC",
    "prefill": "satlight.baselines.prefill:Prefill",
    "rerank": "satlight.baselines.rerank:Rerank",
}
"""Name → module and class; loaded on demand, since some of them import torch or scikit-learn."""


def available() -> dict[str, type[Baseline]]:
    """Return every baseline by name, the built-in ones first.

    An entry point that cannot be loaded is left out with a warning; :func:`build` says why.

    Example:
        >>> available()["knn"].__name__
        'KNN'
    """
    found = {}
    for name, place in _places().items():
        try:
            found[name] = _load(name, place)
        except SatlightError as error:
            log.warning("%s", error)
    return found


def build(name: str, **options: Any) -> Baseline:
    """Build a baseline by name.

    Args:
        name: One of :func:`available`.
        options: Parameters of its constructor.

    Raises:
        SatlightError: Unknown name or option, or an entry point that cannot be loaded.

    Example:
        >>> build("knn", seed=1).seed
        1
    """
    places = _places()
    if name not in places:
        raise SatlightError(f"There is no baseline '{name}'; available: {listed(list(places))}.")
    cls = _load(name, places[name])
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        allowed = listed(list(inspect.signature(cls).parameters))
        raise SatlightError(f"baseline '{name}': {error}; its options are {allowed}.") from None
    return cls(**options)


def _places() -> dict[str, str]:
    """Return name → "module:Class" of the built-in and the registered baselines."""
    places = dict(BUILT_IN)
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if places.setdefault(point.name, point.value) != point.value:
            raise SatlightError(
                f"Two baselines are called '{point.name}': {places[point.name]} and {point.value} (an entry "
                f"point of the group {ENTRY_POINT_GROUP}). Rename or uninstall one."
            )
    return places


def _load(name: str, place: str) -> type[Baseline]:
    module, _, attribute = place.partition(":")
    try:
        cls = getattr(import_module(module), attribute)
    except Exception as error:  # a module of another package may fail in any way
        raise SatlightError(
            f"baseline '{name}' cannot be loaded from {place}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Baseline)):
        raise SatlightError(f"baseline '{name}': {place} is not a subclass of satlight.baselines.Baseline.")
    return cls
