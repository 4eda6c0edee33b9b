"""The bench's YAML file as dataclasses, parsed by jsonargparse."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal, TypeVar

from satlight.errors import SatlightError
from satlight.files import parse_yaml, read_text
from satlight.records.sources import SimulatedSpec

T = TypeVar("T")

KINDS = ("baseline", "config", "scores")
"""Kinds of methods; each method has exactly one of these keys."""

FILES = ("config", "scores")
"""Those that are paths."""


@dataclass(frozen=True)
class MethodSpec:
    """A router to measure.

    Args:
        name: Name in tables; by default that of the baseline or the file.
        baseline: A name of :func:`satlight.baselines.available`, or ``module.Class`` of your own class.
        options: Parameters of the baseline's constructor.
        embeddings: Whether to give the baseline an embedder; ``text`` = one that sees no images; None = only if it
            requires one.
        config: A training config, run by ``satlight fit`` and ``satlight predict``.
        overrides: Command line arguments after the config, e.g. ``--trainer.max_epochs=2``.
        scores: A ``scores.parquet`` written by ``satlight predict``; ``{seed}`` and ``{setting}`` in the path
            are replaced.
        settings: Zoo settings to measure it in; None = all settings of the bench.
    """

    name: str = ""
    baseline: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    embeddings: bool | Literal["text"] | None = None
    config: str | None = None
    overrides: list[str] = field(default_factory=list)
    scores: str | None = None
    settings: list[str] | None = None

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)


@dataclass(frozen=True)
class Release:
    """Options of :func:`satlight.evaluation.protocols.incremental_release`.

    Args:
        founders: Number of first releases to train on.
        best: Number of best earlier candidates to keep.
        probes: Number of instructions for which the outcomes of later candidates are known.
    """

    founders: int
    best: int = 5
    probes: int = 64


@dataclass(frozen=True)
class UnseenCandidates:
    """Options of :func:`satlight.evaluation.protocols.unseen_candidates`.

    Args:
        folds: Number of parts of the candidates.
        probes: Number of instructions for which the outcomes of unseen candidates are known.
    """

    folds: int = 3
    probes: int = 64


@dataclass(frozen=True)
class UnseenTasks:
    """Options of :func:`satlight.evaluation.protocols.unseen_tasks`.

    Args:
        folds: Number of parts of the tasks.
    """

    folds: int = 5


@dataclass(frozen=True)
class DataSpec:
    """Performance records to measure on, in one or several zoo settings.

    Args:
        name: Name in tables.
        records: Records folder, ``.csv`` or ``.jsonl`` file, or ``simulated``.
        score_column: Column of outcomes.
        text_column: Column of the instructions that routers read.
        datasets: Datasets to use; None = all.
        train_datasets: Datasets to train on; None = all that have training rows.
        groups: Named groups of datasets that get a macro mean; None = one group ``all``. The first one sorts
            the tables.
        settings: Zoo presets: names or files of ``configs/zoo``; ``all`` = every candidate.
        group_column: Instructions with the same value stay on the same side of a split.
        split_column: Column of the instructions that holds their split.
        validation_fraction: Share of training instructions used for validation.
        test_fraction: Share of test instructions to draw if the records mark none.
        simulated: Size and seed of the simulated zoo.
        release: Also measure the release curve of the setting ``all``.
        unseen_candidates: Also train without each part of the candidates of the setting ``all``, and choose
            among those.
        unseen_tasks: Also train without each part of the tasks of the setting ``all``, and route those.
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
    split_column: str = "split"
    validation_fraction: float = 0.1
    test_fraction: float | None = None
    simulated: SimulatedSpec = field(default_factory=SimulatedSpec)
    release: Release | None = None
    unseen_candidates: UnseenCandidates | None = None
    unseen_tasks: UnseenTasks | None = None


@dataclass(frozen=True)
class EmbedderSpec:
    """An embedder of texts with images, :class:`satlight.backbones.embedding.RequestEmbedder`.

    Args:
        text: Text embedder.
        image: Image encoder.
        cells: Cells per side of an image, whose mean features are concatenated.
        num_layers: Keep only the first layers of the image encoder; None = all.
        image_size: Side in pixels of the square that the image encoder reads; None = its own.
        image_weight: Share of the images in the squared norm of a vector, between 0 and 1.
    """

    text: str = "minilm"
    image: str = "efficientnet-lite0"
    cells: int = 2
    num_layers: int | None = None
    image_size: int | None = None
    image_weight: float = 0.5


@dataclass(frozen=True)
class BenchConfig:
    """A bench: methods × data × zoo settings × seeds.

    Args:
        methods: Routers to measure.
        data: Records to measure on.
        name: Name of the bench; by default that of the file.
        output: Folder of cells and report; by default ``runs/bench/NAME``.
        seeds: Seeds of the validation split and the methods.
        timeout: Time limit of a method on a problem, in seconds.
        workers: Number of cells to run at once, with one thread each; None = one per core.
        embedder: Text embedder of the baselines that require one; or a ``text`` and an ``image`` embedder, see
            :class:`EmbedderSpec`.
        resamples: Bootstrap resamples of every interval.
        wandb: W&B project; None = no W&B.
    """

    methods: list[MethodSpec]
    data: list[DataSpec]
    name: str = ""
    output: str = ""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    timeout: float = 1800.0
    workers: int | None = None
    embedder: str | EmbedderSpec = "minilm"
    resamples: int = 2000
    wandb: str | None = None

    def embedder_of(self, method: MethodSpec) -> str | dict[str, Any]:
        """Return the argument of :func:`satlight.backbones.embedding.build_embedder` for a method that needs one."""
        if isinstance(self.embedder, str):
            return self.embedder
        options = asdict(self.embedder)
        return self.embedder.text if method.embeddings == "text" else options | {"backbone": options.pop("image")}


def load_config(path: Path | str) -> BenchConfig:
    """Read and check a bench's YAML file.

    Args:
        path: The file.

    Returns:
        The config. Of the files that it names, only training configs must exist.

    Raises:
        SatlightError: Names the file and the key, and says what is allowed.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "demo.yaml"
        >>> _ = file.write_text("methods: [knn]\\ndata: [{name: toy, records: simulated}]\\nseeds: [0]\\n")
        >>> config = load_config(file)
        >>> config.name, config.output, config.methods[0].baseline
        ('demo', 'runs/bench/demo', 'knn')
    """
    path = Path(path).expanduser()
    advice = "give the YAML file of a bench, e.g. configs/bench/quick.yaml"
    content = parse_yaml(read_text(path, advice), str(path), advice)
    if not isinstance(content, dict):
        raise SatlightError(f"{path}: expected a mapping with 'methods' and 'data', got {content!r}")
    content = {"name": path.stem} | content
    content = {"output": f"runs/bench/{content['name']}"} | content
    content["output"] = expanduser(content["output"]) if isinstance(content["output"], str) else content["output"]
    if isinstance(methods := content.get("methods"), list):
        content["methods"] = [_with_name(item) for item in methods]
    for key, cls in (("methods", MethodSpec), ("data", DataSpec)):
        items: Any = content.get(key)
        for i, item in enumerate(items if isinstance(items, list) else ()):
            _build(cls, item, f"{path}: {key}[{i}]")  # so that an error names the entry
    return _checked(_build(BenchConfig, content, str(path)), str(path))


def _with_name(item: Any) -> Any:
    """Expand ``~`` and a baseline that is given by its name alone, and name a method without a name."""
    item = {"baseline": item} if isinstance(item, str) else item
    if isinstance(item, dict):
        item = item | {key: expanduser(item[key]) for key in FILES if isinstance(item.get(key), str)}
    if not isinstance(item, dict) or item.get("name"):
        return item
    if (baseline := item.get("baseline")) is not None:
        return item | {"name": str(baseline).rsplit(".", 1)[-1]}
    file = Path(str(next((item[kind] for kind in KINDS if item.get(kind) is not None), "")))
    return item | {"name": file.resolve().parent.name if file.stem in ("config", "scores") else file.stem}


def _build(cls: type[T], content: Any, where: str) -> T:
    """Return an instance of a dataclass; jsonargparse checks keys and types."""
    from jsonargparse import ArgumentError, ArgumentParser

    allowed = ", ".join(one.name for one in fields(cls))  # type: ignore[arg-type]
    if not isinstance(content, dict):
        raise SatlightError(f"{where}: expected a mapping, got {content!r}; allowed keys: {allowed}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls)
    try:
        return cls(**vars(parser.instantiate(parser.parse_object(content))))
    except ArgumentError as error:
        reason = " ".join(str(error).partition("Given value type")[0].split()).rstrip(".")
        raise SatlightError(f"{where}: {reason}; allowed keys: {allowed}") from error


def _checked(config: BenchConfig, where: str) -> BenchConfig:
    """Refuse values that have the right type and make no sense."""
    for key in ("methods", "data", "seeds"):
        if not getattr(config, key):
            raise SatlightError(f"{where}: '{key}' is empty; give at least one entry")
    for key, minimum in (("timeout", 0.001), ("workers", 1), ("resamples", 1)):
        value = getattr(config, key)
        if value is not None and not minimum <= value < float("inf"):  # also refuses NaN
            raise SatlightError(f"{where}: {key} is {value}; it must be positive and finite")
    _check_distinct(config.seeds, f"{where}: seeds")
    for key in ("methods", "data"):
        _check_distinct([item.name for item in getattr(config, key)], f"{where}: {key}")
    settings = {setting for data in config.data for setting in data.settings}
    for i, method in enumerate(config.methods):
        _check_method(method, settings, f"{where}: methods[{i}]")
    for i, data in enumerate(config.data):
        if not data.settings:
            raise SatlightError(f"{where}: data[{i}]: settings is empty; name zoo presets, or omit it for 'all'")
        _check_distinct(data.settings, f"{where}: data[{i}]: settings")
        for key in ("release", "unseen_candidates", "unseen_tasks"):
            if getattr(data, key) is not None and "all" not in data.settings:
                raise SatlightError(f"{where}: data[{i}]: {key} requires the zoo setting 'all'; add it to the settings")
    return config


def _check_method(method: MethodSpec, settings: set[str], where: str) -> None:
    given = [kind for kind in KINDS if getattr(method, kind) is not None]
    if len(given) != 1:
        raise SatlightError(f"{where}: got {given or 'none'} of {', '.join(KINDS)}; a method has exactly one of them")
    for key, owner in (("options", "baseline"), ("embeddings", "baseline"), ("overrides", "config")):
        if getattr(method, key) and method.kind != owner:
            raise SatlightError(
                f"{where}: '{key}' requires '{owner}', but the method has '{method.kind}'; remove '{key}'"
            )
    if method.config is not None and not Path(method.config).is_file():
        raise SatlightError(f"{where}: the training config {method.config} does not exist")
    if unknown := sorted(set(method.settings or []) - settings):
        raise SatlightError(
            f"{where}: '{method.name}' names the settings {unknown}, which no data has; available: "
            f"{', '.join(sorted(settings))}"
        )


def _check_distinct(values: list[Any], where: str) -> None:
    if repeated := sorted({str(value) for value in values if values.count(value) > 1}):
        raise SatlightError(f"{where}: {repeated} occur twice; use distinct values")
