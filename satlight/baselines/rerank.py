"""Re-ranking: every candidate answers, and a cross-encoder picks the answer that looks best.

Shape legend: N instructions, M candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from satlight.baselines.base import Baseline, Embed, columns_of, learnt_rows
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.records.outputs import CandidateOutputs

ScorePairs = Callable[[list[tuple[str, str]]], np.ndarray]
"""(instruction, output) pairs to a float each, higher is better."""


class Rerank(Baseline):
    """Sends an instruction to the candidate whose output a cross-encoder scores highest.

    Nothing is learnt. It costs an answer of every candidate and a pass of the cross-encoder over each, so
    it says what looking at the answers is worth, not how to route cheaply. Scores are the cross-encoder's
    own, not expected outcomes.

    Args:
        score_pairs: The cross-encoder, e.g.
            ``satlight.backbones.cross_encoder.load_cross_encoder("BAAI/bge-reranker-large")``.
        outputs: Records folder with ``outputs.parquet``, or the outputs themselves.

    Example:
        >>> import polars as pl
        >>> outputs = CandidateOutputs(pl.DataFrame({"instruction": ["1+1?", "1+1?"],
        ...     "model_id": ["tiny", "large"], "output": ["No idea", "It is 2"]}))
        >>> router = Rerank(lambda pairs: np.array([output.count("2") for _, output in pairs]), outputs)

    Reference: the re-ranking rows of Zhang et al. 2025, Table 1, with cross-encoders such as Cappy (Tan et
    al. 2023, "Cappy: Outperforming and Boosting Large Multi-Task LMs with a Small Scorer").
    """

    needs_embeddings = False

    def __init__(
        self, score_pairs: ScorePairs | None = None, outputs: CandidateOutputs | Path | str | None = None
    ) -> None:
        self.score_pairs = score_pairs
        self.outputs = CandidateOutputs.open(outputs) if isinstance(outputs, Path | str) else outputs

    def fit(self, records: PerformanceRecords, embed: Embed | None = None) -> Self:
        """See :meth:`Baseline.fit`; keeps the names of the candidates and nothing else."""
        self._parts()
        self._model_ids = learnt_rows(records, "Rerank").model_ids
        self.chosen = {}
        return self

    def predict(self, instructions: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        """See :meth:`Baseline.predict`; every candidate must have an output for every instruction."""
        columns_of(candidates, self._model_ids, "Rerank")
        score_pairs, outputs = self._parts()
        answers = outputs.look_up(instructions, candidates)
        pairs = [(text, answer) for text, row in zip(instructions, answers, strict=True) for answer in row]
        scores = np.asarray(score_pairs(pairs), dtype=np.float32)
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise SatlightError(
                f"Rerank: the cross-encoder gave {scores.shape} for {len(pairs)} pairs, or scores that are "
                "not finite; a finite number for every pair is needed."
            )
        return scores.reshape(len(instructions), len(candidates))

    def _parts(self) -> tuple[ScorePairs, CandidateOutputs]:
        if self.score_pairs is None or self.outputs is None:
            raise SatlightError(
                "Rerank judges what candidates answered. Pass score_pairs=load_cross_encoder(NAME) from "
                "satlight.backbones.cross_encoder, and outputs=DIR, a records folder with outputs.parquet "
                "(docs/data_format.md)."
            )
        return self.score_pairs, self.outputs
