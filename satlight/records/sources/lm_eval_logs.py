"""Find and read the files that the LM Evaluation Harness writes; :mod:`.lm_eval` converts them to records."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.files import read_json, read_jsonl
from satlight.records.names import listed

ADVICE = "run the task again with --log_samples"

NO_METRIC = frozenset({"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"})

RESERVED = frozenset({"instruction_id", "model_id", "task", "cost_usd", "expected"})
"""Columns of the records that no metric may replace."""

LOWER_IS_BETTER = frozenset(
    {"brier_score", "pct_stereotype", "likelihood_diff", "perplexity", "word_perplexity", "byte_perplexity"}
    | {"bits_per_byte", "wer", "cer", "ter", "mse", "mae", "ece", "loss"}
)
"""Metrics of which a high value is bad, for logs whose results do not say so."""

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@dataclass(frozen=True)
class RunFacts:
    """Facts of a results file about its run, with accessors per task.

    Args:
        path: The file; None = there is none.
        content: Its content, an object.
    """

    path: Path | None = None
    content: dict[str, Any] = field(default_factory=dict)

    def part(self, *keys: str) -> dict[str, Any]:
        """Return the object at a path of keys, ``{}`` where it is missing or null.

        Raises:
            SatlightError: Something else stands there.
        """
        value: Any = self.content
        for number, key in enumerate(keys):
            value = value.get(key)
            if value is None:
                return {}
            if not isinstance(value, dict):
                raise SatlightError(
                    f"{self.path}: '{' > '.join(keys[: number + 1])}' is a {type(value).__name__}; an object is "
                    "required. Repair the file or run the task again."
                )
        return dict(value)

    def model_name(self) -> str | None:
        """Return the name of the model, or None."""
        name = self.content.get("model_name")
        if not name:
            arguments = self.part("config").get("model_args")
            if isinstance(arguments, dict):
                name = arguments.get("pretrained") or arguments.get("model")
            elif isinstance(arguments, str) and (match := re.search(r"(?:^|,)(?:pretrained|model)=([^,]+)", arguments)):
                name = match[1]
        return name.strip() or None if isinstance(name, str) else None

    def higher_is_better(self, task: str, metric: str) -> bool:
        """Return whether a high value of the metric is good."""
        stated = self.part("higher_is_better", task).get(metric)
        if stated is None:
            metrics = self.part("configs", task).get("metric_list")
            for one in metrics if isinstance(metrics, list) else []:
                if isinstance(one, dict) and one.get("metric") == metric:
                    stated = one.get("higher_is_better")
        if stated is not None and not isinstance(stated, bool):
            raise SatlightError(f"{self.path}: higher_is_better of {metric} is {stated!r}; true or false is required.")
        return metric not in LOWER_IS_BETTER if stated is None else stated

    def shots(self, task: str) -> int | None:
        """Return the number of worked examples in each prompt; None = unknown."""
        for value in (self.part("n-shot").get(task), self.part("configs", task).get("num_fewshot")):
            if isinstance(value, int) and value >= 0:
                return int(value)
        return None

    def delimiter(self, task: str) -> str:
        """Return the text between the worked examples."""
        value = self.part("configs", task).get("fewshot_delimiter")
        return value if isinstance(value, str) and value else "\n\n"

    def filters(self, task: str) -> list[str]:
        """Return the names of the answer filters, in order."""
        stated = self.part("configs", task).get("filter_list")
        if isinstance(stated, list) and stated:
            return [str(one.get("name")) if isinstance(one, dict) else str(one) for one in stated]
        names = [key.partition(",")[2] for key in self.part("results", task)]
        return list(dict.fromkeys(name for name in names if name))

    def limit(self, task: str) -> tuple[int, int] | None:
        """Return (questions asked, questions of the task) of a run with ``--limit``; None = no limit is known."""
        counts = self.part("n-samples", task)
        asked, every = counts.get("effective"), counts.get("original")
        if isinstance(asked, int) and isinstance(every, int):
            return (asked, every) if asked < every else None
        return (0, 0) if self.part("config").get("limit") is not None else None

    def groups(self) -> dict[str, list[str]]:
        """Return the members of each group of tasks."""
        groups = {name: members or [] for name, members in self.part("group_subtasks").items()}
        for name, members in groups.items():
            if not isinstance(members, list) or not all(isinstance(member, str) for member in members):
                raise SatlightError(
                    f"{self.path}: group_subtasks of '{name}' is {members!r}; a list of tasks is required."
                )
        return groups


@dataclass(frozen=True)
class Log:
    """A ``samples_….jsonl`` with what is known about its run."""

    path: Path
    candidate: str
    task: str
    facts: RunFacts


@dataclass
class Samples:
    """Content of a log without the responses; every dictionary has the doc_id as key.

    Args:
        log: The file.
        prompts: (Prompt as logged, choices).
        docs: Entry of the benchmark.
        targets: Right answer.
        hashes: Equal if two candidates got the same question.
        metrics: Metric → doc_id → value in [0, 1], high = good.
        inverted: Metrics of which 1 - value is taken.
        unusable: Metric → example of a value that is no score.
    """

    log: Log
    prompts: dict[str, Any] = field(default_factory=dict)
    docs: dict[str, dict[str, Any]] = field(default_factory=dict)
    targets: dict[str, Any] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    inverted: set[str] = field(default_factory=set)
    unusable: dict[str, str] = field(default_factory=dict)


def find_logs(folder: Path) -> tuple[list[Log], list[str]]:
    """Return one log of each candidate and task, in order, and notes on the others.

    Raises:
        SatlightError: No log, or logs of one candidate and task in two folders.
    """
    found: dict[tuple[str, str], list[Log]] = {}
    folders: dict[str, dict[str, None]] = {}
    for path in _sample_files(folder):
        facts = facts_of(path)
        candidate = facts.model_name() or _folder_name(path.parent)
        found.setdefault((candidate, _task(path)), []).append(Log(path, candidate, _task(path), facts))
        folders.setdefault(candidate, {})[str(path.parent)] = None
    if not found:
        raise SatlightError(
            f"{folder} holds no samples_*.jsonl. Run lm_eval with --log_samples --output_path {folder}."
        )
    notes = [
        f"'{candidate}' has logs of different tasks in {len(places)} folders, taken as one candidate: "
        f"{listed(list(places))}."
        for candidate, places in folders.items()
        if len(places) > 1
    ]
    logs, older, partial = [], 0, 0
    for _, several in sorted(found.items()):
        chosen = _best(several)
        others = [log for log in several if log is not chosen]
        limited = [log for log in others if _time(log.path) > _time(chosen.path)]
        older, partial = older + len(others) - len(limited), partial + len(limited)
        logs.append(chosen)
        if (limit := chosen.facts.limit(chosen.task)) is not None:
            size = "{} of {} questions".format(*limit) if limit[1] else "part of the questions"
            notes.append(f"{chosen.task} of '{chosen.candidate}' has {size} (--limit).")
    if older:
        notes.append(f"{older} older logs of the same candidate and task were ignored.")
    if partial:
        notes.append(f"{partial} later logs with fewer questions (--limit) were ignored.")
    return logs, notes


def _best(logs: list[Log]) -> Log:
    """Return the latest of the complete logs of one candidate and task."""
    logs = list({os.path.realpath(log.path): log for log in logs}.values())
    if len(logs) == 1:
        return logs[0]
    places = list(dict.fromkeys(str(log.path.parent) for log in logs))
    if len(places) > 1:
        raise SatlightError(
            f"The candidate '{logs[0].candidate}' has logs of the task '{logs[0].task}' in several folders: "
            f"{listed(places)}. Import one of them; if they are different models, give each its own model_name in "
            "its results_*.json."
        )
    sizes = [len({_doc_id(sample, log.path, number) for number, sample in _lines(log.path)}) for log in logs]
    full = [log for log, size in zip(logs, sizes, strict=True) if log.facts.limit(log.task) is None]
    if not full or any(log.facts.path is None for log in logs):
        full = [log for log, size in zip(logs, sizes, strict=True) if size == max(sizes)]
    return max(full, key=lambda log: (_time(log.path), str(log.path)))


def _sample_files(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the logs below a folder; links to folders are followed, but never in a circle."""
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise SatlightError(f"{folder} cannot be read ({error.strerror or error}). Check the path.") from error
    for entry in entries:
        if entry.is_dir():
            yield from _sample_files(entry, (*above, real))
        elif entry.name.startswith("samples_") and entry.name.endswith(".jsonl"):
            yield entry


def facts_of(path: Path) -> RunFacts:
    """Return the facts of the run that wrote a log.

    That is the JSON file with the same time stamp (``results_<time>.json``, or ``NAME_<time>.json`` after
    ``--output_path NAME.json``), or else the latest ``results_*.json`` of the folder.

    Raises:
        SatlightError: It cannot be read, or the folder has results of several models and none is of this run.
    """
    time = _time(path)
    same = [one for one in sorted(path.parent.glob("*.json")) if time and one.stem.endswith(f"_{time}")]
    if same:
        return _facts(max(same, key=lambda one: one.name.startswith("results_")))
    every = [_facts(one) for one in sorted(path.parent.glob("results_*.json"), key=_time)]
    if len(names := {facts.model_name() for facts in every}) > 1:
        raise SatlightError(
            f"{path} has no results file of its time, and its folder has results of {listed(sorted(map(str, names)))}. "
            "Move the logs of each model to a folder of its own."
        )
    return every[-1] if every else RunFacts()


@lru_cache(maxsize=1000)
def _read_facts(path: Path, _changed: int) -> RunFacts:
    content = read_json(path, ADVICE)
    if not isinstance(content, dict):
        raise SatlightError(f"{path} holds a {type(content).__name__}; the results of a run are an object. Remove it.")
    return RunFacts(path, content)


def _facts(path: Path) -> RunFacts:
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0  # a dangling link; reading it gives the message
    return _read_facts(path, changed)


def _folder_name(folder: Path) -> str:
    """Return the folder's name with the slash of the model restored."""
    name = folder.name if folder.name not in ("", ".", "..") else folder.resolve().name
    return name.replace("__", "/").strip() or str(folder)


def read_samples(log: Log) -> Samples:
    """Read one log.

    Raises:
        SatlightError: A line is invalid, lacks ``doc_id`` or repeats another.
    """
    samples = Samples(log)
    seen: set[tuple[str, str]] = set()
    times: Counter[str] = Counter()
    for number, sample in _lines(log.path):
        doc_id = _doc_id(sample, log.path, number)
        if "filter" in sample:
            filter_ = str(sample["filter"])
        else:  # logs before 2024 list all questions once per filter, without its name
            filter_ = f"\0{times[doc_id]}"
            times[doc_id] += 1
        if (doc_id, filter_) in seen:
            raise SatlightError(
                f"{log.path}, line {number}: doc_id {doc_id} was logged before with the same filter, so the file holds "
                "more than one run. Run the task again, into an empty folder."
            )
        seen.add((doc_id, filter_))
        _add_metrics(samples, doc_id, sample, filter_, number)
        if doc_id not in samples.hashes:
            doc = sample.get("doc")
            samples.docs[doc_id] = doc if isinstance(doc, dict) else {"doc": doc}
            samples.targets[doc_id] = sample.get("target")
            samples.prompts[doc_id] = sample.get("arguments")
            samples.hashes[doc_id] = _question_hash(sample)
    _name_filters(samples, times)
    for label in samples.unusable:
        samples.metrics.pop(label, None)
    for label, values in samples.metrics.items():
        if not log.facts.higher_is_better(log.task, label.partition(",")[0]):
            samples.inverted.add(label)
            samples.metrics[label] = {doc_id: 1 - value for doc_id, value in values.items()}
    return samples


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    return read_jsonl(path, ADVICE, nonfinite_as_null=True)


def _doc_id(sample: Any, path: Path, number: int) -> str:
    if not isinstance(sample, dict) or not isinstance(sample.get("doc_id"), str | int):
        found = listed(list(sample)) if isinstance(sample, dict) else f"a {type(sample).__name__}"
        raise SatlightError(
            f"{path}, line {number}: is not a sample of the harness: got {found}, not an object with a 'doc_id'; "
            f"{ADVICE}."
        )
    return str(sample["doc_id"])


def _add_metrics(samples: Samples, doc_id: str, sample: dict[str, Any], filter_: str, number: int) -> None:
    names = sample.get("metrics") or [key for key in sample if key not in NO_METRIC and not key.endswith("_hash")]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SatlightError(f"{samples.log.path}, line {number}: got metrics {names!r}; a list of names is required.")
    for name in names:
        value = sample.get(name)
        label = name if filter_ == "none" else f"{name},{filter_}"
        if value is None:
            continue  # not measured
        if isinstance(value, int | float) and 0 <= value <= 1 and label not in RESERVED:
            samples.metrics.setdefault(label, {})[doc_id] = float(value)
        else:
            samples.unusable.setdefault(label, f"{value!r:.40} in line {number}")


def _name_filters(samples: Samples, times: Counter[str]) -> None:
    """Replace the numbers of filters in the labels of metrics by their names."""
    count = max(times.values(), default=0)
    if len(set(times.values())) > 1:
        doc_id = min(times, key=lambda one: times[one])
        raise SatlightError(
            f"{samples.log.path}: doc_id {doc_id} was logged {times[doc_id]} times, others {count} times, so the file "
            "is incomplete or holds more than one run. Run the task again, into an empty folder."
        )
    stated = samples.log.facts.filters(samples.log.task)
    names = stated if len(stated) == count else [str(number + 1) for number in range(count)]

    def named(label: str) -> str:
        metric, mark, number = label.partition(",\0")
        return label if not mark else metric if count == 1 else f"{metric},{names[int(number)]}"

    samples.metrics = {named(label): values for label, values in samples.metrics.items()}
    samples.unusable = {named(label): value for label, value in samples.unusable.items()}


def _question_hash(sample: dict[str, Any]) -> str:
    """Return a hash of the question that does not depend on where its images lay in memory."""
    doc = json.dumps(sample.get("doc"), sort_keys=True, default=str)
    plain, addresses = _ADDRESS.subn("", doc)
    stated = sample.get("doc_hash")
    return stated if isinstance(stated, str) and not addresses else hashlib.sha256(plain.encode()).hexdigest()


def _task(path: Path) -> str:
    return path.stem.removeprefix("samples_").rpartition("_")[0] or path.stem.removeprefix("samples_")


def _time(path: Path) -> str:
    match = re.search(r"_([^_]*)$", path.stem)
    return match[1] if match else ""
