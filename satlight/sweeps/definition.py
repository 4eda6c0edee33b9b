"""The definition of a sweep: the part of W&B's YAML format that describes points of options of ``fit``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from satlight.errors import SatlightError
from satlight.files import parse_yaml, read_text

Point = dict[str, Any]
"""Option of ``fit`` → value."""

METHODS = ("grid", "random", "bayes")
METRICS = ("val_loss", "val_routed_accuracy", "val_gap_closed", "val_ece")
"""Metrics that satlight's modules and callbacks log in every validation."""

_KEYS = ("program", "command", "method", "metric", "parameters", "run_cap", "early_terminate", "name", "description")
_REMOTE = ("project", "entity")
_DISTRIBUTIONS = ("uniform", "log_uniform_values", "int_uniform")
_PROGRAMS = ("lightning", "satlight")
_ARGS = "${args}"


@dataclass(frozen=True)
class Parameter:
    """The values of one option.

    Args:
        values: The values to choose from; empty for a range.
        low: Lower bound of a range, inclusive.
        high: Upper bound of a range, inclusive.
        log: Draw from the range uniformly in the logarithm.
        integer: Whole numbers only.
    """

    values: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    integer: bool = False

    def draw(self, rng: np.random.Generator) -> Any:
        """Return one value at random.

        Example:
            >>> Parameter(low=1e-4, high=1e-2, log=True).draw(np.random.default_rng(0)) < 1e-2
            True
        """
        if self.values:
            return self.values[int(rng.integers(len(self.values)))]
        if self.integer:
            return int(rng.integers(int(self.low), int(self.high) + 1))
        if self.log:
            return float(math.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class Sweep:
    """A search over options of ``fit``.

    Args:
        name: For folders and titles.
        command: Arguments of satlight, from ``fit`` on; ``${args}`` stands for the point.
        method: ``grid`` (all combinations), ``random`` or ``bayes``.
        metric: Validation metric to compare by, the best of all epochs.
        maximize: True if larger is better.
        parameters: Option of ``fit`` → its values.
        run_cap: Maximum number of trials; None = all points of a grid.
        early_terminate: Stop trials that are worse than others at the same epoch.
    """

    name: str
    command: tuple[str, ...]
    method: str
    metric: str
    maximize: bool
    parameters: dict[str, Parameter]
    run_cap: int | None = None
    early_terminate: bool = False

    def argv(self, point: Mapping[str, Any]) -> list[str]:
        """Return the arguments of satlight for one point, formatted as W&B's agent does.

        Example:
            >>> sweep = Sweep("demo", ("fit", "-c", "a.yaml", "${args}"), "grid", "val_loss", False, {})
            >>> sweep.argv({"model.optimizer.lr": 0.001})
            ['fit', '-c', 'a.yaml', '--model.optimizer.lr=0.001']
        """
        options = [f"--{key}={value}" for key, value in point.items()]
        return [new for word in self.command for new in (options if word == _ARGS else [word])]

    def points(self, seed: int = 0) -> Iterator[Point]:
        """Yield the points of a grid, or different random points without end (as far as there are any)."""
        if self.method == "grid":
            for values in itertools.product(*(parameter.values for parameter in self.parameters.values())):
                yield dict(zip(self.parameters, values, strict=True))
            return
        rng, seen, misses = np.random.default_rng(seed), set(), 0
        while misses < 1000:
            point = {key: parameter.draw(rng) for key, parameter in self.parameters.items()}
            misses = misses + 1 if repr(point) in seen else 0
            if misses == 0:
                seen.add(repr(point))
                yield point

    def corners(self) -> list[Point]:
        """Return points that together contain every listed value and both ends of every range."""
        ends = {key: one.values or _ends(one) for key, one in self.parameters.items()}
        longest = max(map(len, ends.values()))
        return [{key: values[min(i, len(values) - 1)] for key, values in ends.items()} for i in range(longest)]


def _ends(parameter: Parameter) -> tuple[Any, ...]:
    kind = int if parameter.integer else float
    return kind(parameter.low), kind(parameter.high)


def read_sweep(path: Path | str) -> Sweep:
    """Read a sweep from a YAML file in W&B's format.

    Raises:
        SatlightError: The file, or a key or value that only W&B's server understands.
    """
    advice = "give a sweep such as configs/sweeps/objective.yaml"
    content = parse_yaml(read_text(path, advice), str(path), advice)
    if not isinstance(content, dict):
        raise SatlightError(f"{path} holds {type(content).__name__}, not a mapping; {advice}")
    if unknown := [key for key in content if key not in (*_KEYS, *_REMOTE)]:
        raise SatlightError(f"{path}: unknown key {unknown[0]!r}; allowed are {', '.join(_KEYS)}")
    method = content.get("method")
    if method not in METHODS:
        raise SatlightError(f"{path}: method is {method!r}; allowed are {', '.join(METHODS)}")
    metric, maximize = _metric(content.get("metric"), path)
    cap = content.get("run_cap")
    if cap is not None and (isinstance(cap, bool) or not isinstance(cap, int) or cap < 1):
        raise SatlightError(f"{path}: run_cap is {cap!r}; it must be a whole number, 1 or more")
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise SatlightError(f"{path}: parameters must be a mapping of options of `fit` to their values; got {given!r}")
    parameters = {str(key): _parameter(value, f"{path}: parameters.{key}") for key, value in given.items()}
    ranges = [key for key, parameter in parameters.items() if not parameter.values]
    if method == "grid" and ranges:
        raise SatlightError(
            f"{path}: a grid needs values, but {ranges[0]} is a range; list them, or set method: random"
        )
    command = _command(content.get("command"), path)
    stops = content.get("early_terminate") is not None
    return Sweep(Path(path).stem, command, method, metric, maximize, parameters, cap, stops)


def _metric(given: Any, path: Path | str) -> tuple[str, bool]:
    """Return name and direction of the metric."""
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise SatlightError(f"{path}: metric must have a name and a goal, e.g. {{name: val_loss, goal: minimize}}")
    name, goal = given["name"], given.get("goal")
    if goal not in ("maximize", "minimize"):
        raise SatlightError(f"{path}: metric.goal is {goal!r}; allowed are maximize and minimize")
    if not name.startswith("val"):
        raise SatlightError(
            f"{path}: metric.name is {name!r}, but a sweep compares by a validation metric; test rows and the training "
            f"loss choose nothing. Allowed are {', '.join(METRICS)}"
        )
    return name, goal == "maximize"


def _command(given: Any, path: Path | str) -> tuple[str, ...]:
    """Return the arguments of satlight in a command of W&B."""
    example = 'command: ["${env}", lightning, fit, -c, configs/full.yaml, "${args}"]'
    words = [str(word) for word in given] if isinstance(given, list) else []
    verb = words.index("fit") if "fit" in words else 0
    if verb == 0 or words[verb - 1] not in _PROGRAMS:
        raise SatlightError(
            f"{path}: the command must run `lightning fit`, which W&B's default does not; write {example}"
        )
    words = words[verb:]
    if _ARGS not in words:
        raise SatlightError(f"{path}: the command has no {_ARGS!r}, so every trial would be the same; write {example}")
    if macros := [word for word in words if word.startswith("${") and word != _ARGS]:
        raise SatlightError(f"{path}: {macros[0]!r} cannot be parsed by `fit`; use {_ARGS!r}")
    return tuple(words)


def _parameter(given: Any, where: str) -> Parameter:
    """Return one parameter."""
    if not isinstance(given, dict):
        raise SatlightError(f"{where} is {given!r}; write {{values: [...]}}, {{value: ...}} or {{min: ..., max: ...}}")
    if "value" in given or "values" in given:
        values = given["values"] if "values" in given else [given["value"]]
        if not isinstance(values, list) or not values:
            raise SatlightError(f"{where}.values is {values!r}; it must be a list of at least one value")
        if None in values:
            raise SatlightError(f"{where} has the value null, which W&B's agent writes as None; write the text 'null'")
        return Parameter(tuple(values))
    low, high = given.get("min"), given.get("max")
    numbers = all(isinstance(x, int | float) and not isinstance(x, bool) for x in (low, high))
    if not numbers or not low < high:  # type: ignore[operator]
        raise SatlightError(f"{where} needs values, or numbers min < max; got min {low!r} and max {high!r}")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = given.get("distribution", "int_uniform" if whole else "uniform")
    if kind not in _DISTRIBUTIONS:
        raise SatlightError(f"{where}.distribution is {kind!r}; allowed are {', '.join(_DISTRIBUTIONS)}")
    if kind == "log_uniform_values" and low <= 0:  # type: ignore[operator]
        raise SatlightError(f"{where}: the logarithm needs min > 0, got {low!r}")
    return Parameter((), float(low), float(high), kind == "log_uniform_values", kind == "int_uniform")  # type: ignore[arg-type]
