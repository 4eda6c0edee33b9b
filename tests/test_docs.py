"""The documentation and the shipped YAML files say what is so. Nothing is trained or downloaded."""

import argparse
import importlib
import inspect
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = [
    ROOT / "README.md",
    *(ROOT / part / "README.md" for part in ("benchmarks", "configs")),
    *sorted((ROOT / "docs").glob("*.md")),
]
YAMLS = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "experiments").rglob("*.yaml")])
TRAINING = ("fit", "validate", "test", "predict")
FULL = ["-c", "configs/full.yaml"]
# Where a part of a config goes, by its folder under configs/.
PART_OPTIONS = {
    "encoder": "--model.encoder",
    "router_llm": "--model.router_llm",
    "objective": "--model.objective",
    "data": "--data",
    "zoo": "--data.zoo_preset",
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_doc = pytest.mark.parametrize("doc", DOCS, ids=name)


# -- what a page mentions ----------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """Anchors of the headings of a Markdown page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_doc
def test_links_lead_somewhere(doc: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", doc.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        page = doc.parent / path if path else doc
        assert page.exists(), f"{name(doc)} links to {target}"
        if anchor:
            assert anchor in anchors(page.read_text(encoding="utf-8")), f"{name(doc)} links to {target}"


@each_doc
def test_paths_exist(doc: Path) -> None:
    text = doc.read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w/-])((?:satlight|configs|docs|tests|experiments)/[\w./*-]*)", text):
        assert list(ROOT.glob(path.rstrip("./"))), f"{name(doc)} mentions {path}"


def test_method_names_what_is_in_the_files() -> None:
    pairs = re.findall(
        r"`(satlight/[\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", (ROOT / "docs" / "method.md").read_text()
    )
    assert len(pairs) > 20
    for path, names in pairs:
        source = (ROOT / path).read_text(encoding="utf-8")
        for part in re.findall(r"\w+", names):
            assert re.search(rf"\b(class|def) {part}\b", source), f"docs/method.md: no {part} in {path}"


def test_configuration_lists_every_data_option(training_parser: Any) -> None:
    from satlight.data import AptitudeSpec, CapabilityInstructionDataModule, SimulatedSpec, TargetSpec

    section = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8").partition("## Data\n")[2]
    listed = set(re.findall(r"`([\w.]+)`", section.partition("\n## ")[0]))
    nested = {"aptitude": AptitudeSpec, "targets": TargetSpec, "simulated": SimulatedSpec}
    for option in inspect.signature(CapabilityInstructionDataModule).parameters:
        fields = inspect.signature(nested[option]).parameters if option in nested else [None]
        for field in fields:
            assert (f"{option}.{field}" if field else option) in listed


def test_every_yaml_is_in_the_table() -> None:
    table = (ROOT / "configs" / "README.md").read_text(encoding="utf-8")
    assert [name(p) for p in YAMLS if "configs" in p.parts and f"| `{name(p)}` |" not in table] == []


# -- commands ----------------------------------------------------------------------------------------------


class _BuiltError(Exception):
    """Carries the parser out of the constructor."""


@pytest.fixture(scope="module")
def training_parser() -> Any:
    """The parser of fit, validate, test and predict, as SatlightCLI builds it."""
    from satlight.cli.main import import_torchmetrics_alone

    import_torchmetrics_alone()
    from satlight.cli.training import SatlightCLI

    class OnlyParser(SatlightCLI):
        def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
            raise _BuiltError(parser)

    with pytest.raises(_BuiltError) as built:
        OnlyParser(args=[])
    return built.value.args[0]


@pytest.fixture
def parse(
    training_parser: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., None]:
    """Parse the words of a command in the root of the repository; fails the test where that fails."""
    from satlight.cli.main import build_parser

    monkeypatch.chdir(ROOT)

    def parse(words: list[str], complete: bool = True) -> None:
        parser: argparse.ArgumentParser = training_parser if words[0] in TRAINING else build_parser()
        try:
            parser.parse_args(words)
        except SystemExit as stop:
            message = capsys.readouterr().err.partition("error:")[2]
            unfinished = "arguments are required" in message or "expected one argument" in message
            if stop.code and (complete or not unfinished):
                pytest.fail(f"{shlex.join(words)}: {message}")

    return parse


def words_of(line: str) -> list[str]:
    """Words behind `lightning` or `satlight`, with real names in place of those a page stands in for."""
    line = line.replace("FORMAT", "csv").replace("runs/full/1/config.yaml", "configs/full.yaml")
    if " [--" in line:  # a synopsis
        line = re.sub(r"[][]", "", line)
    return shlex.split(line, comments=True)


def commands(path: Path) -> Iterator[tuple[list[str], bool]]:
    """Commands of a file, each with whether it is complete (not so in running text)."""
    text = path.read_text(encoding="utf-8")
    program = r"(?:lightning|satlight|python -m satlight) +"
    if path.suffix == ".yaml":
        verbs = "|".join((*TRAINING, "route", "export", "weights", "data", "bench"))
        for command in re.findall(rf"#.*?{program}((?:{verbs})\b[^;\n]*)", text):
            yield words_of(command), True
        return
    fenced = re.findall(r"```(?:bash)?\n(.+?)```", text, flags=re.DOTALL)
    for line in [line for block in fenced for line in block.splitlines()] + re.findall(
        r"^    (.+)$", text, flags=re.MULTILINE
    ):
        if match := re.match(rf"(?:\w+=\S+ )*{program}(.+)", line):
            yield words_of(match[1]), True
    for command in re.findall(rf"`(?:\w+=\S+ )*{program}([a-z][^`\n]*)`", text):
        if "…" not in command and "VERB" not in command:
            yield words_of(command), False


def as_command(path: Path) -> list[str]:
    """The words of a `fit` that uses the YAML file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "methods" in content:
        return ["bench", name(path)]
    if path.parent.name == "sweeps":
        words = [word for word in content["command"][2:] if not word.startswith("${")]
        return words + [f"--{key}={spec['values'][0]}" for key, spec in content["parameters"].items()]
    if {"trainer", "model", "data"} <= content.keys():
        return ["fit", "-c", name(path)]
    if content.keys() <= {"trainer", "model", "data"}:
        return ["fit", *FULL, "-c", name(path)]
    assert path.parent.name in PART_OPTIONS, f"{name(path)}: say in PART_OPTIONS where such a part goes"
    assert "class_path" in content or path.parent.name == "zoo", f"{name(path)} needs a class_path"
    return ["fit", *FULL, PART_OPTIONS[path.parent.name], name(path)]


def all_commands() -> dict[str, tuple[list[str], bool]]:
    """Every documented command and every YAML file in use, once."""
    found = [(as_command(path), True) for path in YAMLS]
    found += [pair for path in [*DOCS, *YAMLS] for pair in commands(path)]
    # The table of parts shows the option alone; it goes behind a full config.
    for option in re.findall(r"`(--[\w.]+ configs/[^`]+)`", (ROOT / "configs" / "README.md").read_text()):
        found.append((["fit", *FULL, *shlex.split(option)], True))
    return {shlex.join(words): (words, complete) for words, complete in reversed(found)}


COMMANDS = all_commands()


def test_commands_are_found() -> None:
    verbs = {words[0] for words, complete in COMMANDS.values() if complete}
    others = {"validate", "predict", "weights", "export", "export-arena"}
    assert verbs == {"fit", "test", "route", "data", "bench"} | verbs & others
    assert len(COMMANDS) > len(YAMLS) + 20


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The Python of docs/add_a_component.md as the module `mine` that the page talks of."""
    page = (ROOT / "docs" / "add_a_component.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.+?)```", page, flags=re.DOTALL)
    assert blocks
    assert all(block.count("\n") <= 20 for block in blocks)
    folder = tmp_path_factory.mktemp("examples")
    (folder / "mine.py").write_text("\n\n".join(blocks), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("mine")
        del sys.modules["mine"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_yaml_files_parse(command: str, parse: Callable, examples: Any) -> None:
    words, complete = COMMANDS[command]
    parse(words, complete)


def test_shell_blocks_of_the_readme_hold_known_programs() -> None:
    blocks = re.findall(
        r"```bash\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    programs = {line.split()[0] for block in blocks for line in block.splitlines() if line.strip()}
    assert programs == {"pip", "pytest", "lightning", "satlight", "wandb"}


def test_python_of_the_pages_compiles() -> None:
    for doc in DOCS:
        for block in re.findall(r"```python\n(.+?)```", doc.read_text(encoding="utf-8"), flags=re.DOTALL):
            compile(block, name(doc), "exec")


def test_example_components_work(examples: Any, make_block: Callable, tmp_path: Path) -> None:
    import numpy as np

    from satlight.data.blocks import BlockSpace
    from satlight.modules import ModelSAT, RouterLLM
    from satlight.types import Result

    block = make_block(["What is 2+2?", "Is it?"], [("It is good.",), ("It is poor.",), ("It is new.",)])
    model = ModelSAT(RouterLLM("tiny:llama"), examples.MaxPooledEncoder("tiny:bert"))
    loss = examples.Brier()(model(block), block.target_BC, block.known_BC)["loss"]
    loss.backward()
    assert 0 < loss.item() < 1

    block.capabilities = [(Result("Good.", "Law", 2.0),), (Result("Poor.", "Law", -1.0),)]
    with_term = ModelSAT(model.router_llm, model.encoder, terms=[examples.MeanResult()])
    assert with_term(block).shape == (2, 2)

    target_RC = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    space = BlockSpace(target_RC, np.ones((4, 2), dtype=bool), np.arange(4), np.zeros(4, dtype=np.int64))
    ((rows, columns),) = examples.ContestedBlocks().draw(space, np.random.default_rng(0))
    assert (sorted(rows), list(columns)) == ([0, 3], [0, 1])

    file = tmp_path / "log.tsv"
    file.write_text("question\tmodel\tgrade\n1+1?\ttiny\t50\n1+1?\tlarge\t100\nSort.\tlarge\t0\n")
    records = examples.read(file)
    assert records.outcomes[records.known].tolist() == [0.5, 1.0, 0.0]
    assert set(dir(examples.CountShortened)) >= {"on_validation_epoch_end"}


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "sweeps").glob("*.yaml")), ids=name)
def test_sweeps_name_what_there_is(path: Path) -> None:
    sweep = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert (sweep["program"], sweep["command"][:2], sweep["command"][-1]) == (
        "lightning",
        ["${env}", "lightning"],
        "${args}",
    )
    assert sweep["metric"]["name"] == "val_routed_accuracy"
    for spec in sweep["parameters"].values():
        for value in spec["values"]:
            assert value is not None
            assert not str(value).endswith(".yaml") or (ROOT / value).is_file(), value


@pytest.mark.parametrize(
    ("yaml_text", "wrong"),
    [
        ("model: {init_args: {encoder: {init_args: {backbon: minilm}}}}", "backbon"),
        ("data: {init_args: {recrods: simulated}}", "recrods"),
        ("trainer: {max_epoch: 3}", "max_epoch"),
        ("experiment: 1", "experiment"),
    ],
)
def test_a_typo_is_refused(yaml_text: str, wrong: str, parse: Callable, tmp_path: Path) -> None:
    (tmp_path / "typo.yaml").write_text(yaml_text)
    with pytest.raises(pytest.fail.Exception, match=f"ption '(trainer.)?{wrong}'"):
        parse(["fit", *FULL, "-c", str(tmp_path / "typo.yaml")])
