"""The task families of the simulated zoo, one YAML file per dataset.

A file maps the name of each family to the arguments of :class:`~satlight.records.simulated.family.Family`:

.. code-block:: yaml

    percentages:                  # name of the task
      keywords: Percentages, Discounts, Ratios
      skills: {mathematics: 0.8}  # loading on each latent skill
      difficulty: -0.4            # optional, like guess
      templates:                  # slots in braces; {shop1} and {shop2} draw different words of "shop"
        - A {good} costs {price} dollars in {shop}. What does it cost after a rise of {percent} percent?
      slots:
        good: [coat, car]                  # words in order of difficulty, easiest first
        shop: {any: [Berlin, Paris]}       # words, none harder than another
        price: {low: 10, high: 900}        # whole numbers; also step and graded, see Numbers
        percent: percents                  # a list of words.yaml, by its name

Adding, removing or reordering anything changes every simulated zoo.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from satlight.errors import SatlightError
from satlight.records.simulated.family import Family, Neutral, Numbers, Slot

DATASETS = ("mathematics", "code", "language", "knowledge", "science", "reasoning", "professional", "writing")
"""Names of the files, in the order of the zoo."""


def load_families() -> tuple[Family, ...]:
    """Read every family, dataset by dataset.

    Returns:
        F families in the order of :data:`DATASETS` and of each file.

    Raises:
        SatlightError: A slot that is not written as above; names the file, the family and the slot.
    """
    shared = {name: _slot(spec, {}, f"words.yaml: {name}") for name, spec in _read("words").items()}
    families: list[Family] = []
    for dataset in DATASETS:
        for name, spec in _read(dataset).items():
            where = f"{dataset}.yaml: {name}"
            slots = {slot: _slot(value, shared, f"{where}.{slot}") for slot, value in spec["slots"].items()}
            spec |= {"templates": tuple(spec["templates"]), "slots": slots}
            families.append(Family(name=name, dataset=dataset, **spec))
    return tuple(families)


def _read(name: str) -> dict[str, Any]:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where libyaml is available
    text = Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.load(text, Loader=loader)
    return content


def _slot(spec: Any, shared: dict[str, Slot], where: str) -> Slot:
    if isinstance(spec, str) and spec in shared:
        return shared[spec]
    if isinstance(spec, dict) and "low" in spec:
        return Numbers(**spec)
    words = spec.get("any") if isinstance(spec, dict) else spec
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise SatlightError(
            f"{where}: got {spec!r}; a slot is a list of words, {{any: [words]}}, {{low: 1, high: 9}} or the "
            f"name of a list in words.yaml ({', '.join(shared)}). Quote words that YAML reads as numbers."
        )
    return Neutral(tuple(words)) if isinstance(spec, dict) else tuple(words)


FAMILIES: tuple[Family, ...] = load_families()
