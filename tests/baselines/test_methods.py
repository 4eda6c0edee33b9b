"""What each method computes, against hand-made cases and references."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from satlight.baselines import build
from satlight.baselines.features import Features, nearest


@pytest.fixture
def cloud(make_records):
    """100 instructions named by number, with random unit vectors and outcomes; 90 known cells of 100 each."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = np.ones((100, 3), dtype=bool)
    known[rng.permutation(100)[:10], 1] = False
    records = make_records(
        [str(n) for n in range(100)],
        rng.integers(0, 2, (100, 3)).tolist(),
        split=["train"] * 100,
        candidates=["x", "y", "z"],
        known=known,
    )
    return records, vectors, lambda texts: vectors[[int(text) for text in texts]]


QUERIES = ["3", "14", "15", "92"]


def test_knn_is_scikit_learns_with_the_mean_as_one_more_neighbour(cloud):
    records, vectors, embed = cloud
    got = build("knn", fixed={"k": 10}).fit(records, embed).predict(QUERIES, records.model_ids)
    for column in range(3):
        rows = records.known[:, column]
        target = records.outcomes[rows, column]
        reference = KNeighborsRegressor(10).fit(vectors[rows], target).predict(embed(QUERIES))
        assert got[:, column] == pytest.approx((10 * reference + target.mean()) / 11)


def test_knn_with_more_neighbours_than_instructions_gives_the_mean(cloud):
    records, _, embed = cloud
    got = build("knn", fixed={"k": 400}).fit(records, embed).predict(QUERIES, ["y"])
    assert got[:, 0] == pytest.approx([records.outcomes[records.known[:, 1], 1].mean()] * 4)


def test_one_search_serves_every_k_of_the_grid(cloud):
    records, _, embed = cloud
    knn = build("knn", fixed={"k": 10})
    points = [{"k": 2}, {"k": 10}, {"k": 400}]
    shared = list(knn.validation_scores((records, embed(records.texts)), (QUERIES, embed(QUERIES)), points))
    for point, score in zip(points, shared, strict=True):
        knn.learn(records, embed(records.texts), **point)
        assert score == pytest.approx(knn.expected(QUERIES, embed(QUERIES)))


def test_linear_is_ridge_on_the_known_rows_of_each_candidate(cloud):
    records, vectors, embed = cloud
    got = build("linear", fixed={"alpha": 3.0}).fit(records, embed).predict(QUERIES, records.model_ids)
    for column in range(3):
        rows = records.known[:, column]
        reference = Ridge(3.0).fit(vectors[rows], records.outcomes[rows, column])
        assert got[:, column] == pytest.approx(reference.predict(embed(QUERIES)), abs=1e-4)


def test_tfidf_sees_the_words_and_single_chinese_characters(make_records):
    texts = ["add two numbers", "sort the list", "水的沸点是多少"]
    outcomes = [[1, 0], [0, 1], [0, 1]]
    records = make_records(texts, outcomes, split=["train"] * 3, candidates=["x", "y"])
    baseline = build("tfidf_knn", fixed={"k": 10}).fit(records, embed=lambda texts: 1 / 0)  # never called
    assert baseline.predict(["add"], ["x"])[0, 0] == pytest.approx(1 / 3)  # three neighbours and their mean
    ids, cosine = nearest(baseline._features(["沸点"], None), baseline._features(texts, None), 1)
    assert ids.tolist() == [[2]]
    assert 0 < cosine[0, 0] < 1
    assert Features.fit(texts, None)(["unheard"], None).nnz == 0


def test_the_nearest_are_found_alike_among_dense_and_sparse_vectors(cloud):
    from scipy.sparse import csr_matrix

    _, vectors, _ = cloud
    dense_ids, dense = nearest(vectors[:7], vectors, 5)
    sparse_ids, sparse = nearest(csr_matrix(vectors[:7]), csr_matrix(vectors), 5)
    assert dense_ids.tolist() == sparse_ids.tolist()
    assert dense_ids[:, 0].tolist() == list(range(7))
    assert dense == pytest.approx(sparse, abs=1e-6)


def test_aptitude_votes_are_weighted_by_similarity(make_records):
    """Two orthogonal core instructions; the query has cosines 0.8 and 0.6, and a third points away."""
    vectors = {"a": [1, 0, 0], "b": [0, 1, 0], "c": [-0.8, -0.6, 0], "q": [0.8, 0.6, 0]}
    records = make_records(["a", "b", "c"], [[1], [0], [0]], split=["train"] * 3, candidates=["x"])
    aptitude = build("aptitude_knn", fixed={"k": 5})
    aptitude.fit(records, lambda texts: np.array([vectors[t] for t in texts], dtype=np.float32))
    assert aptitude.predict(["q"], ["x"])[0, 0] == pytest.approx((0.8 + 1 / 3) / (1.4 + 1))


def test_core_instructions_are_those_that_tell_candidates_apart(make_records, embed):
    """Of 21 instructions, 20 become core instructions: not the one that everybody solves."""
    texts = [f"task {n}" for n in range(21)]
    records = make_records(texts, [[1, 0]] * 20 + [[1, 1]], split=["train"] * 21, candidates=["x", "y"])
    aptitude = build("aptitude_knn", fixed={"k": 5}).fit(records, embed)
    ((_, base, outcome),) = aptitude._parts
    assert base.shape == (20, 4)
    assert outcome.tolist() == [[1, 0]] * 20


@pytest.mark.parametrize("name", ["aptitude_knn", "uniroute"])
def test_everyone_is_judged_on_the_probe_instructions_of_the_newcomer(name, make_records, embed):
    """x is right on the probes and wrong elsewhere, "new" right on half of the probes."""
    known = np.ones((40, 2), dtype=bool)
    known[8:, 1] = False
    records = make_records(
        [f"what is the sum {n}" for n in range(40)],
        [[1, n % 2] for n in range(8)] + [[0, 0]] * 32,
        split=["train"] * 40,
        candidates=["x", "new"],
        known=known,
    )
    fixed = {"k": 200} if name == "aptitude_knn" else {"clusters": 8, "map": "nearest"}
    score = build(name, fixed=fixed).fit(records, embed).predict(["what is the sum 99"], ["x", "new"])
    assert score[0, 0] == pytest.approx(1)
    assert 0.2 < score[0, 1] < 0.8


@pytest.mark.parametrize("name", ["cluster", "uniroute"])
def test_a_cluster_gives_the_means_of_its_members(name, two_topics, embed):
    fixed = {"clusters": 8, "nearest": 1} if name == "cluster" else {"clusters": 8, "map": "nearest"}
    baseline = build(name, fixed=fixed).fit(two_topics, embed)
    labels = baseline._kmeans.labels_
    texts = two_topics.texts[:3]
    score = baseline.predict(texts, ["adds", "weak"])
    for row in range(3):
        members = labels == labels[row]
        # its overall mean, 1/2, counts as one more member
        want = (two_topics.outcomes[members, 0].sum() + 0.5) / (members.sum() + 1)
        assert score[row] == pytest.approx([want, 0])


def test_no_more_clusters_than_different_texts(make_records, embed):
    records = make_records(["a", "a", "b"], [[1], [1], [0]], split=["train"] * 3, candidates=["x"])
    baseline = build("cluster", fixed={"clusters": 8, "nearest": 3}).fit(records, embed)
    assert baseline._kmeans.n_clusters == 2


def test_the_learned_map_of_uniroute_starts_at_the_nearest_cluster(cloud):
    from satlight.baselines.neural import unit_variance
    from satlight.baselines.uniroute import ClusterMap

    _, vectors, _ = cloud
    logits = ClusterMap.around(vectors[:9], np.full((9, 1), 0.5)).linear(unit_variance(vectors))
    assert logits.argmax(1).tolist() == nearest(vectors, vectors[:9], 1)[0][:, 0].tolist()


def test_inferred_dataset_mixes_or_takes_the_best(two_topics, new_texts, embed):
    mean = {"adds": [40.5 / 41, 0.5 / 41], "sorts": [0.5 / 41, 40.5 / 41]}  # sums, sorts
    best = build("inferred_dataset", fixed={"label": "dataset", "use": "best"}).fit(two_topics, embed)
    want = [[mean["adds"][d], mean["sorts"][d]] for d in (0, 1, 0)]
    assert best.predict(new_texts, ["adds", "sorts"]) == pytest.approx(np.array(want))
    mix = build("inferred_dataset", fixed={"label": "dataset", "use": "mix"}).fit(two_topics, embed)
    sure = mix._classifier.predict_proba(embed(new_texts))[:, 1]  # "sorts" comes before "sums"
    got = mix.predict(new_texts, ["adds"])[:, 0]
    assert got == pytest.approx(sure * mean["adds"][0] + (1 - sure) * mean["adds"][1])
    assert 0.5 < got[0] < mean["adds"][0]


def test_a_single_dataset_needs_no_guess(two_topics, new_texts):
    records = two_topics.filter(datasets="sums")
    inferred = build("inferred_dataset", fixed={"label": "dataset", "use": "best"}).fit(records)
    assert inferred.predict(new_texts, ["weak", "adds"]).tolist() == [[0, 1]] * 3


def test_tasks_of_one_name_are_told_apart_by_their_dataset(make_records, embed):
    records = make_records(
        ["what is the sum 1", "sort this list 1"],
        [[1, 0], [0, 1]],
        split=["train"] * 2,
        candidates=["x", "y"],
        datasets=["p", "q"],
        tasks=["same", "same"],
    )
    inferred = build("inferred_dataset", fixed={"label": "task", "use": "best"}).fit(records, embed)
    assert inferred.predict(["sort this list 2"], ["x", "y"]).argmax() == 1


def test_more_ability_never_hurts(two_topics, embed, new_texts):
    irt = build("irt", fixed={"abilities": 8, "steps": 250, "decay": 0.1}).fit(two_topics, embed)
    before = irt.predict(new_texts, ["weak"])
    irt._module.network.ability.own.data[2] += 0.5
    assert (irt.predict(new_texts, ["weak"]) > before).all()


@pytest.mark.parametrize("name", ["mf", "irt"])
def test_training_leaves_the_generator_of_the_caller_alone(name, two_topics, embed):
    import torch

    torch.manual_seed(5)
    want = torch.rand(1)
    torch.manual_seed(5)
    build(name, fixed={**dict.fromkeys(build(name).GRID, 8), "decay": 0.1}).fit(two_topics, embed)
    assert torch.equal(torch.rand(1), want)
