"""The item-response model: probability that a simulated candidate answers an instruction correctly.

Shape legend: N instructions, M candidates, K skills, F families.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from satlight.errors import SatlightError
from satlight.records.matrix import PerformanceRecords
from satlight.records.simulated.candidates import Examinee
from satlight.records.simulated.family import SKILLS, Family

DISCRIMINATION = 1.5
SLIP = 0.03
VISIBLE_SPREAD = 0.8
HIDDEN_SPREAD = 0.5
HARD_BONUS = 0.3


def item_difficulty(base_N: np.ndarray, visible_N: np.ndarray, hidden_N: np.ndarray) -> np.ndarray:
    """Return the difficulty of each instruction in logits: family mean, visible and hidden part.

    Args:
        base_N: float (N,), mean difficulty of its family.
        visible_N: float (N,), standardized difficulty visible in the text (operand size, rare words).
        hidden_N: float (N,), standard normal noise.

    Returns:
        float (N,).
    """
    return base_N + VISIBLE_SPREAD * visible_N + HIDDEN_SPREAD * hidden_N


def success_probabilities(
    examinee: Examinee,
    families: Sequence[Family],
    family_N: np.ndarray,
    visible_N: np.ndarray,
    difficulty_N: np.ndarray,
    skills: Sequence[str] = SKILLS,
) -> np.ndarray:
    """Return Pr(candidate m answers instruction i correctly) of a multidimensional item-response model.

        P = c_f + (1 - c_f - slip) * sigmoid(a * (ability_mf - difficulty_i + h * size_m * max(v_i, 0)))
        ability_mf = theta_m . w_f + general_m

    with the family's guessing chance c_f and skill loadings w_f, the candidate's skills theta_m and log
    size, and the item's visible difficulty v_i: the last term is an advantage of large candidates on hard
    instructions. a is :data:`DISCRIMINATION`, h is :data:`HARD_BONUS`.

    Args:
        examinee: Candidate m.
        families: F families.
        family_N: int (N,), index into ``families``.
        visible_N: float (N,), visible difficulty.
        difficulty_N: float (N,), from :func:`item_difficulty`.
        skills: Names of the K skills of the candidate.

    Returns:
        float64 (N,) in (0, 1).

    Reference:
        Reckase 2009, "Multidimensional Item Response Theory", compensatory three-parameter model.
    """
    loading_FK = np.array([[family.skills.get(skill, 0.0) for skill in skills] for family in families])
    guess_F = np.array([family.guess for family in families])
    ability_F = loading_FK @ examinee.skills + examinee.general
    bonus_N = HARD_BONUS * examinee.size * np.maximum(visible_N, 0.0)
    logit_N = DISCRIMINATION * (ability_F[family_N] - difficulty_N + bonus_N)
    guess_N = guess_F[family_N]
    return guess_N + (1.0 - guess_N - SLIP) / (1.0 + np.exp(-logit_N))


def bayes_optimal(records: PerformanceRecords, rows: np.ndarray | Sequence[int] | None = None) -> float:
    """Return the accuracy of a router that always chooses the highest true success probability.

    No router can do better on average. The oracle (best outcome of each row) is higher due to luck.

    Args:
        records: Simulated records, with ``expected``.
        rows: int (n,) or bool (N,), rows to average over; None = all.

    Returns:
        Accuracy in [0, 1].

    Raises:
        SatlightError: The records are not simulated, so the true probabilities are not known.

    Example:
        >>> from satlight.records.simulated import SimulatedZoo
        >>> records = SimulatedZoo(num_instructions=1000, num_candidates=10).generate()
        >>> round(bayes_optimal(records), 1)  # the best single candidate has 0.7
        0.8
    """
    if records.expected is None:
        raise SatlightError(
            "The Bayes-optimal accuracy needs true success probabilities, which the records "
            f"'{records.name}' do not have: only simulated records do (--data.records simulated). "
            "For real records use the oracle."
        )
    expected = records.expected if rows is None else records.expected[np.asarray(rows)]
    return float(expected.max(axis=1).mean(dtype=np.float64))


def draw_outcomes(
    examinees: Sequence[Examinee],
    families: Sequence[Family],
    family_N: np.ndarray,
    visible_N: np.ndarray,
    difficulty_N: np.ndarray,
    seed: int,
    skills: Sequence[str] = SKILLS,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the outcomes of M candidates; arguments as for :func:`success_probabilities`.

    Returns:
        True success probabilities and outcomes, float32 (N, M). Each candidate has a random stream of its own, so
        its outcomes depend neither on N nor on the others.
    """
    shape = (len(family_N), len(examinees))
    expected, outcomes = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
    for column, examinee in enumerate(examinees):
        expected[:, column] = success_probabilities(examinee, families, family_N, visible_N, difficulty_N, skills)
        luck_N = np.random.default_rng([seed, 4, column]).random(shape[0])
        outcomes[:, column] = luck_N < expected[:, column]
    return expected, outcomes


def best_without_images(records: PerformanceRecords, rows: np.ndarray | Sequence[int] | None = None) -> float:
    """Return the accuracy of the best router that reads the texts alone; arguments and errors as :func:`bayes_optimal`.

    It sends all instructions with images and one text to one candidate, the best on average, which is chosen on these
    very rows; of an instruction without images it knows everything. Both make the value an upper bound.
    """
    bayes_optimal(records, rows)  # checks them
    chosen = records if rows is None else records.rows(rows)
    assert chosen.expected is not None
    keys = [
        text if images else f"\0{row}"
        for row, (text, images) in enumerate(zip(chosen.texts, chosen.images, strict=True))
    ]
    code_N = np.unique(keys, return_inverse=True)[1]
    total = np.zeros((code_N.max() + 1, chosen.shape[1]))
    np.add.at(total, code_N, chosen.expected)
    return float(total.max(axis=1).sum() / chosen.shape[0])
