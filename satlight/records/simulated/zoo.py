"""The simulated zoo: real English instructions, simulated candidates, outcomes drawn from a known model."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import polars as pl

from satlight.errors import SatlightError
from satlight.records.matrix import PerformanceRecords
from satlight.records.simulated.candidates import Examinee, make_examinees
from satlight.records.simulated.families import FAMILIES
from satlight.records.simulated.response import item_difficulty, success_probabilities

ATTEMPTS = 30
"""Maximum number of draws to find a new text; then a repeated one is accepted."""


@dataclass(frozen=True)
class SimulatedZoo:
    """Performance records of simulated candidates on generated instructions, with a known best router.

    50 task families in 8 datasets; see :func:`~satlight.records.simulated.response.success_probabilities` for
    the outcome model. Zoos of one seed are nested: a smaller zoo is the top left corner of a larger one, so
    unseen candidates can be added by increasing ``num_candidates``.

    Args:
        num_instructions: N, at least 1; every family occurs if N ≥ 50.
        num_candidates: M, at least 2.
        seed: Not negative; determines all draws.
        test_fraction: Fraction of test rows in each family, in [0, 1).

    Example:
        >>> records = SimulatedZoo(num_instructions=100, num_candidates=3, seed=1).generate()
        >>> records
        PerformanceRecords(simulated (simulated): 100 instructions × 3 candidates)
    """

    num_instructions: int = 4000
    num_candidates: int = 30
    seed: int = 0
    test_fraction: float = 0.25

    def __post_init__(self) -> None:
        for key, value, low in (
            ("num_instructions", self.num_instructions, 1),
            ("num_candidates", self.num_candidates, 2),
            ("seed", self.seed, 0),
        ):
            if value < low:
                raise SatlightError(f"SimulatedZoo got {key}={value}; allowed: integers from {low}.")
        if not 0 <= self.test_fraction < 1:
            raise SatlightError(f"SimulatedZoo got test_fraction={self.test_fraction}; allowed: at least 0, below 1.")

    def generate(self) -> PerformanceRecords:
        """Draw instructions, candidates and outcomes.

        Returns:
            Records N × M with ``simulated=True``, ``expected`` = true success probabilities, and the extra
            instruction columns ``keywords`` (of the task) and ``difficulty`` (true, in logits).
        """
        family_N, texts, visible_N = self._draw_texts()
        hidden_N = np.random.default_rng([self.seed, 3]).standard_normal(len(texts))
        base_F = np.array([family.difficulty for family in FAMILIES])
        difficulty_N = item_difficulty(base_F[family_N], visible_N, hidden_N)
        examinees = make_examinees(self.num_candidates, self.seed)
        shape = (len(texts), len(examinees))
        expected = np.empty(shape, dtype=np.float32)
        outcomes = np.empty(shape, dtype=np.float32)
        for column, examinee in enumerate(examinees):
            expected[:, column] = success_probabilities(examinee, FAMILIES, family_N, visible_N, difficulty_N)
            # One stream per candidate makes its outcomes independent of N and M.
            luck_N = np.random.default_rng([self.seed, 4, column]).random(shape[0])
            outcomes[:, column] = luck_N < expected[:, column]
        instructions = pl.DataFrame(
            {
                "instruction_id": [f"sim-{row:06d}" for row in range(len(texts))],
                "dataset": [FAMILIES[f].dataset for f in family_N],
                "task": [FAMILIES[f].name for f in family_N],
                "split": self._splits(family_N, texts),
                "instruction": texts,
                "keywords": [FAMILIES[f].keywords for f in family_N],
                "difficulty": difficulty_N,
            }
        )
        return PerformanceRecords(
            instructions=instructions,
            candidates=tuple(examinee.candidate for examinee in examinees),
            outcomes=outcomes,
            known=np.ones(shape, dtype=bool),
            costs=_costs(texts, visible_N, examinees),
            expected=expected,
            name="simulated",
            simulated=True,
        )

    def _draw_texts(self) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Draw family, text and visible difficulty of N instructions; families come in shuffled rounds."""
        rng = random.Random(self.seed)
        family_N = np.empty(self.num_instructions, dtype=np.int64)
        visible_N = np.empty(self.num_instructions)
        texts: list[str] = []
        seen: set[str] = set()
        order: list[int] = []
        for row in range(self.num_instructions):
            if not order:
                keys = [rng.random() for _ in FAMILIES]
                order = sorted(range(len(FAMILIES)), key=keys.__getitem__)
            family = order.pop()
            for _ in range(ATTEMPTS):
                text, visible = FAMILIES[family].draw(rng)
                if text not in seen:
                    break
            seen.add(text)
            texts.append(text)
            family_N[row], visible_N[row] = family, visible
        return family_N, texts, visible_N

    def _splits(self, family_N: np.ndarray, texts: list[str]) -> list[str]:
        """Assign each family its fraction of test rows; a repeated text keeps its first split."""
        count = [0] * len(FAMILIES)
        first: dict[str, str] = {}
        for family, text in zip(family_N.tolist(), texts, strict=True):
            start = family * 0.618 + count[family] * self.test_fraction
            count[family] += 1
            test = int(start + self.test_fraction) > int(start)
            first.setdefault(text, "test" if test else "train")
        return [first[text] for text in texts]


def _costs(texts: list[str], visible_N: np.ndarray, examinees: list[Examinee]) -> np.ndarray:
    """Return US dollars of the prompt and an answer whose length grows with difficulty: float32 (N, M)."""
    read_N = np.array([20 + 1.3 * len(text.split()) for text in texts])
    written_N = 150.0 * np.exp(0.3 * visible_N)
    price_in = np.array([examinee.candidate.price_in for examinee in examinees], dtype=np.float64)
    price_out = np.array([examinee.candidate.price_out for examinee in examinees], dtype=np.float64)
    return ((np.outer(read_N, price_in) + np.outer(written_N, price_out)) / 1e6).astype(np.float32)
