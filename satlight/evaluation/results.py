"""Results of an evaluation as dataclasses, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from satlight.errors import SatlightError
from satlight.escaping import csv_text
from satlight.files import read_json, write_text
from satlight.storage.typed import typed
from satlight.types import Temperature

Interval = tuple[float | None, float | None]
"""Lower and upper bound of a 95 % bootstrap interval; None where it cannot be measured."""

LEAST_GAP = 2.0
"""Percentage points from best single to a bound, below which no share of the gap is reported."""

Json = dict[str, Any]
Row = dict[str, float | int | str | None]
T = TypeVar("T")
G = TypeVar("G", bound="GroupResult")


@dataclass(frozen=True)
class ControlResult:
    """Result of one control on a dataset or group.

    Args:
        accuracy: Percent.
        versus: Interval of the paired difference of the router to the control, in percentage points; None =
            not compared (the control has seen test outcomes).
        cost: US dollars per 1,000 instructions; None also where there are no costs.
    """

    accuracy: float | None
    versus: Interval | None = None
    cost: float | None = None


@dataclass(frozen=True, kw_only=True)
class GroupResult:
    """Results on a group: macro means over its datasets. None = cannot be measured.

    Args:
        n: Number of instructions.
        n_unknown: Number of those without a record of the routed candidate.
        n_compared: Number of those that accuracies and costs of all policies are means over, see
            :mod:`satlight.evaluation.comparison`; equal to ``n`` on complete records.
        routed: Routed accuracy in percent.
        controls: Every control by name: those of :mod:`satlight.evaluation.controls`; ``zero_router`` on records with
            costs; ``routed_expected`` and ``best_single_expected``, by true probabilities, on simulated records.
        interval: Interval of ``routed``.
        gain_random: Gain@R.
        gain_best_single: Gain@B.
        gap_oracle: Gap@O.
        ece: Expected calibration error.
        ece_calibrated: ``ece`` after calibration on validation rows; None also without one.
        brier: Brier score.
        forecast_accuracy: Share of correctly predicted outcomes.
        auroc: Area under the ROC curve.
        log_loss: Nats per cell.
        rare_solver_recall: Share of instructions with few solvers that are routed to a solver.
        share: Share of the choices of each candidate.
        single: Accuracy of each candidate on its own, in percent, where it has an outcome among ``n_compared``.
        coverage: Share of the instructions on which ``routed`` and each control has an outcome.
        best_single_candidate: Best single candidate, chosen on train.
        cost_routed: US dollars per 1,000 instructions; this and the next five are None also without costs.
        rci: Routing collapse index.
        aiq: Average improvement in quality, percent.
        nauc: Normalized area under the quality-cost curve, percent.
        qnc: Quality-neutral cost, relative to the best single candidate.
        zero_router_aiq: AIQ of the zero router, percent.
        gap_closed: Share of the gap from best single to oracle that the router closes; None also if the gap is
            below :data:`LEAST_GAP`.
        v_b: Routed accuracy over that of the best single candidate.
        selection_entropy: Entropy of the choices in bits.
        reachable_gap_closed: ``gap_closed`` up to the Bayes-optimal choice, by true probabilities; None also
            where these are unknown, and if that gap is below :data:`LEAST_GAP`.
    """

    n: int
    n_unknown: int
    n_compared: int
    routed: float | None
    controls: dict[str, ControlResult]
    interval: Interval = (None, None)
    gain_random: float | None
    gain_best_single: float | None
    gap_oracle: float | None
    ece: float | None
    ece_calibrated: float | None = None
    brier: float | None
    forecast_accuracy: float | None
    auroc: float | None
    log_loss: float | None
    rare_solver_recall: float | None
    share: dict[str, float | None]
    single: dict[str, float | None]
    coverage: dict[str, float] = field(default_factory=dict)
    best_single_candidate: str | None
    cost_routed: float | None = None
    rci: float | None = None
    aiq: float | None = None
    nauc: float | None = None
    qnc: float | None = None
    zero_router_aiq: float | None = None
    gap_closed: float | None = None
    v_b: float | None = None
    selection_entropy: float | None = None
    reachable_gap_closed: float | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetResult(GroupResult):
    """Results on one dataset.

    Args:
        dataset_best_candidate: Best candidate of the dataset, chosen on train.
    """

    dataset_best_candidate: str | None


@dataclass(frozen=True)
class EvaluatedData:
    """Records that a router was evaluated on.

    Args:
        name: Name of the records.
        fingerprint: Fingerprint of the records.
        simulated: Whether the outcomes were drawn from a model.
        costs: "complete", "incomplete" (then no costs are reported) or "none".
    """

    name: str
    fingerprint: str
    simulated: bool
    costs: str = "none"


@dataclass(frozen=True)
class RoutingResults:
    """Results of :func:`satlight.evaluation.evaluate`, as printed and as written to ``results.json``.

    The file holds each entry of ``datasets`` and ``groups`` as one flat object: the accuracy of a control
    under its name, its interval under ``versus_<control>``, its cost under ``cost_<control>``, and every
    other field under its own name.

    Args:
        datasets: Results per dataset.
        groups: Results per named group.
        candidates: Candidate names, in the order of the scores' columns.
        split: Evaluated split.
        score_column: Column of the records that held the outcomes.
        data: The evaluated records.
        seed: Seed of the bootstrap.
        calibration: Temperature and bias fitted on validation; None = none was fitted.
    """

    datasets: dict[str, DatasetResult]
    groups: dict[str, GroupResult]
    candidates: list[str]
    split: str
    score_column: str
    data: EvaluatedData
    seed: int
    calibration: Temperature | None = None

    def to_dict(self) -> Json:
        """Return the content of ``results.json``."""
        content = {field.name: getattr(self, field.name) for field in fields(self)} | {"data": asdict(self.data)}
        content["calibration"] = self.calibration and asdict(self.calibration)
        for kind, name, entry in self._entries():
            content[kind] = content[kind] | {name: _to_flat(entry, self.calibration is not None)}
        return content

    @classmethod
    def from_dict(cls, content: Json) -> RoutingResults:
        """Read what :meth:`to_dict` returns.

        Raises:
            TypeError: A key is missing or unknown.
        """
        nested = {
            "datasets": {name: _from_flat(DatasetResult, one) for name, one in content["datasets"].items()},
            "groups": {name: _from_flat(GroupResult, one) for name, one in content["groups"].items()},
            "data": EvaluatedData(**content["data"]),
            "calibration": typed(Temperature | None, content["calibration"], "calibration"),
        }
        return cls(**content | nested)

    def rows(self) -> list[Row]:
        """Return one flat row per dataset and group: the scalars, with intervals as two columns each.

        Returns:
            Rows with ``kind`` ("dataset" or "group"), ``name`` and the same keys throughout.
        """
        rows = []
        for kind, name, entry in self._entries():
            row: Row = {"kind": kind.removesuffix("s"), "name": name}
            for key, value in _to_flat(entry, self.calibration is not None).items():
                if isinstance(value, list):
                    row[f"{key}_low"], row[f"{key}_high"] = value
                elif not isinstance(value, dict):
                    row[key] = value
            rows.append(row)
        keys = list(dict.fromkeys(key for row in rows for key in row))
        return [{key: row.get(key) for key in keys} for row in rows]

    def choice_rows(self) -> list[Row]:
        """Return one row per dataset or group and candidate: ``share`` of the choices and ``single``."""
        return [
            {"kind": kind.removesuffix("s"), "name": name, "candidate": candidate}
            | {"share": entry.share[candidate], "single": entry.single[candidate]}
            for kind, name, entry in self._entries()
            for candidate in self.candidates
        ]

    def save(self, folder: Path | str) -> None:
        """Write ``results.json``, ``results.csv`` and ``choices.csv``, each completely or not at all.

        Args:
            folder: Output folder, created if missing; existing files of these names are replaced.
        """
        for name, rows in (("choices.csv", self.choice_rows()), ("results.csv", self.rows())):
            write_text(Path(folder) / name, csv_text(rows))
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
        write_text(Path(folder) / "results.json", text + "\n")

    @classmethod
    def load(cls, path: Path | str) -> RoutingResults:
        """Read ``results.json``.

        Args:
            path: The file, or the folder that holds it.

        Raises:
            SatlightError: The file is missing, or :meth:`save` did not write it.
        """
        path = Path(path)
        path = path / "results.json" if path.is_dir() else path
        content = read_json(path, "write it with `lightning test`")
        wanted = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or set(content) != wanted:
            got = sorted(content) if isinstance(content, dict) else type(content).__name__
            raise SatlightError(
                f"{path} is not a results.json: got {got}, expected the keys {sorted(wanted)}; "
                "write it again with `lightning test`"
            )
        try:
            return cls.from_dict(content)
        except (KeyError, TypeError, AttributeError) as error:
            raise SatlightError(
                f"{path} is not a results.json of this version: {error}; write it again with `lightning test`"
            ) from error

    def _entries(self) -> Iterator[tuple[str, str, GroupResult]]:
        for kind in ("datasets", "groups"):
            yield from ((kind, name, entry) for name, entry in getattr(self, kind).items())


def map_numbers(function: Callable[..., float | None], first: T, *others: T) -> T:
    """Apply a function to the corresponding floats of nested dataclasses, dictionaries and tuples.

    Returns:
        ``first`` with its floats replaced.

    Example:
        >>> map_numbers(max, {"a": 1.0, "b": (2.0, "x")}, {"a": 3.0, "b": (1.0, "y")})
        {'a': 3.0, 'b': (2.0, 'x')}
    """
    result: Any = first
    if isinstance(first, float):
        result = function(first, *others)
    elif isinstance(first, tuple):
        result = tuple(map_numbers(function, *values) for values in zip(first, *others, strict=True))  # type: ignore[arg-type]
    elif isinstance(first, dict):
        result = {key: map_numbers(function, *(one[key] for one in (first, *others))) for key in first}  # type: ignore[index]
    elif is_dataclass(first):
        names = [field.name for field in fields(first)]
        values = {n: map_numbers(function, *(getattr(one, n) for one in (first, *others))) for n in names}
        result = replace(first, **values)  # type: ignore[type-var]
    return result


def _to_flat(entry: GroupResult, calibrated: bool) -> Json:
    """Return the flat object of one dataset or group in ``results.json``."""
    controls = entry.controls.items()
    expanded: dict[str, Json] = {
        "controls": {name: one.accuracy for name, one in controls},
        "interval": {"interval": list(entry.interval)}
        | {f"versus_{name}": list(one.versus) for name, one in controls if one.versus is not None},
        "cost_routed": {"cost_routed": entry.cost_routed} | {f"cost_{name}": one.cost for name, one in controls},
    }
    if "zero_router" not in entry.controls:
        expanded |= {key: {} for key in ("cost_routed", "rci", "aiq", "nauc", "qnc", "zero_router_aiq")}
    if not calibrated:
        expanded["ece_calibrated"] = {}
    if "bayes_optimal" not in entry.controls:
        expanded["reachable_gap_closed"] = {}
    flat: Json = {}
    for name in (one.name for one in fields(entry)):
        flat |= expanded.get(name, {name: getattr(entry, name)})
    return flat


def _from_flat(kind: type[G], flat: Json) -> G:
    """Read what :func:`_to_flat` returns; every key that is no field and has no prefix names a control."""
    own = {field.name for field in fields(kind)}
    values = {name: value for name, value in flat.items() if name in own}
    controls = {}
    for name in flat:
        if name not in own and not name.startswith(("versus_", "cost_")):
            versus = flat.get(f"versus_{name}")
            controls[name] = ControlResult(flat[name], versus and tuple(versus), flat.get(f"cost_{name}"))
    return kind(**values | {"controls": controls, "interval": tuple(flat["interval"])})
