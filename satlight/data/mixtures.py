"""Mixed candidates: results of two candidates in one, task by task, with the outcomes that go with them.

A zoo has a dozen candidates, and a router that sees no others memorizes them and does not generalize to a new one. A
mixed candidate has the results, and on the instructions of a task the outcomes, of one of two real candidates, drawn
for every task and block. Only its results tell what it can do.

Shape legend: R training instructions, M candidates, C columns of a block, K kinds of instructions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from satlight.errors import SatlightError
from satlight.types import Capability, Result


class Mixtures:
    """Draw mixed candidates for the columns of a block.

    Args:
        kind_R: Kind of every training instruction: the keywords of its core task
            (:attr:`~satlight.types.Result.keywords`), or any other name where its task is none.
        num_candidates: M, at least 2.
        share: Probability that a column is mixed, in (0, 1].

    Raises:
        SatlightError: Fewer than two candidates, or a share out of range.

    Example:
        >>> def candidate(law, math):
        ...     return Capability((Result("law", "Law", 0.5, 20, law), Result("math", "Math", 0.5, 20, math)))
        >>> one, two = candidate(1.0, -1.0), candidate(0.0, 2.0)
        >>> mixtures = Mixtures(np.array(["Law", "Math"]), num_candidates=2, share=1.0)
        >>> source_CK = mixtures.draw(np.array([0, 1]), np.random.default_rng(4))
        >>> source_CK.tolist()
        [[0, 1], [1, 0]]
        >>> [result.strength for result in mixtures.capability([one, two], source_CK[0]).results]
        [1.0, 2.0]
        >>> mixtures.sources(source_CK, np.array([0])).tolist()  # on law
        [[0, 1]]

    Reference: ours; in the spirit of mixup, with whole results in place of weighted means.
    """

    def __init__(self, kind_R: np.ndarray, num_candidates: int, share: float) -> None:
        if not 0 < share <= 1:
            raise SatlightError(f"data.aptitude.mixtures is {share}; it must lie in [0, 1] (0 = none)")
        if num_candidates < 2:
            raise SatlightError("data.aptitude.mixtures needs at least two training candidates; there is one")
        names, self._kind_R = np.unique(kind_R, return_inverse=True)
        self._place = {str(name): k for k, name in enumerate(names)}
        self._num_candidates, self._share = num_candidates, share

    def draw(self, columns_C: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Draw the candidate whose results and outcomes each column has on each kind of instruction: int64 (C, K)."""
        num_columns, num_kinds = len(columns_C), len(self._place)
        partner_C = (columns_C + rng.integers(1, self._num_candidates, num_columns)) % self._num_candidates
        mixed_C = rng.random(num_columns) < self._share
        from_partner_CK = (rng.random((num_columns, num_kinds)) < 0.5) & mixed_C[:, None]
        return np.where(from_partner_CK, partner_C[:, None], columns_C[:, None])

    def capability(self, capabilities: Sequence[Capability], source_K: np.ndarray) -> Capability:
        """Combine the results of M candidates, each taken from the candidate that ``source_K`` names.

        Results on kinds without training instructions are those of the first named candidate. A mixture has no notes.
        """
        owners = np.unique(source_K)
        if len(owners) == 1:
            return capabilities[owners[0]]
        found: dict[str, Result] = {}
        for owner in owners:
            for result in capabilities[owner].results:
                kind = self._place.get(result.keywords)
                if (source_K[0] if kind is None else source_K[kind]) == owner:
                    found[result.keywords] = result
        results = tuple(found[keywords] for keywords in sorted(found))
        return Capability(results, style=capabilities[owners[0]].style)

    def mix(
        self, capabilities: Sequence[Capability], columns_C: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[Capability], np.ndarray]:
        """Return the capabilities of a block's C columns, and whose results and outcomes they are (:meth:`draw`).

        A column whose mixture would have no result stays as it is.
        """
        source_CK = self.draw(columns_C, rng)
        mixed = []
        for place, column in enumerate(columns_C):
            capability = self.capability(capabilities, source_CK[place])
            if not capability.results and not capability.notes:
                source_CK[place], capability = column, capabilities[column]
            mixed.append(capability)
        return mixed, source_CK

    def sources(self, source_CK: np.ndarray, rows_B: np.ndarray) -> np.ndarray:
        """Return the candidate whose outcome counts in each cell of a block: int64 (B, C)."""
        return source_CK[:, self._kind_R[rows_B]].T
