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
    for given in [wanted] if isinstance(wanted, str) else list(wanted):
        name = given if given in exact else given.strip()
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


def split_names(text: str, available: Sequence[str]) -> list[str]:
    """Split names that are separated by commas; an available name may contain commas itself.

    Args:
        text: Names separated by commas, as ``--candidates`` takes them.
        available: Known names; the longest that fits is taken first.

    Returns:
        The names, each once and without white space around it; unknown ones are included.

    Example:
        >>> split_names("llama, 8b, phi,new", ["llama, 8b", "phi"])
        ['llama, 8b', 'phi', 'new']
    """
    parts = text.split(",")
    names: list[str] = []
    while parts:
        lengths = range(len(parts), 0, -1)
        length = next((one for one in lengths if ",".join(parts[:one]).strip() in available), 1)
        names.append(",".join(parts[:length]).strip())
        parts = parts[length:]
    return list(dict.fromkeys(name for name in names if name))


def listed(names: Sequence[str], limit: int = 30) -> str:
    """Format quoted names for a message, at most ``limit`` of them."""
    shown = ", ".join(f"'{name}'" for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
