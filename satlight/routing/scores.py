"""Scores that exist already, as a router: rows and columns are found by name.

Shape legend: N instructions and M candidates that were scored, n and m those of the records at hand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from satlight.errors import SatlightError
from satlight.records.names import listed
from satlight.routers import Router
from satlight.storage import folder as files
from satlight.storage.typed import typed
from satlight.types import Candidate, Request

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords


class StoredScores(Router):
    """Serve scores that a router gave once, for many settings.

    As a router it answers requests for instructions that were scored: those whose
    ``metadata["instruction_id"]`` is an id, or whose text is one of ``texts``. One with images needs its id:
    many images may share a text.

    Args:
        instruction_ids: N ids, each once.
        model_ids: M candidates, each once.
        score_NM: float32 (N, M).
        texts: N instruction texts; None = unknown.

    Raises:
        SatlightError: Another shape than the names say, or a name twice.

    Example:
        >>> scores = StoredScores(["a", "b"], ["m", "n"], np.array([[1.0, 2.0], [3.0, 4.0]]))
        >>> scores.at(["b"], ["n", "m"]).tolist()
        [[4.0, 3.0]]
        >>> scores.route(Request("", metadata={"instruction_id": "b"})).best
        'n'
    """

    not_stored = ("instruction_ids", "model_ids", "score_NM", "texts")

    def __init__(
        self,
        instruction_ids: Sequence[str],
        model_ids: Sequence[str],
        score_NM: np.ndarray,
        texts: Sequence[str] | None = None,
    ) -> None:
        names = {"instruction": instruction_ids, "candidate": model_ids}
        shape = tuple(len(ids) for ids in names.values())
        if score_NM.shape != shape or (texts is not None and len(texts) != shape[0]):
            raise SatlightError(
                f"The scores have shape {score_NM.shape} for {shape[0]} instructions x {shape[1]} "
                "candidates; give one row (and text) and one column for each name"
            )
        for kind, ids in names.items():
            name, times = Counter(ids).most_common(1)[0] if ids else ("", 1)
            if times > 1:
                raise SatlightError(f"The scores name the {kind} '{name}' {times} times; keep one of them")
        self.candidates = tuple(Candidate(name) for name in model_ids)
        self.instruction_ids, self.score_NM, self.texts = list(instruction_ids), score_NM, texts

    @classmethod
    def read(cls, path: Path | str) -> StoredScores:
        """Read the ``scores.parquet`` of ``lightning predict``: log-odds.

        Args:
            path: A column ``instruction_id`` and one number column per candidate.

        Raises:
            SatlightError: It cannot be read, is no such table, or has scores that are not finite.
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
        if len(model_ids) in (0, len(table.columns)) or not all(table[m].dtype.is_numeric() for m in model_ids):
            raise SatlightError(
                f"{path} has the columns {listed(table.columns)}; needed are instruction_id and a column of "
                "numbers per candidate, as `lightning predict` writes them"
            )
        ids = table["instruction_id"].cast(pl.String).to_list()
        score_NM = table.select(model_ids).to_numpy().astype(np.float32)
        if None in ids or not np.isfinite(score_NM).all():
            raise SatlightError(
                f"{path} has a row without instruction_id, or a score that is missing or not finite; score the "
                "instructions again with `lightning predict`"
            )
        try:
            return cls(ids, model_ids, score_NM)
        except SatlightError as error:
            raise SatlightError(f"{path}: {error}") from error

    def at(self, instruction_ids: Sequence[str], model_ids: Sequence[str]) -> np.ndarray:
        """Return the scores of these instructions and candidates, in this order.

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
        """Return the scores of these records, (n, m), for :func:`satlight.evaluation.evaluate`; see :meth:`at`."""
        ids = [str(one) for one in records.instructions["instruction_id"].to_list()]
        return self.at(ids, records.model_ids)

    def remove(self, model_id: str) -> Self:
        """Remove a candidate with its scores; see :meth:`satlight.routers.Router.remove`."""
        other = super().remove(model_id)
        other.score_NM = self.score_NM[:, [name != model_id for name in self.model_ids]]
        return other

    # -- as a router ---------------------------------------------------------------------------------------

    @property
    def reads_images(self) -> bool:
        """True: the scores may come from a router that saw the images."""
        return True

    def log_odds(self, requests: Sequence[Request], candidates: Sequence[str]) -> np.ndarray:
        """Look the requests up; see :meth:`satlight.routers.Router.log_odds`."""
        for number, request in enumerate(requests):
            if request.images and "instruction_id" not in request.metadata:
                raise SatlightError(
                    f"requests[{number}] ({request.text!r:.60}) has images and no instruction_id; stored scores are "
                    'found by id where there are images: Request(text, images, {"instruction_id": ...})'
                )
        known = dict(zip(self.texts or (), self.instruction_ids, strict=False))
        ids = [
            str(request.metadata.get("instruction_id", known.get(request.text, request.text))) for request in requests
        ]
        return self.at(ids, candidates)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the scores."""
        files.save_arrays(folder, {"score_NM": self.score_NM.astype(np.float32)})
        return {"instruction_ids": self.instruction_ids, "texts": self.texts and list(self.texts)}

    @classmethod
    def restore(
        cls, folder: Path, config: Mapping[str, Any], candidates: tuple[Candidate, ...], allow: Sequence[str]
    ) -> Self:
        """Read the scores."""
        names = [candidate.model_id for candidate in candidates]
        ids = typed(tuple[str, ...], config["instruction_ids"], "instruction_ids")
        texts = typed(tuple[str, ...] | None, config["texts"], "texts")
        arrays = files.load_arrays(folder)
        with files.sound(folder / files.WEIGHTS):
            score_NM = arrays["score_NM"]
        return cls(ids, names, score_NM, texts and list(texts))


def _places(wanted: Sequence[str], there: Sequence[str], kind: str) -> list[int]:
    place = {name: number for number, name in enumerate(there)}
    if missing := [name for name in wanted if name not in place]:
        raise SatlightError(
            f"{len(missing)} of the {len(wanted)} {kind} have no scores, the first is '{missing[0]}'. Scored "
            f"are {len(there)}: {listed(there, 5)}. Score all {kind} of the records first."
        )
    return [place[name] for name in wanted]
