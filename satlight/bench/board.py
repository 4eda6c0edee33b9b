"""From the cells of a bench to leaderboards: one per data and zoo setting, over all seeds.

Shape legend: N test instructions, M candidates, S seeds, E entries (methods and controls), R resamples.

Accuracies, their intervals and differences are percent.
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from satlight.bench.cells import CONTROLS, EMBEDDING, Cell
from satlight.bench.config import BenchConfig
from satlight.bench.runner import read_result
from satlight.bench.unseen import ENTRIES, UnseenTable, unseen_table
from satlight.bench.worker import load_controls
from satlight.evaluation.plots import Estimate
from satlight.metrics.bootstrap import bootstrap_means, percentile_interval
from satlight.metrics.functional import gap_closed
from satlight.metrics.seeds import seed_interval

UPPER_BOUNDS = ("dataset_oracle", "oracle", "bayes_optimal")
"""Controls that know the test outcomes; nobody is measured against them as the best control."""

COSTS = {"cost": "cost_routed", "zero_router": "zero_router", "aiq": "aiq"}
"""Where costs are known: dollars per 1,000 instructions, accuracy of the zero router at that cost, AIQ."""


@dataclass
class Figure:
    """What an entry reached on one dataset or group.

    Args:
        routed: Accuracy, mean over seeds; None = no choice can be made there.
        seed_half_width: Half its 95 % interval over seeds; None with one seed.
        interval: Bootstrap over instructions, of the mean over seeds.
        per_seed: For each seed ``seed``, ``routed``, ``low`` and ``high`` (bootstrap of that seed alone).
        versus_best_single: Difference to best single, on the same instructions, with its interval.
        versus_best_control: The same to the best control that is no upper bound.
        gap_closed: Share of the way from best single to oracle.
    """

    routed: float | None
    seed_half_width: float | None
    interval: list[float] | None
    per_seed: list[dict[str, Any]]
    versus_best_single: list[float] | None = None
    versus_best_control: list[float] | None = None
    gap_closed: float | None = None


@dataclass
class Entry:
    """A method or control on a leaderboard.

    Args:
        name: Its name.
        role: ``method``, ``control`` or ``upper bound``.
        seeds: Seeds that it has results of.
        failed_seeds: Seeds for which it failed.
        datasets: Figures per dataset.
        groups: Figures per group.
        facts: Means over seeds: ``fit_seconds``, ``decision_ms``, and per group ``ece``, ``brier`` and the
            :data:`COSTS`.
        results: What its cells found, in the order of the seeds; empty for a control.
    """

    name: str
    role: str
    seeds: list[int] = field(default_factory=list)
    failed_seeds: list[int] = field(default_factory=list)
    datasets: dict[str, Figure] = field(default_factory=dict)
    groups: dict[str, Figure] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Board:
    """The leaderboard of one data and zoo setting.

    Args:
        data: Name of the data.
        setting: Name of the zoo setting.
        groups: Datasets of each group; the first one sorts.
        candidates: Names.
        counts: Test instructions of each dataset.
        simulated: Whether the outcomes were drawn from a model.
        fingerprints: Of the records, by seed.
        entries: Best first; what has no figure comes last.
        best_control: Per dataset or group, the best control that is no upper bound.
        failures: A sentence for every cell that failed.
        releases: Method → its release curve for every seed (:func:`satlight.bench.release.run_release`).
        unseen: A table for each protocol with unseen candidates or tasks.
    """

    data: str
    setting: str
    groups: dict[str, list[str]]
    candidates: list[str]
    counts: dict[str, int]
    simulated: bool
    fingerprints: dict[int, str]
    entries: list[Entry]
    best_control: dict[str, str]
    failures: list[str]
    releases: dict[str, list[list[dict[str, Any]]]]
    unseen: list[UnseenTable] = field(default_factory=list)

    @property
    def primary(self) -> str:
        """The group that sorts the entries."""
        return next(iter(self.groups))

    @property
    def priced(self) -> bool:
        """Whether costs are known."""
        return any(entry.facts.get("cost") for entry in self.entries)

    @property
    def methods(self) -> list[Entry]:
        """The methods that have a figure, best first."""
        return [e for e in self.entries if e.role == "method" and e.seeds]


def boards(config: BenchConfig, cells: list[Cell], output: Path) -> list[Board]:
    """Leaderboards of what has been computed, in the order of the config.

    Args:
        config: The bench.
        cells: From :func:`satlight.bench.cells.plan`.
        output: Folder of the bench.

    Returns:
        One per data and setting.
    """
    return [
        _Builder(config, output, [c for c in cells if _place(c) == (data.name, setting)]).board()
        for data in config.data
        for setting in data.settings
    ]


def _place(cell: Cell) -> tuple[str, str]:
    return cell.problem.data, cell.problem.setting


@dataclass
class _Outcomes:
    """Outcomes of an entry: float32 (N,) per seed, NaN = unknown."""

    entry: Entry
    by_seed: dict[int, np.ndarray] = field(default_factory=dict)

    def mean(self) -> np.ndarray:
        """(N,), the mean over the seeds that know; NaN where none does."""
        stacked = np.stack(list(self.by_seed.values()))
        known = np.isfinite(stacked)
        with np.errstate(invalid="ignore"):
            return np.where(known, stacked, 0).sum(0) / known.sum(0)


class _Builder:
    def __init__(self, config: BenchConfig, output: Path, cells: list[Cell]) -> None:
        self.config, self.output, self.cells = config, output, cells
        self.problem = cells[0].problem
        self.all: dict[str, _Outcomes] = {}
        self.failures: list[str] = []
        self.best_control: dict[str, str] = {}
        self.releases: dict[str, list[list[dict[str, Any]]]] = {}
        self.unseen: dict[str, dict[str, list[dict[str, np.ndarray]]]] = {}
        self.folds: dict[str, list[dict[str, Any]]] = {}

    def board(self) -> Board:
        for cell in self.cells:
            self._read(cell)
        known = [one for one in self.all.values() if one.by_seed]
        first = next((r for one in self.all.values() for r in one.entry.results), None)
        datasets = self._datasets()
        if known:
            self._measure(known, datasets)
        entries = sorted((one.entry for one in self.all.values()), key=self._rank)
        return Board(
            *_place(self.cells[0]),
            groups=self.problem.groups,
            candidates=first["results"]["candidates"] if first else [],
            counts={name: int((datasets == name).sum()) for name in dict.fromkeys(datasets.tolist())},
            simulated=bool(first and first["results"]["data"]["simulated"]),
            fingerprints={cell.problem.seed: cell.problem.fingerprint for cell in self.cells},
            entries=entries,
            best_control=self.best_control,
            failures=self.failures,
            releases=self.releases,
            unseen=[self._unseen_table(name, found, datasets) for name, found in self.unseen.items()],
        )

    # -- reading -------------------------------------------------------------------------------------------

    def _read(self, cell: Cell) -> None:
        result, folder = read_result(self.output, cell), self.output / "cells" / cell.key
        if cell.kind == EMBEDDING or result is None:
            return
        if result["status"] == "failed":
            self.failures.append(f"{cell.name}, seed {cell.problem.seed}: {result['error'].splitlines()[0]}")
            if cell.protocol is None:
                self._outcomes(cell.method, "method").entry.failed_seeds.append(cell.problem.seed)
        elif cell.protocol == "release":
            self.releases.setdefault(cell.method, []).append(result["release"])
        elif cell.protocol is not None:
            with np.load(folder / "unseen.npz", allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ENTRIES}
            self.unseen.setdefault(cell.protocol, {}).setdefault(cell.method, []).append(found)
            self.folds.setdefault(cell.protocol, result["folds"])
        elif cell.kind == CONTROLS:
            for name, control in load_controls(folder).items():
                role = "upper bound" if name in UPPER_BOUNDS else "control"
                outcomes = np.where(control.known.numpy(), control.outcomes.numpy(), np.nan)
                self._outcomes(name, role).by_seed[cell.problem.seed] = outcomes
        else:
            one = self._outcomes(cell.method, "method")
            one.by_seed[cell.problem.seed] = np.load(folder / "outcomes.npy")
            one.entry.results.append({**result, "seed": cell.problem.seed, "embeds": "embedder" in cell.spec})

    def _outcomes(self, name: str, role: str) -> _Outcomes:
        # A method may well be called like a control, e.g. tfidf_knn.
        return self.all.setdefault(f"{role == 'method'} {name}", _Outcomes(Entry(name, role)))

    def _datasets(self) -> np.ndarray:
        for cell in self.cells:
            path = self.output / "cells" / cell.key / "controls.npz"
            if path.is_file():
                with np.load(path, allow_pickle=False) as arrays:
                    return arrays["datasets"]
        return np.array([], dtype=np.str_)

    def _embedding_ms(self) -> float | None:
        keys = {key for cell in self.cells for key in cell.needs[1:]}
        for key in keys:
            path = self.output / "cells" / key / "result.json"
            if path.is_file():
                result = json.loads(path.read_text(encoding="utf-8"))
                if "embedding_ms" in result:
                    return float(result["embedding_ms"])
        return None

    def _unseen_table(
        self, protocol: str, found: dict[str, list[dict[str, np.ndarray]]], datasets_N: np.ndarray
    ) -> UnseenTable:
        group, members = next(iter(self.problem.groups.items()))
        parts = [datasets_N == name for name in members]
        return unseen_table(protocol, group, parts, found, self.folds[protocol], self.config.resamples)

    # -- measuring -----------------------------------------------------------------------------------------

    def _measure(self, known: list[_Outcomes], datasets_N: np.ndarray) -> None:
        """Fill in the figures of every entry, and the best controls."""
        names = list(dict.fromkeys(datasets_N.tolist()))
        for one in known:
            one.entry.seeds = sorted(one.by_seed)
            one.entry.facts = _facts(one.entry, self._embedding_ms())
        any_method = next((one.entry for one in known if one.entry.results), None)
        any_results = [r["results"]["groups"] for r in any_method.results] if any_method else []
        for one in known:
            if one.entry.role != "method":
                one.entry.facts["cost"] = _group_means(any_results, f"cost_{one.entry.name}")
        draws: dict[str, np.ndarray] = {}
        for name in names:
            rows = datasets_N == name
            draws[name] = _draws(np.stack([one.mean()[rows] for one in known]), self.config.resamples, name)
            self._fill(known, "datasets", name, draws[name], [rows])
        for name, members in self.problem.groups.items():
            draw = np.mean([draws[member] for member in members], axis=0)
            self._fill(known, "groups", name, draw, [datasets_N == m for m in members])

    def _fill(
        self,
        known: list[_Outcomes],
        kind: str,
        name: str,
        draw_ER: np.ndarray,
        parts: list[np.ndarray],
    ) -> None:
        figures = [
            _figure(one, kind, name, draw_R, parts) for one, draw_R in zip(known, draw_ER, strict=True)
        ]
        place = {one.entry.name: e for e, one in enumerate(known) if one.entry.role != "method"}
        single, oracle = place.get("best_single"), place.get("oracle")
        controls = [
            e for e, one in enumerate(known) if one.entry.role == "control" and figures[e].routed is not None
        ]
        best = max(controls, key=lambda e: figures[e].routed or 0.0, default=None)
        for e, (one, figure) in enumerate(zip(known, figures, strict=True)):
            figure.versus_best_single = _difference(figures, draw_ER, e, single)
            figure.versus_best_control = _difference(figures, draw_ER, e, best)
            if single is not None and oracle is not None:
                figure.gap_closed = _gap(figure, figures[single], figures[oracle])
            getattr(one.entry, kind)[name] = figure
        if best is not None:
            self.best_control[name] = known[best].entry.name

    def _rank(self, entry: Entry) -> tuple[bool, float, str]:
        figure = entry.groups.get(next(iter(self.problem.groups)))
        routed = None if figure is None else figure.routed
        return routed is None, -(routed or 0.0), entry.name


def _facts(entry: Entry, embedding_ms: float | None) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for key in ("fit_seconds", "decision_ms"):
        values = [r[key] for r in entry.results if r.get(key) is not None]
        facts[key] = float(np.mean(values)) if values else None
    if facts["decision_ms"] is not None and any(r["embeds"] for r in entry.results):
        facts["decision_ms"] += embedding_ms or 0.0
    probabilistic = [r["results"]["groups"] for r in entry.results if r["probabilistic"]]
    facts |= {key: _group_means(probabilistic, key) for key in ("ece", "brier")}
    everything = [r["results"]["groups"] for r in entry.results]
    return facts | {key: _group_means(everything, source) for key, source in COSTS.items()}


def _group_means(results: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Mean over seeds of one figure per group; groups without it are left out."""
    names = results[0] if results else {}
    return {
        name: float(np.mean([groups[name][key] for groups in results]))
        for name in names
        if all(groups[name].get(key) is not None for groups in results)
    }


def _draws(value_EN: np.ndarray, resamples: int, dataset: str) -> np.ndarray:
    """Resampled percentages (E, R), the same instructions for every entry."""
    known_EN = torch.from_numpy(np.isfinite(value_EN))
    value = torch.from_numpy(np.nan_to_num(value_EN).astype(np.float32))
    seed = zlib.crc32(dataset.encode())
    return 100 * bootstrap_means(value, known_EN, resamples=resamples, seed=seed).double().numpy()


def _figure(one: _Outcomes, kind: str, name: str, draw_R: np.ndarray, parts: list[np.ndarray]) -> Figure:
    per_seed = []
    for seed, outcomes_N in sorted(one.by_seed.items()):
        means = [_mean(outcomes_N[rows]) for rows in parts]
        line: dict[str, Any] = {"seed": seed, "routed": _finite(100 * float(np.mean(means)))}
        for result in one.entry.results:
            if result["seed"] == seed:
                line["low"], line["high"] = result["results"][kind][name]["interval"]
        per_seed.append(line)
    values = [line["routed"] for line in per_seed]
    if None in values:
        return Figure(None, None, None, per_seed)
    over_seeds = seed_interval(values)
    low, high = percentile_interval(torch.from_numpy(draw_R))
    return Figure(over_seeds.mean, _finite(over_seeds.half_width), [low, high], per_seed)


def _mean(outcomes_N: np.ndarray) -> float:
    known = np.isfinite(outcomes_N)
    return float(outcomes_N[known].mean(dtype=np.float64)) if known.any() else math.nan


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _difference(
    figures: list[Figure], draw_ER: np.ndarray, entry: int, other: int | None
) -> list[float] | None:
    """Difference in the means, and the interval of it over the same resamples."""
    if other is None or entry == other:
        return None
    mine, theirs = figures[entry].routed, figures[other].routed
    if mine is None or theirs is None:
        return None
    low, high = percentile_interval(torch.from_numpy(draw_ER[entry] - draw_ER[other]))
    return [mine - theirs, low, high]


def _gap(figure: Figure, single: Figure, oracle: Figure) -> float | None:
    if figure.routed is None or single.routed is None or oracle.routed is None:
        return None
    return _finite(gap_closed(figure.routed, single.routed, oracle.routed))


def estimate(figure: Figure | None) -> Estimate:
    """A figure as the plots want it, with its interval over instructions."""
    if figure is None or figure.routed is None or figure.interval is None:
        return Estimate(math.nan)
    return Estimate(figure.routed, *figure.interval)
