"""The aptitude test: core tasks with core items, and the accuracy of candidates on them.

Shape legend: N instructions, M candidates, T core tasks, L core items in all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from satlight.capability.core_tasks import CoreTask, core_tasks
from satlight.capability.keywords import load_keywords
from satlight.capability.selection import choose_tasks
from satlight.errors import SatlightError
from satlight.files import read_json, write_text
from satlight.images import content_of
from satlight.records.matrix import PerformanceRecords
from satlight.records.names import listed
from satlight.records.split import question_key, text_keys
from satlight.types import AptitudeResults

log = logging.getLogger(__name__)

FORMAT = "satlight-aptitude-test/1"


@dataclass(frozen=True)
class AptitudeTest:
    """Core tasks and items, the same for every candidate; accuracies on them are its capability.

    Args:
        tasks: T core tasks.
        reference_mean: T mean accuracies of the candidates the test was designed on, in [0, 1].
        reference_std: T standard deviations of the same.
        designed_on: Fingerprint of the records the test was designed on.
        simulated: Whether those were simulated.

    Example:
        >>> from satlight.records.simulated import SimulatedZoo
        >>> records = SimulatedZoo(num_instructions=1500, num_candidates=4).generate()
        >>> test = AptitudeTest.design(records.filter(splits="train"), num_tasks=8, num_shots=10)
        >>> len(test.tasks), len(test.item_ids), test.results(records).shape
        (8, 80, (4, 8))

    Reference:
        Zhang et al. 2025, aptitude test and model representation.
    """

    tasks: tuple[CoreTask, ...]
    reference_mean: tuple[float, ...] = ()
    reference_std: tuple[float, ...] = ()
    designed_on: str = ""
    simulated: bool = False

    @classmethod
    def design(
        cls,
        records_train: PerformanceRecords,
        num_tasks: int = 50,
        num_shots: int = 20,
        seed: int = 0,
        keywords: Mapping[str, str] | Path | str | None = None,
        min_shots: int = 5,
        max_share: float = 0.5,
    ) -> AptitudeTest:
        """Choose core tasks and core items by how well they separate the given candidates.

        Every dataset gets a core task before any gets its second. The caller keeps the core items out of the
        training instructions (:meth:`holds`).

        Args:
            records_train: Train rows and training candidates only.
            num_tasks: Most core tasks, at least 1; fewer where the data has fewer.
            num_shots: Most core items per task, at least 1.
            seed: Breaks ties.
            keywords: Task name to keywords, or a JSON or YAML file with such a table. Tasks not in it take
                the ``keywords`` column of the records, if there is one, or keywords derived from their name.
            min_shots: A task with fewer core items is left out; more than ``num_shots`` counts as that.
            max_share: Largest share of a task's train instructions that may become core items, in (0, 1].

        Returns:
            The aptitude test, tasks sorted by dataset and name.

        Raises:
            SatlightError: Rows of another split, no task with enough items, or a number out of range.
        """
        for key, value, allowed, good in (
            ("num_tasks", num_tasks, "at least 1", num_tasks >= 1),
            ("num_shots", num_shots, "at least 1", num_shots >= 1),
            ("min_shots", min_shots, "at least 1", min_shots >= 1),
            ("max_share", max_share, "above 0, at most 1", 0 < max_share <= 1),
        ):
            if not good:
                raise SatlightError(f"The aptitude test got {key}={value}; allowed: {allowed}.")
        chosen = choose_tasks(records_train, num_tasks, num_shots, min(min_shots, num_shots), max_share, seed)
        table = keywords if isinstance(keywords, Mapping) or keywords is None else load_keywords(keywords)
        test = cls(
            tasks=core_tasks(records_train, chosen, table),
            designed_on=records_train.fingerprint,
            simulated=records_train.simulated,
        )
        accuracies, _ = test._accuracies(records_train, np.arange(records_train.shape[1]))
        # One candidate may lack outcomes on a task, but another has some, so no mean is empty.
        mean, std = np.nanmean(accuracies, axis=0), np.nanstd(accuracies, axis=0)
        log.info("aptitude test: %d core tasks, %d core items", len(test.tasks), len(test.item_ids))
        return replace(test, reference_mean=tuple(mean.tolist()), reference_std=tuple(std.tolist()))

    @property
    def has_reference(self) -> bool:
        """True if the mean and spread of training candidates are known for every task."""
        return len(self.reference_mean) == len(self.reference_std) == len(self.tasks)

    @cached_property
    def item_ids(self) -> frozenset[str]:
        """Ids of all L core items."""
        return frozenset(item for task in self.tasks for item in task.instruction_ids)

    def holds(self, records: PerformanceRecords) -> np.ndarray:
        """Mark instructions that must not be trained on: core items, and others with the text and images of one.

        Args:
            records: N instructions.

        Returns:
            bool (N,).
        """
        questions = {
            question_key(text, [content_of(name) for name in images])
            for task in self.tasks
            for text, images in zip(task.texts, task.item_images, strict=True)
        }
        pairs = zip(records.ids, text_keys(records), strict=True)
        return np.array([item in self.item_ids or key in questions for item, key in pairs], dtype=bool)

    def results(
        self,
        records: PerformanceRecords,
        model_ids: Sequence[str] | None = None,
        shots: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Return the accuracies of :meth:`measure`: float32 (M, T)."""
        return self.measure(records, model_ids, shots, rng)[0]

    def measure(
        self,
        records: PerformanceRecords,
        model_ids: Sequence[str] | None = None,
        shots: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measure the accuracy of candidates on each core task, also of candidates that were not in training.

        Args:
            records: Any records that hold outcomes on the core items, recognized by ``instruction_id``.
            model_ids: M candidates, in the wanted order; None = all of the records.
            shots: Use only the first K core items of each task; None = all.
            rng: Draw the items of each task with replacement, independently for each candidate
                (bootstrap), as augmentation in training.

        Returns:
            Accuracies, float32 (M, T) in [0, 1], NaN where a candidate has no outcome on a task; and the
            number of outcomes behind each, int64 (M, T).

        Raises:
            SatlightError: An unknown candidate, one without an outcome on any core item, or shots below 1.
        """
        if shots is not None and shots < 1:
            raise SatlightError(f"The aptitude test got shots={shots}; allowed: at least 1, or null for all.")
        position = {model_id: column for column, model_id in enumerate(records.model_ids)}
        wanted = records.model_ids if model_ids is None else list(model_ids)
        if unknown := [model_id for model_id in wanted if model_id not in position]:
            raise SatlightError(
                f"Unknown candidate '{unknown[0]}' in the records '{records.name}'. "
                f"Available: {listed(records.model_ids)}."
            )
        columns = np.array([position[m] for m in wanted], dtype=np.int64)
        accuracies, items = self._accuracies(records, columns, shots, rng)
        missing = np.isnan(accuracies)
        if missing.all(axis=1).any():
            empty = [wanted[row] for row in np.flatnonzero(missing.all(axis=1))]
            raise SatlightError(
                f"No outcome on any of the {len(self.item_ids)} core items for {listed(empty, 5)} in the "
                f"records '{records.name}', so the capability is unknown. Write the core items to a file "
                "with AptitudeTest.export('core_items.jsonl'), let the candidate answer them, and add its "
                "outcomes under the same instruction_id."
            )
        if missing.any():
            log.info("%d of %d capability entries have no outcome and are left out", missing.sum(), missing.size)
        return accuracies, items

    def measure_one(self, results: AptitudeResults, shots: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Measure one candidate by a list of outcomes.

        Args:
            results: Outcomes on core items, recognized by their ids; other items do not count.
            shots: Use only the first K core items of each task; None = all.

        Returns:
            Accuracies, float32 (T,), NaN where a task has no outcome; and counts, int64 (T,).

        Raises:
            SatlightError: No outcome on any core item.
        """
        outcome = dict(zip(results.instruction_ids, results.outcomes.tolist(), strict=True))
        found = [[outcome[i] for i in task.instruction_ids[:shots] if i in outcome] for task in self.tasks]
        if not any(found):
            raise SatlightError(
                f"None of the {len(outcome)} items is a core item of this aptitude test, e.g. "
                f"'{results.instruction_ids[0]}'; its core items are '{min(self.item_ids)}', … "
                "Write them to a file with AptitudeTest.export and let the candidate answer them"
            )
        means = [float(np.mean(task)) if task else np.nan for task in found]
        return np.array(means, dtype=np.float32), np.array([len(task) for task in found])

    def _accuracies(
        self,
        records: PerformanceRecords,
        columns: np.ndarray,
        shots: int | None = None,
        rng: np.random.Generator | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return accuracies, float32 (M, T), NaN where nothing is known, and counts, int64 (M, T)."""
        row_of = {key: row for row, key in enumerate(records.ids)}
        items = [item for task in self.tasks for item in task.instruction_ids]
        row_L = np.array([row_of.get(item, -1) for item in items])
        present_L = row_L >= 0
        cells = np.ix_(np.maximum(row_L, 0), columns)
        known_LM = np.asarray(records.known[cells]) & present_L[:, None]
        draws_LM = self._draws(len(columns), shots, rng) * known_LM
        starts = np.cumsum([0] + [len(task.instruction_ids) for task in self.tasks[:-1]])
        right_TM = np.add.reduceat(draws_LM * records.outcomes[cells], starts, axis=0)
        count_TM = np.add.reduceat(draws_LM, starts, axis=0)
        blank = np.full(count_TM.shape, np.nan, dtype=np.float64)
        mean_TM = np.divide(right_TM, count_TM, out=blank, where=count_TM > 0)
        return mean_TM.T.astype(np.float32), count_TM.T.astype(np.int64)

    def _draws(self, num_candidates: int, shots: int | None, rng: np.random.Generator | None) -> np.ndarray:
        """Return how often each core item counts: float64 (L, M) or (L, 1)."""
        parts: list[np.ndarray] = []
        for size in (len(task.instruction_ids) for task in self.tasks):
            used = size if shots is None else min(shots, size)
            if rng is None:
                parts.append((np.arange(size) < used)[:, None])
            else:
                parts.append(rng.multinomial(used, np.full(size, 1 / size), size=num_candidates).T)
        return np.concatenate(parts).astype(np.float64)

    def export(self, path: Path | str) -> None:
        """Write the core items as JSON lines, for a candidate that is to take the test.

        Args:
            path: File to write: one object per item with instruction_id, dataset, task, instruction and answer, and
                its options and the names of its images, if any.
        """
        lines = [
            {"instruction_id": item, "dataset": task.dataset, "task": task.name, "instruction": text, "answer": answer}
            | ({"choices": list(choices)} if choices else {})
            | ({"images": list(images)} if images else {})
            for task in self.tasks
            for item, text, answer, choices, images in zip(
                task.instruction_ids, task.texts, task.item_answers, task.item_choices, task.item_images, strict=True
            )
        ]
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def to_dict(self) -> dict[str, Any]:
        """Return the test as plain lists, strings and numbers; :meth:`from_dict` is the inverse."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], source: str = "the given dictionary") -> AptitudeTest:
        """Build a test from the output of :meth:`to_dict`.

        Args:
            content: What :meth:`to_dict` returned, possibly through JSON.
            source: Where it comes from, for the error.

        Raises:
            SatlightError: Another format, or a key is missing or unknown.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            got = content.get("format") if isinstance(content, Mapping) else type(content).__name__
            raise SatlightError(
                f"Expected an aptitude test of the format '{FORMAT}' in {source}, got {got!r}. "
                "Use a file that AptitudeTest.save wrote, or design the test again."
            )
        fields = {key: value for key, value in content.items() if key != "format"}
        try:
            tasks = tuple(CoreTask(**_tuples(task)) for task in fields.pop("tasks"))
            test = cls(tasks, **_tuples(fields))
        except (KeyError, TypeError, AttributeError) as error:
            raise SatlightError(f"The aptitude test in {source} is damaged: {error}. Design it again.") from error
        for task in tasks:
            parts = (task.instruction_ids, task.item_images, task.item_choices, task.item_answers)
            if not task.instruction_ids or {len(part) for part in parts} != {len(task.texts)}:
                raise SatlightError(
                    f"The aptitude test in {source} is damaged: the task '{task.name}' has "
                    f"{len(task.instruction_ids)} ids and {len(task.texts)} texts, and images, options and answers of "
                    f"{', '.join(str(len(part)) for part in parts[1:])} items. Design it again."
                )
        return test

    def save(self, path: Path | str) -> None:
        """Write the test as JSON, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), ensure_ascii=False, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> AptitudeTest:
        """Read what :meth:`save` wrote.

        Raises:
            SatlightError: No such file, not JSON, or another format.
        """
        return cls.from_dict(read_json(path, "give a file that AptitudeTest.save wrote"), source=str(path))


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Replace JSON's lists by tuples."""
    return {key: _tuple(value) for key, value in fields.items()}


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
