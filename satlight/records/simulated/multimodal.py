"""The simulated multimodal zoo: the text asks the same of every image, the image decides which skill it takes."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from satlight.files import atomic_path, cache_dir
from satlight.records.simulated.drawings import VERSION, draw_image
from satlight.records.simulated.families import FAMILIES
from satlight.records.simulated.family import SKILLS, Family
from satlight.records.simulated.zoo import SimulatedZoo

STYLE_SKILLS = {"dots": "counting", "rings": "geometry", "patches": "color", "words": "reading", "bars": "charts"}
"""Style of a drawing → the skill that it takes."""

ALL_SKILLS = (*SKILLS, *STYLE_SKILLS.values())

PROFILES: dict[str, dict[str, float]] = {
    "general": {},
    "counter": {"counting": 2.3, "mathematics": 0.8},
    "geometer": {"geometry": 2.3, "mathematics": 0.5},
    "painter": {"color": 2.3, "writing": 0.8},
    "reader": {"reading": 2.3, "languages": 0.8},
    "analyst": {"charts": 2.3, "business": 0.8},
    "observer": {"counting": 1.2, "color": 1.2, "facts": 0.8},
    "engineer": {"geometry": 1.2, "charts": 1.2, "code": 0.8},
    "clerk": {"reading": 1.2, "charts": 1.2, "business": 0.6},
    "scholar": {"facts": 2.0, "science": 1.2, "medicine": 0.8},
    "reasoner": {"logic": 2.0, "code": 1.2, "mathematics": 0.8},
}
"""Profile name → mean of its skills, as :data:`satlight.records.simulated.candidates.PROFILES`."""

QUESTIONS = {
    "counting": (
        "How many objects are in the image?",
        "Count the objects in the image.",
        "What is the number of objects that the image shows?",
    ),
    "searching": (
        "Which object in the image is the largest?",
        "Find the largest object in the image and describe it.",
        "Describe the object of the image that is larger than all others.",
    ),
    "locating": (
        "Which object is closest to the upper left corner of the image?",
        "Name the object at the top left of the image.",
        "Look at the upper left corner of the image. Which object is next to it?",
    ),
    "comparing": (
        "Which of the two images holds more objects?",
        "Compare the two images: which one shows more objects?",
        "Here are two images. In which of them are there more objects?",
    ),
}
"""Dataset → questions, none of which says anything about the image; ``comparing`` has two images."""


@dataclass(frozen=True)
class SimulatedMultimodalZoo(SimulatedZoo):
    """Performance records of simulated candidates on drawn images, with a known best router.

    5 of 7 instructions have an image, or two. Their texts are the same for all images, which differ in style (dots,
    rings, color patches, words, bars) and in level. The style decides the skill that an answer takes, the level the
    difficulty, as in :class:`~satlight.records.simulated.SimulatedZoo`, whose arguments it takes. So a router that
    does not see the images cannot tell which candidate to ask: see
    :func:`~satlight.records.simulated.response.best_without_images`.

    The images are written into the cache once.

    Example:
        >>> records = SimulatedMultimodalZoo(num_instructions=100, num_candidates=3).generate()
        >>> records
        PerformanceRecords(simulated-multimodal (simulated): 100 instructions × 3 candidates)
        >>> sorted({len(images) for images in records.images})
        [0, 1, 2]
    """

    NAME: ClassVar[str] = "simulated-multimodal"
    PREFIX: ClassVar[str] = "sim-multimodal"
    PROFILES: ClassVar[Mapping[str, Mapping[str, float]]] = PROFILES
    SKILLS: ClassVar[Sequence[str]] = ALL_SKILLS

    def families(self) -> tuple[Family, ...]:
        """Return the tasks: every question about every style of drawing, and tasks without images."""
        drawn = [_family(dataset, style) for dataset in QUESTIONS for style in STYLE_SKILLS]
        first = {family.dataset: family for family in reversed(FAMILIES)}
        return (*drawn, *(family for family in FAMILIES if first[family.dataset] is family))

    def _images(self, families: list[Family], visible_N: np.ndarray) -> list[list[str]]:
        folder = cache_dir() / self.NAME / f"v{VERSION}-seed{self.seed}-{len(families)}"
        if not folder.is_dir():
            with atomic_path(folder) as temporary:
                temporary.mkdir()
                for row, (family, visible) in enumerate(zip(families, visible_N, strict=True)):
                    self._write(temporary, row, family, float(visible))
        return [
            [str(folder / f"{row:06d}-{number}.png") for number in range(family.images)]
            for row, family in enumerate(families)
        ]

    def _write(self, folder: Path, row: int, family: Family, visible: float) -> None:
        level = visible / math.sqrt(12) + 0.5
        for number in range(family.images):
            rng = random.Random(f"{self.seed}-{row}-{number}")
            image = draw_image(family.name.partition("_")[2], level, rng)
            image.save(folder / f"{row:06d}-{number}.png", compress_level=1)


def _family(dataset: str, style: str) -> Family:
    skill = STYLE_SKILLS[style]
    return Family(
        name=f"{dataset}_{style}",
        dataset=dataset,
        keywords=f"{dataset.capitalize()}, {style.capitalize()}, {skill.capitalize()}",
        skills={skill: 1.0},
        templates=QUESTIONS[dataset],
        slots={},
        images=2 if dataset == "comparing" else 1,
    )
