"""Clusters that serve as tasks where a log has none."""

import logging
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from satlight.capability.clusters import cluster_tasks, held_out_likelihood, lacks_tasks
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.types import Candidate

KINDS = ("Translate the poem {} into French", "Solve equation {} for x", "Sort list {} in Python")


def make(count: int = 360, task: str = "log", seed: int = 0) -> PerformanceRecords:
    """Three kinds of instructions, in turn, and a candidate that is good at each; every fourth row is a test row."""
    kind = np.arange(count) % 3
    rng = np.random.default_rng(seed)
    outcomes = (rng.random((count, 3)) < np.where(kind[:, None] == np.arange(3), 0.95, 0.2)).astype(np.float32)
    rows = pl.DataFrame(
        {
            "instruction_id": [str(i) for i in range(count)],
            "dataset": ["log"] * count,
            "task": [task] * count,
            "split": ["test" if i % 4 == 0 else "train" for i in range(count)],
            "instruction": [KINDS[k].format(f"number {i}") for i, k in enumerate(kind)],
        }
    )
    zoo = tuple(Candidate(name) for name in "abc")
    return PerformanceRecords(rows, zoo, outcomes, np.ones_like(outcomes, dtype=bool), name="log")


def test_kinds_are_found_and_named_on_train_rows_and_given_to_all():
    records = make()
    clustered, clusters = cluster_tasks(records)
    assert len(clusters) >= 3
    assert sum(one.train for one in clusters) == (records.splits == "train").sum()
    for k, word in enumerate(("poem", "equation", "python")):
        tasks = set(clustered.tasks[np.arange(360) % 3 == k])
        assert any(word in task for task in tasks), (word, tasks)
        assert not tasks & set(clustered.tasks[np.arange(360) % 3 != k])
    again, _ = cluster_tasks(records)
    assert again.tasks.tolist() == clustered.tasks.tolist()


def test_test_rows_decide_nothing():
    records = make()
    test = records.splits == "test"
    changed = records.instructions.with_columns(
        pl.when(pl.Series(test)).then(pl.lit("poem poem poem")).otherwise(pl.col("instruction")).alias("instruction")
    )
    other = replace(records, instructions=changed, outcomes=np.where(test[:, None], 0, records.outcomes))
    assert cluster_tasks(records)[1] == cluster_tasks(other)[1]
    fitted, _ = cluster_tasks(records, rows=~test)
    assert set(fitted.tasks[test]) == {"log"}


def test_records_with_tasks_or_told_so_stay_as_they_are():
    named = make(task="algebra")
    assert cluster_tasks(named)[0] is named
    many = replace(
        named, instructions=named.instructions.with_columns(dataset=pl.Series([str(i % 4) for i in range(360)]))
    )
    assert not lacks_tasks(replace(many, instructions=many.instructions.with_columns(task="dataset")))
    records = make()
    assert cluster_tasks(records, "off") == (records, [])


def test_too_few_rows_are_said_and_left_alone(caplog):
    records = make(80)
    with caplog.at_level(logging.INFO, logger="satlight"):
        assert cluster_tasks(records) == (records, [])
    assert "60 train rows are too few" in caplog.text


def test_a_given_number_and_vectors_are_used():
    def vectors(texts):
        return np.eye(3)[[("poem" in text) + 2 * ("equation" in text) for text in texts]]

    _, clusters = cluster_tasks(make(), 3, vectors)
    assert [one.train for one in clusters] == [90, 90, 90]
    with pytest.raises(SatlightError, match="there are 3 different"):
        cluster_tasks(make(), 4, vectors)
    with pytest.raises(SatlightError, match="allowed are auto, off"):
        cluster_tasks(make(), 1)


def test_clusters_that_predict_outcomes_are_more_likely_than_random_ones():
    records = make()
    kind = np.arange(360) % 3
    shuffled = np.random.default_rng(1).permutation(kind)
    one = np.zeros(360, dtype=np.int64)
    assert (
        held_out_likelihood(kind, records) > held_out_likelihood(one, records) > held_out_likelihood(shuffled, records)
    )


def test_the_data_module_builds_its_aptitude_test_on_them(tmp_path):
    from satlight.data import CapabilityInstructionDataModule
    from satlight.records import save_records

    save_records(make(), tmp_path / "log")
    data = CapabilityInstructionDataModule(records=str(tmp_path / "log"))
    data.setup("fit")
    assert {task.name for task in data.aptitude.tasks} == {one.name for one in data.task_clusters}
    assert len(data.aptitude.tasks) >= 3
    data.setup("test")
    assert set(data.eval_view("test").records.tasks) <= {one.name for one in data.task_clusters}
    off = CapabilityInstructionDataModule(records=str(tmp_path / "log"), cluster_tasks="off")
    off.setup("fit")
    assert [task.name for task in off.aptitude.tasks] == ["log"]
    assert off.task_clusters == []
