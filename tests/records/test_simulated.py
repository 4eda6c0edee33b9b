"""The simulated zoo: real sentences, nested and deterministic draws, a wide gap that a router can close."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest

from satlight.errors import SatlightError
from satlight.records import PerformanceRecords, open_records, save_records, split_records
from satlight.records.simulated import FAMILIES, SKILLS, Neutral, Numbers, SimulatedZoo, bayes_optimal
from satlight.records.simulated.candidates import Examinee, make_examinees
from satlight.records.simulated.families import _slot
from satlight.records.simulated.response import DISCRIMINATION, HARD_BONUS, SLIP, success_probabilities
from satlight.records.sources import SimulatedSpec
from satlight.types import Candidate


@pytest.fixture(scope="module")
def zoo() -> PerformanceRecords:
    return SimulatedZoo().generate()


@pytest.fixture(scope="module")
def drawn() -> dict[str, list[tuple[str, float]]]:
    """1,500 draws of each family."""
    rng = random.Random(7)
    return {family.name: [family.draw(rng) for _ in range(1500)] for family in FAMILIES}


def test_many_families_in_eight_datasets():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) >= 40
    assert len({family.dataset for family in FAMILIES}) == 8


def test_the_zoo_keeps_its_fingerprint(zoo):
    assert zoo.fingerprint == "eca9eb24562eaf46"
    assert SimulatedZoo(num_instructions=1000, num_candidates=20, seed=3).generate().fingerprint == ("de8a3f80325aefd9")


def test_a_word_that_yaml_reads_as_a_number_is_refused_with_its_place():
    with pytest.raises(SatlightError, match=r"code.yaml: debugging.line: got \['ten', 11\].* Quote words"):
        _slot(["ten", 11], {}, "code.yaml: debugging.line")


def test_each_family_has_several_hundred_distinct_texts(drawn):
    assert {name: n for name, d in drawn.items() if (n := len({text for text, _ in d})) < 300} == {}


def test_no_text_is_shared_between_families(drawn):
    distinct = [text for draws in drawn.values() for text in {text for text, _ in draws}]
    assert len(distinct) == len(set(distinct))


def test_texts_have_10_to_50_words_and_no_slot_left(drawn):
    texts = [text for draws in drawn.values() for text, _ in draws]
    assert [text for text in texts if not 10 <= len(text.split()) <= 50] == []
    assert [text for text in texts if "{" in text or "}" in text or "  " in text] == []


def test_every_template_shows_some_difficulty_and_uses_known_skills():
    for family in FAMILIES:
        assert set(family.skills) <= set(SKILLS)
        for fields in family.fields:
            slots = [family.slots[name.rstrip("0123456789")] for name in fields]
            assert any(isinstance(s, tuple) or (isinstance(s, Numbers) and s.graded) for s in slots), family.name


def test_every_slot_is_used_and_lists_words_once():
    for family in FAMILIES:
        used = {name.rstrip("0123456789") for fields in family.fields for name in fields}
        assert used == set(family.slots), family.name
        for slot in family.slots.values():
            words = slot.words if isinstance(slot, Neutral) else slot
            assert isinstance(words, Numbers) or len(set(words)) == len(words), family.name


def test_visible_difficulty_is_standardised(drawn):
    values = np.array([[visible for _, visible in draws] for draws in drawn.values()])
    np.testing.assert_allclose(values.mean(axis=1), 0, atol=0.1)
    np.testing.assert_allclose(values.std(axis=1), 1, atol=0.15)


def test_larger_operands_are_visibly_harder():
    family = next(f for f in FAMILIES if f.name == "arithmetic")
    rng = random.Random(0)
    draws = [family.draw(rng) for _ in range(400)]
    digits = [sum(character.isdigit() for character in text) for text, _ in draws]
    assert np.corrcoef(digits, [visible for _, visible in draws])[0, 1] > 0.6


def test_default_zoo_is_fast_labelled_and_complete():
    start = time.perf_counter()
    records = SimulatedZoo().generate()
    assert time.perf_counter() - start < 1.0
    assert records.shape == (4000, 30)
    assert records.simulated
    assert records.name == "simulated"
    assert records.known.all()
    assert set(np.unique(records.outcomes)) == {0.0, 1.0}
    assert records.expected is not None
    assert records.expected.dtype == np.float32
    assert 0 < records.expected.min() < records.expected.max() < 1


def test_texts_are_distinct_and_every_family_is_on_both_sides(zoo):
    assert len(set(zoo.texts)) == 4000
    for task in {family.name for family in FAMILIES}:
        share = (zoo.splits[zoo.tasks == task] == "test").mean()
        assert 0.2 <= share <= 0.3


def test_split_records_keeps_the_splits(zoo):
    split = split_records(zoo)
    assert "dropped" not in split
    assert ((split == "test") == (zoo.splits == "test")).all()


def test_outcomes_follow_the_true_probabilities(zoo):
    assert zoo.expected is not None
    for low, high in ((0.05, 0.15), (0.45, 0.55), (0.85, 0.95)):
        cells = (zoo.expected > low) & (zoo.expected < high)
        assert zoo.outcomes[cells].mean() == pytest.approx(zoo.expected[cells].mean(), abs=0.02)


def test_same_seed_same_zoo_and_another_seed_another(zoo):
    assert SimulatedZoo().generate().fingerprint == zoo.fingerprint
    assert SimulatedZoo(seed=1).generate().fingerprint != zoo.fingerprint


def test_smaller_zoos_are_the_corner_of_larger_ones(zoo):
    small = SimulatedZoo(num_instructions=300, num_candidates=7).generate()
    assert small.texts == zoo.texts[:300]
    assert small.splits.tolist() == zoo.splits[:300].tolist()
    assert small.candidates == zoo.candidates[:7]
    np.testing.assert_array_equal(small.outcomes, zoo.outcomes[:300, :7])
    np.testing.assert_array_equal(small.expected, zoo.expected[:300, :7])


def test_more_instructions_than_texts_keep_repeats_on_one_side():
    records = SimulatedZoo(num_instructions=60_000, num_candidates=2).generate()
    assert len(set(records.texts)) < 60_000
    sides: dict[str, set[str]] = {}
    for text, split in zip(records.texts, records.splits, strict=True):
        sides.setdefault(text, set()).add(split)
    assert max(len(side) for side in sides.values()) == 1


def test_candidates_are_unique_and_specialised():
    examinees = make_examinees(200, seed=3)
    assert len({e.candidate.model_id for e in examinees}) == 200
    assert all(0.5 <= (e.candidate.params_b or 0) <= 400 for e in examinees)
    code = SKILLS.index("code")
    coders = [e.skills[code] for e in examinees if e.candidate.model_id.startswith("sim-coder")]
    medics = [e.skills[code] for e in examinees if e.candidate.model_id.startswith("sim-medic")]
    assert min(coders) > max(medics)
    assert np.corrcoef([e.size for e in examinees], [e.general for e in examinees])[0, 1] > 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_best_router_beats_the_best_single_candidate_by_ten_points(seed):
    records = SimulatedZoo(seed=seed).generate()
    test = records.splits == "test"
    best = records.outcomes[~test].mean(axis=0).argmax()
    assert records.expected is not None
    single = records.expected[test][:, best].mean()
    optimal = bayes_optimal(records, test)
    oracle = records.outcomes[test].max(axis=1).mean()
    assert single + 0.10 < optimal < oracle
    assert len(set(records.expected.argmax(axis=1))) >= 8


def test_family_best_is_near_the_best_router_but_dataset_best_leaves_more(zoo):
    """What there is to learn: mostly the family, beyond that the difficulty."""
    expected = zoo.expected
    by_task = sum(expected[zoo.tasks == t].mean(axis=0).max() * (zoo.tasks == t).sum() for t in set(zoo.tasks)) / 4000
    by_dataset = (
        sum(expected[zoo.datasets == d].mean(axis=0).max() * (zoo.datasets == d).sum() for d in set(zoo.datasets))
        / 4000
    )
    assert by_dataset + 0.01 < by_task < bayes_optimal(zoo) - 0.001


def test_success_probability_is_the_documented_formula():
    family = FAMILIES[0]
    skills = np.linspace(-1, 1, len(SKILLS))
    examinee = Examinee(Candidate("x"), size=1.2, general=0.4, skills=skills)
    visible, difficulty = 0.7, 0.9
    ability = sum(w * skills[SKILLS.index(k)] for k, w in family.skills.items()) + 0.4
    by_hand = family.guess + (1 - family.guess - SLIP) / (
        1 + np.exp(-DISCRIMINATION * (ability - difficulty + HARD_BONUS * 1.2 * visible))
    )
    zero = np.zeros(1, dtype=np.int64)
    got = success_probabilities(examinee, FAMILIES, zero, np.array([visible]), np.array([difficulty]))
    assert got[0] == pytest.approx(by_hand)


def test_large_candidates_lose_less_on_hard_instructions():
    skills = np.zeros(len(SKILLS))
    zero = np.zeros(2, dtype=np.int64)
    visible = difficulty = np.array([0.0, 1.5])
    logit = []
    for size in (-1.0, 1.5):
        p = success_probabilities(Examinee(Candidate("x"), size, 0.0, skills), FAMILIES, zero, visible, difficulty)
        guess = FAMILIES[0].guess
        q = (p - guess) / (1 - guess - SLIP)
        logit.append(np.log(q / (1 - q)))
    assert logit[0][0] == pytest.approx(logit[1][0])  # on easy ones size has no effect of its own
    assert logit[1][1] > logit[0][1] + 0.5


def test_costs_grow_with_size(zoo):
    assert zoo.costs is not None
    sizes = [candidate.params_b for candidate in zoo.candidates]
    assert np.corrcoef(np.log(sizes), np.log(zoo.costs.mean(axis=0)))[0, 1] > 0.99
    assert (zoo.costs > 0).all()


def test_bayes_optimal_takes_the_best_true_probability_of_the_given_rows(zoo):
    rows = np.array([3, 5, 8])
    assert bayes_optimal(zoo, rows) == pytest.approx(np.mean([zoo.expected[row].max() for row in rows]))
    few = zoo.filter(candidates=zoo.model_ids[:3])
    assert bayes_optimal(few) < bayes_optimal(zoo)


def test_bayes_optimal_needs_simulated_records(zoo):
    from dataclasses import replace

    with pytest.raises(SatlightError, match="only simulated records"):
        bayes_optimal(replace(zoo, expected=None))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_instructions": 0}, "num_instructions=0"),
        ({"num_candidates": 1}, "num_candidates=1; allowed: integers from 2"),
        ({"seed": -1}, "seed=-1"),
        ({"test_fraction": 1.0}, "test_fraction=1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(wrong, message):
    with pytest.raises(SatlightError, match=message):
        SimulatedZoo(**wrong)


def test_the_share_of_test_rows_is_an_option_that_changes_the_split_alone():
    half = open_records("simulated", simulated=SimulatedSpec(400, 3, test_fraction=0.5))
    quarter = open_records("simulated", simulated=SimulatedSpec(400, 3))
    assert ((half.splits == "test").sum(), (quarter.splits == "test").sum()) == (200, 100)
    assert half.texts == quarter.texts
    assert (half.outcomes == quarter.outcomes).all()


def test_survives_the_records_folder(zoo, tmp_path):
    small = SimulatedZoo(num_instructions=60, num_candidates=3).generate()
    save_records(small, tmp_path / "zoo")
    again = open_records(tmp_path / "zoo")
    assert again.fingerprint == small.fingerprint
    assert again.instructions["keywords"].to_list() == small.instructions["keywords"].to_list()
