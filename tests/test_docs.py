"""Check the documentation and the shipped YAML files against the code. Nothing is trained or downloaded."""

import argparse
import ast
import importlib
import importlib.util
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
    *(ROOT / page for page in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "configs/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
]
SCRIPTS = sorted([*(ROOT / "experiments").rglob("*.py"), *(ROOT / "benchmarks").glob("[!c]*.py")])
NOT_WRAPPED = ("results.md", "bench.md")  # results.md is generated
YAMLS = sorted([*(ROOT / "configs").rglob("*.yaml"), *(ROOT / "experiments").rglob("*.yaml")])
TRAINING = ("fit", "validate", "test", "predict")
FULL = ["-c", "configs/full.yaml"]
# The option that takes a part, by the folder of the part under configs/.
PART_OPTIONS = {part: f"--model.{part}" for part in ("encoder", "router_llm", "objective", "vision")}
PART_OPTIONS |= {"data": "--data", "zoo": "--data.zoo_preset"}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_doc = pytest.mark.parametrize("doc", DOCS, ids=name)


# -- pages -------------------------------------------------------------------------------------------------


def blocks(page: str, *languages: str) -> list[str]:
    """Return the fenced code blocks of a Markdown page, of the given languages if any."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", page, flags=re.DOTALL | re.MULTILINE)
    return [code for _, language, code in found if not languages or language in languages]


def prose(page: str) -> str:
    """Return a Markdown page without its fenced code blocks."""
    return re.sub(r"^( *)```\w*\n.*?^\1```$", "", page, flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """Return the anchors of the headings of a Markdown page, as code hosts create them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_doc
def test_internal_links_and_anchors_resolve(doc: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(doc.read_text(encoding="utf-8"))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        page = doc.parent / path if path else doc
        assert page.exists(), f"{name(doc)} links to {target}"
        if anchor:
            assert anchor in anchors(page.read_text(encoding="utf-8")), f"{name(doc)} links to {target}"


@each_doc
def test_prose_is_wrapped(doc: Path) -> None:
    if doc.name in NOT_WRAPPED:
        return
    for line in prose(doc.read_text(encoding="utf-8")).splitlines():
        table_or_code = line.startswith(("|", "    "))
        assert table_or_code or len(line) <= 120, f"{name(doc)}: {line[:60]}"


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert pages - set(re.findall(r": (\w+\.md)", navigation)) == set()
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert [page for page in pages if f"({page})" not in index] == []


@each_doc
def test_paths_exist(doc: Path) -> None:
    text = doc.read_text(encoding="utf-8")
    for path in re.findall(r"(?<![\w/-])((?:satlight|configs|docs|tests|experiments|benchmarks)/[\w./*-]*)", text):
        assert list(ROOT.glob(path.rstrip("./"))), f"{name(doc)} mentions {path}"


def test_method_names_what_is_in_the_files() -> None:
    pairs = re.findall(r"`(satlight/[\w/]+\.py)`: ((?:`[\w.]+`(?:, )?)+)", (ROOT / "docs" / "method.md").read_text())
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
    """Carry the parser out of the constructor."""


@pytest.fixture(scope="module")
def training_parser() -> Any:
    """Return the parser of fit, validate, test, and predict, as SatlightCLI builds it."""
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
    """Return a function that parses a command in the root of the repository and fails the test on errors."""
    from satlight.cli.main import build_parser
    from satlight.cli.settings import split_configs

    monkeypatch.chdir(ROOT)

    def parse(argv: list[str], complete: bool = True) -> None:
        if argv[0] in TRAINING and argv[0] != "fit" and "-c" not in argv:  # the run's own settings are read first
            options = argv[2:] if argv[1:] and not argv[1].startswith("-") else argv[1:]
            argv = [argv[0], "-c", "configs/full.yaml", *options]
        parser: argparse.ArgumentParser = training_parser if argv[0] in TRAINING else build_parser()
        try:
            parser.parse_args(split_configs(argv) if argv[0] in TRAINING else argv)
        except SystemExit as stop:
            message = capsys.readouterr().err.partition("error:")[2]
            unfinished = "arguments are required" in message or "expected one argument" in message
            if stop.code and (complete or not unfinished):
                pytest.fail(f"{shlex.join(argv)}: {message}")

    return parse


PROGRAM = r"(?:lightning|satlight|python -m satlight) +"
SCRIPT = r"python +((?:experiments|benchmarks)/\S+\.py)(.*)"


def argv_of(line: str) -> list[str]:
    """Return the arguments of a documented command, with real names in place of placeholders."""
    line = line.replace("FORMAT", "csv").replace("runs/full/1/config.yaml", "configs/full.yaml")
    line = line.removesuffix(" &")
    if " [--" in line:  # a synopsis
        line = re.sub(r"[][]", "", line)
    return shlex.split(line, comments=True)


def command_lines(path: Path) -> list[str]:
    """Return the lines of the code blocks of a page, or of the docstring of a script."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    found = blocks(text, "", "bash") + re.findall(r"(?:^    .+\n?)+", prose(text), flags=re.MULTILINE)
    return [line.strip() for block in found for line in block.replace("\\\n", " ").splitlines()]


def commands(path: Path) -> Iterator[tuple[list[str], bool]]:
    """Yield the commands of a file, each with whether it is complete (inline commands may not be)."""
    if path.suffix == ".yaml":
        verbs = "|".join((*TRAINING, "route", "export", "weights", "data", "bench", "sweep"))
        for command in re.findall(rf"#.*?{PROGRAM}((?:{verbs})\b[^;\n]*)", path.read_text(encoding="utf-8")):
            yield argv_of(command), True
        return
    for line in command_lines(path):
        if match := re.match(rf"(?:\w+=\S+ )*{PROGRAM}(.+)", line):
            yield argv_of(match[1]), True
    if path.suffix == ".md":
        text = path.read_text(encoding="utf-8")
        for command in re.findall(rf"`(?:\w+=\S+ )*{PROGRAM}([a-z][^`\n]*)`", text):
            if "…" not in command and "VERB" not in command:
                yield argv_of(command), False


def as_command(path: Path) -> list[str]:
    """Return the arguments of a command that uses the YAML file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "methods" in content:
        return ["bench", name(path)]
    if path.parent.name == "sweeps":  # tests/sweeps parses their points
        return ["sweep", name(path), "--dry-run"]
    if {"trainer", "model", "data"} <= content.keys():
        return ["fit", "-c", name(path)]
    if content.keys() <= {"trainer", "model", "data"}:
        return ["fit", *FULL, "-c", name(path)]
    assert path.parent.name in PART_OPTIONS, f"{name(path)}: add its folder to PART_OPTIONS"
    assert "class_path" in content or path.parent.name == "zoo", f"{name(path)} needs a class_path"
    return ["fit", *FULL, PART_OPTIONS[path.parent.name], name(path)]


def all_commands() -> dict[str, tuple[list[str], bool]]:
    """Return every documented command, and a command for every YAML file, without duplicates."""
    found = [(as_command(path), True) for path in YAMLS]
    found += [pair for path in [*DOCS, *YAMLS, *SCRIPTS] for pair in commands(path)]
    # The table of parts shows the option alone, to be added to a full config.
    for option in re.findall(r"`(--[\w.]+ configs/[^`]+)`", (ROOT / "configs" / "README.md").read_text()):
        found.append((["fit", *FULL, *shlex.split(option)], True))
    return {shlex.join(argv): (argv, complete) for argv, complete in reversed(found)}


COMMANDS = all_commands()


def test_commands_are_found() -> None:
    verbs = {argv[0] for argv, complete in COMMANDS.values() if complete}
    others = {"validate", "predict", "weights", "export", "export-arena", "calibrate", "zoo", "serve"}
    others |= {"sweep", "reproduce", "recommend", "onboard", "export-litellm", "export-vllm-sr"}
    assert verbs == {"fit", "test", "route", "data", "bench"} | verbs & others
    assert len(COMMANDS) > len(YAMLS) + 20


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return the Python code of docs/add_a_component.md as the module `mine`."""
    page = (ROOT / "docs" / "add_a_component.md").read_text(encoding="utf-8")
    parts = blocks(page, "python")
    assert parts
    assert all(part.count("\n") <= 21 for part in parts)
    folder = tmp_path_factory.mktemp("examples")
    (folder / "mine.py").write_text("\n\n".join(parts), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield importlib.import_module("mine")
        del sys.modules["mine"]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_and_yaml_files_parse(command: str, parse: Callable, examples: Any) -> None:
    argv, complete = COMMANDS[command]
    parse(argv, complete)


# -- scripts -----------------------------------------------------------------------------------------------


class _ParsedError(Exception):
    """Stop a script after its arguments have been parsed."""


@pytest.fixture
def parse_script(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, list[str]], None]:
    """Return a function that runs a script up to and including the parsing of its arguments."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(self: argparse.ArgumentParser, args: Any = None, namespace: Any = None) -> NoReturn:
        parse_args(self, args, namespace)
        raise _ParsedError

    def parse(path: Path, argv: list[str]) -> None:
        monkeypatch.syspath_prepend(str(path.parent))
        monkeypatch.setattr(sys, "argv", [str(path), *argv])
        spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        module.main()

    yield parse
    sys.modules.pop("common", None)  # shared code of the benchmarks


def script_commands() -> list[tuple[str, str]]:
    """Return the path and the arguments of every documented call of a script."""
    lines = [line for path in [*DOCS, *SCRIPTS] for line in command_lines(path)]
    return sorted({(match[1], match[2].strip()) for line in lines if (match := re.match(SCRIPT, line))})


@pytest.mark.parametrize(("script", "arguments"), script_commands())
def test_documented_script_calls_parse(script: str, arguments: str, parse_script: Callable) -> None:
    with pytest.raises(_ParsedError):
        parse_script(ROOT / script, argv_of(arguments))


@pytest.mark.parametrize("script", [one for one in SCRIPTS if "__main__" in one.read_text(encoding="utf-8")], ids=name)
def test_scripts_print_help(script: Path, parse_script: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse_script(script, ["--help"])
    assert not stop.value.code
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("script", SCRIPTS, ids=name)
def test_scripts_use_public_names_only(script: Path) -> None:
    assert re.findall(r"\._[a-z]\w*|import _[a-z]\w*", script.read_text(encoding="utf-8")) == []


# -- code blocks -------------------------------------------------------------------------------------------


def test_shell_blocks_contain_known_programs() -> None:
    known = {
        "dask",
        "git",
        "mkdir",
        "pip",
        "pytest",
        "ruff",
        "mypy",
        "mkdocs",
        "python",
        "source",
        "lightning",
        "satlight",
        "torchrun",
        "wandb",
    }
    for doc in (doc for doc in DOCS if doc.name != "tutorial.md"):  # tests/test_tutorial.py runs that one
        for block in blocks(doc.read_text(encoding="utf-8"), "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            words = [re.sub(r"^([A-Z_]+=\S+\s+)+", "", line).split() for line in lines if line.strip()]
            assert {own[0] for own in words} <= known, name(doc)


def test_python_blocks_compile() -> None:
    for doc in DOCS:
        for block in blocks(doc.read_text(encoding="utf-8"), "python"):
            compile(block, name(doc), "exec")


def test_example_components_work(examples: Any, make_block: Callable, tmp_path: Path) -> None:
    import numpy as np

    from satlight.data.blocks import BlockSpace
    from satlight.modules import ModelSAT, RouterLLM
    from satlight.types import Capability, Result

    block = make_block(["What is 2+2?", "Is it?"], [("It is good.",), ("It is poor.",), ("It is new.",)])
    model = ModelSAT(RouterLLM("tiny:llama"), examples.MaxPooledEncoder("tiny:bert"))
    loss = examples.Brier()(model(block), block.target_BC, block.known_BC)["loss"]
    loss.backward()
    assert 0 < loss.item() < 1

    block.capabilities = [Capability((Result("law", "Law", 0.5, 20, strength),)) for strength in (2.0, -1.0)]
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
