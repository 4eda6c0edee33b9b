"""Graders: the answer of a candidate and the reference in, a score in [0, 1] out.

An answer that says nothing, e.g. a refusal or an answer that was cut off before its end, scores 0.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction

from satlight.errors import SatlightError
from satlight.routing.onboarding.answers import final, plain, visible
from satlight.routing.onboarding.items import Item
from satlight.routing.onboarding.letters import stated_option

Grader = Callable[[Item, str], float]

COMMAND_SECONDS = 60.0
"""Time that an own grader has for one answer."""


def grader(name: str | None = None) -> Grader:
    """Return a grader.

    Args:
        name: A name in :data:`GRADERS`; another text is a command, which is given a JSON object with id, prompt,
            choices, answer (the reference) and output (of the candidate) on standard input and prints a number from 0
            to 1. It runs without a shell. None = by item: letter where it has options, numeric where its reference is
            a number, exact otherwise.

    Raises:
        SatlightError: No such grader or command, or math-verify is missing.
    """
    if name is None:
        return by_item
    if name == "math":
        _math_verify()
    if name in GRADERS:
        return GRADERS[name]
    try:
        argv = shlex.split(name)
    except ValueError as error:
        raise SatlightError(f"--grader {name!r}: no valid command line ({error})") from error
    if not argv or shutil.which(argv[0]) is None:
        raise SatlightError(
            f"--grader {name!r} is neither one of {', '.join(GRADERS)} nor a command that exists, such as "
            "'python grade.py'"
        )
    return lambda item, output: by_command(argv, item, output)


def needs_reference(name: str | None) -> bool:
    """Return whether a grader compares with the reference answer; a command may do without."""
    return name is None or name in GRADERS


def by_item(item: Item, output: str) -> float:
    """Grade by the kind of the item."""
    if item.choices:
        return letter(item, output)
    return (exact if number(_reference(item)) is None else numeric)(item, output)


def _reference(item: Item) -> str:
    if item.answer is None:
        raise SatlightError(f"The item '{item.item_id}' has no reference answer; grade it yourself, and use --results")
    return item.answer.rpartition("####")[2].strip()  # GSM8K writes the solution before it


# -- option letter -----------------------------------------------------------------------------------------


def letter(item: Item, output: str) -> float:
    """Compare the stated option with the reference, which is a label or the text of an option.

    Raises:
        SatlightError: A reference that is neither.
    """
    reference, labels = _reference(item), item.labels
    wanted = reference.strip("()[]. ").upper()
    upper = [label.upper() for label in labels]
    if wanted not in upper:
        texts = [plain(choice) for choice in item.choices]
        if plain(reference) not in texts:
            raise SatlightError(
                f"The item '{item.item_id}' has the reference answer {reference!r:.80}, which is neither a label of "
                f"its options ({', '.join(labels)}) nor the text of one; correct it with --items, or choose a --grader"
            )
        wanted = upper[texts.index(plain(reference))]
    return float(stated_option(output, labels, item.choices) == wanted)


# -- text and numbers --------------------------------------------------------------------------------------


def exact(item: Item, output: str) -> float:
    """Compare the normalized answer, or what it states in the end or in its last line, with the reference."""
    wanted = plain(_reference(item))
    text = visible(output)
    forms = {plain(text), plain(final(output)), plain(text.split("\n")[-1]), plain(final(output).split("\n")[0])}
    return float(bool(wanted) and wanted in forms)


def contains(item: Item, output: str) -> float:
    """Look for the reference in the answer, as whole words."""
    wanted = plain(_reference(item))
    pattern = rf"(?<!\w){re.escape(wanted)}(?!\w)"
    return float(bool(wanted) and re.search(pattern, plain(visible(output))) is not None)


_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,60})(?:\.\d{1,60})?|\.\d{1,60}"
_NUMBER = re.compile(rf"(?<![\w.])[-+]?[$€£]?\s?(?:{_DIGITS})(?:[eE][-+]?\d{{1,3}}|\s?[×x]\s?10\^\{{?-?\d{{1,3}}\}}?)?")
_FRACTION = re.compile(rf"([-+]?)\s*\\[dt]?frac\{{\s*([-+]?(?:{_DIGITS}))\s*\}}\{{\s*((?:{_DIGITS}))\s*\}}")
_RATIO = re.compile(rf"(?<![\w./])([-+]?(?:{_DIGITS}))\s*/\s*((?:{_DIGITS}))(?![\w/])")


def number(text: str) -> Fraction | None:
    r"""Return the number that a text is, with or without a unit behind it, or None.

    Example:
        >>> number("$1,234.50"), number(r"\frac{3}{4}"), number("12 apples"), number("apples")
        (Fraction(2469, 2), Fraction(3, 4), Fraction(12, 1), None)
    """
    found = _numbers(text)
    if not found or found[0][0] > 0 or len(found) > 1:
        return None
    return found[0][1] if re.fullmatch(r"\s*[^\W\d]*[%°]?[^\d]{0,20}", text.strip()[found[0][2] :]) else None


def numeric(item: Item, output: str) -> float:
    """Compare numbers: the one that the answer states in the end with the reference.

    Thousands separators, currency signs and units are ignored, fractions are computed, and a percentage equals its
    share. A reference with decimals is met by an answer that rounds to it; an integer by an equal number only.

    Raises:
        SatlightError: A reference that is no number.
    """
    reference = _reference(item)
    wanted = number(reference)
    if wanted is None:
        raise SatlightError(
            f"The item '{item.item_id}' has the reference answer {reference!r:.80}, which is no number; choose another "
            "--grader, e.g. exact"
        )
    stated = final(output)
    found = _numbers(stated)
    if not found:
        return 0.0
    whole = stated == visible(output)
    given = found[-1 if whole else 0][1]  # after "the answer is" the first number counts, in an explanation the last
    decimals = re.search(r"\.(\d+)", reference)
    tolerance = Fraction(51, 100) / 10 ** len(decimals[1]) if decimals else abs(wanted) / 10**9
    if "/" in reference or "frac" in reference:
        tolerance = abs(wanted) / 10**3
    forms = [given]
    if ("%" in reference) != ("%" in stated):
        forms.append(given / 100 if "%" in stated else given * 100)
    return float(any(abs(form - wanted) <= tolerance for form in forms))


def _numbers(text: str) -> list[tuple[int, Fraction, int]]:
    """Return start, value and end of the numbers in a text, in this order; fractions are one number."""
    text = text.strip().replace("\\$", "$").replace("\\%", "%").replace("\\!", "").replace("{,}", ",")
    found: list[tuple[int, Fraction, int]] = []

    def add(start: int, end: int, value: Fraction | None) -> None:
        if value is not None and not any(start < stop and begin < end for begin, _, stop in found):
            found.append((start, value, end))

    for match in _FRACTION.finditer(text):
        sign = -1 if match[1] == "-" else 1
        add(*match.span(), _ratio(match[2], match[3], sign))
    for match in _RATIO.finditer(text):
        add(*match.span(), _ratio(match[1], match[2], 1))
    for match in _NUMBER.finditer(text):
        add(*match.span(), _value(match[0]))
    return sorted(found)


def _value(text: str) -> Fraction:
    digits = re.sub(r"[,$€£\s]", "", text)
    digits = re.sub(r"[×x]10\^\{?(-?\d+)\}?", r"e\1", digits)
    return Fraction(digits)


def _ratio(above: str, below: str, sign: int) -> Fraction | None:
    divisor = _value(below)
    return None if divisor == 0 else sign * _value(above) / divisor


# -- other programs ----------------------------------------------------------------------------------------


def math_equal(item: Item, output: str) -> float:
    """Compare mathematical expressions with math-verify (extra ``grade``)."""
    parse, verify = _math_verify()
    gold, given = parse(f"${_reference(item)}$"), parse(visible(output))
    return float(bool(gold) and bool(given) and bool(verify(gold, given)))


def _math_verify() -> tuple[Callable[..., list[object]], Callable[..., bool]]:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise SatlightError(f"The grader math needs math-verify ({error}); run `pip install satlight[grade]`") from None
    return parse, verify


def by_command(argv: list[str], item: Item, output: str) -> float:
    """Grade with an own program.

    Raises:
        SatlightError: It fails, takes longer than :data:`COMMAND_SECONDS`, or prints no number from 0 to 1.
    """
    content = {
        "id": item.item_id,
        "prompt": item.text,
        "choices": list(item.choices),
        "answer": item.answer,
        "output": output,
    }
    who = f"The grader `{shlex.join(argv)}`, asked about the item '{item.item_id}',"
    try:
        done = subprocess.run(
            argv, input=json.dumps(content), capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise SatlightError(f"{who} gave no score within {COMMAND_SECONDS:g} s") from None
    except OSError as error:
        raise SatlightError(f"{who} cannot be run: {error.strerror or error}") from error
    if done.returncode:
        raise SatlightError(f"{who} ended with code {done.returncode}: {done.stderr.strip()[-300:] or 'no message'}")
    try:
        score = float(done.stdout.strip())
    except ValueError:
        score = math.nan
    if not 0 <= score <= 1:
        raise SatlightError(f"{who} printed {done.stdout.strip()!r:.80}; it must print one number from 0 to 1")
    return score


GRADERS: dict[str, Grader] = {
    "letter": letter,
    "exact": exact,
    "numeric": numeric,
    "contains": contains,
    "math": math_equal,
}
"""Graders by name."""
