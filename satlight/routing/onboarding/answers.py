"""The part of a free answer that counts: without reasoning, and what it states in the end."""

from __future__ import annotations

import re
import unicodedata

_THOUGHT = re.compile(r"<(think|thinking|reasoning)>.*?(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_STATED = re.compile(
    r"\b(?:answer|result)\b\W{0,4}(?:is|are|=|:|equals)\s*:?\s*|\b(?:answer|result)\s*:\s*", re.IGNORECASE
)


def visible(output: str) -> str:
    """Return an answer without its reasoning in tags, also if that was cut off, and in compatible characters."""
    text = _THOUGHT.sub("", output)
    if "</think>" in text:  # chat templates of some models open the tag in the prompt
        text = text.rpartition("</think>")[2]
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-").strip()


def boxed(text: str) -> str | None:
    r"""Return the content of the last ``\boxed{}``, or None.

    Example:
        >>> boxed(r"so \boxed{\frac{1}{2}}.")
        '\\frac{1}{2}'
    """
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    level, begin = 1, text.index("{", start) + 1
    for place in range(begin, len(text)):
        level += (text[place] == "{") - (text[place] == "}")
        if level == 0:
            return text[begin:place].strip()
    return None


def final(output: str) -> str:
    r"""Return what an answer states in the end: ``\boxed{}``, after ``####``, after "the answer is", else all of it.

    Example:
        >>> final("6 and 7 make 13. The answer is 13.")
        '13.'
    """
    text = visible(output)
    if (inside := boxed(text)) is not None:
        return inside
    if "####" in text:
        return text.rpartition("####")[2].strip()
    stated = list(_STATED.finditer(text))
    return text[stated[-1].end() :].strip() if stated else text


def plain(text: str) -> str:
    """Return a text for comparison: lower case, single spaces, without markup, quotes and full stop around it.

    Example:
        >>> plain('**"New  York".**')
        'new york'
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").casefold()
    return " ".join(text.split()).strip("\"'`*_$“”‘’. ")
