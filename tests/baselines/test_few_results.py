"""few_results: the Gaussian process and attentive networks on episodes of new candidates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from satlight.baselines.attentive import AttentiveNetwork, Episode, loss, train
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


def test_training_lowers_the_regret():
    def sample(rng):
        """Return candidates that are good on one side of a plane."""
        vectors = rng.normal(size=(60, 3))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        side = np.sign(rng.normal(size=6))
        outcome = (vectors[:, :1] * side > 0).astype(float)
        half, known = np.full(60, 0.5), np.ones((60, 6), dtype=bool)
        episode = Episode.of(vectors[:40], half[:40], outcome[:40], known[:40], vectors[40:], half[40:])
        return episode, torch.tensor(outcome[40:], dtype=torch.float32), torch.tensor(known[40:])

    def mean_loss(network):
        draws = [sample(np.random.default_rng(number)) for number in range(10)]
        return np.mean([float(loss(network(episode), *targets, 8.0)) for episode, *targets in draws])

    state = torch.get_rng_state()
    trained = train(sample, 3, seed=0, steps=100)
    assert torch.equal(torch.get_rng_state(), state)
    assert mean_loss(trained) < 0.6 * mean_loss(AttentiveNetwork(3).requires_grad_(False))
    assert not any(parameter.requires_grad for parameter in trained.parameters())


@pytest.mark.parametrize("share", [0.0, 0.2, 0.97, 1.0])
def test_the_ability_is_the_mode_of_the_posterior(share):
    """Whole steps of Newton's method diverge for a candidate that fails where nearly all others succeed."""
    outcome = (np.arange(300) < 300 * share).astype(float)
    offset = np.log(0.97 / 0.03)
    found, _ = AttentiveNetwork(3).ability(
        torch.full((300,), offset), torch.tensor(outcome[:, None]), torch.ones((300, 1), dtype=torch.bool)
    )

    def loss(shift):
        return np.logaddexp(0, offset + shift) * 300 - outcome.sum() * (offset + shift) + shift**2 / 2

    assert found.item() == pytest.approx(minimize_scalar(loss).x, abs=0.01)


def test_with_closed_gates_the_network_is_a_shrunken_mean():
    network = AttentiveNetwork(3).requires_grad_(False)
    network.gates[2].bias[1:] = -50.0  # of the deviations; that of the ability stays at 2 * sigmoid(0) = 1
    rng = np.random.default_rng(0)
    outcome, known = (rng.random((20, 2)) < [0.9, 0.1]).astype(float), np.ones((20, 2), dtype=bool)
    half = np.full(20, 0.5)
    score = network(Episode.of(rng.normal(size=(20, 3)), half, outcome, known, rng.normal(size=(5, 3)), half[:5]))
    assert score.std(dim=0).max() < 1e-6
    mean = score.sigmoid()[0]
    # the posterior mode of a normal prior with variance 1: between 1/2 and the mean result
    assert 0.5 < mean[0] < outcome[:, 0].mean()
    assert outcome[:, 1].mean() < mean[1] < 0.5
