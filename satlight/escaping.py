"""Text of others in files that programs interpret: the one writer of CSV, and the escaping of Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

FORMULA = r"^'*[=+\-@\t\r\n]"
"""Start of a text that a spreadsheet reads as a formula; also with the apostrophes of an earlier :func:`csv_text`."""

ESCAPED = r"^'+[=+\-@\t\r\n]"
"""Start of a text that :func:`csv_text` has put an apostrophe before."""

_MARKDOWN = re.compile(r"[\\`*\[\]|]")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    r"""Return rows as CSV that a spreadsheet can open without evaluating anything.

    A text that starts with ``=``, ``+``, ``-``, ``@``, a tab or a line end gets an apostrophe before it. Numbers stay
    numbers. :func:`csv_original` takes the apostrophe away again.

    Args:
        rows: Dictionaries with the same keys.

    Example:
        >>> csv_text([{"candidate": "=HYPERLINK(1)", "gain": -0.5}, {"candidate": "tiny", "gain": None}])
        "candidate,gain\n'=HYPERLINK(1),-0.5\ntiny,\n"
    """
    import polars as pl

    table = pl.DataFrame(list(rows), infer_schema_length=None)
    risky = pl.col(pl.String).str.contains(FORMULA)
    table = table.with_columns(pl.when(risky).then("'" + pl.col(pl.String)).otherwise(pl.col(pl.String)).name.keep())
    return table.write_csv()


def csv_original(text: str) -> str:
    """Return a text as it was before :func:`csv_text`.

    Example:
        >>> csv_original("'=1+1"), csv_original("'tis")
        ('=1+1', "'tis")
    """
    return text[1:] if re.match(ESCAPED, text) else text


def markdown_text(text: str) -> str:
    r"""Escape a text for a line or table cell of Markdown, so that it is shown as it is.

    Example:
        >>> markdown_text("<b>a|b</b>")
        '&lt;b&gt;a\\|b&lt;/b&gt;'
    """
    return _MARKDOWN.sub(r"\\\g<0>", html.escape(" ".join(text.splitlines()), quote=False))
