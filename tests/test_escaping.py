"""Names that spreadsheets, Markdown and browsers would interpret."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import satlight
from satlight.bench import tables
from satlight.bench.board import Board
from satlight.bench.report import html_report
from satlight.escaping import csv_original, csv_text, markdown_text
from satlight.evaluation import evaluate
from satlight.evaluation.leaderboard import Entry
from satlight.records import open_records
from satlight.records.sources import SimulatedSpec
from satlight.storage.card import text as card_text
from satlight.types import Candidate

HOSTILE = ["=HYPERLINK(1)", "+1+1", "-2+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-1"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_formula_becomes_text(name):
    written = csv_text([{"candidate": name, "gain": -0.5}, {"candidate": "tiny", "gain": None}])
    first, second = list(csv.DictReader(io.StringIO(written, newline="")))
    assert first["candidate"] == "'" + name
    assert csv_original(first["candidate"]) == name
    assert (first["gain"], second) == ("-0.5", {"candidate": "tiny", "gain": ""})


@settings(max_examples=300, derandomize=True)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
def test_every_text_returns(texts):
    rows = list(csv.reader(io.StringIO(csv_text([{"text": text} for text in texts]), newline="")))
    assert [csv_original(row[0]) for row in rows[1:]] == texts
    assert not [row for row in rows if row[0].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


def test_there_is_one_writer_of_csv():
    folder = Path(satlight.__file__).parent
    writers = [p.name for p in folder.rglob("*.py") if re.search(r"write_csv|csv\.writer|DictWriter", p.read_text())]
    assert writers == ["escaping.py"]


def test_results_of_candidates_with_hostile_names(tmp_path):
    records = open_records("simulated", simulated=SimulatedSpec(100, 3)).filter(splits="test")
    from dataclasses import replace

    named = replace(records, candidates=tuple(Candidate(name) for name in HOSTILE[:3]))
    evaluate(np.array(named.outcomes), named, None, resamples=2).save(tmp_path)
    with (tmp_path / "choices.csv").open(newline="") as file:
        assert {row["candidate"] for row in csv.DictReader(file)} == {"'" + name for name in HOSTILE[:3]}
    assert '"=HYPERLINK(1)"' in (tmp_path / "results.json").read_text()


def test_the_reader_of_records_says_that_it_keeps_the_apostrophe(tmp_path):
    from satlight.records.sources.csv import tables as read

    file = tmp_path / "log.csv"
    file.write_text(csv_text([{"instruction": "=1+1", "candidate": name, "score": 1} for name in ("a", "@b")]))
    found = read(file)
    assert [one.model_id for one in found.candidates] == ["a", "'@b"]
    assert "3 cells start with an apostrophe" in " ".join(found.notes)


EVIL = "<img src=x onerror=alert(1)>|[a](javascript:1) `x`\nnext"


def hostile_board() -> Board:
    board = Board(EVIL, EVIL, {EVIL: [EVIL]}, candidates=[EVIL], counts={EVIL: 3}, notes=[EVIL], failures=[EVIL])
    board.fingerprints = {0: "abc"}
    board.entries = [Entry(EVIL, "method", failed_seeds=[0])]
    return board


def test_markdown_shows_names_as_they_are():
    escaped = markdown_text(EVIL)
    assert "<" not in escaped
    assert not re.search(r"(?<!\\)[\[|`]", escaped)
    assert "\n" not in escaped
    for written in (tables.markdown([hostile_board()]), card_text(CONFIG, [Candidate(EVIL.replace("\n", " "))])):
        assert "<img" not in written
        assert "](javascript" not in written.replace("\\](", "")


CONFIG = {"class_path": "x", "about": {"data": {"name": EVIL}, "test": {EVIL: {EVIL: 1.0}}}}


def test_the_report_escapes_names():
    class Tags(HTMLParser):
        seen: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag, attrs):
            self.seen.append(tag)

    parser = Tags()
    parser.feed(html_report(EVIL, [hostile_board()], {}, EVIL))
    assert "table" in parser.seen
    assert not {"img", "script", "link"} & set(parser.seen)
