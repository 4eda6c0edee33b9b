"""Simulated candidates: sizes, general ability and specialized skill vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from satlight.records.simulated.family import SKILLS
from satlight.types import Candidate

SPECIALIST_SIZES = (0.5, 1, 1.5, 3, 4, 7, 8, 13, 14, 32, 70)
GENERALIST_SIZES = (0.5, 1.5, 3, 7, 8, 14, 27, 34, 70, 104, 141, 236, 400)
"""Billions of parameters."""

OFF_PROFILE = -0.5
"""Skill of a specialist outside its profile."""

PROFILES: dict[str, dict[str, float]] = {
    "general": {},
    "coder": {"code": 2.1, "logic": 0.4},
    "math": {"mathematics": 2.1, "logic": 0.4},
    "polyglot": {"languages": 2.3, "writing": 0.3},
    "scholar": {"facts": 2.1, "writing": 0.2},
    "science": {"science": 2.1, "mathematics": 0.3},
    "medic": {"medicine": 2.3, "science": 0.5},
    "counsel": {"business": 2.2, "writing": 0.4},
    "reasoner": {"logic": 2.1, "mathematics": 0.6},
    "writer": {"writing": 2.1, "facts": 0.2},
    "stem": {"mathematics": 1.2, "code": 1.2, "science": 1.0},
    "chat": {"writing": 1.0, "facts": 0.7, "languages": 0.7},
}
"""Profile name → mean of its skills; other skills have mean :data:`OFF_PROFILE`, or 0.1 for "general"."""


@dataclass(frozen=True)
class Examinee:
    """A simulated candidate with its parameters of the response model.

    Args:
        candidate: Name, size, prices and release date.
        size: Size on a log scale, (log10 params_b - 1): -1.3 for 0.5B, 0 for 10B, 1.6 for 400B.
        general: General ability in logits, growing with size and a little with the release date.
        skills: float64 (K,), specialized ability in logits, in the order of the skills of the zoo.
    """

    candidate: Candidate
    size: float
    general: float
    skills: np.ndarray


def make_examinees(
    num_candidates: int,
    seed: int,
    profiles: Mapping[str, Mapping[str, float]] = PROFILES,
    skills: Sequence[str] = SKILLS,
) -> list[Examinee]:
    """Return the first ``num_candidates`` of the infinite list of candidates of ``seed``.

    Profiles are assigned in shuffled rounds. Candidate i does not depend on ``num_candidates``.

    Args:
        num_candidates: M, at least 1.
        seed: Not negative.
        profiles: Means of the skills of each profile.
        skills: Names of the K skills.

    Returns:
        M examinees with unique names such as "sim-coder-7b".

    Example:
        >>> three, four = make_examinees(3, seed=0), make_examinees(4, seed=0)
        >>> [e.candidate for e in three] == [e.candidate for e in four[:3]]
        True
    """
    names = list(profiles)
    examinees: list[Examinee] = []
    used: dict[str, int] = {}
    for number in range(num_candidates):
        lap, place = divmod(number, len(names))
        profile = names[np.random.default_rng([seed, 1, lap]).permutation(len(names))[place]]
        rng = np.random.default_rng([seed, 2, number])
        sizes = GENERALIST_SIZES if profile in ("general", "chat") else SPECIALIST_SIZES
        params_b = float(sizes[rng.integers(len(sizes))])
        month = int(rng.integers(36))
        name = f"sim-{profile}-{params_b:g}b"
        used[name] = used.get(name, 0) + 1
        if used[name] > 1:
            name = f"{name}-v{used[name]}"
        size = math.log10(params_b) - 1
        price = round(0.05 * params_b**0.8, 4)
        candidate = Candidate(
            model_id=name,
            institute="simulated",
            params_b=params_b,
            release_date=f"{2023 + month // 12}-{month % 12 + 1:02d}",
            open_weights=params_b <= 141,
            price_in=price,
            price_out=round(3 * price, 4),
        )
        default = 0.1 if profile == "general" else OFF_PROFILE
        means = np.array([profiles[profile].get(skill, default) for skill in skills])
        drawn = means + 0.3 * rng.standard_normal(len(skills))
        general = 0.55 * size + 0.2 * (month / 35 - 0.5) + 0.1 * rng.standard_normal()
        examinees.append(Examinee(candidate, size, float(general), drawn))
    return examinees
