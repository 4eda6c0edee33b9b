"""Find the option that a free answer to a multiple-choice item states."""

from __future__ import annotations

import re
from collections.abc import Sequence

from satlight.routing.onboarding.answers import boxed, final, plain, visible

_PRONOUN = r"(?:think|believe|guess|say|would|am|was|do|don|cannot|can|could|have|know|apologi[sz]e|choose|pick|select)"
_NEGATED = re.compile(
    r"(?:\bnot|n['’]t|\bneither|\bnor|\bnever|\beliminate|\brule out)\s*(?:be\s*)?[(\[]?$", re.IGNORECASE
)
_DECLARES = (
    r"\b(?:(?:answer|solution|choice|option|letter)\W{0,4}(?:is|:|=|would be|must be|should be)"
    r"|i(?: would|['’]d|['’]ll| will)? (?:choose|pick|select|say|go with))"
    r"\s*:?\s*(?:the )?(?:correct |right |best )?(?:option|choice|letter|answer)?\s*:?\s*"
)


def stated_option(output: str, labels: Sequence[str], choices: Sequence[str] = ()) -> str | None:
    r"""Return the label of the option that an answer states, in upper case, or None.

    The first of these that finds one: ``\boxed{C}``; the last "the answer is (C)" or the like; a label at the start
    of the last line or of the first; an answer that is the text of an option; the last label that stands alone. Two
    options that are declared as alternatives ("A or B") count as none, and so do a pronoun or an article.

    Args:
        output: The answer.
        labels: Labels of the options, e.g. A, B, C.
        choices: Texts of the options.

    Example:
        >>> stated_option("It cannot be A. The answer is **(C)**.", "ABC")
        'C'
        >>> stated_option("I cannot answer that.", "ABCDEFGHI") is None
        True
    """
    text = re.sub(r"\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}", r"\1", visible(output))
    if (inside := boxed(text)) is not None:
        text = inside
    text = re.sub(r"[*_`$]+|\\[()\[\]]", "", text).strip()
    one = "|".join(re.escape(label) for label in labels)
    declared = _declared(text, one)
    if declared is not None:
        return declared.upper() or None
    lines = [line.strip() for line in text.split("\n")]
    for line in (lines[-1], lines[0]):
        if found := _leading(line, one):
            return found.upper()
    texts = [plain(choice) for choice in choices]
    for form in (plain(text), plain(final(text))):
        if form in texts:
            return labels[texts.index(form)].upper()
    return _last_alone(text, one)


def _declared(text: str, one: str) -> str | None:
    """Return the label of the last declaration, "" if it names alternatives, None if there is none."""
    pattern = rf"{_DECLARES}(?:not\s+\(?(?:{one})\)?,?\s+but\s+)?[(\[]?\s*({one})(?![\w'’+-])\s*[)\]]?"
    for found in reversed(list(re.finditer(pattern, text, re.IGNORECASE))):
        after = text[found.end() :]
        if found[1] == "a" and re.match(r"\s*[a-z]", after) and not found[0].rstrip().endswith((")", "]")):
            continue  # an article
        if found[1] in "Ii" and re.match(rf"\s*{_PRONOUN}", after, re.IGNORECASE):
            continue
        alternative = re.match(
            rf"\s*,?\s*(?:or|and|/|&)\s*[(\[]?(?:option\s+)?(?:{one})(?![\w'’])", after, re.IGNORECASE
        )
        return "" if alternative else found[1]
    return None


def _leading(line: str, one: str) -> str | None:
    """Return the label that a line starts with, as in "C. red", "(C) red" or "Option C"."""
    if found := re.fullmatch(rf"(?:option\s+)?[(\[]?\s*({one})\s*[)\]]?\s*[.):,]*", line, re.IGNORECASE):
        return found[1]
    found = re.match(rf"(?:[Oo]ption\s+)?(?:[(\[]({one})[)\]]|({one})[.):])(?!\w)(?!\s*[(\[]?(?:{one})[.):\]])", line)
    return found and (found[1] or found[2])


def _last_alone(text: str, one: str) -> str | None:
    """Return the last label that is a word of its own and is not ruled out."""
    for found in reversed(list(re.finditer(rf"\(({one})\)|(?<![\w'’.-])({one})(?![\w'’+-])(?!\.\w)", text))):
        word = found[2] is not None and found[2] in "AaIi" and re.match(r"\s+[a-z]", text[found.end() :])
        if not word and not _NEGATED.search(text[: found.start()]):
            return (found[1] or found[2]).upper()
    return None
