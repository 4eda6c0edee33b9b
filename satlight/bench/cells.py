"""The parts of a bench: problems (data, setting, seed) and cells (a method on a problem).

A cell is identified by a hash of everything that its result depends on. A computed result is found again, and
a changed cell is computed again. Folders of a bench's output:

    problems/<hash>/   the records with their splits, the same rows for every method
    cells/<hash>/      cell.json, result.json, outcomes.parquet, scores.parquet and log.txt
    locks/<hash>.lock  held by the process that computes the cell
    runs/<hash>/       training runs of methods with a config
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import satlight
from satlight.bench.config import BenchConfig, DataSpec, MethodSpec
from satlight.errors import SatlightError
from satlight.files import read_json, write_text
from satlight.storage.typed import typed

if TYPE_CHECKING:
    from satlight.baselines import Baseline
    from satlight.records import PerformanceRecords

CONTROLS, EMBEDDING = "controls", "embedding"
"""Kinds of the cells that methods depend on; the other kinds are those of methods."""

UNSEEN = ("unseen_candidates", "unseen_tasks")
"""Protocols that train once per fold."""

PROTOCOLS = ("release", *UNSEEN)
"""All additional protocols; ``release`` trains once."""

_FORMAT = 2
"""Format of a cell's files; part of its identity."""


@dataclass(frozen=True)
class Problem:
    """The input of a method: records with splits, for one zoo setting and one seed.

    Args:
        data: Name of the data.
        setting: Name of the zoo setting.
        seed: Seed of the validation split and the method.
        fingerprint: Fingerprint of the records with their splits.
        groups: Datasets of each group that gets a macro mean.
        train_datasets: Datasets to train on; None = all.
        score_column: Column of the source that holds the outcomes.
        key: Hash of these fields; names the problem's folder.
    """

    data: str
    setting: str
    seed: int
    fingerprint: str
    groups: dict[str, list[str]]
    train_datasets: list[str] | None
    score_column: str
    key: str


@dataclass(frozen=True)
class Cell:
    """A unit of work.

    Args:
        kind: ``controls``, ``embedding``, ``baseline``, ``config`` or ``scores``.
        method: Name in tables.
        problem: The problem to solve.
        spec: Everything else that decides the result: class, options, hashes of files.
        key: Hash of these fields and satlight's version; names the cell's folder.
        needs: Keys of the cells that must be computed first.
    """

    kind: str
    method: str
    problem: Problem
    spec: dict[str, Any]
    key: str
    needs: list[str] = field(default_factory=list)

    @property
    def protocol(self) -> str | None:
        """``release`` or one of :data:`UNSEEN`; None for the ordinary cell of a method."""
        return next((name for name in PROTOCOLS if name in self.spec), None)

    @property
    def place(self) -> dict[str, Any]:
        """Columns of an outcome table that are the same for all of the cell's rows."""
        return {"data": self.problem.data, "setting": self.problem.setting, "seed": self.problem.seed}

    @property
    def name(self) -> str:
        """The method, and the protocol in parentheses."""
        return self.method if self.protocol is None else f"{self.method} ({self.protocol.replace('_', ' ')})"

    @property
    def title(self) -> str:
        """Method, data, setting and seed, for logs."""
        return f"{self.name} · {self.problem.data} · {self.problem.setting} · seed {self.problem.seed}"


def digest(content: Any) -> str:
    """Return a hash of a JSON-like value as 16 hexadecimal digits.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}), len(digest(0))
        (True, 16)
    """
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def plan(config: BenchConfig) -> list[Cell]:
    """Write the records of all problems, and return all cells of a bench.

    Args:
        config: The bench.

    Returns:
        Cells in the order in which they should run: a cell after those that it needs, and seed by seed, so
        that an interrupted bench has complete seeds.

    Raises:
        SatlightError: Records, settings, groups or baselines do not exist or do not match.
    """
    needy = {method.name for method in config.methods if _needs_embeddings(method)}
    specs = {data.name: data for data in config.data}
    problems = [problem for data in config.data for problem in _problems(config, data)]
    shared: list[Cell] = []
    methods: list[Cell] = []
    embeddings: dict[str, Cell] = {}
    for problem in sorted(problems, key=lambda p: config.seeds.index(p.seed)):
        controls = _cell(CONTROLS, CONTROLS, problem, {"resamples": config.resamples})
        shared.append(controls)
        for method in config.methods:
            needs = [controls.key]
            if method.name in needy:
                embedder = config.embedder_of(method)
                place = digest([problem.data, embedder])
                if place not in embeddings:
                    embeddings[place] = _cell(EMBEDDING, EMBEDDING, problem, {"backbone": embedder})
                    shared.append(embeddings[place])
                needs.append(embeddings[place].key)
            if method.settings is not None and problem.setting not in method.settings:
                continue
            cell = _method_cell(config, method, problem, needs)
            methods.append(cell)
            if problem.setting == "all" and method.scores is None:
                # It is unknown what the router of existing scores was trained on.
                methods += _protocol_cells(specs[problem.data], cell)
    return shared + methods


def _protocol_cells(data: DataSpec, cell: Cell) -> list[Cell]:
    """Return a method's cells for the additional protocols of its data."""
    made = []
    for name in PROTOCOLS:
        if (options := getattr(data, name)) is not None:
            spec, needs = cell.spec | {name: asdict(options)}, cell.needs
            if name in UNSEEN:
                spec, needs = spec | {"informed": cell.key}, [*needs, cell.key]
            made.append(_cell(cell.kind, cell.method, cell.problem, spec, needs))
    return made


def _cell(kind: str, method: str, problem: Problem, spec: dict[str, Any], needs: list[str] | None = None) -> Cell:
    identity = {"kind": kind, "problem": problem.key, "spec": spec, "satlight": [satlight.__version__, _FORMAT]}
    return Cell(kind, method, problem, spec, digest(identity), needs or [])


def _method_cell(config: BenchConfig, method: MethodSpec, problem: Problem, needs: list[str]) -> Cell:
    spec: dict[str, Any] = {"resamples": config.resamples}
    if method.baseline is not None:
        spec |= {"baseline": method.baseline, "options": method.options}
        if len(needs) > 1:
            spec["embedder"] = config.embedder_of(method)
    elif method.config is not None:
        # The content of config files on the command line decides the result as well.
        values = [arg.partition("=")[2] if arg.startswith("-") else arg for arg in method.overrides]
        files = [method.config, *(value for value in values if value and Path(value).is_file())]
        spec |= {"config": method.config, "overrides": method.overrides}
        spec["sha256"] = {file: _sha256(file) for file in files}
    else:
        path = str(method.scores).format(seed=problem.seed, setting=problem.setting)
        # A missing file makes its cell fail, and the bench continues without it.
        spec |= {"scores": path, "sha256": _sha256(path) if Path(path).is_file() else None}
    return _cell(method.kind, method.name, problem, spec, needs)


def _sha256(file: str) -> str:
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


def baseline_class(name: str) -> type[Baseline]:
    """Return the class of a baseline, given its name or ``module.Class``.

    Raises:
        SatlightError: There is no such class.
    """
    from importlib import import_module

    from satlight.baselines import Baseline, build

    if "." not in name:
        return type(build(name))  # imports no other baseline; some are slow to import
    module, _, attribute = name.rpartition(".")
    try:
        cls = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise SatlightError(
            f"The baseline '{name}' cannot be imported: {error}. `python -m satlight bench` finds modules in "
            "the current folder, `satlight bench` only installed ones"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, Baseline)):
        raise SatlightError(f"'{name}' is not a subclass of satlight.baselines.Baseline")
    return cls


def _needs_embeddings(method: MethodSpec) -> bool:
    if method.baseline is None:
        return False
    needed = baseline_class(method.baseline).needs_embeddings
    return needed if method.embeddings is None else bool(method.embeddings)


def open_data(data: DataSpec) -> PerformanceRecords:
    """Return the records of a bench's data, with all candidates."""
    import polars as pl

    from satlight.records import open_records, use_split

    records = open_records(data.records, data.score_column, datasets=data.datasets, simulated=data.simulated)
    records = use_split(records, data.split_column)
    if data.text_column not in records.instructions.columns:
        raise SatlightError(
            f"data '{data.name}': the instructions have no text_column '{data.text_column}'; available: "
            f"{', '.join(records.instructions.columns)}"
        )
    text = pl.col(data.text_column).cast(pl.String).alias("instruction")
    return replace(records, instructions=records.instructions.with_columns(text))


def _problems(config: BenchConfig, data: DataSpec) -> list[Problem]:
    from satlight.records import save_records, split_records
    from satlight.records.zoo import load_setting

    records = open_data(data)
    problems = []
    for setting in data.settings:
        selected = records if setting == "all" else load_setting(setting).select(records)
        for seed in config.seeds:
            split = split_records(
                selected,
                validation_fraction=data.validation_fraction,
                seed=seed,
                group_column=data.group_column,
                test_fraction=data.test_fraction,
            )
            split_up = selected.with_splits(split)
            problem = _problem(split_up, data, setting, seed)
            if not (folder := Path(config.output) / "problems" / problem.key).is_dir():
                save_records(split_up, folder)
            problems.append(problem)
    return problems


def _problem(records: PerformanceRecords, data: DataSpec, setting: str, seed: int) -> Problem:
    from satlight.records.groups import check_groups

    tested = list(dict.fromkeys(records.datasets[records.splits == "test"].tolist()))
    if not tested:
        raise SatlightError(f"data '{data.name}' has no test rows; set test_fraction, or mark test rows in the records")
    if unknown := sorted(set(data.train_datasets or []) - set(records.datasets.tolist())):
        raise SatlightError(f"data '{data.name}': train_datasets names {unknown}, which its records do not have")
    groups = check_groups(data.groups or {"all": tested}, tested)
    problem = Problem(
        data.name, setting, seed, records.fingerprint, groups, data.train_datasets, data.score_column, key=""
    )
    return replace(problem, key=digest({key: value for key, value in asdict(problem).items() if key != "key"}))


def write_cell(cell: Cell, folder: Path) -> None:
    """Write the description of a cell into ``folder``, for people and for the worker."""
    write_text(folder / "cell.json", json.dumps(asdict(cell), indent=1, ensure_ascii=False) + "\n")


def read_cell(folder: Path) -> Cell:
    """Read a description written by :func:`write_cell`.

    Raises:
        SatlightError: It is missing or damaged.
    """
    path, advice = folder / "cell.json", "delete the folder of the cell, and the bench computes it again"
    content = read_json(path, advice)
    try:
        return typed(Cell, content, "the cell")
    except TypeError as error:
        raise SatlightError(f"{path}: {error}; {advice}") from error
