"""few_results: the Gaussian process and attentive networks on episodes of new candidates."""

from dataclasses import replace

import numpy as np
import pytest

from satlight.baselines.attentive import Episode
from satlight.baselines.few_results import FewResults
from satlight.baselines.gaussian_process import GaussianProcess
from satlight.types import AptitudeResults, Candidate

ADD, SORT = "what is the sum", "sort this list"


@pytest.fixture
def router(zoo, embed):
    return FewResults(fixed={"steps": 15}).fit(zoo, embed)


@pytest.fixture
def zoo(make_records):
    """Eight candidates, four that do sums and four that sort."""
    rng = np.random.default_rng(0)
    texts = [f"{ADD} {n}" for n in range(40)] + [f"{SORT} {n}" for n in range(40)]
    chance = np.repeat([[0.9] * 4 + [0.3] * 4, [0.3] * 4 + [0.9] * 4], 40, axis=0)
    outcomes = (rng.random((80, 8)) < chance).astype(float).tolist()
    names = [f"{kind}{n}" for kind in ("adds", "sorts") for n in range(4)]
    datasets = ["sums"] * 40 + ["sorts"] * 40
    return make_records(texts, outcomes, split=["train"] * 80, candidates=names, datasets=datasets)


def admit(router, zoo, name, rows, outcomes):
    ids, texts = zip(*((zoo.ids[row], zoo.texts[row]) for row in rows), strict=True)
    return router.admit(Candidate(name), AptitudeResults(ids, texts, np.array(outcomes, dtype=np.float32)))


ROWS, ADDS, SORTS = [0, 1, 2, 40, 41, 42], [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]
ASKED = [f"{ADD} 91", f"{SORT} 92"]


def test_few_results_tell_which_kind_a_newcomer_is(router, zoo):
    both = admit(admit(router, zoo, "adder", ROWS, ADDS), zoo, "sorter", ROWS, SORTS)
    assert both.predict(ASKED, ["adder", "sorter"]).argmax(axis=1).tolist() == [0, 1]


def test_the_expectation_is_the_mean_of_both_parts(router, zoo, embed):
    alone = admit(GaussianProcess().fit(zoo, embed), zoo, "new", ROWS, ADDS).predict(ASKED, ["new"])
    joined = admit(router, zoo, "new", ROWS, ADDS)
    (answered,) = joined._answered
    items = joined._read(embed(ASKED).astype(float))
    known = np.ones((6, 1), dtype=bool)
    mean_Q = items.means()
    episode = Episode.of(answered.vectors_KD, answered.mean_K, answered.outcome_KC, known, embed(ASKED), mean_Q)
    networks = np.mean([network(episode).sigmoid().numpy() for network in joined._networks], axis=0)
    assert len(joined._networks) == 3
    assert joined.predict(ASKED, ["new"]) == pytest.approx((alone + networks) / 2, abs=1e-5)
    assert np.abs(networks - alone).max() > 0.01


def test_training_candidates_are_those_of_the_gaussian_process(router, zoo, embed):
    expected = GaussianProcess().fit(zoo, embed).predict(ASKED, zoo.model_ids)
    assert router.predict(ASKED, zoo.model_ids) == pytest.approx(expected)


def test_newcomers_do_not_change_each_other(router, zoo):
    """Candidates with the same instructions share a pass of the networks."""
    cases = {"a": (ROWS, ADDS), "b": (ROWS, SORTS), "c": (ROWS[1:], ADDS[1:]), "d": (ROWS, [1] * 6)}
    together = router
    for name, case in cases.items():
        together = admit(together, zoo, name, *case)
    assert [len(one.place_C) for one in together._answered] == [3, 1]
    for name, case in cases.items():
        alone = admit(router, zoo, name, *case).predict(ASKED, [name])
        assert together.predict(ASKED, [name]) == pytest.approx(alone, abs=1e-6)
    assert router._answered == []


def test_the_order_of_results_does_not_matter(router, zoo):
    score = [admit(router, zoo, "new", *case).predict(ASKED, ["new"]) for case in ((ROWS, ADDS), (ROWS[::-1], SORTS))]
    assert score[0] == pytest.approx(score[1])


@pytest.mark.parametrize(("candidates", "rows"), [(3, 80), (8, 12)])
def test_small_records_have_no_networks(zoo, embed, candidates, rows):
    small = zoo.rows(range(0, 80, 80 // rows))
    small = small.rows(range(rows)).filter(candidates=zoo.model_ids[:candidates])
    one, other = (admit(kind().fit(small, embed), zoo, "new", ROWS, ADDS) for kind in (FewResults, GaussianProcess))
    assert one._networks == []
    assert np.array_equal(one.predict(ASKED, ["new"]), other.predict(ASKED, ["new"]))


def test_a_column_known_by_probes_is_a_newcomer(zoo, embed):
    known = np.ones((80, 8), dtype=bool)
    known[np.setdiff1d(np.arange(80), ROWS), 7] = False
    router = FewResults(fixed={"steps": 5}).fit(replace(zoo, known=known), embed)
    assert [one.place_C.tolist() for one in router._answered] == [[0]]
    assert router._answered[0].outcome_KC[:, 0].tolist() == np.asarray(zoo.outcomes)[ROWS, 7].tolist()
