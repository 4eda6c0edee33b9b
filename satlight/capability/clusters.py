"""Tasks for a log without tasks: clusters of its instructions, named by their distinctive words.

An aptitude test needs kinds of instructions on which candidates differ. Where records name none, k-means on vectors of
the train instructions finds them. Outcomes decide only how many clusters there are: as many as predict held-out
outcomes best by the mean of each candidate in each cluster.

Shape legend: N instructions, M candidates, D features, G clusters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.records.matrix import PerformanceRecords

log = logging.getLogger(__name__)

Number = Literal["auto", "off"] | int
"""``auto``, ``off``, or a number of clusters."""

FEW = 3
"""Maximum number of datasets of a log without tasks; more of them are kinds of instructions themselves."""

SIZES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Numbers of clusters to choose from."""

SMALLEST = 40
"""Minimum mean number of train instructions per cluster: twice the core items of a task."""

FOLDS, PRIOR = 5, 10.0
"""Folds of the choice, and the weight of a candidate's overall mean in each cluster mean, in instructions."""

WORDS = 3
"""Number of words in a name."""

_WORD = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2}|[^\W\d_\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{3,}"
_DIMENSIONS = 100


@dataclass(frozen=True)
class TaskCluster:
    """A cluster that serves as a task.

    Args:
        name: Its distinctive words; the name of the task.
        train: Number of train instructions.
    """

    name: str
    train: int


def lacks_tasks(records: PerformanceRecords) -> bool:
    """Return whether records name no task, or only one per dataset with the name of the dataset.

    Records with more than :data:`FEW` datasets have kinds of instructions to tell apart.
    """
    unnamed = (records.tasks == records.datasets) | (records.tasks == "")
    return bool(unnamed.all()) and len(np.unique(records.datasets)) <= FEW


def cluster_tasks(
    records: PerformanceRecords,
    number: Number = "auto",
    embed: Callable[[Sequence[str]], np.ndarray] | None = None,
    seed: int = 0,
    rows: np.ndarray | None = None,
) -> tuple[PerformanceRecords, list[TaskCluster]]:
    """Replace the tasks of records without tasks by clusters of their instructions.

    Vectors, clusters, their number and their names come from train rows; other rows get the task of the nearest center.

    Args:
        records: N instructions with splits.
        number: ``auto`` chooses the number of clusters, ``off`` changes nothing.
        embed: N texts to vectors (N, D); None = TF-IDF, reduced by singular value decomposition.
        seed: Seed of k-means and of the folds.
        rows: bool (N,), rows that get a task; None = all. Texts of other rows are not read.

    Returns:
        The records, unchanged where they have tasks or too few train rows; and the clusters, none if unchanged.

    Raises:
        SatlightError: A number below 2, or above the number of different train instructions.

    Example:
        >>> from satlight.records import PerformanceRecords
        >>> from satlight.types import Candidate
        >>> texts = [f"{kind} number {i}" for i in range(60) for kind in ("Translate the poem", "Solve the equation")]
        >>> table = pl.DataFrame({"instruction_id": [str(i) for i in range(120)], "dataset": ["log"] * 120,
        ...     "task": ["log"] * 120, "split": ["train"] * 120, "instruction": texts})
        >>> outcomes = np.array([[1, 0], [0, 1]] * 60, dtype=np.float32)
        >>> records = PerformanceRecords(table, (Candidate("a"), Candidate("b")), outcomes, outcomes >= 0)
        >>> clustered, clusters = cluster_tasks(records)
        >>> sorted((cluster.name, cluster.train) for cluster in clusters)
        [('equation, solve', 60), ('poem, translate', 60)]
    """
    if number == "off" or not lacks_tasks(records):
        return records, []
    train_N = records.splits == "train"
    if number != "auto" and number < 2:
        raise SatlightError(f"data.cluster_tasks is {number}; allowed are auto, off, and numbers from 2")
    if number == "auto" and train_N.sum() < SIZES[0] * SMALLEST:
        log.info(
            "%s has no tasks, and its %d train rows are too few to find some: %d are needed",
            *(records.name, train_N.sum(), SIZES[0] * SMALLEST),
        )
        return records, []
    train = records.rows(train_N)
    vectors_of = _vectors(train.texts, embed, seed)
    vector_ND = vectors_of(train.texts)
    kmeans = _fit(vector_ND, number, seed) if number != "auto" else _chosen(vector_ND, train, seed)
    if kmeans is None:
        log.info("%s has no tasks, and all its train instructions have the same vector", records.name)
        return records, []
    names = _names(train.texts, kmeans.labels_, kmeans.n_clusters)
    place_N = np.flatnonzero(np.ones(len(train_N), dtype=bool) if rows is None else rows)
    tasks = records.tasks.astype(object)
    if len(place_N):
        label_N = kmeans.predict(vectors_of([records.texts[row] for row in place_N]))
        tasks[place_N] = np.array(names, dtype=object)[label_N]
    counts = np.bincount(kmeans.labels_, minlength=len(names)).tolist()
    clusters = [TaskCluster(*pair) for pair in zip(names, counts, strict=True)]
    shown = "; ".join(f"{one.name} ({one.train})" for one in sorted(clusters, key=lambda one: -one.train))
    log.info(
        "%s has no tasks; %d clusters of its train instructions serve as tasks: %s", records.name, len(names), shown
    )
    column = pl.Series("task", tasks.tolist(), dtype=pl.String)
    return replace(records, instructions=records.instructions.with_columns(column)), clusters


# -- vectors -----------------------------------------------------------------------------------------------


def _vectors(
    texts: Sequence[str], embed: Callable[[Sequence[str]], np.ndarray] | None, seed: int
) -> Callable[[Sequence[str]], np.ndarray]:
    """Return a function from texts to unit vectors (N, D): the embedder, or TF-IDF fitted to the given texts."""
    if embed is not None:
        return lambda some: np.asarray(embed(some), dtype=np.float64)
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    tfidf = TfidfVectorizer(token_pattern=r"[^\W_]+|[^\w\s]", sublinear_tf=True, max_features=20_000)
    sparse = tfidf.fit_transform(texts)
    if sparse.shape[1] <= _DIMENSIONS:
        return lambda some: tfidf.transform(some).toarray()
    svd = TruncatedSVD(min(_DIMENSIONS, len(texts) - 1), random_state=seed).fit(sparse)
    return lambda some: normalize(svd.transform(tfidf.transform(some)))


# -- number of clusters ------------------------------------------------------------------------------------


def _fit(vector_ND: np.ndarray, number: int, seed: int) -> Any:
    from sklearn.cluster import KMeans

    if number > (different := len(np.unique(vector_ND, axis=0))):
        raise SatlightError(f"data.cluster_tasks is {number}, but there are {different} different train instructions")
    return KMeans(number, n_init=1, random_state=seed).fit(vector_ND)


def _chosen(vector_ND: np.ndarray, train: PerformanceRecords, seed: int) -> Any:
    """Return k-means with the number of clusters whose means predict held-out outcomes best; None = one vector."""
    largest = min(len(vector_ND) // SMALLEST, len(np.unique(vector_ND, axis=0)))
    fits = [_fit(vector_ND, number, seed) for number in SIZES if number <= max(largest, 1)]
    if not fits:
        return None
    return max(fits, key=lambda kmeans: held_out_likelihood(kmeans.labels_, train, seed))


def held_out_likelihood(label_N: np.ndarray, records: PerformanceRecords, seed: int = 0) -> float:
    """Compute the mean log-likelihood of known outcomes under cluster means of the other folds.

    Args:
        label_N: int64 (N,), cluster of each instruction.
        records: N instructions × M candidates.
        seed: Seed of the folds.

    Returns:
        Nats per outcome, at most 0.
    """
    outcome_NM = np.where(records.known, records.outcomes, 0).astype(np.float64)
    known_NM = np.asarray(records.known, dtype=np.float64)
    member_GN = (np.arange(label_N.max() + 1)[:, None] == label_N).astype(np.float64)
    fold_N = np.random.default_rng(seed).permutation(len(label_N)) % FOLDS
    total = 0.0
    for fold in range(FOLDS):
        inside, outside = fold_N != fold, fold_N == fold
        count_GM = member_GN[:, inside] @ known_NM[inside]
        sum_GM = member_GN[:, inside] @ outcome_NM[inside]
        overall_M = (sum_GM.sum(0) + 1) / (count_GM.sum(0) + 2)
        mean_NM = ((sum_GM + PRIOR * overall_M) / (count_GM + PRIOR))[label_N[outside]]
        y_NM = outcome_NM[outside]
        total += float((known_NM[outside] * (y_NM * np.log(mean_NM) + (1 - y_NM) * np.log1p(-mean_NM))).sum())
    return total / max(1.0, float(known_NM.sum()))


# -- names -------------------------------------------------------------------------------------------------


def _names(texts: Sequence[str], label_N: np.ndarray, clusters: int) -> list[str]:
    """Name each cluster by the words with the largest mean TF-IDF weight above that of the other texts."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        token_pattern=_WORD, stop_words="english", sublinear_tf=True, min_df=2, max_features=20_000
    )
    try:
        weight_NW = vectorizer.fit_transform(texts)
    except ValueError:  # only numbers, symbols, or stop words
        return [f"cluster {number + 1}" for number in range(clusters)]
    words, names = vectorizer.get_feature_names_out(), []
    for number in range(clusters):
        inside = label_N == number
        excess_W = np.asarray(weight_NW[inside].mean(0)).ravel()
        if not inside.all():
            excess_W = excess_W - np.asarray(weight_NW[~inside].mean(0)).ravel()
        order = np.lexsort((words, -np.round(excess_W, 9)))
        own = [str(words[w]) for w in order if excess_W[w] > 0][: 4 * WORDS]
        options = [", ".join(own[:count]) for count in range(WORDS, len(own) + 1)] or [", ".join(own)]
        free = [option for option in options if option and option not in names]
        names.append(free[0] if free else f"cluster {number + 1}")
    return names
