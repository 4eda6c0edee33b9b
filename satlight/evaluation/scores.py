"""A matrix of scores with the names of its rows and columns, to be judged on any part of the records.

Shape legend: N instructions and M candidates that were scored, n and m those of the records at hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from satlight.errors import SatlightError
from satlight.records.names import listed

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


@dataclass(frozen=True, eq=False)
class Scores:
    """What a router gave once, for many settings: rows and columns are found by name.

    Args:
        instruction_ids: N ids, each once.
        model_ids: M candidates, each once.
        score_NM: float32 (N, M).

    Raises:
        SatlightError: Another shape than the names say, or a name twice.

    Example:
        >>> scores = Scores(["a", "b"], ["m", "n"], np.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> scores.at(["b"], ["n", "m"]).tolist()
        [[4.0, 3.0]]
    """

    instruction_ids: Sequence[str]
    model_ids: Sequence[str]
    score_NM: np.ndarray

    def __post_init__(self) -> None:
        names = {"instruction": self.instruction_ids, "candidate": self.model_ids}
        shape = tuple(len(ids) for ids in names.values())
        if self.score_NM.shape != shape:
            raise SatlightError(
                f"The scores have shape {self.score_NM.shape} for {shape[0]} instructions x {shape[1]} "
                "candidates; give one row and one column for each name"
            )
        for kind, ids in names.items():
            name, times = Counter(ids).most_common(1)[0] if ids else ("", 1)
            if times > 1:
                raise SatlightError(f"The scores name the {kind} '{name}' {times} times; keep one of them")

    @classmethod
    def read(cls, path: Path | str) -> Scores:
        """Read the ``scores.parquet`` of ``lightning predict``: log-odds.

        Args:
            path: A column ``instruction_id`` and one number column per candidate.

        Raises:
            SatlightError: It cannot be read, or is no such table.
        """
        import polars as pl

        try:
            table = pl.read_parquet(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            raise SatlightError(
                f"Cannot read scores from {path}: {str(error).splitlines()[0]}; `lightning predict` writes "
                "scores.parquet"
            ) from error
        model_ids = [name for name in table.columns if name != "instruction_id"]
        if len(model_ids) in (0, len(table.columns)) or not all(
            table[m].dtype.is_numeric() for m in model_ids
        ):
            raise SatlightError(
                f"{path} has the columns {listed(table.columns)}; needed are instruction_id and a column of "
                "numbers per candidate, as `lightning predict` writes them"
            )
        ids = table["instruction_id"].cast(pl.String).to_list()
        return cls(ids, model_ids, table.select(model_ids).to_numpy().astype(np.float32))

    def at(self, instruction_ids: Sequence[str], model_ids: Sequence[str]) -> np.ndarray:
        """The scores of these instructions and candidates, in this order.

        Args:
            instruction_ids: n ids.
            model_ids: m candidates.

        Returns:
            float32 (n, m).

        Raises:
            SatlightError: An instruction or candidate that was not scored.
        """
        rows = _places(instruction_ids, self.instruction_ids, "instructions")
        columns = _places(model_ids, self.model_ids, "candidates")
        return self.score_NM[np.ix_(rows, columns)]

    def of(self, records: PerformanceRecords) -> np.ndarray:
        """The scores of these records, (n, m), for :func:`satlight.evaluation.evaluate`; see :meth:`at`."""
        ids = [str(one) for one in records.instructions["instruction_id"].to_list()]
        return self.at(ids, records.model_ids)


def _places(wanted: Sequence[str], there: Sequence[str], kind: str) -> list[int]:
    place = {name: number for number, name in enumerate(there)}
    if missing := [name for name in wanted if name not in place]:
        raise SatlightError(
            f"{len(missing)} of the {len(wanted)} {kind} have no scores, the first is '{missing[0]}'. Scored "
            f"are {len(there)}: {listed(there, 5)}. Score all {kind} of the records first."
        )
    return [place[name] for name in wanted]
