"""The model card of a router folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from satlight.escaping import markdown_text
from satlight.files import write_text
from satlight.storage.folder import CARD, CONFIG, json_text, read_config, read_zoo
from satlight.types import Candidate

_HEAD = """---
library_name: satlight
tags:
- llm-routing
- model-selection
---

# LLM router

Given an instruction, this router predicts which of {count} candidate LLMs will answer it correctly,
without running any of them.

```python
from satlight import Router

router = Router.from_pretrained("{source}")
print(router.route("What is 2 + 2?").best)
```

Method: `{method}`.{trained}
"""


def text(config: Mapping[str, Any], candidates: Sequence[Candidate]) -> str:
    """Render README.md from config.json and zoo.json alone, so that it never differs from them."""
    about = config["about"]
    module = config.get("init_args", {}).get("module") or config
    data = about.get("data")
    trained = ""
    if data and isinstance(data, Mapping):
        simulated = " (simulated)" if data.get("simulated") else ""
        name = markdown_text(str(data.get("name")))
        trained = f" Trained on {name}{simulated}, fingerprint `{data.get('fingerprint')}`."
    parts = [
        _HEAD.format(count=len(candidates), source="path/to/this/folder", method=module["class_path"], trained=trained)
    ]
    if clusters := about.get("task_clusters"):
        parts.append(_cluster_list(clusters))
    if table := about.get("test"):
        parts.append(_test_table(table))
    parts.append(_candidate_table(candidates))
    return "\n".join(parts)


def _cluster_list(clusters: Mapping[str, int]) -> str:
    """Render the clusters that serve as tasks, with their numbers of train instructions."""
    lines = [f"- {markdown_text(name)}: {count}" for name, count in clusters.items()]
    head = "Tasks of the aptitude test, clusters of the train instructions named by their distinctive words:"
    return "\n".join([head, "", *lines, ""])


def record_test(folder: Path, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the results of a test to a router folder: to ``about`` in config.json and to the model card.

    Args:
        folder: A router folder.
        rows: Name of a group → column → value, accuracies in percent.
    """
    config = read_config(folder)
    config["about"]["test"] = {name: dict(row) for name, row in rows.items()}
    write_text(folder / CONFIG, json_text(config))
    write_text(folder / CARD, text(config, read_zoo(folder)))


def _test_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Render accuracies in percent, one row per group or dataset."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    cells = [(name, *(row.get(column) for column in names)) for name, row in rows.items()]
    return _table("Test split, accuracy in percent", ["", *names], cells)


def _candidate_table(candidates: Sequence[Candidate]) -> str:
    cells = [(one.model_id, one.institute, one.params_b, one.release_date) for one in candidates]
    return _table("Candidates", ["candidate", "institute", "parameters (billions)", "released"], cells)


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [f"## {title}\n", "| " + " | ".join(map(markdown_text, header)).lstrip() + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return markdown_text(f"{value:.1f}" if isinstance(value, float) else str(value))
