"""Select names by exact name or pattern, and format lists of names for messages."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from satlight.errors import SatlightError


def select_names(wanted: str | Sequence[str], available: Sequence[str], kind: str, where: str = "") -> list[str]:
    """Return the available names that match exactly or by pattern, in the available order.

    Args:
        wanted: One name or pattern (``*``, ``?``, ``[…]``; case-sensitive), or several.
        available: Names to select from.
        kind: Kind of thing that the names refer to, for the error.
        where: Name of the records, for the error.

    Returns:
        Matching names without repetition.

    Raises:
        SatlightError: A name or pattern matches nothing; the message lists the available names.

    Example:
        >>> select_names(["*7b*", "phi"], ["gemma-7b", "phi", "phi-7b-it"], "candidate")
        ['gemma-7b', 'phi', 'phi-7b-it']
    """
    chosen: set[str] = set()
    exact = set(available)
    for name in [wanted] if isinstance(wanted, str) else list(wanted):
        matches = [name] if name in exact else [other for other in available if fnmatchcase(other, name)]
        if not matches:
            near = get_close_matches(name, available, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise SatlightError(
                f"Unknown {kind} '{name}'{f' in the records {where!r}' if where else ''}.{hint} "
                f"Available: {listed(available)}."
            )
        chosen.update(matches)
    if not chosen:
        raise SatlightError(f"Got an empty list of {kind}s. Available: {listed(available)}.")
    return [name for name in available if name in chosen]


def listed(names: Sequence[str], limit: int = 30) -> str:
    """Format quoted names for a message, at most ``limit`` of them."""
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
