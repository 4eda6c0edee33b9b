"""What holds for each built-in baseline on records where the right answer is known."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import ParameterGrid

from satlight.baselines import BUILT_IN, build
from satlight.baselines.tuning import TunedBaseline
from satlight.errors import SatlightError

NAMES = [name for name in BUILT_IN if isinstance(build(name), TunedBaseline)]
every_baseline = pytest.mark.parametrize("name", NAMES)
# One small setting each, for tests that are not about the choice.
FIXED = {name: {key: values[0] for key, values in build(name).GRID.items()} for name in NAMES}


def fitted(name, records, embed):
    return build(name, fixed=FIXED[name]).fit(records, embed)


@every_baseline
def test_it_routes_each_topic_to_who_solves_it(name, two_topics, new_texts, embed):
    quick = {key: FIXED[name][key] for key in ("steps", "decay", "epochs", "clusters") if key in FIXED[name]}
    baseline = build(name, fixed=quick).fit(two_topics, embed)
    assert baseline.chosen in list(ParameterGrid(dict(baseline.GRID)))
    score = baseline.predict(new_texts, ["weak", "sorts", "adds"])
    assert (score.dtype, score.shape) == (np.float32, (3, 3))
    assert score.argmax(axis=1).tolist() == [2, 1, 2]
    assert score.min() >= (-1 if name == "routerdc" else 0)  # its cosines only rank
    assert score.max() <= 1
    assert baseline.predict(new_texts, ["adds"])[:, 0].tolist() == score[:, 2].tolist()


@every_baseline
def test_the_same_seed_gives_the_same_scores(name, two_topics, new_texts, embed):
    one, two = (build(name, seed=3, fixed=FIXED[name]).fit(two_topics, embed) for _ in range(2))
    assert np.array_equal(one.predict(new_texts, ["adds", "weak"]), two.predict(new_texts, ["adds", "weak"]))


@every_baseline
def test_unknown_outcomes_do_not_count(name, two_topics, new_texts, embed):
    """Whatever stands in an unknown cell, the scores are the same, and the topics are still told apart."""
    known = np.random.default_rng(0).random(two_topics.shape) < 0.7
    scores = []
    for filler in (0.0, 1.0):
        outcomes = np.where(known, two_topics.outcomes, np.float32(filler))
        baseline = fitted(name, replace(two_topics, outcomes=outcomes, known=known), embed)
        scores.append(baseline.predict(new_texts, ["adds", "sorts", "weak"]))
    assert np.array_equal(*scores)
    assert scores[0].argmax(axis=1).tolist() == [0, 1, 0]


@every_baseline
def test_one_candidate(name, two_topics, new_texts, embed):
    score = fitted(name, two_topics.filter(candidates="adds"), embed).predict(new_texts, ["adds"])
    assert score.shape == (3, 1)
    assert score[0, 0] > score[1, 0] or name == "routerdc"  # which compares candidates and has no other


@every_baseline
def test_a_candidate_known_on_probe_rows_only(name, two_topics, new_texts, embed):
    """ "sorts" was tried on eight instructions of each topic, and still gets the sorts."""
    known = np.ones(two_topics.shape, dtype=bool)
    trained = two_topics.splits == "train"
    for dataset in ("sums", "sorts"):
        rows = np.flatnonzero(two_topics.datasets == dataset)
        known[np.setdiff1d(rows, rows[trained[rows]][:8]), 1] = False
    records = replace(two_topics, outcomes=np.where(known, two_topics.outcomes, 0), known=known)
    score = fitted(name, records, embed).predict(new_texts, ["adds", "sorts", "weak"])
    assert score.argmax(axis=1).tolist() == [0, 1, 0]


@every_baseline
def test_rows_that_are_dropped_change_nothing(name, two_topics, new_texts, embed):
    split = two_topics.splits.astype("<U10")
    split[5:9] = "dropped"
    records = two_topics.with_splits(split)
    scores = [
        fitted(name, given, embed).predict(new_texts, ["adds", "sorts"])
        for given in (records, records.filter(splits=["train", "validation"]))
    ]
    assert np.array_equal(*scores)


@every_baseline
def test_test_rows_are_refused(name, two_topics, embed):
    records = two_topics.with_splits(["test"] * 2 + ["train"] * 78)
    with pytest.raises(SatlightError, match="2 test rows"):
        build(name).fit(records, embed)


@every_baseline
def test_an_unknown_candidate_is_refused(name, two_topics, new_texts, embed):
    with pytest.raises(SatlightError, match="'other', which it was not fitted on"):
        fitted(name, two_topics, embed).predict(new_texts, ["adds", "other"])


@every_baseline
def test_an_embedder_is_asked_for_where_one_is_needed(name, two_topics, new_texts):
    baseline = build(name)
    if baseline.needs_embeddings:
        with pytest.raises(SatlightError, match=f"{type(baseline).__name__}.fit needs an embedder"):
            baseline.fit(two_topics)
    else:
        score = baseline.fit(two_topics).predict(new_texts, ["adds", "sorts"])
        assert score.argmax(axis=1).tolist() == [0, 1, 0]
