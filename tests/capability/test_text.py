"""The capability representation: wording, grades, orders; and keywords of tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import satlight.capability as capability
from satlight.capability import (
    PERFORMANCE_INQUIRY,
    PROMPT_PREFIX,
    AptitudeTest,
    CapabilityText,
    CoreTask,
    load_keywords,
    perturbations,
    represent,
    task_keywords,
)
from satlight.errors import SatlightError
from satlight.records.simulated import SimulatedZoo


@pytest.fixture
def small() -> AptitudeTest:
    tasks = tuple(CoreTask(n, f"{n}, words", (n,), (n,)) for n in ("maths", "code", "law"))
    return AptitudeTest(tasks, reference_mean=(0.5, 0.5, 0.5), reference_std=(0.1, 0.1, 0.0))


def test_one_full_sentence_per_task_then_notes(small):
    assert represent(small, np.array([0.85, 0.4, 1 / 3]), notes=("It supports Chinese.",)) == (
        'The model achieves accuracy 85.0% on the task of "maths, words".',
        'The model achieves accuracy 40.0% on the task of "code, words".',
        'The model achieves accuracy 33.3% on the task of "law, words".',
        "It supports Chinese.",
    )


def test_unknown_accuracies_are_left_out(small):
    assert len(represent(small, np.array([np.nan, 0.4, np.nan]))) == 1
    assert len(represent(small, np.array([np.nan, 0.4, np.nan]), style="graded")) == 1


@pytest.mark.parametrize(
    ("accuracy", "words"),
    [
        (0.30, "far below average"),
        (0.40, "below average"),
        (0.45, "slightly below average"),
        (0.50, "about average"),
        (0.55, "slightly above average"),
        (0.60, "above average"),
        (0.70, "far above average"),
    ],
)
def test_grades_compare_with_the_training_zoo(small, accuracy, words):
    first, _, _ = represent(small, np.array([accuracy, 0.5, 0.5]), style="graded")
    assert (
        first == f'The model achieves accuracy {100 * accuracy:.1f}% ({words}) on the task of "maths, words".'
    )


def test_a_zoo_without_spread_does_not_exaggerate(small):
    statements = represent(small, np.array([0.5, 0.5, 0.51]), style="graded")
    assert "(about average)" in statements[2]


def test_order_may_be_given_or_drawn(small):
    values = np.array([0.1, 0.2, 0.3])
    plain = represent(small, values)
    assert represent(small, values, order=[2, 0, 1]) == (plain[2], plain[0], plain[1])
    drawn = {represent(small, values, order=np.random.default_rng(k), notes=("Note.",)) for k in range(20)}
    assert len(drawn) == 6
    assert all(c[-1] == "Note." and sorted(c[:-1]) == sorted(plain) for c in drawn)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"accuracies": np.array([0.5, 0.5])}, r"shape \(2,\).*3 tasks"),
        ({"accuracies": np.array([0.5, 85.0, 0.5])}, "accuracy 85 on the task 'code'"),
        ({"order": [0, 1, 1]}, "each of 0 to 2 once"),
        ({"style": "fancy"}, "'fancy'; allowed: plain, graded"),
    ],
)
def test_wrong_arguments_are_refused(small, arguments, message):
    with pytest.raises(SatlightError, match=message):
        represent(small, **{"accuracies": np.array([0.5, 0.5, 0.5]), **arguments})


def test_graded_needs_reference_accuracies(small):
    with pytest.raises(SatlightError, match=r"none\. Use the style 'plain'"):
        represent(AptitudeTest(small.tasks), np.full(3, 0.5), style="graded")


def test_perturbations_shuffle_statements_and_keep_notes_last(small):
    whole = represent(small, np.array([0.1, 0.2, 0.3]), notes=("One.", "Two."))
    orders = perturbations(whole, 12, seed=5)
    assert all(c[3:] == ("One.", "Two.") and sorted(c[:3]) == sorted(whole[:3]) for c in orders)
    assert len(set(orders)) > 3
    assert perturbations(whole, 3, seed=5) == orders[:3]
    assert perturbations(whole, 12, seed=6) != orders
    with pytest.raises(SatlightError, match="0 perturbations"):
        perturbations(whole, 0)


def test_capability_text_writes_every_candidate_with_its_notes():
    zoo = SimulatedZoo(num_instructions=1500, num_candidates=4).generate()
    test = AptitudeTest.design(zoo.filter(splits="train"), num_tasks=6)
    noted = replace(zoo.candidates[2], notes=("It is cheap.",))
    zoo = replace(zoo, candidates=(*zoo.candidates[:2], noted, zoo.candidates[3]))
    written = CapabilityText().write(test, zoo, [zoo.model_ids[2], zoo.model_ids[0]])
    assert [len(c) for c in written] == [7, 6]
    assert written[0][-1] == "It is cheap."
    assert written[1] == represent(test, test.results(zoo)[0])
    ordered = CapabilityText(order_seed=1, style="graded").write(test, zoo)
    assert [s.split('"')[1] for s in ordered[0]] == [s.split('"')[1] for s in ordered[1]]
    assert [s.split('"')[1] for s in ordered[0]] != [task.keywords for task in test.tasks]
    assert CapabilityText(shots=3).write(test, zoo) != CapabilityText().write(test, zoo)
    resampled = CapabilityText().write(test, zoo, rng=np.random.default_rng(0))
    assert resampled != CapabilityText().write(test, zoo)


def test_the_inquiry_asks_for_yes_or_no():
    assert PROMPT_PREFIX == "Instruction: "
    assert "Yes" in PERFORMANCE_INQUIRY
    assert "No" in PERFORMANCE_INQUIRY


@pytest.mark.parametrize(
    ("task", "dataset", "words"),
    [
        ("ori_mmlu-high_school_statistics", "mmlu_pro", "high school statistics"),
        ("mmlu-us_foreign_policy", "mmlu", "us foreign policy"),
        ("mmlu_anatomy", "", "anatomy"),
        ("stemez-ElectricalMachines", "mmlu_pro", "electrical machines"),
        ("theoremQA-Finance", "mmlu_pro", "finance"),
        ("blindtest-NestedSquares", "blindtest", "nested squares"),
        ("some_set", "some_set", "some set"),
        ("math-prealgebra", "math_prealgebra", "prealgebra, fractions, equations, number sense"),
        ("gsm8k", "gsm8k", "grade school mathematics, word problems, arithmetic, steps"),
        ("mathematics", "math", "mathematics"),
        ("OCR", "vision", "OCR"),
    ],
)
def test_keywords_from_the_task_name(task, dataset, words):
    assert task_keywords(task, dataset) == words


def test_a_table_comes_first():
    assert task_keywords("gsm8k", "gsm8k", {"gsm8k": "sums"}) == "sums"


def test_keyword_tables_in_json_and_yaml(tmp_path):
    (tmp_path / "a.json").write_text('{"t": ["one", "two  words"]}')
    (tmp_path / "a.yaml").write_text("t: one, two words\n")
    assert load_keywords(tmp_path / "a.json") == load_keywords(tmp_path / "a.yaml") == {"t": "one, two words"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("k.json", "{", "not valid JSON"),
        ("k.yaml", "a: [", "not valid YAML"),
        ("k.yaml", "- a", "holds a list"),
        ("k.json", '{"t": 3}', "gives 3 for the task 't'"),
        ("k.json", '{"t": []}', r"gives \[\] for the task 't'"),
    ],
)
def test_wrong_keyword_tables_are_named(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(SatlightError, match=message):
        load_keywords(tmp_path / name)


def test_missing_keyword_table(tmp_path):
    with pytest.raises(SatlightError, match=r"Cannot read the keyword table .*none.yaml"):
        load_keywords(tmp_path / "none.yaml")


def test_every_exported_name_exists():
    assert all(getattr(capability, name) is not None for name in capability.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = capability.nothing
