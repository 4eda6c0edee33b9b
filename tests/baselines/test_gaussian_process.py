"""gaussian_process: what few results say about a candidate that was not in training."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit

from satlight.baselines.gaussian_process import START, GaussianProcess, posterior_weights
from satlight.baselines.kernel_parts import Episode, Landmarks, TaskGuess, marginal_loss
from satlight.errors import SatlightError
from satlight.types import AptitudeResults, Candidate

SUMS, SORTS = "what is the sum", "sort this list"
VARIANCES = {"ability": 1.0, "task": 1.0, "near": 0.1, "alike": 5.0, "noise": 1.0}


@pytest.fixture
def zoo(make_records):
    """Eight candidates, four that do sums and four that sort; the last ten sums are hard for all."""
    rng = np.random.default_rng(0)
    texts = [f"{SUMS} {n}" for n in range(40)] + [f"{SORTS} {n}" for n in range(40)]
    chance = np.repeat([[0.9] * 4 + [0.3] * 4, [0.3] * 4 + [0.9] * 4], 40, axis=0)
    outcomes = (rng.random((80, 8)) < chance).astype(float)
    outcomes[30:40] = 0
    names = [f"{kind}{n}" for kind in ("adds", "sorts") for n in range(4)]
    datasets = ["sums"] * 40 + ["sorts"] * 40
    return make_records(texts, outcomes.tolist(), split=["train"] * 80, candidates=names, datasets=datasets)


def results(router, zoo, rows, outcomes):
    ids = [router.row_ids[row] for row in rows]
    return AptitudeResults(tuple(ids), tuple(zoo.texts[row] for row in rows), np.array(outcomes, dtype=np.float32))


def admitted(router, zoo, **known):
    for name, (rows, outcomes) in known.items():
        router = router.admit(Candidate(name), results(router, zoo, rows, outcomes))
    return router.predict([f"{SUMS} 91", f"{SORTS} 92"], list(known))


def test_few_results_tell_which_kind_a_newcomer_is(zoo, embed):
    router = GaussianProcess().fit(zoo, embed)
    rows = [0, 1, 2, 40, 41, 42]
    score = admitted(router, zoo, adder=(rows, [1, 1, 1, 0, 0, 0]), sorter=(rows, [0, 0, 0, 1, 1, 1]))
    assert score.argmax(axis=1).tolist() == [0, 1]
    assert score[0, 0] - score[0, 1] > 0.1 < score[1, 1] - score[1, 0]


def test_more_results_move_the_expectation_further(zoo, embed):
    router = GaussianProcess(variances=VARIANCES).fit(zoo, embed)
    rows = np.arange(30)
    score = admitted(router, zoo, one=(rows[:1], [1]), some=(rows[:5], [1] * 5), many=(rows, [1] * 30))[0]
    mean = router.predict([f"{SUMS} 91"], zoo.model_ids).mean()
    assert mean < score[0] < score[1] < score[2] < 1


def test_failing_where_everyone_fails_says_less(zoo, embed):
    router = GaussianProcess(variances=VARIANCES).fit(zoo, embed)
    score = admitted(router, zoo, hard=([30, 31, 32], [0] * 3), easy=([0, 1, 2], [0] * 3))
    assert score[0, 0] > score[0, 1] + 0.05


def test_training_candidates_are_needed_to_learn_variances(zoo, embed):
    assert GaussianProcess().fit(zoo.filter(candidates=zoo.model_ids[:3]), embed).variances == START
    learned = GaussianProcess().fit(zoo, embed).variances
    assert list(learned) == list(START)
    assert learned != START


def test_given_variances_are_used_and_choose_the_parts(zoo, embed):
    given = {"ability": 1.0, "noise": 1.0}
    router = GaussianProcess(variances=given).fit(zoo, embed)
    assert router.variances == given
    odds = np.log(score := admitted(router, zoo, new=([0, 1, 40, 41], [1, 1, 0, 0]))) - np.log(1 - score)
    mean = router.predict([f"{SUMS} 91", f"{SORTS} 92"], zoo.model_ids).mean(axis=1)
    shift = odds[:, 0] - (np.log(mean) - np.log(1 - mean))
    assert shift[0] == pytest.approx(shift[1], abs=1e-5)  # ability alone moves all instructions alike


@pytest.mark.parametrize("wrong", [{"ability": 1.0}, {"ability": 0.0, "noise": 1.0}, {"speed": 1.0, "noise": 1.0}])
def test_other_variances_are_refused(wrong):
    with pytest.raises(SatlightError, match=r"variances are .* give numbers above 0 for 'noise' and some of 'ability'"):
        GaussianProcess(variances=wrong)


def test_the_weights_maximize_the_posterior():
    rng = np.random.default_rng(0)
    feature, mean, outcome = rng.normal(size=(50, 3)), rng.uniform(0.2, 0.8, 50), rng.integers(0, 2, 50)
    found = posterior_weights(feature, mean, outcome, noise=0.7)
    p = expit(np.log(mean / (1 - mean)) + feature @ found)
    assert feature.T @ (outcome - p) / 0.7 == pytest.approx(found, abs=1e-4)


def test_the_weights_of_a_candidate_far_below_the_others_maximize_the_posterior():
    """Whole steps of Newton's method diverge here."""
    rng = np.random.default_rng(0)
    feature, mean, outcome = 2 * rng.normal(size=(300, 30)), np.full(300, 0.97), (rng.random(300) < 0.2).astype(float)
    found = posterior_weights(feature, mean, outcome, noise=0.6)
    p = expit(np.log(mean / (1 - mean)) + feature @ found)
    assert feature.T @ (outcome - p) / 0.6 == pytest.approx(found, abs=0.05)


def test_a_task_without_rows_has_no_probability():
    vectors = np.random.default_rng(0).normal(size=(30, 4))
    assert TaskGuess.fit(vectors, np.arange(30) % 2, 3)(vectors)[:, 2].max() == 0
    assert TaskGuess.fit(vectors, np.full(30, 1), 3)(vectors).tolist() == [[0, 1, 0]] * 30


def test_equal_landmarks_do_no_harm():
    x = np.repeat(np.eye(3), 2, axis=0)
    assert Landmarks.at(x)(x) @ Landmarks.at(x)(x).T == pytest.approx(np.exp(-(1 - x @ x.T) / 0.25))


def test_the_gradient_of_the_marginal_likelihood():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(2, 6, 3))
    episodes = [Episode(root @ root.transpose(0, 2, 1), rng.uniform(0.5, 1, 6), rng.normal(size=(6, 4)))] * 2
    error = check_grad(lambda x: marginal_loss(x, episodes)[0], lambda x: marginal_loss(x, episodes)[1], np.zeros(3))
    assert error < 1e-5
