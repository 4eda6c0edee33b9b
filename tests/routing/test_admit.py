"""A candidate is admitted from its outcomes on the core items, as if it had been in the zoo all along."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from satlight.capability import AptitudeTest, CapabilityText
from satlight.errors import SatlightError
from satlight.records.simulated import SimulatedZoo
from satlight.routing import Router
from satlight.types import AptitudeResults, Candidate

TEXTS = ["What is 2+2?", "Name three rivers that flow through Germany.", "Hi"]


@pytest.fixture(scope="module")
def records():
    records = SimulatedZoo(num_instructions=1500, num_candidates=4).generate()
    last = replace(records.candidates[3], notes=("It supports Chinese.",))
    return replace(records, candidates=(*records.candidates[:3], last))


@pytest.fixture(scope="module")
def test(records) -> AptitudeTest:
    return AptitudeTest.design(records.filter(splits="train"), num_tasks=6, num_shots=10)


def results_of(records, test, column: int, items=None) -> AptitudeResults:
    """Outcomes of a candidate on core items, and on a few other instructions."""
    ids = records.instructions["instruction_id"].to_list()
    wanted = set(test.item_ids if items is None else items) | set(ids[:3]) - test.item_ids
    rows = [row for row, key in enumerate(ids) if key in wanted]
    return AptitudeResults(
        tuple(ids[row] for row in rows), tuple(records.texts[row] for row in rows), records.outcomes[rows, column]
    )


def router_of(make_router, records, test, text, columns):
    """A router with these candidates."""
    router = copy.copy(make_router())
    router.candidates = tuple(records.candidates[c] for c in columns)
    names = [records.model_ids[c] for c in columns]
    router.capabilities = tuple(text.write(test, records, names))
    router.test, router.text = test, text
    return router


@pytest.mark.parametrize(
    "text", [CapabilityText(), CapabilityText(shots=4, style="graded"), CapabilityText(order_seed=3)]
)
def test_it_scores_as_if_it_had_been_there(make_router, records, test, text, tmp_path):
    whole = router_of(make_router, records, test, text, range(4)).score(TEXTS)
    part = router_of(make_router, records, test, text, range(3))
    part.save(tmp_path / "router")
    loaded = Router.from_pretrained(tmp_path / "router")
    admitted = loaded.admit(records.candidates[3], results_of(records, test, 3))
    assert admitted.model_ids == records.model_ids
    assert admitted.capabilities[3].notes == ("It supports Chinese.",)
    scores = admitted.score(TEXTS)
    assert np.allclose(scores.log_odds_BC, whole.log_odds_BC, atol=1e-5)
    assert np.allclose(scores.log_odds_BC[:, :3], part.score(TEXTS).log_odds_BC, atol=1e-5)
    assert np.allclose(scores.probability_BC, whole.probability_BC, atol=1e-6)
    assert loaded.model_ids == records.model_ids[:3]  # as it was
    admitted.save(tmp_path / "admitted")
    again = Router.from_pretrained(tmp_path / "admitted")
    assert np.array_equal(again.score(TEXTS).log_odds_BC, scores.log_odds_BC)
    assert again.candidates == records.candidates


def test_some_items_are_enough(make_router, records, test):
    router = router_of(make_router, records, test, CapabilityText(), range(3))
    task = test.tasks[2]
    admitted = router.admit(records.candidates[3], results_of(records, test, 3, task.instruction_ids[:4]))
    (result,) = admitted.capabilities[3].results
    assert (result.task, result.items) == (task.name, 4)
    assert np.isfinite(admitted.score(TEXTS).log_odds_BC).all()


def test_two_may_be_admitted_one_after_the_other(make_router, records, test):
    router = router_of(make_router, records, test, CapabilityText(), [0])
    for column in (2, 3):
        router = router.admit(records.candidates[column], results_of(records, test, column))
    expected = router_of(make_router, records, test, CapabilityText(), [0, 2, 3]).score(TEXTS)
    assert np.allclose(router.score(TEXTS).log_odds_BC, expected.log_odds_BC, atol=1e-5)


def test_mistakes_are_named(make_router, router, records, test):
    routed = router_of(make_router, records, test, CapabilityText(), range(3))
    with pytest.raises(SatlightError, match=r"has a candidate '.*' already; choose another name"):
        routed.admit(records.candidates[1], results_of(records, test, 1))
    with pytest.raises(SatlightError, match=r"None of the 1 items is a core item .*AptitudeTest\.export"):
        routed.admit(records.candidates[3], AptitudeResults(("x",), ("1+1?",), np.array([1.0])))
    with pytest.raises(SatlightError, match=r"without its aptitude test.*satlight export RUN"):
        router.admit(Candidate("new"), results_of(records, test, 3))


@pytest.mark.parametrize("outcome", [-0.1, 1.5, 85, np.nan, np.inf])
def test_outcomes_out_of_range_are_named(outcome):
    with pytest.raises(SatlightError, match=r"outcome of item 'b' is .*; it must lie in \[0, 1\]"):
        AptitudeResults(("a", "b"), ("1+1?", "2+2?"), np.array([1.0, outcome]))


@pytest.mark.parametrize(
    ("ids", "texts", "outcomes"), [((), (), []), (("a",), (), [1.0]), (("a", "b"), ("x", "y"), [1.0])]
)
def test_results_need_one_outcome_per_item(ids, texts, outcomes):
    with pytest.raises(SatlightError, match="one id, text and outcome per item"):
        AptitudeResults(ids, texts, np.array(outcomes))


def test_an_item_twice_is_named():
    with pytest.raises(SatlightError, match="item 'a' occurs twice"):
        AptitudeResults(("a", "a"), ("1+1?", "1+1?"), np.array([1.0, 0.0]))
