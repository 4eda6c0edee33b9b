"""The arrows of the layout, which double as its documentation, and what start-up must not load."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "satlight"
FILES = sorted(ROOT.rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, typing_too: bool = False) -> set[str]:
    """Modules that a file imports anywhere in it, with the names it takes from satlight's own packages."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing_too:
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if (node.module or "").split(".")[0] == "satlight":
                found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


GRAPH = {module_name(path): imports(path) for path in FILES}


def inside(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def importers_of(*packages: str) -> set[str]:
    return {name for name, found in GRAPH.items() if any(inside(i, *packages) for i in found)}


def within(package: str) -> dict[str, set[str]]:
    found = {name: i for name, i in GRAPH.items() if inside(name, f"satlight.{package}")}
    assert found, package
    return found


# What a part may know of satlight; everything may know errors, files, images and types. Arrows point down the list.
ALLOWED = {
    "types": [],
    "errors": [],
    "files": [],
    "images": [],
    "costs": [],
    "storage": ["storage"],
    "rules": ["storage.classes"],
    "routers": ["storage", "rules", "costs"],
    "metrics": ["metrics", "rules"],
    "losses": ["losses"],
    "backbones": ["backbones", "storage.classes"],
    "records": ["records", "costs"],
    "capability": ["capability", "records"],
    # The wording of the prompt belongs to the capability package; modules know nothing else of it.
    "modules": ["modules", "losses", "metrics", "backbones", "storage.classes", "capability.text"],
    "data": ["data", "capability", "records"],
    # Baselines are handed an embedder; only satlight.backbones knows where vectors come from.
    # Prefill's features are the states of a network of its own, which its folder holds.
    "baselines": ["baselines", "routers", "storage", "records", "metrics", "capability", "backbones.hidden_states"],
    "evaluation": ["evaluation", "baselines", "records", "metrics", "rules", "storage.typed"],
    "callbacks": [
        "callbacks",
        "evaluation",
        "data",
        "modules",
        "metrics",
        "storage.card",
        "storage.checkpoints",
        "storage.typed",
    ],
    "routing": [
        "routing",
        "serving.providers",
        "routers",
        "storage",
        "costs",
        "callbacks",
        "evaluation",
        "records",
        "capability",
        "modules",
        "metrics",
        "data",
        "backbones",
    ],
    "sweeps": ["sweeps", "evaluation", "metrics", "storage.typed"],
    "serving": ["serving", "routers", "rules", "costs"],
    "bench": [
        "bench",
        "routing",
        "routers",
        "rules",
        "costs",
        "callbacks",
        "evaluation",
        "baselines",
        "capability",
        "records",
        "metrics",
        "backbones",
        "storage.typed",
    ],
}


@pytest.mark.parametrize("part", ALLOWED)
def test_arrows_point_one_way(part):
    allowed = [f"satlight.{name}" for name in ("errors", "files", "images", "escaping", "types", *ALLOWED[part])]
    for name, found in within(part).items():
        wrong = {i for i in found if i.startswith("satlight.") and not inside(i, *allowed)}
        assert not wrong, f"{name} imports {sorted(wrong)}; allowed: {allowed}"


def test_data_and_modules_do_not_know_each_other():
    assert not {name for name in importers_of("satlight.modules") if inside(name, "satlight.data")}
    assert not {name for name in importers_of("satlight.data", "satlight.records") if inside(name, "satlight.modules")}


def test_nothing_imports_the_command_line_but_itself():
    importers = {name for name in importers_of("satlight.cli") if not inside(name, "satlight.cli")}
    assert importers == {"satlight.__main__"}


@pytest.mark.parametrize(
    ("package", "homes"),
    [
        (
            "transformers",
            {f"satlight.backbones.{name}" for name in ("loading", "cross_encoder", "scoring", "tiny", "vision_tower")}
            | {"satlight.routing.onboarding.local_model"},
        ),
        ("tokenizers", {"satlight.backbones.tiny", "satlight.backbones.e5_binary"}),
        ("peft", {"satlight.backbones.loading"}),
        ("faiss", {"satlight.data.negatives", "satlight.baselines"}),
        ("wandb", {"satlight.callbacks", "satlight.bench.wandb_runs", "satlight.cli.wandb_source"}),
        ("torchmetrics", {"satlight.metrics", "satlight.callbacks.devices", "satlight.cli"}),
        ("jsonargparse", {"satlight.cli", "satlight.bench.config"}),
        ("litellm", {"satlight.serving.providers"}),
        ("gguf", {"satlight.backbones.loading", "satlight.backbones.weights", "satlight.backbones.store"}),
    ],
)
def test_heavy_packages_have_one_door(package, homes):
    assert {name for name in importers_of(package) if not inside(name, *homes)} == set()


def test_records_and_capability_do_not_need_torch():
    torch_users = importers_of("torch", "lightning")
    assert not {name for name in torch_users if inside(name, "satlight.records", "satlight.capability")}


def test_there_is_no_cycle_among_files():
    """Imports in functions and for type checkers count too; a package is there before its own files."""
    names = {module_name(path) for path in FILES}

    def targets(path: Path) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= full & names or {node.module or ""}
        return (found & names) - {module_name(path)}

    graph = {module_name(path): targets(path) for path in FILES}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for target in sorted(graph[name]):
                walk(target, (*trail, name))
            done.add(name)

    for name in sorted(graph):
        walk(name, ())
    assert done == names


def test_the_top_level_holds_few_modules():
    assert {path.stem for path in ROOT.glob("*.py")} == {
        "__init__", "__main__", "costs", "errors", "files", "images", "escaping", "routers", "rules", "types",
    }  # fmt: skip


# -- start-up ----------------------------------------------------------------------------------------------


def loaded_after(code: str) -> tuple[set[str], float]:
    """Top-level packages in sys.modules after ``code`` in a fresh interpreter, and its seconds."""
    script = (
        "import sys, time; start = time.perf_counter()\n"
        f"try:\n    {code}\nexcept SystemExit as error:\n    assert not error.code, error.code\n"
        "seconds = time.perf_counter() - start\n"
        "print('\\0', seconds, *{name.partition('.')[0] for name in sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    seconds, *names = result.stdout.rpartition("\0")[2].split()
    return set(names), float(seconds)


def test_import_satlight_is_instant():
    names, seconds = loaded_after("import satlight")
    assert "satlight" in names
    assert not names & {"torch", "lightning", "numpy", "polars", "yaml", "rich"}
    assert seconds < 0.2


def test_satlight_help_is_quick():
    names, seconds = loaded_after("from satlight.cli import main; main(['--help'])")
    assert not names & {"torch", "lightning", "transformers", "numpy", "polars", "torchmetrics"}
    assert seconds < 1
    result = subprocess.run([sys.executable, "-m", "satlight", "--help"], capture_output=True, text=True, check=True)
    for verb in [
        "fit",
        "test",
        "predict",
        "route",
        "export",
        "weights",
        "data",
        "bench",
        "serve",
        "sweep",
        "reproduce",
    ]:
        assert verb in result.stdout


def test_fit_help_waits_for_no_model_library():
    names, _ = loaded_after("from satlight.cli import main; main(['fit', '-h'])")
    assert "lightning" in names
    assert not names & {"transformers", "peft", "faiss", "wandb", "sklearn"}
