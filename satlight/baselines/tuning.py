"""The choice of hyper-parameters on validation rows, and the masked means that baselines are built on.

Shape legend: N instructions, M candidates, D features, Q rows of weights.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, product
from typing import Any, Self

import numpy as np
import torch
from scipy.sparse import csr_matrix

from satlight.baselines.base import Baseline, Embed, Instruction, fitted_rows, texts_of
from satlight.errors import SatlightError
from satlight.metrics import functional
from satlight.records import PerformanceRecords
from satlight.records.names import listed
from satlight.types import AptitudeResults, Candidate

PRIOR = 1.0
"""Weight of a candidate's overall mean in each of its local means, in instructions."""

Rows = tuple[PerformanceRecords, np.ndarray | None]
"""Records and the embeddings of their instructions; None without an embedder."""

Texts = tuple[Sequence[str], np.ndarray | None]
"""N texts and their embeddings; None without an embedder."""


class TunedBaseline(Baseline):
    """A baseline that chooses its hyper-parameters on validation rows.

    A subclass declares ``GRID`` and defines :meth:`learn` and :meth:`expected`, and
    :meth:`~satlight.routers.Router.admit` where a candidate can be added without training.

    Args:
        seed: Seed of all random draws.
        fixed: Hyper-parameters that are not to be chosen, e.g. ``{"k": 100}``. When nothing is left to
            choose, no validation rows are needed.

    Raises:
        SatlightError: ``fixed`` names something that is not in ``GRID``.
    """

    _embed: Embed | None = None

    def __init__(self, seed: int = 0, fixed: Mapping[str, Any] | None = None) -> None:
        self.seed = seed
        self.fixed = dict(fixed or {})
        if unknown := set(self.fixed) - set(self.GRID):
            raise SatlightError(
                f"{self._who}: fixed names {listed(sorted(unknown))}; its hyper-parameters are "
                f"{listed(list(self.GRID))}."
            )

    @property
    def reads_images(self) -> bool:
        """True if the embedder reads images; TF-IDF reads text only."""
        return bool(getattr(self._embed, "reads_images", False))

    @abstractmethod
    def learn(self, records: PerformanceRecords, vectors_ND: np.ndarray | None, **chosen: Any) -> None:
        """Learn from all given rows with given hyper-parameters.

        Args:
            records: N instructions × M candidates, each candidate with at least one known outcome.
            vectors_ND: Their embeddings; None when there is no embedder.
            chosen: One value for every name in ``GRID``.
        """

    @abstractmethod
    def expected(self, texts: Sequence[str], vectors_ND: np.ndarray | None) -> np.ndarray:
        """Predict the outcomes of all candidates that :meth:`learn` was given, in their order: (N, M)."""

    def fit(self, records: PerformanceRecords, embed: Embed | None = None) -> Self:
        """See :meth:`Baseline.fit`; also refuses a candidate without any known outcome."""
        rows = fitted_rows(records, self._who)
        if self.needs_embeddings and embed is None:
            raise SatlightError(
                f"{self._who}.fit needs an embedder and got none. Pass embed=Embedder() of "
                "satlight.backbones.embedding, or any function from texts to vectors of length 1."
            )
        self._embed = embed
        if len(measured := measured_candidates(rows)) < rows.shape[1]:
            empty = [name for name in rows.model_ids if name not in measured]
            raise SatlightError(
                f"{self._who}.fit: {listed(empty)} of '{records.name}' have no outcome on train or "
                "validation rows. Leave them out, or give them outcomes on some probe instructions."
            )
        vectors_ND = self._vectors(self.inputs(rows))
        points = self._points()
        self.chosen = points[0] if len(points) == 1 else self._choose(rows, vectors_ND, points)
        self.learn(rows, vectors_ND, **self.chosen)
        self._keep(rows)
        return self

    def predict(self, instructions: Sequence[Instruction], candidates: Sequence[str]) -> np.ndarray:
        columns = self._columns(candidates)
        texts = texts_of(instructions)
        score_NM = self.expected(texts, self._vectors(instructions if self.reads_images else texts))[:, columns]
        if not np.isfinite(score_NM).all():
            raise SatlightError(f"{self._who} gave scores that are not finite, with {self.chosen}.")
        return score_NM.clip(0, 1).astype(np.float32)

    def validation_scores(self, train: Rows, held: Texts, points: list[dict[str, Any]]) -> Iterable[np.ndarray]:
        """Yield scores at grid points that differ in the last name of ``GRID``; override it where they share work."""
        for point in points:
            self.learn(*train, **point)
            yield self.expected(*held)

    def _admitting(
        self, candidate: Candidate, results: AptitudeResults, row_ids: Sequence[str] = ()
    ) -> tuple[Self, AptitudeResults, np.ndarray | None]:
        """Return a copy with one more candidate, to be extended in new objects, its results and their embeddings.

        Results on training rows come in the order of ``row_ids``, then others by id, whatever order they were given in.
        """
        self._require_fit()
        other = self._with(candidate)
        ids, place = results.instruction_ids, {name: row for row, name in enumerate(row_ids)}
        order = sorted(range(len(ids)), key=lambda item: (place.get(ids[item], len(place)), ids[item]))
        ordered = picked(results, order)
        return other, ordered, self._vectors(ordered.requests() if self.reads_images else ordered.texts)

    def _points(self) -> list[dict[str, Any]]:
        """Return the combinations to choose from, the last name of the grid varying fastest."""
        values = [[self.fixed[name]] if name in self.fixed else grid for name, grid in self.GRID.items()]
        return [dict(zip(self.GRID, point, strict=True)) for point in product(*values)]

    def _vectors(self, instructions: Sequence[Instruction]) -> np.ndarray | None:
        if self._embed is None:
            return None
        vectors_ND = np.ascontiguousarray(self._embed(instructions), dtype=np.float32)
        if vectors_ND.ndim != 2 or len(vectors_ND) != len(instructions) or not np.isfinite(vectors_ND).all():
            raise SatlightError(
                f"{self._who}: the embedder gave {vectors_ND.shape} for {len(instructions)} instructions, or values "
                "that are not finite; a finite vector for every instruction is needed."
            )
        return vectors_ND

    def _choose(
        self, rows: PerformanceRecords, vectors_ND: np.ndarray | None, points: list[dict[str, Any]]
    ) -> dict[str, Any]:
        validation_N = rows.splits == "validation"
        if not validation_N.any():
            raise SatlightError(
                f"{self._who}.fit has {len(points)} combinations of {listed(list(self.GRID))} to choose from "
                f"and no validation rows in '{rows.name}'. Mark some with split_records, or pass fixed=…."
            )
        # A candidate may be measured on validation rows alone; it takes no part in the choice.
        train = rows.rows(~validation_N)
        named = measured_candidates(train)
        train, validation = train.filter(candidates=named), rows.rows(validation_N).filter(candidates=named)
        train_ND = None if vectors_ND is None else vectors_ND[~validation_N]
        held_ND = None if vectors_ND is None else vectors_ND[validation_N]
        accuracies, names = [], list(self.GRID)[:-1]
        for _, group in groupby(points, key=lambda point: [point[name] for name in names]):
            scores = self.validation_scores((train, train_ND), (validation.texts, held_ND), list(group))
            accuracies += [macro_accuracy(score_NM, validation) for score_NM in scores]
        return points[int(np.argmax(accuracies))]


def picked(results: AptitudeResults, items: Sequence[int]) -> AptitudeResults:
    """Return the results on some items, in the given order."""
    return AptitudeResults(
        tuple(results.instruction_ids[item] for item in items),
        tuple(results.texts[item] for item in items),
        np.asarray(results.outcomes, dtype=np.float32)[items],
        tuple(results.datasets[item] for item in items) if results.datasets else (),
        tuple(results.images[item] for item in items) if results.images else (),
    )


def measured_candidates(records: PerformanceRecords) -> list[str]:
    """Return the names of the candidates that have any known outcome."""
    return [records.model_ids[column] for column in np.flatnonzero(np.any(records.known, axis=0))]


def macro_accuracy(score_NM: np.ndarray, records: PerformanceRecords) -> float:
    """Compute the mean over datasets of routed accuracy, choosing among the candidates known on each row.

    Unlike a test, which leaves out a row whose routed candidate has no record, every row counts here:
    otherwise a setting could gain by sending hard rows to candidates that were not measured on them.

    Args:
        score_NM: Scores (N, M).
        records: The N instructions, with their datasets.

    Returns:
        Mean in [0, 1]; -1 where no dataset has a known outcome, so that it is never the highest.
    """
    matrices = (np.where(records.known, score_NM, -np.inf), records.outcomes, records.known)
    members = [records.datasets == dataset for dataset in np.unique(records.datasets)]
    accuracies = [
        functional.routed_accuracy(*(torch.from_numpy(matrix[rows]) for matrix in matrices)).item() for rows in members
    ]
    return -1.0 if np.isnan(accuracies).all() else float(np.nanmean(accuracies))


def column_means(outcome_NM: np.ndarray, known_NM: np.ndarray) -> np.ndarray:
    """Compute the mean known outcome of each candidate, float64 (M,); every one must have an outcome.

    Example:
        >>> column_means(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[True, False], [True, True]])).tolist()
        [0.5, 1.0]
    """
    return np.where(known_NM, outcome_NM, 0).sum(axis=0, dtype=np.float64) / known_NM.sum(axis=0)


def weighted_means(
    weight_QN: np.ndarray | csr_matrix, outcome_NM: np.ndarray, known_NM: np.ndarray, prior: float = PRIOR
) -> np.ndarray:
    """Compute weighted means of the known outcomes of each candidate, shrunk toward its overall mean.

    Args:
        weight_QN: Non-negative weights, e.g. of neighbors or of the members of clusters; may be sparse.
        outcome_NM: Outcomes.
        known_NM: bool.
        prior: Weight of the overall mean, above 0. The result is the overall mean where all weights are 0.

    Returns:
        float64 (Q, M).

    Example:
        >>> outcome, known = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]), np.ones((3, 2), dtype=bool)
        >>> weights = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
        >>> weighted_means(weights, outcome, known).round(2).tolist()
        [[0.89, 0.56], [0.67, 0.67]]
    """
    assert prior > 0, prior
    total_QM = weight_QN @ known_NM.astype(np.float64)
    sum_QM = weight_QN @ np.where(known_NM, outcome_NM, 0).astype(np.float64)
    return (sum_QM + prior * column_means(outcome_NM, known_NM)) / (total_QM + prior)


def membership(group_N: np.ndarray, num_groups: int) -> csr_matrix:
    """Return 0/1 weights of the members of groups, sparse (G, N), for :func:`weighted_means`.

    Example:
        >>> membership(np.array([0, 1, 1]), 2).toarray().astype(int).tolist()
        [[1, 0, 0], [0, 1, 1]]
    """
    n = len(group_N)
    return csr_matrix((np.ones(n), (group_N, np.arange(n))), shape=(num_groups, n))


def means_of_one(group_L: np.ndarray, num_groups: int, outcome_L: np.ndarray) -> np.ndarray:
    """Compute the mean outcomes of one candidate in the groups of its L items, (G, 1)."""
    outcome_L1 = outcome_L[:, None]
    return weighted_means(membership(group_L, num_groups), outcome_L1, np.ones(outcome_L1.shape, dtype=bool))


def column_patterns(known_NM: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Group candidates that are known on exactly the same rows: yield ``(rows, columns)`` of each group.

    A method that cannot leave out single cells is fitted per group on ``outcome_NM[np.ix_(rows, columns)]``.

    Example:
        >>> known = np.array([[True, True, True], [True, False, True]])
        >>> [(rows.tolist(), columns.tolist()) for rows, columns in column_patterns(known)]
        [([0, 1], [0, 2]), ([0], [1])]
    """
    groups: dict[bytes, list[int]] = {}
    for column in range(known_NM.shape[1]):
        groups.setdefault(known_NM[:, column].tobytes(), []).append(column)
    for columns in groups.values():
        yield np.flatnonzero(known_NM[:, columns[0]]), np.array(columns)


def probe_rows(known_NM: np.ndarray) -> np.ndarray:
    """Return the rows that the least measured candidate is known on: all rows of a full matrix.

    These are the probe instructions, on which all candidates can be compared fairly.

    Example:
        >>> probe_rows(np.array([[True, True], [True, False], [True, True]])).tolist()
        [0, 2]
    """
    return np.flatnonzero(known_NM[:, int(known_NM.sum(axis=0).argmin())])
