"""The bench's YAML file as dataclasses, with errors that say what is allowed."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError

KINDS = ("baseline", "config", "scores")
"""What a method can be; exactly one of these keys stands in it."""


@dataclass(frozen=True)
class MethodSpec:
    """A router to be measured.

    Args:
        name: Its name in tables; by default the baseline's, or the file's.
        baseline: A name of :func:`satlight.baselines.available`, or ``module.Class`` of one's own.
        options: Parameters of the baseline's constructor.
        embeddings: Whether the baseline is given an embedder; None = if it cannot do without.
        config: A training config; the router is fitted and asked by ``satlight fit`` and ``predict``.
        overrides: Words of the command line behind the config, e.g. ``--trainer.max_epochs=2``.
        scores: A ``scores.parquet`` that ``satlight predict`` wrote; ``{seed}`` and ``{setting}`` in it are
            replaced.
        settings: Zoo settings to measure it in; None = all of the bench.
    """

    name: str
    baseline: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    embeddings: bool | None = None
    config: str | None = None
    overrides: list[str] = field(default_factory=list)
    scores: str | None = None
    settings: list[str] | None = None

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


@dataclass(frozen=True)
class DataSpec:
    """Performance records to measure on, in one or several zoo settings.

    Args:
        name: Its name in tables.
        records: Records folder, ``.csv`` or ``.jsonl`` file, or ``simulated``.
        score_column: Column of outcomes.
        text_column: Column of the instructions that routers read.
        datasets: Datasets to use; None = all.
        train_datasets: Datasets to learn from; None = all that have train rows.
        groups: Named groups of datasets that get a macro mean; None = one group ``all``. The first one
            sorts the tables.
        settings: Zoo presets: names or files of ``configs/zoo``; ``all`` = every candidate.
        group_column: Instructions with the same value never stand on two sides of a split.
        validation_fraction: Share of train instructions kept for validation.
        test_fraction: Share of test instructions to draw where the records mark none.
        simulated: ``num_instructions``, ``num_candidates`` and ``seed`` of the simulated zoo.
        release: Draw the release curve of the setting ``all`` too: ``founders``, the first so many releases
            that are trained on; ``best`` earlier candidates that stay in the zoo (5), ``probes`` instructions
            on which later ones are known (64); see :func:`satlight.evaluation.protocols.incremental_release`.
        unseen_candidates: Train without each of ``folds`` parts of the candidates of the setting ``all`` (3),
            of which ``probes`` instructions are known (64), and choose between those; see
            :func:`satlight.evaluation.protocols.unseen_candidates`.
        unseen_tasks: Train without each of ``folds`` parts of the tasks (5), and route these; see
            :func:`satlight.evaluation.protocols.unseen_tasks`.
    """

    name: str
    records: str
    score_column: str = "score"
    text_column: str = "instruction"
    datasets: list[str] | None = None
    train_datasets: list[str] | None = None
    groups: dict[str, list[str]] | None = None
    settings: list[str] = field(default_factory=lambda: ["all"])
    group_column: str | None = None
    validation_fraction: float = 0.1
    test_fraction: float | None = None
    simulated: dict[str, int] = field(default_factory=dict)
    release: dict[str, int] | None = None
    unseen_candidates: dict[str, int] | None = None
    unseen_tasks: dict[str, int] | None = None


@dataclass(frozen=True)
class BenchConfig:
    """A bench: methods × data × zoo settings × seeds.

    Args:
        name: Its name; by default the file's.
        methods: Routers to measure.
        data: Records to measure on.
        output: Folder of cells and report; by default ``runs/bench/NAME``.
        seeds: Seeds of the validation draw and of the methods.
        timeout: Seconds a method may run on a problem.
        workers: Cells that run at once; None = one per core. Each has one thread.
        embedder: Text embedder of the baselines that need one.
        resamples: Bootstrap resamples of every interval.
        wandb: W&B project; None = no W&B.
    """

    name: str
    methods: list[MethodSpec]
    data: list[DataSpec]
    output: str
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    timeout: float = 1800.0
    workers: int | None = None
    embedder: str = "minilm"
    resamples: int = 2000
    wandb: str | None = None


def load_config(path: Path | str) -> BenchConfig:
    """Read and check a bench's YAML file.

    Args:
        path: The file.

    Returns:
        The config. Files that it names are looked for, but not opened.

    Raises:
        SatlightError: Names the key at fault and says what is allowed.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "demo.yaml"
        >>> _ = file.write_text("methods: [knn]\\ndata: [{name: toy, records: simulated}]\\nseeds: [0]\\n")
        >>> config = load_config(file)
        >>> config.name, config.output, config.methods[0].baseline
        ('demo', 'runs/bench/demo', 'knn')
    """
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise SatlightError(f"Cannot read the bench config {path}: {error}") from error
    content = _mapping(content, str(path), "a bench: methods and data")
    content.setdefault("name", path.stem)
    content.setdefault("output", f"runs/bench/{content['name']}")
    for key, make in (("methods", _method), ("data", _data)):
        items = content.get(key)
        if not isinstance(items, list) or not items:
            raise SatlightError(f"{path}: '{key}' must be a list with at least one entry, got {items!r}")
        content[key] = [make(item, f"{path}: {key}[{i}]") for i, item in enumerate(items)]
        _distinct([item.name for item in content[key]], f"{path}: {key}")
    config: BenchConfig = _build(BenchConfig, content, str(path))
    _check(config, str(path))
    return config


def _method(item: Any, where: str) -> MethodSpec:
    if isinstance(item, str):
        item = {"baseline": item}
    item = _mapping(item, where, "the name of a baseline, or a mapping")
    given = [kind for kind in KINDS if item.get(kind) is not None]
    if len(given) != 1:
        raise SatlightError(
            f"{where}: got {given or 'none'} of {', '.join(KINDS)}; a method has exactly one of them"
        )
    item.setdefault("name", _default_name(given[0], str(item[given[0]])))
    method: MethodSpec = _build(MethodSpec, item, where)
    for key, owner in (("options", "baseline"), ("embeddings", "baseline"), ("overrides", "config")):
        if getattr(method, key) and method.kind != owner:
            raise SatlightError(f"{where}: '{key}' belongs to a method with '{owner}', not '{method.kind}'")
    if method.config is not None and not Path(method.config).is_file():
        raise SatlightError(f"{where}: the training config {method.config} does not exist")
    return method


def _default_name(kind: str, value: str) -> str:
    if kind == "baseline":
        return value.rsplit(".", 1)[-1]
    path = Path(value)
    return path.resolve().parent.name if path.stem in ("config", "scores") else path.stem


def _data(item: Any, where: str) -> DataSpec:
    item = _mapping(item, where, "name and records")
    data: DataSpec = _build(DataSpec, item, where)
    if not data.settings:
        raise SatlightError(f"{where}.settings is empty; name zoo presets, or leave it out for 'all'")
    _distinct(data.settings, f"{where}.settings")
    for key, allowed in (
        ("simulated", ("num_instructions", "num_candidates", "seed")),
        ("release", ("founders", "best", "probes")),
        ("unseen_candidates", ("folds", "probes")),
        ("unseen_tasks", ("folds",)),
    ):
        if unknown := sorted(set(getattr(data, key) or {}) - set(allowed)):
            raise SatlightError(f"{where}.{key}: unknown {unknown}; allowed: {', '.join(allowed)}")
    if data.release is not None and "founders" not in data.release:
        raise SatlightError(f"{where}.release: 'founders' is missing, the number of releases to train on")
    for key in ("release", "unseen_candidates", "unseen_tasks"):
        if getattr(data, key) is not None and "all" not in data.settings:
            raise SatlightError(f"{where}.{key} is of the zoo setting 'all'; add it to the settings")
    return data


def _check(config: BenchConfig, where: str) -> None:
    there = {setting for data in config.data for setting in data.settings}
    for method in config.methods:
        if unknown := sorted(set(method.settings or []) - there):
            raise SatlightError(
                f"{where}: method '{method.name}' is for the settings {unknown}, which no data has; "
                f"there are {', '.join(sorted(there))}"
            )
    _distinct(config.seeds, f"{where}: seeds")
    if not config.seeds:
        raise SatlightError(f"{where}: seeds is empty; three seeds give an interval over seeds")
    for key, least in (("timeout", 0.001), ("workers", 1), ("resamples", 1)):
        value = getattr(config, key)
        if value is not None and value < least:
            raise SatlightError(f"{where}: {key} is {value}; it must be positive")


def _mapping(item: Any, where: str, wanted: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise SatlightError(f"{where}: expected {wanted}, got {item!r}")
    return dict(item)


def _distinct(values: list[Any], where: str) -> None:
    if repeated := sorted({str(value) for value in values if values.count(value) > 1}):
        raise SatlightError(f"{where}: {repeated} appear twice; give each its own name")


def _build(cls: Any, content: dict[str, Any], where: str) -> Any:
    """An instance of the dataclass ``cls`` from a mapping whose keys and types are checked."""
    known = {f.name: f for f in fields(cls)}
    for key in content:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, 1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise SatlightError(f"{where}: unknown key '{key}'; {hint}allowed: {', '.join(known)}")
    for name, spec in known.items():
        if name not in content and spec.default is MISSING and spec.default_factory is MISSING:
            raise SatlightError(f"{where}: '{name}' is missing")
        if name in content and not _fits(content[name], str(spec.type)):
            raise SatlightError(f"{where}: '{name}' is {content[name]!r}; it must be {spec.type}")
    return cls(**content)


def _fits(value: Any, wanted: str) -> bool:
    """Whether a YAML value has an annotated type; an int is a float, and no bool is an int."""
    if wanted.endswith(" | None"):
        return value is None or _fits(value, wanted.removesuffix(" | None"))
    if wanted.startswith("list["):
        return isinstance(value, list) and all(_fits(item, wanted[5:-1]) for item in value)
    if wanted.startswith("dict["):
        inner = wanted[5:-1].split(", ", 1)[1]
        return isinstance(value, dict) and all(
            isinstance(key, str) and _fits(item, inner) for key, item in value.items()
        )
    if wanted == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if wanted == "bool":
        return isinstance(value, bool)
    return not (wanted == "str" and not isinstance(value, str))
