"""Task families: sentence templates with slots and the visible difficulty of each filling."""

from __future__ import annotations

import math
import random
import string
from dataclasses import dataclass
from functools import cached_property

SKILLS = ("mathematics", "code", "languages", "facts", "science", "medicine", "business", "logic", "writing")
"""The K = 9 latent skills that families require and candidates specialize in."""


@dataclass(frozen=True)
class Numbers:
    """A slot filled with an integer, drawn log-uniformly; larger numbers are harder.

    Args:
        low: Smallest value, at least 1.
        high: Largest value.
        step: Values are rounded to a multiple of this.
        graded: False if the size does not affect difficulty.
    """

    low: int
    high: int
    step: int = 1
    graded: bool = True


@dataclass(frozen=True)
class Neutral:
    """A slot filled with any of ``words``, which do not affect difficulty."""

    words: tuple[str, ...]


Slot = tuple[str, ...] | Neutral | Numbers
"""Words in order of difficulty, easiest first; or :class:`Neutral` words; or :class:`Numbers`."""


@dataclass(frozen=True, eq=False)
class Family:
    """One task of the simulated zoo.

    A template names its slots in braces. Trailing digits (``{city1} … {city2}``) draw different words from one slot.

    Args:
        name: The task name.
        dataset: The dataset it belongs to.
        keywords: About five keywords for the capability text.
        skills: Loading on each latent skill, by name.
        templates: Sentences with slots; each has at least one graded slot.
        slots: Possible values of each slot.
        difficulty: Mean item difficulty, in logits of the response model.
        guess: Probability of a correct answer without any skill.
        images: Number of images of an instruction; they alone show its difficulty, and texts repeat.

    Example:
        >>> family = Family("sums", "mathematics", "Sums", {"mathematics": 1.0}, ("Add {a} and {b}.",),
        ...                 {"a": Numbers(1, 9), "b": Numbers(10, 99)})
        >>> text, visible = family.draw(random.Random(0))
        >>> text
        'Add 5 and 26.'
    """

    name: str
    dataset: str
    keywords: str
    skills: dict[str, float]
    templates: tuple[str, ...]
    slots: dict[str, Slot]
    difficulty: float = 0.0
    guess: float = 0.02
    images: int = 0

    @cached_property
    def fields(self) -> tuple[tuple[str, ...], ...]:
        """Slot fields of each template, including digits, in order of first occurrence."""
        return tuple(
            tuple(dict.fromkeys(name for _, name, _, _ in string.Formatter().parse(t) if name)) for t in self.templates
        )

    def draw(self, rng: random.Random) -> tuple[str, float]:
        """Draw a filled template and its visible difficulty (mean 0, variance about 1).

        Args:
            rng: Source of uniform numbers; only ``rng.random()`` is used, which never changes.
        """
        template = int(rng.random() * len(self.templates))
        values: dict[str, str] = {}
        taken: dict[str, set[int]] = {}
        ranks: list[float] = []
        for name in self.fields[template]:
            base = name.rstrip("0123456789")
            slot = self.slots[base]
            if isinstance(slot, Numbers):
                u = rng.random()
                value = slot.low * (slot.high / slot.low) ** u
                values[name] = str(max(slot.low, round(value / slot.step) * slot.step))
                if slot.graded:
                    ranks.append(u)
                continue
            words = slot.words if isinstance(slot, Neutral) else slot
            used = taken.setdefault(base, set())
            index = int(rng.random() * len(words))
            while index in used:
                index = (index + 1) % len(words)
            used.add(index)
            values[name] = words[index]
            if not isinstance(slot, Neutral):
                ranks.append((index + 0.5) / len(words))
        if self.images:
            ranks.append(rng.random())
        # The mean of n uniform ranks has mean 1/2 and variance 1/(12 n); standardize it.
        visible = (sum(ranks) / len(ranks) - 0.5) * math.sqrt(12 * len(ranks)) if ranks else 0.0
        return self.templates[template].format(**values), visible
