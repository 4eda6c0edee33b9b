"""Named groups of datasets, which reports average over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from satlight.errors import SatlightError


def check_groups(groups: Mapping[str, Sequence[str]], datasets: Sequence[str]) -> dict[str, list[str]]:
    """Check groups of datasets; call this before training, so that a typo is reported early.

    Args:
        groups: Datasets of each group.
        datasets: Names of the existing datasets.

    Returns:
        The same groups, each dataset once.

    Raises:
        SatlightError: A group is empty or names a dataset that does not exist.

    Example:
        >>> check_groups({"in_domain": ["mmlu", "gsm8k", "mmlu"]}, ["gsm8k", "mmlu"])
        {'in_domain': ['mmlu', 'gsm8k']}
    """
    for name, members in groups.items():
        if not members:
            raise SatlightError(f"The group '{name}' is empty; name at least one of the datasets {sorted(datasets)}")
        if unknown := sorted(set(members) - set(datasets)):
            raise SatlightError(
                f"The group '{name}' names {unknown}, but the test records hold the datasets "
                f"{sorted(datasets)}; correct the name, or leave it out of the group"
            )
    return {name: list(dict.fromkeys(members)) for name, members in groups.items()}
