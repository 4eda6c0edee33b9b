"""RouterDC and the graph router: losses by hand, what a score may depend on, training in silence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from satlight.baselines import build
from satlight.baselines.graph import Graph
from satlight.baselines.routerdc import RouterDC, sample_llm_loss, sample_sample_loss
from satlight.types import Candidate

NEURAL = pytest.mark.parametrize("name", ["graph", "routerdc"])


def settings(name, steps):
    return {"steps": steps, **({"layers": 1} if name == "graph" else {"temperature": 0.2})}


# -- losses of RouterDC ------------------------------------------------------------------------------------


def llm_loss(score, outcome, known=None):
    known = torch.ones(1, len(score), dtype=torch.bool) if known is None else torch.tensor([known])
    return sample_llm_loss(torch.as_tensor([score]), torch.tensor([outcome]), known)


def test_each_good_candidate_is_set_against_the_failing_ones():
    score = [0.3, -0.2, 0.9, 0.1]
    wrong = np.exp(0.9) + np.exp(0.1)
    expected = -sum(np.log(np.exp(s) / (np.exp(s) + wrong)) for s in (0.3, -0.2))
    assert llm_loss(score, [1.0, 0.7, 0.0, 0.2]).item() == pytest.approx(expected, abs=1e-5)


def test_only_outcomes_above_0_attract_and_only_those_up_to_a_half_repel():
    score = [0.3, -0.2, 0.9, 0.1]
    one_against_one = np.log(1 + np.exp(0.9 - 0.3))
    assert llm_loss(score, [1.0, 0.9, 0.0, 0.8]).item() == pytest.approx(
        one_against_one + np.log(1 + np.exp(0.9 + 0.2)), abs=1e-5
    )
    two_of_three = np.log(1 + 2 * np.exp(0.5 - 0.3))
    assert llm_loss([0.3, 0.5, 0.5, 0.5], [1.0, 0.0, 0.0, 0.0]).item() == pytest.approx(two_of_three, abs=1e-5)
    assert llm_loss(score, [0.0] * 4).item() == 0


def test_without_a_negative_there_is_nothing_to_learn():
    score = torch.tensor([[0.3, -0.2, 0.9, 0.1]], requires_grad=True)
    loss = sample_llm_loss(score, torch.tensor([[1.0, 0.9, 0.6, 0.8]]), torch.ones(1, 4, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(score.grad, torch.zeros(1, 4))


def test_unknown_candidates_are_neither_good_nor_failing():
    for filler in (0.0, 1.0):
        loss = llm_loss([0.3, -0.2, 5.0, -5.0], [1.0, 0.0, filler, filler], [True, True, False, False])
        assert loss.item() == pytest.approx(np.log(1 + np.exp(-0.5)), abs=1e-5)


def test_equal_outcomes_are_ordered_by_lot():
    score = torch.tensor([[0.1, 0.2, 0.3, 0.0, 0.0, 0.0]])
    torch.manual_seed(0)
    losses = {round(sample_llm_loss(score, torch.tensor([[1.0] * 5 + [0.0]]), score > -1).item(), 4) for _ in range(60)}
    assert len(losses) > 5  # three out of five, by column there would be one value


def test_an_instruction_is_set_against_those_of_other_clusters():
    cosine = torch.tensor([[1.0, 0.5, 0.1, 0.2, 0.3], [0.5, 1.0, -0.1, 0.0, 0.4]] + [[0.0] * 5] * 3)
    # The first two have each other and three of another cluster; those three have but two of another one.
    rows = [(0.5, (0.1, 0.2, 0.3)), (0.5, (-0.1, 0.0, 0.4))]
    expected = np.mean([-np.log(np.exp(p) / (np.exp(p) + sum(map(np.exp, others)))) for p, others in rows])
    loss = sample_sample_loss(cosine, torch.tensor([7, 7, 2, 2, 2]))
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert sample_sample_loss(cosine, torch.zeros(5, dtype=torch.long)).item() == 0


def test_its_scores_are_cosines(two_topics, new_texts, embed):
    router = build("routerdc", fixed=settings("routerdc", 30)).fit(two_topics, embed)
    score = router.predict(new_texts, ["adds", "sorts", "weak"])
    assert score.min() < 0 < score.max()
    assert np.abs(score).max() <= 1


# -- graph -------------------------------------------------------------------------------------------------


def test_a_candidate_is_what_its_edges_say(two_topics, new_texts, embed):
    """Nothing but edges tells candidates apart: equal edges, equal scores; another order, the same scores."""
    twin = replace(
        two_topics,
        candidates=(*two_topics.candidates, Candidate("twin")),
        outcomes=two_topics.outcomes[:, [0, 1, 2, 0]],
        known=two_topics.known[:, [0, 1, 2, 0]],
    )
    router = Graph(fixed=settings("graph", 20)).fit(twin, embed)
    score = router.predict(new_texts, ["adds", "sorts", "weak", "twin"])
    assert np.allclose(score[:, 0], score[:, 3], atol=1e-6)
    assert not np.allclose(score[:, 0], score[:, 1], atol=1e-2)


def test_the_edges_of_a_batch_are_hidden_while_they_are_predicted(two_topics, embed):
    module = Graph().module(two_topics, embed(two_topics.texts), layers=1)
    seen = []
    predicted = module.predicted
    module.predicted = lambda x, support, known: seen.append(support) or predicted(x, support, known)
    batch = torch.tensor([0, 5, 41])
    module.loss(batch)
    assert sorted({*seen[0].tolist(), *batch.tolist()}) == list(range(80))
    assert not set(seen[0].tolist()) & set(batch.tolist())


def test_candidates_train_with_few_edges_too(two_topics, embed):
    module = Graph().module(two_topics, embed(two_topics.texts), layers=1)
    torch.manual_seed(0)
    shares = torch.stack([module._left(torch.arange(80)).float().mean(dim=0) for _ in range(50)]).flatten()
    assert (shares == 1).float().mean() > 0.3
    assert (shares < 0.2).float().mean() > 0.1


# -- training ----------------------------------------------------------------------------------------------


@NEURAL
def test_a_short_training_is_the_beginning_of_a_long_one(name, two_topics, embed):
    """The steps to choose from are scored on the way, which must be what training for so long would give."""
    train, held = two_topics.filter(splits="train"), two_topics.filter(splits="validation")
    train_ND, held_ND = embed(train.texts), embed(held.texts)
    baseline = build(name)
    points = [settings(name, steps) for steps in (10, 25)]
    on_the_way = list(baseline.validation_scores((train, train_ND), (held.texts, held_ND), points))
    for point, score in zip(points, on_the_way, strict=True):
        baseline.learn(train, train_ND, **point)
        assert np.allclose(baseline.expected(held.texts, held_ND), score, atol=1e-6)
    assert not np.allclose(*on_the_way, atol=1e-3)


@NEURAL
def test_another_seed_gives_other_scores_and_torch_is_left_alone(name, two_topics, new_texts, embed):
    before = torch.get_rng_state()
    scores = [
        build(name, seed=seed, fixed=settings(name, 10)).fit(two_topics, embed).predict(new_texts, ["adds"])
        for seed in (0, 1)
    ]
    assert not np.allclose(*scores, atol=1e-4)
    assert torch.equal(before, torch.get_rng_state())


def test_every_dataset_is_drawn_equally_often(two_topics, embed):
    records = two_topics.rows(np.r_[0:40, 40:44])  # 40 sums, 4 sorts
    module = RouterDC().module(records, embed(records.texts), temperature=1.0)
    torch.manual_seed(0)
    drawn = torch.cat(list(module.batches(20)))
    assert len(drawn) == 20 * 64
    assert (drawn >= 40).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_training_leaves_no_files_and_says_nothing(two_topics, embed, tmp_path, monkeypatch, capfd, caplog, recwarn):
    monkeypatch.chdir(tmp_path)
    build("routerdc", fixed=settings("routerdc", 5)).fit(two_topics, embed)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert list(recwarn) == []
