"""The simulated zoo: real English instructions, simulated candidates, outcomes drawn from a known model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from satlight.errors import SatlightError
from satlight.records.matrix import PerformanceRecords
from satlight.records.simulated.candidates import PROFILES, Examinee, make_examinees
from satlight.records.simulated.families import FAMILIES
from satlight.records.simulated.family import SKILLS, Family
from satlight.records.simulated.response import draw_outcomes, item_difficulty

IMAGE_TOKENS = 85
"""Prompt tokens that a simulated candidate is billed for an image."""

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

    NAME: ClassVar[str] = "simulated"
    PREFIX: ClassVar[str] = "sim"
    PROFILES: ClassVar[Mapping[str, Mapping[str, float]]] = PROFILES
    SKILLS: ClassVar[Sequence[str]] = SKILLS

    num_instructions: int = 4000
    num_candidates: int = 30
    seed: int = 0
    test_fraction: float = 0.25

    def __post_init__(self) -> None:
        name = type(self).__name__
        for key, value, low in (
            ("num_instructions", self.num_instructions, 1),
            ("num_candidates", self.num_candidates, 2),
            ("seed", self.seed, 0),
        ):
            if value < low:
                raise SatlightError(f"{name} got {key}={value}; allowed: integers from {low}.")
        if not 0 <= self.test_fraction < 1:
            raise SatlightError(f"{name} got test_fraction={self.test_fraction}; allowed: at least 0, below 1.")

    def generate(self) -> PerformanceRecords:
        """Draw instructions, candidates and outcomes.

        Returns:
            Records N × M with ``simulated=True``, ``expected`` = true success probabilities, and the extra
            instruction columns ``keywords`` (of the task) and ``difficulty`` (true, in logits).
        """
        families = self.families()
        family_N, texts, visible_N = self._draw_texts(families)
        own_N = [families[f] for f in family_N]
        images = self._images(own_N, visible_N)
        hidden_N = np.random.default_rng([self.seed, 3]).standard_normal(len(texts))
        difficulty_N = item_difficulty(np.array([family.difficulty for family in own_N]), visible_N, hidden_N)
        examinees = make_examinees(self.num_candidates, self.seed, self.PROFILES, self.SKILLS)
        expected, outcomes = draw_outcomes(
            examinees, families, family_N, visible_N, difficulty_N, self.seed, self.SKILLS
        )
        keys = [own[0] if own else text for text, own in zip(texts, images, strict=True)]
        instructions = pl.DataFrame(
            {
                "instruction_id": [f"{self.PREFIX}-{row:06d}" for row in range(len(texts))],
                "dataset": [family.dataset for family in own_N],
                "task": [family.name for family in own_N],
                "split": self._splits(family_N, keys),
                "instruction": texts,
                "keywords": [family.keywords for family in own_N],
                "difficulty": difficulty_N,
            }
        )
        if any(images):
            paths = pl.Series("images", [own or None for own in images], dtype=pl.List(pl.String))
            instructions = instructions.with_columns(paths)
        return PerformanceRecords(
            instructions=instructions,
            candidates=tuple(examinee.candidate for examinee in examinees),
            outcomes=outcomes,
            known=np.ones(expected.shape, dtype=bool),
            costs=_costs(texts, [len(own) for own in images], visible_N, examinees),
            expected=expected,
            name=self.NAME,
            simulated=True,
        )

    def families(self) -> tuple[Family, ...]:
        """Return the tasks."""
        return FAMILIES

    def _images(self, families: list[Family], visible_N: np.ndarray) -> list[list[str]]:
        """Return the image files of each instruction, given its task and visible difficulty."""
        return [[] for _ in families]

    def _draw_texts(self, families: tuple[Family, ...]) -> tuple[np.ndarray, list[str], np.ndarray]:
        """Draw family, text and visible difficulty of N instructions; families come in shuffled rounds."""
        rng = random.Random(self.seed)
        family_N = np.empty(self.num_instructions, dtype=np.int64)
        visible_N = np.empty(self.num_instructions)
        texts: list[str] = []
        seen: set[str] = set()
        order: list[int] = []
        for row in range(self.num_instructions):
            if not order:
                keys = [rng.random() for _ in families]
                order = sorted(range(len(families)), key=keys.__getitem__)
            family = order.pop()
            for _ in range(ATTEMPTS):
                text, visible = families[family].draw(rng)
                if text not in seen or families[family].images:
                    break
            seen.add(text)
            texts.append(text)
            family_N[row], visible_N[row] = family, visible
        return family_N, texts, visible_N

    def _splits(self, family_N: np.ndarray, keys: list[str]) -> list[str]:
        """Assign each family its fraction of test rows; a repeated key (a text) keeps its first split."""
        count: Counter[int] = Counter()
        first: dict[str, str] = {}
        for family, key in zip(family_N.tolist(), keys, strict=True):
            start = family * 0.618 + count[family] * self.test_fraction
            count[family] += 1
            test = int(start + self.test_fraction) > int(start)
            first.setdefault(key, "test" if test else "train")
        return [first[key] for key in keys]


def _costs(texts: list[str], num_images: list[int], visible_N: np.ndarray, examinees: list[Examinee]) -> np.ndarray:
    """Return US dollars of the prompt and an answer whose length grows with difficulty: float32 (N, M)."""
    read_N = np.array([20 + 1.3 * len(text.split()) for text in texts]) + IMAGE_TOKENS * np.array(num_images)
    written_N = 150.0 * np.exp(0.3 * visible_N)
    price_in = np.array([examinee.candidate.price_in for examinee in examinees], dtype=np.float64)
    price_out = np.array([examinee.candidate.price_out for examinee in examinees], dtype=np.float64)
    return ((np.outer(read_N, price_in) + np.outer(written_N, price_out)) / 1e6).astype(np.float32)
