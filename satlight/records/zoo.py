"""Zoo settings: select the candidates of a router by name, size, date, open weights and price.

A setting is a YAML file, see ``configs/zoo``; training (``--data.zoo_preset``) and the arena read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from satlight.errors import SatlightError
from satlight.files import parse_yaml, read_text
from satlight.records.names import listed
from satlight.types import Candidate

if TYPE_CHECKING:
    from satlight.records.matrix import PerformanceRecords

PRESETS = Path("configs") / "zoo"
"""Folder of named settings, below the working directory or the source checkout."""

Member = tuple[str, ...]
"""Alternative names of one member in different sources."""

_NUMBERS = ("min_params_b", "max_params_b", "max_price_in", "max_price_out")
_MONTHS = ("released_after", "released_before")


@dataclass(frozen=True)
class ZooSetting:
    """A selection of candidates: members by name, limits on their properties, or both.

    A name without institute ("Qwen2-7B-Instruct") matches the candidate of any institute, ignoring case. A
    pattern (``*``, ``?``, ``[…]``) matches any number of candidates. Limits are inclusive. A candidate is
    selected if it meets all limits; if that depends on an unknown size, date or price, an error is raised.

    Args:
        name: For tables and logs.
        members: Names or patterns, or several alternative names per member; None = all candidates.
        min_params_b: Minimum number of parameters in billions.
        max_params_b: Maximum number of parameters in billions.
        released_after: First month ``"YYYY-MM"`` of release.
        released_before: Last month ``"YYYY-MM"`` of release.
        open_weights: Keep only candidates whose weights are (True) or are not (False) public.
        max_price_in: Maximum price in US dollars per million prompt tokens.
        max_price_out: Maximum price in US dollars per million generated tokens.

    Example:
        >>> zoo = [Candidate("Qwen/Qwen2-7B-Instruct", params_b=7.6), Candidate("gpt-4", open_weights=False)]
        >>> ZooSetting("by-name", (("qwen2-7b-instruct",),)).names(zoo)
        ['Qwen/Qwen2-7B-Instruct']
        >>> ZooSetting("by-size", max_params_b=10).names(zoo)
        Traceback (most recent call last):
        satlight.errors.SatlightError: The zoo setting 'by-size' limits max_params_b, which is unknown of
        'gpt-4'. Fill it in in models.json, or name the members.
    """

    name: str
    members: tuple[Member, ...] | None = None
    min_params_b: float | None = None
    max_params_b: float | None = None
    released_after: str | None = None
    released_before: str | None = None
    open_weights: bool | None = None
    max_price_in: float | None = None
    max_price_out: float | None = None

    @classmethod
    def from_dict(cls, content: Any, where: str) -> ZooSetting:
        """Create a setting from the content of its YAML file.

        Args:
            content: Keys as the arguments above, with ``candidates`` for the members.
            where: Source, for messages.

        Raises:
            SatlightError: An unknown key, a missing name, or an invalid value.
        """
        allowed = ["candidates" if field.name == "members" else field.name for field in fields(cls)]
        if not isinstance(content, dict):
            raise SatlightError(f"{where} must be a mapping with the keys {listed(allowed)}; got {content!r}.")
        if unknown := [str(key) for key in content if key not in allowed]:
            near = get_close_matches(unknown[0], allowed, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise SatlightError(f"{where}: unknown key '{unknown[0]}'.{hint} Allowed: {listed(allowed)}.")
        values: dict[str, Any] = {key: value for key, value in content.items() if value is not None}
        if not isinstance(values.get("name"), str):
            raise SatlightError(f"{where}: got name {values.get('name')!r}; text is required.")
        if "candidates" in values:
            values["members"] = _members(values.pop("candidates"), where)
        for key, value in values.items():
            _check(key, value, where)
        values |= {key: str(values[key]) for key in _MONTHS if key in values}  # YAML parses a full date
        return cls(**values)

    def names(self, candidates: Sequence[Candidate], where: str = "the records") -> list[str]:
        """Return the names of the selected candidates, in the given order.

        Args:
            candidates: M available candidates.
            where: Description of their source, for messages.

        Raises:
            SatlightError: Missing or ambiguous members, a limit on an unknown property of a candidate, or no
                candidate left.
        """
        chosen = set(self._named([candidate.model_id for candidate in candidates], where))
        left = [one for one in candidates if one.model_id in chosen and self._allows(one) is not False]
        for limit, of in _LIMITS.items():
            undecided = [one.model_id for one in left if self._meets(limit, of(one)) is None]
            if undecided:
                raise SatlightError(
                    f"The zoo setting '{self.name}' limits {limit}, which is unknown of {listed(undecided)}. "
                    "Fill it in in models.json, or name the members."
                )
        if not left:
            raise SatlightError(
                f"The zoo setting '{self.name}' leaves none of the {len(candidates)} candidates of {where}. "
                f"Relax it, or use other records. There are: {listed([c.model_id for c in candidates])}."
            )
        return [one.model_id for one in left]

    def select(self, records: PerformanceRecords) -> PerformanceRecords:
        """Select the candidates of this zoo from records.

        Args:
            records: N × M, including all members.

        Returns:
            N × m; the order of rows and columns stays.

        Raises:
            SatlightError: As :meth:`names`, or a member without outcomes.
        """
        from satlight.records.dense import require_records

        where = f"the records '{records.name}'"
        selected = records.filter(candidates=self.names(records.candidates, where))
        require_records(selected, f"The zoo setting '{self.name}' of {where}")
        return selected

    def _named(self, available: list[str], where: str) -> list[str]:
        if self.members is None:
            return available
        found: list[str] = []
        missing: list[str] = []
        for member in self.members:
            matches = list(dict.fromkeys(name for one in member for name in _matches(one, available)))
            if len(matches) > 1 and not any(_is_pattern(one) for one in member):
                raise SatlightError(
                    f"The zoo setting '{self.name}' has one member '{' or '.join(member)}', but {where} have "
                    f"{listed(matches)}. Write the full name of one of them."
                )
            found += matches
            missing += [] if matches else [" or ".join(member)]
        if missing:
            raise SatlightError(
                f"{len(missing)} of the {len(self.members)} members of the zoo setting '{self.name}' are "
                f"missing in {where}: {listed(missing)}. There are: {listed(available)}. Add records of the "
                "missing ones, or write a setting without them."
            )
        return found

    def _allows(self, candidate: Candidate) -> bool | None:
        """Return True if every limit is met, False if one is not, None if that depends on unknown values."""
        verdicts = [self._meets(limit, of(candidate)) for limit, of in _LIMITS.items()]
        return False if False in verdicts else None if None in verdicts else True

    def _meets(self, limit: str, value: Any) -> bool | None:
        bound = getattr(self, limit)
        if bound is None:
            return True
        if value is None:
            return None
        if limit == "open_weights":
            return bool(value == bound)
        if limit in _MONTHS:  # ignore the day
            value, bound = value[:7], bound[:7]
        return bool(value >= bound if limit in ("min_params_b", "released_after") else value <= bound)


_LIMITS: dict[str, Callable[[Candidate], Any]] = {
    "min_params_b": lambda candidate: candidate.params_b,
    "max_params_b": lambda candidate: candidate.params_b,
    "released_after": lambda candidate: candidate.release_date,
    "released_before": lambda candidate: candidate.release_date,
    "open_weights": lambda candidate: candidate.open_weights,
    "max_price_in": lambda candidate: candidate.price_in,
    "max_price_out": lambda candidate: candidate.price_out,
}
"""Property of a candidate that each limit applies to."""


def load_setting(path_or_name: str | Path) -> ZooSetting:
    """Read a zoo setting.

    Args:
        path_or_name: A YAML file, or the name of one in ``configs/zoo`` ("smaller-scale").

    Raises:
        SatlightError: No such file or name, or invalid content.
    """
    path = Path(path_or_name).expanduser()
    if path.suffix not in (".yaml", ".yml"):
        path = _preset(str(path_or_name))
    advice = "check the path, or compare with configs/zoo"
    content = parse_yaml(read_text(path, advice), str(path), advice)
    return ZooSetting.from_dict(content, str(path))


def _preset(name: str) -> Path:
    folders = (PRESETS, Path(__file__).parents[2] / PRESETS)
    for folder in folders:
        if (path := folder / f"{name.replace('-', '_')}.yaml").is_file():
            return path
    known = sorted({path.stem.replace("_", "-") for folder in folders for path in folder.glob("*.yaml")})
    raise SatlightError(
        f"There is no zoo setting '{name}' in {PRESETS}. Give the path of a YAML file"
        + (f", or one of {listed(known)}." if known else "; no named ones were found.")
    )


def _members(value: Any, where: str) -> tuple[Member, ...]:
    members = [[one] if isinstance(one, str) else one for one in value] if isinstance(value, list) else []
    if not members or not all(
        isinstance(one, list) and one and all(isinstance(name, str) for name in one) for one in members
    ):
        raise SatlightError(
            f"{where}: got candidates {value!r}; a list of names or patterns is required; write alternative "
            "names of one member as a nested list. Omit the key to select all candidates."
        )
    return tuple(tuple(one) for one in members)


def _check(key: str, value: Any, where: str) -> None:
    if key in _NUMBERS:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        free = value == 0 and key in ("max_price_in", "max_price_out")
        if not number or not (free or 0 < value < float("inf")):
            raise SatlightError(f"{where}: got {key} {value!r}; a number above 0 is required.")
    if key in _MONTHS and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])(-\d{2})?", str(value)):
        raise SatlightError(f"{where}: got {key} {value!r}; write YYYY-MM.")
    if key == "open_weights" and not isinstance(value, bool):
        raise SatlightError(f"{where}: got open_weights {value!r}; write true or false.")


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _matches(wanted: str, available: Sequence[str]) -> list[str]:
    """Return the available names that match ``wanted``."""
    if wanted in available:
        return [wanted]
    lower = wanted.casefold()
    if _is_pattern(wanted):
        return [name for name in available if fnmatchcase(_comparable(name, lower), lower)]
    return [name for name in available if _comparable(name, lower) == _comparable(lower, name)]


def _comparable(name: str, other: str) -> str:
    """Return ``name`` in lower case, without institute unless the other name has one too."""
    name = name.casefold()
    return name if "/" in other else name.rpartition("/")[2]
