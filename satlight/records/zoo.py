"""Zoo settings: which candidates a router chooses between, by name or by size, date, weights and price.

A setting is a YAML file, see ``configs/zoo``; training (``--data.zoo_preset``) and the arena read the same.
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
from satlight.records.names import listed
from satlight.types import Candidate

if TYPE_CHECKING:
    from satlight.records.matrix import PerformanceRecords

PRESETS = Path("configs") / "zoo"
"""Where named settings lie: under the working directory, or beside the installed source."""

Member = tuple[str, ...]
"""Names of one member; more than one where sources name it differently."""

_NUMBERS = ("min_params_b", "max_params_b", "max_price_in", "max_price_out")
_MONTHS = ("released_after", "released_before")


@dataclass(frozen=True)
class ZooSetting:
    """A choice of candidates: members by name, limits on what is known of them, or both.

    A name without institute ("Qwen2-7B-Instruct") stands for the candidate of that name of any institute;
    capitals do not count, everything else must agree. A pattern (``*``, ``?``, ``[…]``) stands for all that
    match. Limits are inclusive. A candidate that meets all limits is in and one that breaks a limit is out;
    where an unknown size, date or price would decide, that is an error.

    Args:
        name: For tables and logs.
        members: Each a name or pattern, or several names for one member; None = all candidates.
        min_params_b: Fewest parameters in billions.
        max_params_b: Most parameters in billions.
        released_after: First month ``"YYYY-MM"`` of release.
        released_before: Last month ``"YYYY-MM"`` of release.
        open_weights: Only candidates whose weights are (True) or are not (False) public.
        max_price_in: Most US dollars per million prompt tokens.
        max_price_out: Most US dollars per million generated tokens.

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
        """A setting from the content of its YAML file.

        Args:
            content: Keys as the arguments above, with ``candidates`` for the members.
            where: Where it comes from, for messages.

        Raises:
            SatlightError: An unknown key, a missing name, or a value that cannot be.
        """
        allowed = ["candidates" if field.name == "members" else field.name for field in fields(cls)]
        if not isinstance(content, dict):
            raise SatlightError(
                f"{where} must be a mapping with the keys {listed(allowed)}; got {content!r}."
            )
        if unknown := [str(key) for key in content if key not in allowed]:
            near = get_close_matches(unknown[0], allowed, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise SatlightError(f"{where}: unknown key '{unknown[0]}'.{hint} Allowed: {listed(allowed)}.")
        values: dict[str, Any] = {key: value for key, value in content.items() if value is not None}
        if not isinstance(values.get("name"), str):
            raise SatlightError(f"{where}: got name {values.get('name')!r}; a text is needed.")
        if "candidates" in values:
            values["members"] = _members(values.pop("candidates"), where)
        for key, value in values.items():
            _check(key, value, where)
        values |= {key: str(values[key]) for key in _MONTHS if key in values}  # YAML reads a day as a date
        return cls(**values)

    def names(self, candidates: Sequence[Candidate], where: str = "the records") -> list[str]:
        """Names of the candidates that are in, in the given order.

        Args:
            candidates: M candidates there are.
            where: What they belong to, for messages.

        Raises:
            SatlightError: Members that are missing (all of them are listed) or ambiguous, a limit on what is
                unknown of a candidate, or nobody left.
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
                f"Loosen it, or take other records. There are: {listed([c.model_id for c in candidates])}."
            )
        return [one.model_id for one in left]

    def select(self, records: PerformanceRecords) -> PerformanceRecords:
        """The records of this zoo alone.

        Args:
            records: N × M, with all members.

        Returns:
            N × m; the order of rows and columns stays.

        Raises:
            SatlightError: As :meth:`names`, or a member without a single outcome.
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
                    f"{listed(matches)}. Write the full name of the one that is meant."
                )
            found += matches
            missing += [] if matches else [" or ".join(member)]
        if missing:
            raise SatlightError(
                f"{len(missing)} of the {len(self.members)} members of the zoo setting '{self.name}' are "
                f"missing in {where}: {listed(missing)}. There are: {listed(available)}. Add records of the "
                "missing ones, or write a setting of your own without them."
            )
        return found

    def _allows(self, candidate: Candidate) -> bool | None:
        """Whether it meets every limit; False as soon as it breaks one, None where unknowns decide."""
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
        if limit in _MONTHS:  # a day of release, where there is one, does not count
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
"""What each limit looks at."""


def load_setting(path_or_name: str | Path) -> ZooSetting:
    """Read a zoo setting.

    Args:
        path_or_name: A YAML file, or the name of one in ``configs/zoo`` ("smaller-scale").

    Raises:
        SatlightError: There is no such file or name, or its content is wrong.
    """
    import yaml

    path = Path(path_or_name)
    if path.suffix not in (".yaml", ".yml"):
        path = _preset(str(path_or_name))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SatlightError(f"The zoo setting {path} cannot be read: {error}. Check the path.") from error
    except yaml.YAMLError as error:
        raise SatlightError(f"The zoo setting {path} is no valid YAML: {error}") from error
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
            f"{where}: got candidates {value!r}; a list of names or patterns is needed, where several names "
            "of one member are a list themselves. Leave it out for all candidates."
        )
    return tuple(tuple(one) for one in members)


def _check(key: str, value: Any, where: str) -> None:
    if key in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise SatlightError(f"{where}: got {key} {value!r}; a number above 0 is needed.")
    if key in _MONTHS and not re.fullmatch(r"\d{4}-(0[1-9]|1[0-2])(-\d{2})?", str(value)):
        raise SatlightError(f"{where}: got {key} {value!r}; write YYYY-MM.")
    if key == "open_weights" and not isinstance(value, bool):
        raise SatlightError(f"{where}: got open_weights {value!r}; write true or false.")


def _is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[")


def _matches(wanted: str, available: Sequence[str]) -> list[str]:
    """The available names that ``wanted`` stands for."""
    if wanted in available:
        return [wanted]
    lower = wanted.casefold()
    if _is_pattern(wanted):
        return [name for name in available if fnmatchcase(_comparable(name, lower), lower)]
    return [name for name in available if _comparable(name, lower) == _comparable(lower, name)]


def _comparable(name: str, other: str) -> str:
    """``name`` in small letters, without institute unless the other has one too."""
    name = name.casefold()
    return name if "/" in other else name.rpartition("/")[2]
