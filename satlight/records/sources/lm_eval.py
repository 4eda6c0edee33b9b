"""Sample logs of the LM Evaluation Harness: ``lm_eval --log_samples --output_path DIR``.

One folder per candidate holds ``samples_<task>_<time>.jsonl`` (a line per question and answer filter) and
``results_<time>.json``. Every metric between 0 and 1 becomes a score column.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from satlight.errors import SatlightError
from satlight.records.dense import build_records
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.tables import RecordTables, check_instructions, named_candidates, read_json

PREFERRED = ("acc", "exact_match", "pass@1", "acc_norm")
"""Default preference of metrics for ``score``: the first of these that a task has."""

NO_METRIC = frozenset({"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics"})


@dataclass
class SampleFile:
    """Content of one ``samples_….jsonl`` without the responses.

    Args:
        path: The file.
        candidate: Name of the candidate.
        task: Name of the task.
        prompts: doc_id → (prompt, choices).
        docs: doc_id → entry of the benchmark.
        hashes: doc_id → hash of the entry, equal if two candidates got the same question.
        metrics: metric → doc_id → value in [0, 1].
    """

    path: Path
    candidate: str
    task: str
    prompts: dict[str, tuple[str, list[str] | None]]
    docs: dict[str, dict[str, Any]]
    hashes: dict[str, str]
    metrics: dict[str, dict[str, float]]


def read(
    path: Path | str,
    score_column: str = "score",
    models: Path | str | None = None,
    metrics: Sequence[str] | None = None,
    text_fields: Sequence[str] | None = None,
) -> PerformanceRecords:
    """Read sample logs as a matrix.

    Args:
        path: Folder of one or several candidates (any depth); the latest log of a repeated task is used.
        score_column: ``"score"``, or one metric, e.g. ``"acc_norm"`` (tasks without it stay unknown).
        models: JSON file with details of the candidates, in the format of ``models.json``.
        metrics: Metrics that may become ``score``, in order of preference; append an answer filter as in
            ``"exact_match,strict-match"``. None = :data:`PREFERRED`.
        text_fields: Fields of the benchmark's entries that make up the instruction, e.g.
            ``["passage", "question"]``. None = the prompt without the worked examples that all prompts of
            the task start with.

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
    files, older = find_logs(folder)
    questions: dict[str, dict[str, Any]] = {}  # instruction_id → row of the instructions
    hashes: dict[str, str] = {}
    changed: set[str] = set()
    columns: dict[str, list[set[str]]] = {}  # task → metrics of each of its logs
    frames = []
    for (candidate, task), file in files.items():
        log = read_log(file, candidate, task)
        columns.setdefault(task, []).append(set(log.metrics))
        ids = {doc: f"{task}-{doc}" for doc in log.hashes}
        changed |= {ids[doc] for doc, hash_ in log.hashes.items() if hashes.setdefault(ids[doc], hash_) != hash_}
        new = [doc for doc in ids if ids[doc] not in questions]
        for doc, row in zip(new, _instructions(log, new, text_fields), strict=True):
            questions[ids[doc]] = {"instruction_id": ids[doc], **row}
        values = {name: [column.get(doc) for doc in ids] for name, column in log.metrics.items()}
        frames.append(
            pl.DataFrame({"instruction_id": list(ids.values())}).with_columns(
                pl.lit(candidate).alias("model_id"),
                pl.lit(task).alias("task"),
                *(pl.Series(name, column, dtype=pl.Float64) for name, column in values.items()),
            )
        )
    kept = [row for one, row in questions.items() if one not in changed]
    if not kept:
        raise SatlightError(f"No question of {folder} is the same for all candidates; were the tasks changed?")
    chosen = {task: _choose(task, sets, metrics) for task, sets in columns.items()}
    records = pl.concat(frames, how="diagonal").filter(~pl.col("instruction_id").is_in(list(changed)))
    records = records.with_columns(_score(chosen)).drop("task").filter(pl.col("score").is_not_null())
    return RecordTables(
        instructions=check_instructions(pl.DataFrame(kept, infer_schema_length=None), str(folder)),
        candidates=named_candidates(list(dict.fromkeys(candidate for candidate, _ in files)), models),
        records=records.lazy(),
        name=folder.resolve().name,
        file=str(folder),
        notes=_notes(chosen, len(changed), older),
    )


def find_logs(folder: Path) -> tuple[dict[tuple[str, str], Path], int]:
    """Return the latest log of each (candidate, task) and the number of older logs."""
    found = sorted(folder.rglob("samples_*.jsonl"), key=lambda path: (_time(path), path))
    if not found:
        raise SatlightError(
            f"{folder} holds no samples_*.jsonl. Run lm_eval with --log_samples --output_path {folder}."
        )
    latest = {(candidate_name(path.parent), _task(path)): path for path in found}
    ordered = dict(sorted(latest.items()))
    return ordered, len(found) - len(ordered)


def candidate_name(folder: Path) -> str:
    """Return the candidate's name in the results, or else the folder's name with its slash restored."""
    for results in sorted(folder.glob("results_*.json"), key=_time, reverse=True):
        if name := read_json(results).get("model_name"):
            return str(name)
    return folder.resolve().name.replace("__", "/")


def read_log(file: Path, candidate: str, task: str) -> SampleFile:
    """Read one ``samples_….jsonl``.

    Raises:
        SatlightError: A line is invalid, lacks ``doc_id`` or repeats another.
    """
    log = SampleFile(file, candidate, task, {}, {}, {}, {})
    seen: set[tuple[str, str]] = set()
    unusable: set[str] = set()
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                sample = json.loads(line)
                doc_id = str(sample["doc_id"])
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise SatlightError(
                    f"{file}, line {number}: is not a sample of the harness ({type(error).__name__}: "
                    f"{error}). Run the task again."
                ) from None
            key = (doc_id, str(sample.get("filter", "none")))
            if key in seen:
                raise SatlightError(f"{file}, line {number}: doc_id {doc_id} was logged before; keep one line.")
            seen.add(key)
            _add_metrics(log, doc_id, sample, unusable)
            if doc_id not in log.hashes:
                log.docs[doc_id] = {**_as_dict(sample.get("doc")), "\0target": sample.get("target")}
                log.prompts[doc_id] = _prompt(sample.get("arguments"))
                log.hashes[doc_id] = sample.get("doc_hash") or _hash(sample.get("doc"))
    for name in unusable:
        log.metrics.pop(name, None)
    if not log.metrics:
        raise SatlightError(
            f"{file}: no metric lies between 0 and 1, so the task '{task}' cannot be scored. Remove the file."
        )
    return log


def _add_metrics(log: SampleFile, doc_id: str, sample: dict[str, Any], unusable: set[str]) -> None:
    names = sample.get("metrics") or [
        key
        for key in sample
        if key not in NO_METRIC and not key.endswith("_hash")  # logs before 2024 have no list
    ]
    answer_filter = sample.get("filter", "none")
    for name in names:
        value = sample.get(name)
        label = name if answer_filter == "none" else f"{name},{answer_filter}"
        if isinstance(value, int | float) and value != value:
            continue  # NaN: not measured
        if isinstance(value, int | float) and 0 <= value <= 1:
            log.metrics.setdefault(label, {})[doc_id] = float(value)
        else:
            unusable.add(label)


def _as_dict(doc: Any) -> dict[str, Any]:
    return doc if isinstance(doc, dict) else {"doc": doc}


def _hash(doc: Any) -> str:
    return hashlib.sha256(json.dumps(doc, sort_keys=True, default=str).encode()).hexdigest()


def _prompt(arguments: Any) -> tuple[str, list[str] | None]:
    """Return the prompt and, if options are scored one by one, the options."""
    requests = list(arguments.values()) if isinstance(arguments, dict) else list(arguments or [])
    pairs = [list(one.values()) if isinstance(one, dict) else list(one) for one in requests]
    if not pairs or not pairs[0]:
        return "", None
    prompts = [_plain(pair[0]) for pair in pairs]
    options = [str(pair[1]).strip() for pair in pairs if len(pair) > 1 and isinstance(pair[1], str)]
    same = len(pairs) > 1 and len(options) == len(pairs) and len(set(prompts)) == 1
    return prompts[0], options if same else None


def _plain(prompt: Any) -> str:
    """Return the text of a prompt, or the last message of a conversation (a JSON list of messages)."""
    while isinstance(prompt, list) and prompt and not isinstance(prompt[-1], dict):
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt.startswith("[{"):
        try:
            prompt = json.loads(prompt)
        except json.JSONDecodeError:
            return prompt
    if isinstance(prompt, list) and prompt:
        content = prompt[-1].get("content", "")
        if isinstance(content, list):
            content = "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
        return str(content)
    return str(prompt)


def _instructions(log: SampleFile, docs: list[str], fields: Sequence[str] | None) -> list[dict[str, Any]]:
    prefix = _worked_examples([prompt for prompt, _ in log.prompts.values()])
    dataset = _dataset(log)
    rows = []
    for doc in docs:
        prompt, choices = log.prompts[doc]
        target = log.docs[doc]["\0target"]
        text = _text_of_fields(log, doc, fields) if fields else prompt[prefix:].strip()
        rows.append(
            {
                "dataset": dataset,
                "task": log.task,
                "instruction": text,
                "choices": choices,
                "answer": None if target is None else str(target),
            }
        )
    return rows


def _worked_examples(prompts: list[str]) -> int:
    """Return the length of the paragraphs that all prompts start with: worked examples and general advice."""
    if len(prompts) < 2:
        return 0
    low, high = min(prompts), max(prompts)  # a prefix common to these is common to all
    common = next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    end = low.rfind("\n\n", 0, common)
    return end + 2 if end >= 0 and min(map(len, prompts)) > end + 2 else 0


def _text_of_fields(log: SampleFile, doc: str, fields: Sequence[str]) -> str:
    entry = log.docs[doc]
    parts = []
    for field in fields:
        if field not in entry:
            raise SatlightError(
                f"{log.path}: doc {doc} has no field '{field}'. It has "
                f"{listed([name for name in entry if not name.startswith(chr(0))])}."
            )
        value = entry[field]
        if isinstance(value, dict) and isinstance(value.get("text"), list):  # as in ARC: {"text": […], "label": […]}
            value = value["text"]
        if isinstance(value, list):
            value = "\n".join(f"{chr(ord('A') + place)}. {option}" for place, option in enumerate(value))
        parts.append(str(value))
    return "\n".join(parts)


def _dataset(log: SampleFile) -> str:
    """Return the widest group that prefixes the task's name (``mmlu_astronomy``: ``mmlu``), or the task."""
    parents: dict[str, set[str]] = {}
    for results in sorted(log.path.parent.glob("results_*.json"), key=_time):
        for group, members in (read_json(results).get("group_subtasks") or {}).items():
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


def _choose(task: str, available: list[set[str]], wanted: Sequence[str] | None) -> str:
    """Return the metric of ``task`` to use as its score; all logs of the task must have it."""
    common = sorted(set.intersection(*available))
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


def _notes(chosen: dict[str, str], changed: int, older: int) -> tuple[str, ...]:
    notes = []
    for column in dict.fromkeys(chosen.values()):
        notes.append(f"score is {column} for {', '.join(task for task, name in chosen.items() if name == column)}.")
    if changed:
        notes.append(f"{changed} questions that differ between candidates were dropped.")
    if older:
        notes.append(f"{older} older logs of the same candidate and task were ignored.")
    return tuple(notes)


def _task(path: Path) -> str:
    return path.stem.removeprefix("samples_").rpartition("_")[0] or path.stem.removeprefix("samples_")


def _time(path: Path) -> str:
    match = re.search(r"_([^_]*)$", path.stem)
    return match[1] if match else ""
