"""Every option that a message names exists: in the parser of a verb, or in that of training."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser
from lightning import Trainer

from satlight.cli.main import build_parser
from satlight.data import MultimodalDataModule
from satlight.data.hard_blocks import HardNegativeBlocks
from satlight.modules import ModelSAT, OptimizerSpec

ROOT = Path(__file__).parents[2] / "satlight"
SPEAKERS = {"SatlightError", "print", "info", "warning", "error", "append", "require_first", "_require", "problem"}
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*(?:\.\w+)*")
KEY = re.compile(r"(?<![\w./`-])(?:data|model|trainer)\.[a-z_]\w*(?:\.[a-z_]\w*)*")
OF_OTHER_PROGRAMS = {"--log_samples", "--output_path", "--limit", "--served-model-name"}  # lm_eval, vLLM
FILES = {"model.safetensors"}


def of_verbs(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from of_verbs(one)


def options() -> set[str]:
    training = ArgumentParser()
    for name in ("name", "runs", "ckpt_path", "config", "seed_everything"):  # satlight.cli.training.SatlightCLI
        training.add_argument(f"--{name}")
    training.add_class_arguments(Trainer, "trainer")
    training.add_class_arguments(MultimodalDataModule, "data", skip={"sampler"})
    training.add_class_arguments(HardNegativeBlocks, "data.sampler")
    training.add_class_arguments(ModelSAT, "model", skip={"optimizer"})
    training.add_class_arguments(OptimizerSpec, "model.optimizer")
    return {*of_verbs(training), *of_verbs(build_parser())}


def messages() -> Iterator[tuple[str, str]]:
    """Yield (place, text) of every message in the package."""
    for path in sorted(ROOT.rglob("*.py")):
        for spoken in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ""
            if isinstance(spoken, ast.Call):
                name = getattr(spoken.func, "attr", getattr(spoken.func, "id", ""))
            elif isinstance(spoken, ast.Assign):
                name = getattr(spoken.targets[0], "id", "")
            if name in SPEAKERS:
                for node in ast.walk(spoken):
                    if isinstance(node, ast.Constant) and isinstance(node.value, str):
                        yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def unknown(text: str, known: set[str]) -> list[str]:
    named = [*OPTION.findall(text), *(f"--{key}" for key in KEY.findall(text) if key not in FILES)]
    return [
        option
        for option in named
        if option not in known | OF_OTHER_PROGRAMS and not any(one.startswith(f"{option}.") for one in known)
    ]


def test_options_named_in_messages_exist():
    known = options()
    texts = list(messages())
    assert len(texts) > 500
    assert sum(bool(OPTION.search(text) or KEY.search(text)) for _, text in texts) > 20
    assert [(place, option) for place, text in texts for option in unknown(text, known)] == []


@pytest.mark.parametrize("text", ["set data.test_fraction", "fewer core tasks (data.num_tasks)", "give --no-such"])
def test_the_search_finds_wrong_ones(text):
    assert unknown(text, options())
