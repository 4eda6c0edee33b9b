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
from satlight.capability.text import statements
from satlight.errors import SatlightError
from satlight.records.simulated import SimulatedZoo
from satlight.types import AptitudeResults, Capability, Result


@pytest.fixture
def small() -> AptitudeTest:
    tasks = tuple(CoreTask(n, f"{n}, words", (n,), (n,)) for n in ("maths", "code", "law"))
    return AptitudeTest(tasks, reference_mean=(0.5, 0.5, 0.5), reference_std=(0.1, 0.1, 0.0))


def test_one_full_sentence_per_task_then_notes(small):
    capability = represent(small, np.array([0.85, 0.4, 1 / 3]), notes=("It supports Chinese.",))
    assert statements(capability) == (
        'The model achieves accuracy 85.0% on the task of "maths, words".',
        'The model achieves accuracy 40.0% on the task of "code, words".',
        'The model achieves accuracy 33.3% on the task of "law, words".',
        "It supports Chinese.",
    )


def test_unknown_accuracies_are_left_out(small):
    for style in ("plain", "graded"):
        (result,) = represent(small, np.array([np.nan, 0.4, np.nan]), style=style).results
        assert (result.task, result.accuracy) == ("code", 0.4)


def test_results_say_accuracy_items_and_strength(small):
    capability = represent(small, np.array([0.6, 0.4, 0.55]), np.array([20, 10, 5]))
    assert [(r.task, r.keywords, r.items) for r in capability.results] == [
        ("maths", "maths, words", 20),
        ("code", "code, words", 10),
        ("law", "law, words", 5),
    ]
    # The third task has no spread: one item of twenty counts as the smallest.
    assert [r.strength for r in capability.results] == pytest.approx([1.0, -1.0, 1.0])
    unreferenced = represent(AptitudeTest(small.tasks), np.array([1.0, 0.5, 0.25]))
    assert [r.strength for r in unreferenced.results] == [2.0, 0.0, -1.0]


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
    first, _, _ = statements(represent(small, np.array([accuracy, 0.5, 0.5]), style="graded"))
    assert first == f'The model achieves accuracy {100 * accuracy:.1f}% ({words}) on the task of "maths, words".'


def test_a_zoo_without_spread_does_not_exaggerate(small):
    written = statements(represent(small, np.array([0.5, 0.5, 0.51]), style="graded"))
    assert "(about average)" in written[2]


def test_order_may_be_given_or_drawn(small):
    values = np.array([0.1, 0.2, 0.3])
    plain = represent(small, values).results
    assert represent(small, values, order=[2, 0, 1]).results == (plain[2], plain[0], plain[1])
    drawn = {represent(small, values, order=np.random.default_rng(k), notes=("Note.",)) for k in range(20)}
    assert len(drawn) == 6
    assert all(statements(c)[-1] == "Note." and set(c.results) == set(plain) for c in drawn)


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
    assert all(statements(c)[3:] == ("One.", "Two.") for c in orders)
    assert all(set(c.results) == set(whole.results) for c in orders)
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
    assert [(len(c.results), c.notes) for c in written] == [(6, ("It is cheap.",)), (6, ())]
    accuracies, items = test.measure(zoo)
    assert written[1] == represent(test, accuracies[0], items[0])
    ordered = CapabilityText(order_seed=1, style="graded").write(test, zoo)
    orders = [[result.task for result in c.results] for c in ordered]
    assert orders[0] == orders[1] != [task.name for task in test.tasks]
    assert all("average) on the task of" in text for text in statements(ordered[0]))
    assert CapabilityText(shots=3).write(test, zoo) != CapabilityText().write(test, zoo)
    resampled = CapabilityText().write(test, zoo, rng=np.random.default_rng(0))
    assert resampled != CapabilityText().write(test, zoo)


@pytest.mark.parametrize(
    "text", [CapabilityText(), CapabilityText(shots=3, style="graded"), CapabilityText(order_seed=1)]
)
def test_results_of_one_candidate_give_what_records_give(text):
    zoo = SimulatedZoo(num_instructions=1500, num_candidates=4).generate()
    test = AptitudeTest.design(zoo.filter(splits="train"), num_tasks=6)
    rows = [k for k, i in enumerate(zoo.instructions["instruction_id"]) if i in test.item_ids]
    ids = tuple(zoo.instructions["instruction_id"][row] for row in rows)
    results = AptitudeResults(ids, tuple(zoo.texts[row] for row in rows), zoo.outcomes[rows, 2])
    assert text.of(test, results, ("New.",)) == replace(text.write(test, zoo, [zoo.model_ids[2]])[0], notes=("New.",))


def test_results_on_no_core_item_are_refused(small):
    results = AptitudeResults(("x", "y"), ("1+1?", "2+2?"), np.array([1.0, 0.0]))
    with pytest.raises(SatlightError, match=r"None of the 2 items is a core item .*'x'.*AptitudeTest\.export"):
        CapabilityText().of(small, results)


@pytest.mark.parametrize("strength", [-np.inf, -1.5, -0.75, 0.0, 1.5, np.inf])
def test_every_strength_has_a_grade(strength):
    assert "average" in statements(Capability((Result("a", "A", 0.5, 20, strength),), style="graded"))[0]


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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("k.json", b'{"t": "caf\xe9"}', "byte 0xe9 is not UTF-8"),
        ("k.json", b"[" * 3000, "nested more than 100 levels"),
        ("k.yaml", b'"\\ud800": x', "not valid YAML"),
        ("k.yaml", b"- [" * 3000, "not valid YAML"),
        ("k.yaml", b"a: 2024-99-99", "not valid YAML"),
        ("k.yaml", b"a: \x00", "a NUL byte"),
    ],
)
def test_damaged_keyword_tables(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SatlightError, match=message):
        load_keywords(tmp_path / name)


def test_missing_keyword_table(tmp_path):
    with pytest.raises(SatlightError, match=r"none.yaml cannot be read"):
        load_keywords(tmp_path / "none.yaml")


def test_every_exported_name_exists():
    assert all(getattr(capability, name) is not None for name in capability.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = capability.nothing
