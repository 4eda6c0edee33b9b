"""docs/data_format.md says what is so."""

import re
from pathlib import Path

from satlight.records.sources import SOURCES

DOC = (Path(__file__).parents[2] / "docs" / "data_format.md").read_text(encoding="utf-8")


def test_its_python_runs():
    (block,) = re.findall(r"```python\n(.+?)```", DOC, flags=re.DOTALL)
    exec(compile(block, "docs/data_format.md", "exec"), {})


def test_it_names_every_importer():
    assert set(re.findall(r"^\| `([a-z-]+)` \|", DOC, flags=re.MULTILINE)) >= set(SOURCES)
