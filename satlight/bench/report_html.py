"""The report of a bench: one HTML file that needs no network, for wide and narrow screens, light and dark."""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

import satlight
from satlight.bench import tables
from satlight.bench.board import Board, Entry
from satlight.bench.figures import Plot, slug
from satlight.bench.unseen import UnseenTable
from satlight.evaluation.plots import INK

STYLE = """
:root{color-scheme:light dark;--ink:#23272e;--soft:#5f6670;--paper:#ffffff;--card:#f5f6f8;--line:#d8dce2;
--mark:#e6f0f8;--bad:#a3261d}
@media(prefers-color-scheme:dark){:root{--ink:#e4e7eb;--soft:#a2a9b3;--paper:#15181c;--card:#1d2126;
--line:#363c45;--mark:#1d3244;--bad:#ff9d8f}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:84rem;padding:1.2rem;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.4rem 0}
h2{font-size:1.25rem;margin:2.6rem 0 .4rem;padding-top:.8rem;border-top:2px solid var(--line)}
h3{font-size:1rem;margin:1.4rem 0 .3rem}
p,li{max-width:62rem}
.soft,figcaption,.legend{color:var(--soft);font-size:.85rem}
a{color:inherit}
nav ul{padding-left:1.1rem;margin:.4rem 0}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:6px;-webkit-overflow-scrolling:touch}
table{border-collapse:collapse;width:100%;font-size:.82rem;font-variant-numeric:tabular-nums}
th,td{padding:.32rem .55rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{background:var(--card);font-weight:600;vertical-align:bottom}
tbody tr:last-child>*{border-bottom:0}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);font-weight:400;z-index:1}
thead th:first-child{background:var(--card)}
tr.method th:first-child{font-weight:600}
tr.control>*,tr.upper>*{color:var(--soft)}
tr.upper>*{font-style:italic}
tr.best>*,tr.best th:first-child{background:var(--mark)}
.failed{color:var(--bad);font-size:.85rem;overflow-wrap:anywhere}
figure{margin:1.2rem 0}
figure .scroll{background:var(--card);padding:.4rem}
figure svg{display:block;width:100%;height:auto;margin:0 auto}
figcaption{margin-top:.35rem;max-width:62rem}
details{margin:.8rem 0}
summary{cursor:pointer}
@media(max-width:40rem){body{padding:.8rem}th:first-child{white-space:normal;min-width:7rem;max-width:8.5rem;
overflow-wrap:anywhere}}
pre{overflow-x:auto;background:var(--card);padding:.8rem;border-radius:6px;font-size:.8rem}
"""

_PIXELS_PER_INCH = 96
_READABLE = 0.86
"""Share of its size down to which a plot may shrink; on a narrower screen it scrolls in its box."""


def html_report(name: str, boards: list[Board], plots: dict[str, list[Plot]], config_text: str) -> str:
    """The report as text.

    Args:
        name: Of the bench.
        boards: Its leaderboards.
        plots: Plots by place: ``data/setting`` of a leaderboard, or "" for those of the whole bench.
        config_text: The bench's YAML, shown at the end.

    Returns:
        HTML that refers to no other file.
    """
    sections = [_section(board, plots.get(f"{board.data}/{board.setting}", [])) for board in boards]
    overall = "".join(_plot(plot) for plot in plots.get("", []))
    links = "".join(
        f'<li><a href="#{_anchor(b)}">{escape(tables.title(b))}</a>{_headline(b)}</li>' for b in boards
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(name)} – satlight bench</title><style>{STYLE}</style></head><body>
<header><h1>Routing bench: {escape(name)}</h1>
<p class="soft">satlight {escape(satlight.__version__)}</p>
<nav><ul>{links}</ul></nav></header>
<p class="legend">{escape(tables.LEGEND)} Grey rows choose without a learned router; those in italics know the
test outcomes.</p>
<main>{"<h2>Over all settings</h2>" + overall if overall else ""}{"".join(sections)}</main>
<details><summary>Configuration</summary><pre>{escape(config_text)}</pre></details>
</body></html>
"""


def svg(plot: Plot) -> str:
    """A plot as SVG that takes its text colour from the page; equal plots give equal text."""
    figure: Figure = plot.figure
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": plot.name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Ids must differ between the plots of a page; matplotlib numbers axes and patches anew in each.
    text = re.sub(r'\b(id="|href="#|url\(#)', lambda found: f"{found[1]}{slug(plot.name)}-", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace(INK, "var(--ink)")


def _section(board: Board, plots: list[Plot]) -> str:
    failed = "".join(f'<p class="failed">failed: {escape(s)}</p>' for s in board.failures)
    counts = ", ".join(f"{escape(name)} {count}" for name, count in board.counts.items())
    prints = ", ".join(dict.fromkeys(board.fingerprints.values()))
    main = [(entry, cells) for entry, cells in tables.lines(board)]
    per_dataset = tables.by_dataset(board)
    entries = [entry for entry in board.entries if entry.seeds]
    return f"""<section id="{_anchor(board)}"><h2>{escape(tables.title(board))}</h2>
<p class="soft">Test instructions: {counts}. Candidates: {escape(", ".join(board.candidates))}. Data
fingerprints: {escape(prints)}.</p>
{_table(tables.headings(board), main)}{failed}
<details><summary>Per dataset</summary>
{_table(per_dataset[0], list(zip(entries, per_dataset[1:], strict=True)))}</details>
{"".join(_plot(plot) for plot in plots)}{"".join(map(_unseen, board.unseen))}</section>"""


def _unseen(about: UnseenTable) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in tables.UNSEEN_HEADINGS)
    rows = ""
    for role, (first, *rest) in tables.unseen_lines(about):
        body = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        rows += f'<tr class="{role}"><th scope="row">{escape(first).replace("_", "_<wbr>")}</th>{body}</tr>'
    return f"""<h3>{escape(about.title)}</h3><p class="legend">{escape(tables.UNSEEN_LEGEND)}</p>
<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"""


def _table(headings: list[str], lines: list[tuple[Entry, list[str]]]) -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    best = next((entry for entry, _ in lines if entry.role == "method" and entry.seeds), None)
    rows = []
    for entry, cells in lines:
        classes = entry.role.split()[0] + (" best" if entry is best else "")
        first, *rest = (escape(cell) for cell in cells)
        body = "".join(f"<td>{cell}</td>" for cell in rest)
        first = first.replace("_", "_<wbr>")  # where a name may break on a narrow screen
        rows.append(f'<tr class="{classes}"><th scope="row">{first}</th>{body}</tr>')
    return f"""<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div>"""


def _plot(plot: Plot) -> str:
    width = plot.figure.get_size_inches()[0] * _PIXELS_PER_INCH
    style = f"min-width:{_READABLE * width:.0f}px;max-width:{1.15 * width:.0f}px"
    image = svg(plot).replace(
        "<svg", f'<svg role="img" aria-label="{escape(plot.caption)}" style="{style}"', 1
    )
    return f"""<figure><div class="scroll" tabindex="0">{image}</div>
<figcaption>{escape(plot.caption)}</figcaption></figure>"""


def _headline(board: Board) -> str:
    if not board.methods:
        return ": no router has a result"
    best = board.methods[0]
    figure = best.groups[board.primary]
    words = f": {best.name} {tables.mean(figure)} on {board.primary}"
    if figure.versus_best_control is not None:
        control = board.best_control[board.primary]
        words += f", {tables.difference(figure.versus_best_control)} against {control}, the best control"
    return escape(words)


def _anchor(board: Board) -> str:
    return f"{slug(board.data)}-{slug(board.setting)}"
