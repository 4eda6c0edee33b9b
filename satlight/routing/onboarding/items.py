"""The items that a new candidate answers: where they come from, in which order, and what it is asked.

Shape legend: L items.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from satlight.capability.aptitude import AptitudeTest
from satlight.errors import SatlightError
from satlight.files import read_jsonl, write_text
from satlight.images import content_keys, content_of, data_url, image_source
from satlight.records.names import listed
from satlight.records.rotation import LABELS, find_options
from satlight.types import task_key

ADVICE = "--items takes a file that AptitudeTest.export wrote, or one of that form"
RESULTS_ADVICE = '--results takes an object {"id": ..., "answer": ...} or {"id": ..., "score": ...} per line'


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the aptitude test.

    Args:
        item_id: Unique name, the ``instruction_id`` of the records.
        text: The instruction.
        dataset: Dataset it belongs to.
        task: Task within the dataset.
        answer: Reference answer; None = unknown.
        choices: Options of a multiple-choice item; empty = none.
        images: Files or contents of files.

    Example:
        >>> Item("a", "Which is red?", choices=("blood", "grass"), answer="A").labels
        ('A', 'B')
    """

    item_id: str
    text: str
    dataset: str = ""
    task: str = ""
    answer: str | None = None
    choices: tuple[str, ...] = ()
    images: tuple[Path | bytes, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the options: those in the text, else A, B, …"""
        found = find_options(self.text, self.choices)
        return found.labels if found else tuple(LABELS[0][: len(self.choices)])

    @property
    def task_key(self) -> str:
        """Unique name of the task."""
        return task_key(self.dataset, self.task)

    def prompt(self, suffix: str | None = None) -> str:
        """Return what the candidate is asked: the text, its options unless the text has them, and a last line.

        Args:
            suffix: The last line; None = the form of the answer of a multiple-choice item, nothing for others.
        """
        parts = [self.text]
        if self.choices and find_options(self.text, self.choices) is None:
            pairs = zip(self.labels, self.choices, strict=True)
            parts.append("\n".join(f"{label}. {choice}" for label, choice in pairs))
        if suffix is None and self.choices:
            suffix = f'End with "The answer is (X)", where X is one of {", ".join(self.labels)}.'
        return "\n\n".join([*parts, *([suffix] if suffix else [])])


# -- sources -----------------------------------------------------------------------------------------------


def core_items(test: AptitudeTest, images: Path | None = None) -> list[Item]:
    """Return the items of an aptitude test, in the order in which they inform most (:func:`informative_first`).

    Args:
        test: The test.
        images: Folder with the images of the items, at any depth; None = only for tests without.

    Raises:
        SatlightError: An item has an image that is not in the folder.
    """
    found = _ImageFolder(images)
    items = [
        Item(item_id, text, task.dataset, task.name, answer, choices, tuple(found(name) for name in names))
        for task in test.tasks
        for item_id, text, answer, choices, names in zip(
            task.instruction_ids, task.texts, task.item_answers, task.item_choices, task.item_images, strict=True
        )
    ]
    spreads = test.reference_std if test.has_reference else (0.0,) * len(test.tasks)
    pairs = zip(test.tasks, spreads, strict=True)
    return informative_first(items, {task_key(task.dataset, task.name): spread for task, spread in pairs})


class _ImageFolder:
    """Find images by the names that an aptitude test keeps: content key and file name."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.paths: dict[str, list[Path]] = {}
        for path in sorted(folder.rglob("*")) if folder else []:
            if path.is_file():
                self.paths.setdefault(path.name, []).append(path)

    def __call__(self, name: str) -> Path:
        key, file = content_of(name), name.partition("-")[2]
        for path in self.paths.get(file, []):
            if content_keys([path]) == [key]:
                return path
        if self.folder is None:
            raise SatlightError(
                f"Items of the aptitude test have images, e.g. {file}, which the router folder does not hold; give "
                "the folder of the records, or another one with the images: --images DIR"
            )
        same = "has another content" if file in self.paths else "is not there"
        raise SatlightError(f"The image {file} of an item of the aptitude test {same}: --images {self.folder}")


def informative_first(items: Sequence[Item], spread: Mapping[str, float]) -> list[Item]:
    """Order items so that the first N inform most about a candidate, for any N.

    One item of every task, then the second of every task, and so on; tasks on which the known candidates differ most
    come first. Within a task the given order stays: in an aptitude test, its first K items are a fair sample, so that
    the accuracy of a part is comparable to that of the whole.

    Args:
        items: L items.
        spread: Name of each task → standard deviation of the known candidates' accuracy; a task without one counts as
            0, and equal ones keep the order of the items.
    """
    tasks: dict[str, list[Item]] = {}
    for item in items:
        tasks.setdefault(item.task_key, []).append(item)
    order = sorted(tasks, key=lambda task: -spread.get(task, 0.0))
    rounds = max((len(own) for own in tasks.values()), default=0)
    return [tasks[task][k] for k in range(rounds) for task in order if k < len(tasks[task])]


def read_items(path: Path) -> list[Item]:
    """Read items with their answers, in the form of :meth:`AptitudeTest.export`.

    Each line is an object with instruction_id, instruction and answer, and optionally dataset, task, choices and
    images (paths relative to the file, or data: URLs).

    Raises:
        SatlightError: An invalid line, an id twice, or no item.
    """
    items: dict[str, Item] = {}
    for number, line in read_jsonl(path, ADVICE):
        where = f"{path}, line {number}"
        name = _text(line, "instruction_id", where)
        if name in items:
            raise SatlightError(f"{where}: the item '{name}' occurs twice; keep one")
        lists = {key: line.get(key) or [] for key in ("choices", "images")}
        for key, value in lists.items():
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise SatlightError(f"{where}: {key} is {value!r:.80}; it must be a list of texts")
        items[name] = Item(
            name,
            _text(line, "instruction", where),
            str(line.get("dataset") or ""),
            str(line.get("task") or ""),
            None if line.get("answer") is None else str(line["answer"]),
            tuple(lists["choices"]),
            tuple(image_source(one, path.parent, where) for one in lists["images"]),
        )
    if not items:
        raise SatlightError(f"{path} has no items; {ADVICE}")
    return list(items.values())


def _text(line: Any, key: str, where: str) -> str:
    value = line.get(key) if isinstance(line, dict) else None
    if not isinstance(value, str) or not value.strip():
        raise SatlightError(f"{where}: {key} is missing or no text; {ADVICE}")
    return value


# -- export and results ------------------------------------------------------------------------------------


def export_items(items: Sequence[Item], path: Path, suffix: str | None = None) -> None:
    """Write what a candidate is to be asked, without the reference answers.

    Args:
        items: L items.
        path: File to write: an object with id, prompt, choices and images (data: URLs) per line.
        suffix: See :meth:`Item.prompt`.
    """
    lines = [
        {
            "id": item.item_id,
            "prompt": item.prompt(suffix),
            "choices": list(item.choices),
            "images": [data_url(image) for image in item.images],
        }
        for item in items
    ]
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_results(path: Path, items: Sequence[Item], shots: int | None) -> list[tuple[Item, str | float]]:
    """Read answers or scores of a candidate.

    Args:
        path: JSON lines with the id of an item and its ``answer``, to be graded, or its ``score`` in [0, 1].
        items: L items in the order of :func:`informative_first`.
        shots: Number of items that were exported; None = all, or the first N where the file has exactly these.

    Returns:
        Items with an answer (str) or a score (float).

    Raises:
        SatlightError: An invalid line, an unknown id, an id twice, or items without a result.
    """
    known = {item.item_id: item for item in items}
    given: dict[str, str | float] = {}
    for number, line in read_jsonl(path, RESULTS_ADVICE):
        where = f"{path}, line {number}"
        name = line.get("id") if isinstance(line, dict) else None
        if not isinstance(name, str) or name not in known:
            raise SatlightError(
                f"{where}: {name!r:.80} is no item of this router's aptitude test, whose ids are like "
                f"'{items[0].item_id}'; {RESULTS_ADVICE}, with the ids of `satlight onboard --export`"
            )
        if name in given:
            raise SatlightError(f"{where}: the item '{name}' occurs twice; keep one result")
        given[name] = _result(line, where)
    needed = items[: shots or (len(given) if _is_first(given, items) else None)]
    missing = [item.item_id for item in needed if item.item_id not in given]
    if missing or not given:
        raise SatlightError(
            f"{path} lacks {len(missing)} of the {len(needed)} items that are needed, e.g. {listed(missing, 3)}; let "
            "the candidate answer them, or export fewer with --shots and answer all of those"
        )
    return [(known[name], value) for name, value in given.items()]


def _is_first(given: Collection[str], items: Sequence[Item]) -> bool:
    return bool(given) and all(item.item_id in given for item in items[: len(given)])


def _result(line: Mapping[str, Any], where: str) -> str | float:
    answer, score = line.get("answer"), line.get("score")
    if (answer is None) == (score is None):
        raise SatlightError(f"{where}: {'both' if score is not None else 'neither'} answer and score; {RESULTS_ADVICE}")
    if score is None:
        if not isinstance(answer, str):
            raise SatlightError(f"{where}: answer is {answer!r:.80}; it must be the text that the candidate wrote")
        return answer
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise SatlightError(f"{where}: score is {score!r:.80}; it must be a number from 0 to 1")
    return float(score)
