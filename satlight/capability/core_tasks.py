"""Core tasks: a task of the records with the items that are put to every candidate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from satlight.capability.keywords import task_keywords
from satlight.capability.selection import ChosenTask
from satlight.images import image_names
from satlight.records.matrix import PerformanceRecords


@dataclass(frozen=True)
class CoreTask:
    """One task of the aptitude test.

    Args:
        name: Task name of the records.
        keywords: About five words that describe it in the capability representation.
        instruction_ids: Ids of its S core items; the first K are a fair sample for any K.
        texts: S instruction texts.
        dataset: Dataset it belongs to.
        answers: S reference answers, None where the records give none.
        images: S tuples of image names, see :func:`satlight.images.image_names`; empty = no item has an image.
        choices: S tuples of the options of multiple-choice items; empty = no item has options.
    """

    name: str
    keywords: str
    instruction_ids: tuple[str, ...]
    texts: tuple[str, ...]
    dataset: str = ""
    answers: tuple[str | None, ...] = ()
    images: tuple[tuple[str, ...], ...] = ()
    choices: tuple[tuple[str, ...], ...] = ()

    @property
    def item_images(self) -> tuple[tuple[str, ...], ...]:
        """S tuples of image names, also where no item has one."""
        return self.images or ((),) * len(self.texts)

    @property
    def item_choices(self) -> tuple[tuple[str, ...], ...]:
        """S tuples of options, also where no item has them."""
        return self.choices or ((),) * len(self.texts)

    @property
    def item_answers(self) -> tuple[str | None, ...]:
        """S reference answers, also where none is known."""
        return self.answers or (None,) * len(self.texts)


def core_tasks(
    records: PerformanceRecords, chosen: list[ChosenTask], table: Mapping[str, str] | None
) -> tuple[CoreTask, ...]:
    """Build core tasks from the chosen rows: ids, texts, answers and keywords."""

    def column(name: str) -> list[Any]:
        if name not in records.instructions.columns:
            return [None] * records.shape[0]
        return records.instructions[name].to_list()

    ids, answers, own_keywords = column("instruction_id"), column("answer"), column("keywords")
    options = [_options(given) for given in column("choices")]
    tasks = []
    for task in chosen:
        given = own_keywords[task.rows[0]]
        if given and not (table and task.task in table):
            words = ", ".join(given) if isinstance(given, list) else str(given)
        else:
            words = task_keywords(task.task, task.dataset, table)
        images = tuple(image_names(records.images[row]) for row in task.rows)
        choices = tuple(options[row] for row in task.rows)
        tasks.append(
            CoreTask(
                name=task.task,
                keywords=words,
                instruction_ids=tuple(ids[row] for row in task.rows),
                texts=tuple(records.texts[row] for row in task.rows),
                dataset=task.dataset,
                answers=tuple(None if answers[row] is None else str(answers[row]) for row in task.rows),
                images=images if any(images) else (),
                choices=choices if any(choices) else (),
            )
        )
    return tuple(tasks)


def _options(given: Any) -> tuple[str, ...]:
    """Return the options of an item; none where the records have something else than a list of texts."""
    sound = isinstance(given, list | tuple) and all(isinstance(option, str) for option in given)
    return tuple(given) if sound else ()
