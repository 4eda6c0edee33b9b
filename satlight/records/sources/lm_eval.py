"""Sample logs of the LM Evaluation Harness: ``lm_eval --log_samples --output_path DIR``.

One folder per candidate holds ``samples_<task>_<time>.jsonl`` (a line per question and answer filter) and
``results_<time>.json``. Every metric between 0 and 1 becomes a score column; of metrics where lower is better it
is 1 - value.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import polars as pl

from satlight.errors import SatlightError
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.sources.lm_eval_logs import Log, Samples, find_logs, read_samples
from satlight.records.sources.lm_eval_text import common_start, last_question, prompt_and_choices
from satlight.records.tables import RecordTables, check_instructions, named_candidates

PREFERRED = ("acc", "exact_match", "pass@1", "acc_norm")
"""Default preference of metrics for ``score``: the first of these that a task has."""


def read(
    path: Path | str,
    score_column: str = "score",
    models: Path | str | None = None,
    metrics: Sequence[str] | None = None,
    text_fields: Sequence[str] | None = None,
) -> PerformanceRecords:
    """Read sample logs as a matrix.

    Args:
        path: Folder of one or several candidates (any depth, links are followed). Of several logs of one candidate
            and task the latest is used, but never one with ``--limit`` instead of a complete one.
        score_column: ``"score"``, or one metric, e.g. ``"acc_norm"`` (tasks without it stay unknown).
        models: JSON file with details of the candidates, in the format of ``models.json``.
        metrics: Metrics that may become ``score``, in order of preference; append an answer filter as in
            ``"exact_match,strict-match"``. None = :data:`PREFERRED`.
        text_fields: Fields of the benchmark's entries that make up the instruction, e.g.
            ``["passage", "question"]``, or of the tasks of a name or pattern: ``["boolq:passage",
            "mmlu_*:question"]``. None = the last question of the prompt, without worked examples.

    Returns:
        Records with the columns ``choices`` and ``answer``; no split.

    Raises:
        SatlightError: No log, an invalid line, or a missing field or metric.
    """
    return build_records(tables(path, models, metrics, text_fields), score_column)


def tables(
    path: Path | str,
    models: Path | str | None = None,
    metrics: Sequence[str] | None = None,
    text_fields: Sequence[str] | None = None,
) -> RecordTables:
    """Read sample logs as tables; arguments and errors as for :func:`read`."""
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise SatlightError(f"{folder} is not a folder. Give the --output_path of lm_eval.")
    logs, notes = find_logs(folder)
    fields = _fields_per_task(dict.fromkeys(log.task for log in logs), text_fields or [])
    content = _Content()
    for log in logs:
        content.add(log, fields[log.task])
    kept = content.unchanged(folder)
    chosen = {task: _choose(task, sets, content.inverted[task], metrics) for task, sets in content.metrics.items()}
    records = pl.concat(content.frames, how="diagonal").filter(~pl.col("instruction_id").is_in(list(content.changed)))
    records = records.with_columns(_score(chosen)).drop("task").filter(pl.col("score").is_not_null())
    return RecordTables(
        instructions=check_instructions(pl.DataFrame(kept, infer_schema_length=None), str(folder)),
        candidates=named_candidates(content.candidates, models),
        records=records.lazy(),
        name=folder.resolve().name,
        file=str(folder),
        notes=(*_notes(chosen, content), *notes),
    )


class _Content:
    """Instructions and records of the logs that were read so far."""

    def __init__(self) -> None:
        self.questions: dict[str, dict[str, Any]] = {}  # instruction_id → row
        self.hashes: dict[str, str] = {}
        self.changed: dict[str, tuple[str, str]] = {}  # instruction_id → the candidates that differ
        self.first: dict[str, str] = {}  # instruction_id → the first candidate
        self.metrics: dict[str, list[set[str]]] = {}  # task → metrics of each of its logs
        self.inverted: dict[str, set[str]] = {}  # task → metrics of which lower is better
        self.directions: dict[tuple[str, str], tuple[bool, Log]] = {}
        self.unsure: dict[str, int] = {}  # task → instructions of which the start is not certain
        self.skipped: list[str] = []
        self.candidates: list[str] = []
        self.frames: list[pl.DataFrame] = []

    def add(self, log: Log, fields: Sequence[str]) -> None:
        """Read a log; one without a score is skipped and noted."""
        samples = read_samples(log)
        if not samples.metrics:
            found = ", ".join(f"{name} ({value})" for name, value in samples.unusable.items())
            self.skipped.append(
                f"{log.task} of '{log.candidate}' was skipped: none of its metrics is a number from 0 to 1: "
                f"{found or 'it has none'}."
            )
            return
        self._compare_directions(samples)
        self.metrics.setdefault(log.task, []).append(set(samples.metrics))
        ids = {doc: f"{log.task}-{doc}" for doc in samples.hashes}
        for doc, one in ids.items():
            self.first.setdefault(one, log.candidate)
            if self.hashes.setdefault(one, samples.hashes[doc]) != samples.hashes[doc]:
                self.changed.setdefault(one, (self.first[one], log.candidate))
        new = [doc for doc in ids if ids[doc] not in self.questions]
        for doc, row in zip(new, self._instructions(samples, new, fields), strict=True):
            self.questions[ids[doc]] = {"instruction_id": ids[doc], **row}
        if log.candidate not in self.candidates:
            self.candidates.append(log.candidate)
        values = {name: [column.get(doc) for doc in ids] for name, column in samples.metrics.items()}
        self.frames.append(
            pl.DataFrame({"instruction_id": list(ids.values())}).with_columns(
                pl.lit(log.candidate).alias("model_id"),
                pl.lit(log.task).alias("task"),
                *(pl.Series(name, column, dtype=pl.Float64) for name, column in values.items()),
            )
        )

    def _compare_directions(self, samples: Samples) -> None:
        log = samples.log
        self.inverted.setdefault(log.task, set()).update(samples.inverted)
        for label in samples.metrics:
            lower, other = self.directions.setdefault((log.task, label), (label in samples.inverted, log))
            if lower != (label in samples.inverted):
                raise SatlightError(
                    f"{log.path} and {other.path} disagree on whether a high {label} is good (higher_is_better in "
                    f"{log.facts.path} and {other.facts.path}). Run '{log.task}' with one version of the harness."
                )

    def _instructions(self, samples: Samples, docs: list[str], fields: Sequence[str]) -> list[dict[str, Any]]:
        log = samples.log
        prompts = {doc: prompt_and_choices(arguments) for doc, arguments in samples.prompts.items()}
        start = common_start([prompt for prompt, _ in prompts.values()])
        shots, delimiter, dataset = log.facts.shots(log.task), log.facts.delimiter(log.task), _dataset(log)
        rows = []
        for doc in docs:
            prompt, choices = prompts[doc]
            if fields:
                text = _text_of_fields(samples, doc, fields)
            else:
                text, sure = last_question(prompt[start:], samples.docs[doc], shots, delimiter)
                self.unsure[log.task] = self.unsure.get(log.task, 0) + (not sure)
            target = samples.targets[doc]
            answer = None if target is None else str(target)
            rows.append(
                {"dataset": dataset, "task": log.task, "instruction": text, "choices": choices, "answer": answer}
            )
        return rows

    def unchanged(self, folder: Path) -> list[dict[str, Any]]:
        """Return the rows of the questions that are the same for all candidates.

        Raises:
            SatlightError: There are none.
        """
        if not self.frames:
            raise SatlightError(f"No log of {folder} can be used. " + " ".join(self.skipped))
        kept = [row for one, row in self.questions.items() if one not in self.changed]
        if not kept:
            one, (first, second) = next(iter(self.changed.items()))
            raise SatlightError(
                f"No question of {folder} is the same for all candidates; e.g. {one} has another content (doc, "
                f"doc_hash) in the logs of '{first}' and '{second}'. Run all with one version of the tasks."
            )
        return kept


def _fields_per_task(tasks: dict[str, None], text_fields: Sequence[str]) -> dict[str, list[str]]:
    """Return the fields of each task: those given for it (``TASK:FIELD``), or else those given for all.

    Raises:
        SatlightError: A field is given for a task that there is not.
    """
    general = [one for one in text_fields if ":" not in one]
    special: dict[str, list[str]] = {}
    for pattern, colon, name in (one.partition(":") for one in text_fields):
        if not colon:
            continue
        matches = [task for task in tasks if fnmatchcase(task, pattern)]
        if not matches:
            raise SatlightError(f"--text-field {pattern}:{name}: no such task. Available: {listed(list(tasks))}.")
        for task in matches:
            special.setdefault(task, []).append(name)
    return {task: special.get(task, general) for task in tasks}


def _text_of_fields(samples: Samples, doc: str, fields: Sequence[str]) -> str:
    entry = samples.docs[doc]
    parts = []
    for field in fields:
        if field not in entry:
            raise SatlightError(
                f"{samples.log.path}: doc {doc} has no field '{field}'. It has {listed(list(entry))}. Give the field "
                f"of this task as --text-field {samples.log.task}:FIELD."
            )
        value = entry[field]
        if isinstance(value, dict) and isinstance(value.get("text"), list):  # as in ARC: {"text": […], "label": […]}
            value = value["text"]
        if isinstance(value, list):
            value = "\n".join(f"{chr(ord('A') + place)}. {option}" for place, option in enumerate(value))
        parts.append(str(value))
    return "\n".join(parts)


def _dataset(log: Log) -> str:
    """Return the widest group that prefixes the task's name (``mmlu_astronomy``: ``mmlu``), or the task."""
    parents: dict[str, set[str]] = {}
    for group, members in log.facts.groups().items():
        for member in members:
            parents.setdefault(member, set()).add(group)
    above: set[str] = set()
    queue = [log.task]
    while queue:
        new = parents.get(queue.pop(), set()) - above
        above |= new
        queue.extend(new)
    # "leaderboard" holds unrelated benchmarks; its members are the datasets.
    names = [group for group in above if log.task.startswith(f"{group}_") and group != "leaderboard"]
    return min(names, key=len, default=log.task)


def _choose(task: str, available: list[set[str]], inverted: set[str], wanted: Sequence[str] | None) -> str:
    """Return the metric of ``task`` to use as its score; all logs of the task must have it."""
    common = sorted(set.intersection(*available), key=lambda name: (name in inverted, name))
    for name in wanted or PREFERRED:
        for column in common:
            if name in (column, column.partition(",")[0]):
                return column
    if common and wanted is None:
        return common[0]
    raise SatlightError(
        f"The task '{task}' has none of the metrics {listed(list(wanted or PREFERRED))} in all its logs. "
        f"Available: {listed(common) or 'none'}. Name one of them (--metric)."
    )


def _score(chosen: dict[str, str]) -> pl.Expr:
    score = pl.lit(None, pl.Float64)
    for column in sorted(set(chosen.values())):
        tasks = [task for task, name in chosen.items() if name == column]
        score = pl.when(pl.col("task").is_in(tasks)).then(pl.col(column)).otherwise(score)
    return score.alias("score")


def _notes(chosen: dict[str, str], content: _Content) -> list[str]:
    notes = []
    for column in dict.fromkeys(chosen.values()):
        notes.append(f"score is {column} for {', '.join(task for task, name in chosen.items() if name == column)}.")
    for column in sorted({name for names in content.inverted.values() for name in names}):
        tasks = [task for task, names in content.inverted.items() if column in names]
        notes.append(f"Lower {column} is better, so the column is 1 - value for {', '.join(tasks)}.")
    for task, count in content.unsure.items():
        if count:
            notes.append(
                f"The instruction of {count} questions of {task} is the last paragraph of the prompt, since their "
                f"entry is not found in it; check it, or give --text-field {task}:FIELD."
            )
    if content.changed:
        notes.append(f"{len(content.changed)} questions that differ between candidates were dropped.")
    return notes + content.skipped
