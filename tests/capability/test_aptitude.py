"""The aptitude test: which items it takes, what candidates get on it, and that it survives a file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from satlight.capability import AptitudeTest, CoreTask
from satlight.capability.selection import item_weights, seed_hash
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.records.simulated import SimulatedZoo
from satlight.types import Candidate


def make_records(tasks, outcomes, known=None, datasets=None, split="train", **columns) -> PerformanceRecords:
    """Records from a task name and a row of outcomes per instruction."""
    n = len(tasks)
    table = pl.DataFrame(
        {
            "instruction_id": [f"i{k}" for k in range(n)],
            "dataset": datasets or ["d"] * n,
            "task": tasks,
            "split": [split] * n,
            "instruction": [f"Question {k}?" for k in range(n)],
            **columns,
        }
    )
    outcomes = np.asarray(outcomes, dtype=np.float32)
    known = np.ones(outcomes.shape, dtype=bool) if known is None else np.asarray(known)
    candidates = tuple(Candidate(f"m{k}") for k in range(outcomes.shape[1]))
    return PerformanceRecords(table, candidates, np.where(known, outcomes, 0), known)


@pytest.fixture(scope="module")
def zoo() -> PerformanceRecords:
    return SimulatedZoo(num_instructions=2500, num_candidates=12).generate()


@pytest.fixture(scope="module")
def test_of_zoo(zoo) -> AptitudeTest:
    training = zoo.filter(splits="train", candidates=zoo.model_ids[:8])
    return AptitudeTest.design(training, num_tasks=12, num_shots=10)


def test_weight_is_four_p_times_one_minus_p_times_the_known_share():
    records = make_records(
        ["t"] * 4,
        [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0.5, 0, 0, 0]],
        known=np.array([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=bool),
    )
    np.testing.assert_allclose(item_weights(records), [1.0, 0.0, 0.5, np.nan])


def test_takes_the_items_that_half_of_the_candidates_solve():
    rows = [[1, 1, 1, 1]] * 4 + [[1, 1, 0, 0], [0, 1, 0, 1], [1, 0, 0, 1]] + [[0, 0, 0, 0]] * 4 + [[1, 0, 0, 0]]
    test = AptitudeTest.design(make_records(["t"] * 12, rows), num_shots=3, min_shots=1)
    assert test.item_ids == {"i4", "i5", "i6"}


def test_at_most_the_given_share_of_a_task_becomes_core_items():
    records = make_records(["t"] * 12, [[1, 0]] * 12)
    assert len(AptitudeTest.design(records, num_shots=20).item_ids) == 6
    assert len(AptitudeTest.design(records, num_shots=20, max_share=1.0).item_ids) == 12


def test_every_dataset_gets_a_task_before_any_gets_its_second():
    sharp, dull = [[1, 0, 1, 0]] * 10, [[1, 0, 0, 0]] * 10
    records = make_records(
        [name for name in ("a1", "a2", "a3", "b1", "b2") for _ in range(10)],
        sharp * 3 + dull + [[1, 1, 1, 1]] * 10,
        datasets=["A"] * 30 + ["B"] * 20,
    )
    two = AptitudeTest.design(records, num_tasks=2)
    assert [task.dataset for task in two.tasks] == ["A", "B"]
    assert two.tasks[1].name == "b1"  # more discriminative than b2
    four = AptitudeTest.design(records, num_tasks=4)
    assert sorted(task.dataset for task in four.tasks) == ["A", "A", "B", "B"]
    assert len(AptitudeTest.design(records, num_tasks=9).tasks) == 5


def test_too_few_tasks_for_all_datasets_is_said(caplog):
    records = make_records(["a"] * 10 + ["b"] * 10, [[1, 0]] * 20, datasets=["A"] * 10 + ["B"] * 10)
    AptitudeTest.design(records, num_tasks=1)
    assert "2 datasets but num_tasks=1" in caplog.text


def test_small_tasks_are_skipped_and_counted(caplog):
    caplog.set_level("INFO", "satlight")
    records = make_records(["small"] * 9 + ["large"] * 10, [[1, 0]] * 19)
    assert [task.name for task in AptitudeTest.design(records).tasks] == ["large"]
    assert "1 of 2 tasks" in caplog.text
    assert "'small' has 9" in caplog.text


def test_only_small_tasks_is_an_error_that_says_what_to_do():
    records = make_records(["x"] * 4 + ["y"] * 9, [[1, 0]] * 13)
    with pytest.raises(
        SatlightError, match=r"too few core items: 'x' has 4, 'y' has 9.*needs 10.*Lower data.aptitude.min_shots"
    ):
        AptitudeTest.design(records)


def test_fewer_shots_than_min_shots_is_fine():
    records = make_records(["x"] * 10, [[1, 0]] * 10)
    assert len(AptitudeTest.design(records, num_shots=2).item_ids) == 2


def test_an_item_without_any_outcome_is_never_taken():
    known = np.array([[True, True]] * 10 + [[False, False]] * 10)
    test = AptitudeTest.design(make_records(["t"] * 20, [[1, 0]] * 20, known=known), max_share=1.0)
    assert test.item_ids == {f"i{k}" for k in range(10)}


def test_rows_of_another_split_are_refused():
    with pytest.raises(SatlightError, match=r"10 of 10 instructions belong to another split, e.g. 'validation'"):
        AptitudeTest.design(make_records(["t"] * 10, [[1, 0]] * 10, split="validation"))


@pytest.mark.parametrize("wrong", [{"num_tasks": 0}, {"num_shots": 0}, {"min_shots": 0}, {"max_share": 1.5}])
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(SatlightError, match=f"{next(iter(wrong))}.*allowed"):
        AptitudeTest.design(make_records(["t"] * 10, [[1, 0]] * 10), **wrong)


def test_design_is_deterministic_and_ties_follow_the_seed(zoo):
    train = zoo.filter(splits="train")
    first = AptitudeTest.design(train, num_tasks=5)
    assert AptitudeTest.design(train, num_tasks=5) == first
    records = make_records(["t"] * 40, [[1, 0]] * 40)
    assert AptitudeTest.design(records, seed=0).item_ids != AptitudeTest.design(records, seed=1).item_ids
    assert seed_hash(0, "tie", ["a"]) == seed_hash(0, "tie", ["a"]) != seed_hash(1, "tie", ["a"])


def test_design_does_not_depend_on_the_order_of_rows(zoo):
    train = zoo.filter(splits="train")
    shuffled = train.rows(np.random.default_rng(0).permutation(train.shape[0]))
    first, second = AptitudeTest.design(train), AptitudeTest.design(shuffled)
    assert first.tasks == second.tasks


def test_repeated_texts_count_once_and_are_held_out_of_training():
    texts = ["Same  question?", "Same question?"] + [f"Question {k}?" for k in range(18)]
    records = make_records(["t"] * 20, [[1, 0]] * 2 + [[1, 1]] * 18)
    records = replace(records, instructions=records.instructions.with_columns(pl.Series("instruction", texts)))
    test = AptitudeTest.design(records, num_shots=5)
    assert len(test.item_ids & {"i0", "i1"}) == 1
    held = test.holds(records)
    assert held[:2].all()
    assert held.sum() == 6


def test_results_are_means_over_known_outcomes(zoo, test_of_zoo):
    accuracies = test_of_zoo.results(zoo)
    assert accuracies.shape == (12, 12)
    assert accuracies.dtype == np.float32
    ids = zoo.instructions["instruction_id"].to_list()
    for t, task in enumerate(test_of_zoo.tasks):
        rows = [ids.index(item) for item in task.instruction_ids]
        np.testing.assert_allclose(accuracies[:, t], zoo.outcomes[rows].mean(axis=0), rtol=1e-6)


def test_results_of_candidates_that_were_not_in_training_in_the_wanted_order(zoo, test_of_zoo):
    unseen = [zoo.model_ids[11], zoo.model_ids[9]]
    np.testing.assert_array_equal(test_of_zoo.results(zoo, unseen), test_of_zoo.results(zoo)[[11, 9]])
    held_only = zoo.rows(test_of_zoo.holds(zoo)).filter(candidates=unseen)
    np.testing.assert_array_equal(test_of_zoo.results(held_only, unseen), test_of_zoo.results(zoo, unseen))


def test_missing_outcomes_are_masked_not_wrong():
    known = np.ones((20, 3), dtype=bool)
    known[:10, 2] = False
    records = make_records(["a"] * 10 + ["b"] * 10, [[1, 0, 1]] * 20, known=known)
    test = AptitudeTest.design(records, max_share=1.0)
    np.testing.assert_array_equal(test.results(records), [[1, 1], [0, 0], [np.nan, 1]])
    known[10:15, 2] = False
    half = make_records(["a"] * 10 + ["b"] * 10, [[1, 0, 1]] * 20, known=known)
    assert test.results(half)[2, 1] == 1  # five known, all right


def test_a_candidate_without_any_outcome_is_named_with_what_to_do(zoo, test_of_zoo):
    known = zoo.known.copy()
    known[:, 3] = False
    message = rf"120 core items for '{zoo.model_ids[3]}'.*AptitudeTest.export"
    with pytest.raises(SatlightError, match=message):
        test_of_zoo.results(replace(zoo, known=known))


def test_records_without_the_core_items_are_an_error(zoo, test_of_zoo):
    with pytest.raises(SatlightError, match="No outcome on any of the 120 core items"):
        test_of_zoo.results(zoo.filter(splits="test"))


def test_unknown_candidate_lists_those_there_are(zoo, test_of_zoo):
    with pytest.raises(SatlightError, match=f"Unknown candidate 'gpt-9'.*{zoo.model_ids[0]}"):
        test_of_zoo.results(zoo, ["gpt-9"])


def test_fewer_shots_use_the_first_items_of_each_task(zoo, test_of_zoo):
    short = AptitudeTest(
        tuple(replace(t, instruction_ids=t.instruction_ids[:4], texts=t.texts[:4]) for t in test_of_zoo.tasks)
    )
    np.testing.assert_array_equal(test_of_zoo.results(zoo, shots=4), short.results(zoo))
    np.testing.assert_array_equal(test_of_zoo.results(zoo, shots=99), test_of_zoo.results(zoo))
    with pytest.raises(SatlightError, match="shots=0"):
        test_of_zoo.results(zoo, shots=0)


def test_first_items_are_a_fair_sample_of_a_task():
    """Items are not stored best first: the mean weight of the first half is that of the second half."""
    zoo = SimulatedZoo(num_instructions=6000, num_candidates=20).generate().filter(splits="train")
    test = AptitudeTest.design(zoo, num_shots=40)
    weight = dict(zip(zoo.instructions["instruction_id"], item_weights(zoo), strict=True))
    halves = [
        [weight[item] for task in test.tasks for item in task.instruction_ids[half]]
        for half in (slice(0, 20), slice(20, 40))
    ]
    assert np.mean(halves[0]) == pytest.approx(np.mean(halves[1]), abs=0.01)


def test_bootstrap_is_unbiased_seeded_and_differs_between_candidates(zoo, test_of_zoo):
    exact = test_of_zoo.results(zoo)
    draws = np.stack([test_of_zoo.results(zoo, rng=np.random.default_rng(k)) for k in range(300)])
    np.testing.assert_allclose(draws.mean(axis=0), exact, atol=0.05)
    expected_std = np.sqrt(exact * (1 - exact) / 10)  # of a mean of 10 draws
    np.testing.assert_allclose(draws.std(axis=0), expected_std, atol=0.035)
    np.testing.assert_array_equal(draws[7], test_of_zoo.results(zoo, rng=np.random.default_rng(7)))
    few = test_of_zoo.results(zoo, shots=1, rng=np.random.default_rng(0))
    assert set(np.unique(few)) <= {0.0, 1.0}
    twins = replace(zoo, outcomes=np.repeat(zoo.outcomes[:, :1], 12, axis=1))
    resampled = test_of_zoo.results(twins, rng=np.random.default_rng(0))
    assert (resampled[0] != resampled[1]).any()


def test_reference_accuracies_are_those_of_the_training_candidates(zoo, test_of_zoo):
    seen = test_of_zoo.results(zoo, zoo.model_ids[:8]).astype(np.float64)
    np.testing.assert_allclose(test_of_zoo.reference_mean, seen.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(test_of_zoo.reference_std, seen.std(axis=0), atol=1e-6)
    assert test_of_zoo.simulated


def test_keywords_from_table_then_column_then_name(zoo, tmp_path):
    train = zoo.filter(splits="train", tasks=["algebra", "arithmetic"])
    test = AptitudeTest.design(train, keywords={"algebra": "x, y, z"})
    assert [task.keywords for task in test.tasks] == [
        "x, y, z",
        "Arithmetic, Addition, Subtraction, Multiplication, Division",
    ]
    (tmp_path / "words.yaml").write_text("arithmetic: [plus, minus]\n")
    assert AptitudeTest.design(train, keywords=tmp_path / "words.yaml").tasks[1].keywords == "plus, minus"
    plain = replace(train, instructions=train.instructions.drop("keywords"))
    assert AptitudeTest.design(plain).tasks[1].keywords == "arithmetic"


def test_answers_are_kept_and_exported(tmp_path):
    records = make_records(["t"] * 10, [[1, 0]] * 10, answer=[str(k) for k in range(9)] + [None])
    test = AptitudeTest.design(records, max_share=1.0)
    test.export(tmp_path / "core.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "core.jsonl").read_text().splitlines()]
    assert len(lines) == 10
    by_id = {line["instruction_id"]: line for line in lines}
    assert by_id["i3"] == {
        "instruction_id": "i3",
        "dataset": "d",
        "task": "t",
        "instruction": "Question 3?",
        "answer": "3",
    }
    assert by_id["i9"]["answer"] is None


def test_round_trip_through_a_file(zoo, test_of_zoo, tmp_path):
    test_of_zoo.save(tmp_path / "aptitude.json")
    again = AptitudeTest.load(tmp_path / "aptitude.json")
    assert again == test_of_zoo
    np.testing.assert_array_equal(again.results(zoo), test_of_zoo.results(zoo))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON .*AptitudeTest.save"),
        ("[]", "got 'list'"),
        ('{"format": "other"}', "got 'other'"),
        ('{"format": "satlight-aptitude-test/1"}', "damaged: 'tasks'"),
        ('{"format": "satlight-aptitude-test/1", "tasks": [], "extra": 1}', "damaged.*extra"),
        (
            '{"format": "satlight-aptitude-test/1", "tasks": '
            '[{"name": "t", "keywords": "k", "instruction_ids": ["a"], "texts": []}]}',
            "'t' has 1 ids and 0 texts",
        ),
    ],
)
def test_a_damaged_file_is_named(text, message, tmp_path):
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(SatlightError, match=message) as caught:
        AptitudeTest.load(tmp_path / "bad.json")
    assert "bad.json" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SatlightError, match=r"none.json cannot be read .*AptitudeTest.save"):
        AptitudeTest.load(tmp_path / "none.json")


def test_core_task_needs_only_four_fields():
    task = CoreTask("t", "k", ("a",), ("A?",))
    assert AptitudeTest.from_dict(AptitudeTest((task,)).to_dict()).tasks == (task,)
