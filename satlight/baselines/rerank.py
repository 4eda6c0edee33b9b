"""Re-ranking: every candidate answers, and a cross-encoder picks the best answer.

Shape legend: N instructions, M candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from satlight.baselines.base import Baseline, Embed, Instruction, fitted_rows, texts_of
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.records.outputs import CandidateOutputs

ScorePairs = Callable[[list[tuple[str, str]]], np.ndarray]
"""(instruction, output) pairs to a float each, higher is better."""


class Rerank(Baseline):
    """Choose the candidate whose output a cross-encoder scores highest.

    Nothing is learned. It needs an answer of every candidate and a pass of the cross-encoder over each, so it
    measures the value of reading the answers and is no cheap router. Scores are those of the cross-encoder,
    not expected outcomes. A router folder holds the cross-encoder and the outputs.

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
    predicts_outcomes = False
    not_stored = ("outputs",)

    def __init__(
        self, score_pairs: ScorePairs | None = None, outputs: CandidateOutputs | Path | str | None = None
    ) -> None:
        self.score_pairs = score_pairs
        self.outputs = CandidateOutputs.open(outputs) if isinstance(outputs, Path | str) else outputs

    def fit(self, records: PerformanceRecords, embed: Embed | None = None) -> Self:
        """See :meth:`Baseline.fit`; keeps the candidates and nothing else."""
        self._parts()
        self._keep(fitted_rows(records, self._who))
        self.chosen = {}
        return self

    def predict(self, instructions: Sequence[Instruction], candidates: Sequence[str]) -> np.ndarray:
        """See :meth:`Baseline.predict`; every candidate must have an output for every instruction."""
        self._columns(candidates)
        score_pairs, outputs = self._parts()
        texts = texts_of(instructions)
        answers = outputs.look_up(texts, candidates)
        pairs = [(text, answer) for text, row in zip(texts, answers, strict=True) for answer in row]
        scores = np.asarray(score_pairs(pairs), dtype=np.float32)
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise SatlightError(
                f"Rerank: the cross-encoder gave {scores.shape} for {len(pairs)} pairs, or scores that are "
                "not finite; a finite number for every pair is needed."
            )
        return scores.reshape(len(instructions), len(candidates))

    def rename(self, model_id: str, new: str) -> Self:
        raise SatlightError(
            f"{self._who} cannot rename '{model_id}': it looks up the stored answers by name. Rename it in the "
            "records, and fit again"
        )

    def learned(self) -> dict[str, Any]:
        """Return the candidates and the outputs, so that a router folder needs no records."""
        _, outputs = self._parts()
        return {"candidates": self.candidates, "chosen": self.chosen, "outputs": outputs.to_dict()}

    def relearn(self, state: Mapping[str, Any]) -> None:
        """Take the outputs back."""
        super().relearn({**state, "outputs": CandidateOutputs.from_dict(state["outputs"])})

    def _parts(self) -> tuple[ScorePairs, CandidateOutputs]:
        if self.score_pairs is None or self.outputs is None:
            raise SatlightError(
                "Rerank judges what candidates answered. Pass score_pairs=load_cross_encoder(NAME) from "
                "satlight.backbones.cross_encoder, and outputs=DIR, a records folder with outputs.parquet "
                "(docs/data_format.md)."
            )
        return self.score_pairs, self.outputs
