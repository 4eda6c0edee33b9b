"""Every benchmark runs to its table, on tiny networks; its figures mean nothing here."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("common", "reliability"))


@pytest.fixture
def load(monkeypatch):
    """A script as a module, imported as when it is run: with its own folder on the path."""
    monkeypatch.syspath_prepend(str(FOLDER))
    threads = torch.get_num_threads()

    def importing(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield importing
    torch.set_num_threads(threads)
    for name in (*SCRIPTS, "common"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("zoo_size", ["1.00 (", "29"]),
        ("per_pair", ["per pair, fixed length", "block, M = 29"]),
        ("route_latency", ["route", "MiniLM kNN"]),
        ("decisions", ["plain, 1 per call", "restored, 2 per call"]),
        ("memory", ["29", "training"]),
        ("embedding", ["before", "after", "least cosine"]),
        ("padding", ["by bytes", "by tokens", "TaskBlocks(16)"]),
        ("paper_shapes", ["instruction_first", "capability_first", "60"]),
    ],
)
def test_a_benchmark_ends_in_its_table(script, found, load, capsys):
    load(script).main(["--tiny" if script == "paper_shapes" else "--quick"])
    printed = capsys.readouterr().out
    for text in found:
        assert text in printed


def test_the_server_is_loaded_while_upstreams_fail(load, capsys, monkeypatch):
    pytest.importorskip("litellm.proxy", reason="pip install satlight[serve]")
    monkeypatch.setenv("COLUMNS", "200")
    load("serving").main(["--quick", "--deadline-ms", "20000"])
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    phases = [row for row in rows if len(row) == 8 and row[-1].isdecimal()]
    assert len(phases) == 3
    assert all(row[5:7] == ["0", "0"] for row in phases), phases


def test_every_script_is_tested_and_in_the_readme():
    assert SCRIPTS == [
        "decisions",
        "embedding",
        "memory",
        "padding",
        "paper_shapes",
        "per_pair",
        "route_latency",
        "serving",
        "zoo_size",
    ]
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"benchmarks/{script}.py" in readme for script in (*SCRIPTS, "reliability"))


def test_paper_shapes_says_that_it_needs_a_gpu(load, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="needs a GPU"):
        load("paper_shapes").main([])


def test_the_per_pair_implementation_is_the_same_model(load):
    common = load("common")
    args = common.parsed(common.parser(""), ["--quick"])
    model = common.embedded_model(args, order="capability_first")
    texts, capabilities = common.fresh_texts(2, args.tokens), common.zoo(2, tasks=3)
    with torch.no_grad():
        score_BC = model.score(common.block(texts, capabilities)) - model.router_llm.bias
        for whole_head in (True, False):
            pairs = load("per_pair").per_pair_scores(model, texts, capabilities, 200, whole_head)
            assert torch.allclose(pairs, score_BC.diagonal(), atol=1e-4)


def test_instructions_have_the_tokens_they_should(load):
    common = load("common")
    args = common.parsed(common.parser(""), ["--quick"])
    llm = common.embedded_model(args).router_llm
    assert llm.count_tokens(common.fresh_texts(3, args.tokens)) == [args.tokens] * 3


def test_cases_take_turns_and_the_first_round_does_not_count(load):
    ticks, order = iter(range(100)), []
    cases = {name: (lambda name=name: order.append(name)) for name in "ab"}
    seconds = load("common").in_turns(cases, repeats=2, clock=lambda: next(ticks))
    assert order == ["a", "b"] * 3
    assert seconds == {"a": [1, 1], "b": [1, 1]}
