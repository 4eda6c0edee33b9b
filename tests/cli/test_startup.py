"""A command that only scores imports no trainer; everywhere else modules are LightningModules."""

import os
import subprocess
import sys

import pytest

from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.routing.router import CapabilityRouter
from satlight.types import Candidate, Capability

TRAINING_ONLY = {"lightning", "torchmetrics", "sklearn", "scipy", "wandb", "matplotlib", "pandas", "faiss"}


@pytest.fixture(scope="module")
def router_folder(tmp_path_factory):
    module = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), task_attention=True)
    folder = tmp_path_factory.mktemp("routers") / "tiny"
    notes = [Capability(notes=(f"It is {word}.",)) for word in ("good", "poor")]
    CapabilityRouter(module, [Candidate("a"), Candidate("b")], notes).save(folder)
    return folder


def run(code: str, **environment: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def route(folder, then: str = "") -> list[str]:
    """Lines printed by `satlight route` as a command, then by ``then``."""
    argv = ["satlight", "route", "--router", str(folder), "--format", "json", "What is 2+2?"]
    return run(f"import sys; sys.argv = {argv}; from satlight.cli import main; main()\n{then}")


def test_route_imports_no_trainer(router_folder):
    names = route(router_folder, "print(*{name.partition('.')[0] for name in sys.modules})")[-1].split()
    assert "torch" in names
    assert not TRAINING_ONLY & set(names)


def test_route_leaves_out_the_compiler_but_does_not_break_it(router_folder):
    *_, before, after = route(
        router_folder,
        "print('torch._dynamo' in sys.modules)\nimport torch, scipy.optimize\n"
        "print(torch.compile(torch.abs, backend='eager')(torch.tensor(-1)).item())",
    )
    assert (before, after) == ("False", "1")


def test_scores_do_not_depend_on_the_base_class(router_folder):
    score = (
        "from satlight.routers import Router\n"
        f"router = Router.from_pretrained({str(router_folder)!r})\n"
        "print(router.score(['What is 2+2?', 'Name a river.']).log_odds_BC.tolist())\n"
        "print(*(base.__name__ for base in type(router.module).__mro__))"
    )
    plain = run(score, SATLIGHT_SCORING_ONLY="1")
    full = run(score, SATLIGHT_SCORING_ONLY="")
    assert plain[0] == full[0]
    assert "_DeviceDtypeModuleMixin" in full[1]
    assert "_DeviceDtypeModuleMixin" not in plain[1]


def test_modules_are_lightning_modules_where_lightning_is_imported():
    code = (
        "import lightning; from satlight.modules import ModelSAT, Projector\n"
        "print(issubclass(ModelSAT, lightning.LightningModule), "
        "issubclass(Projector, lightning.LightningModule))"
    )
    assert run(code, SATLIGHT_SCORING_ONLY="1") == ["True True"]


def test_a_failing_reduced_import_falls_back_to_the_usual_one():
    code = (
        "from satlight.backbones import scoring\n"
        "scoring._Compiler.__getattr__ = lambda self, name: 1 / 0\n"
        "import satlight.backbones.loading as loading\n"
        "print(type(loading.load_encoder('tiny:bert')[0]).__name__)"
    )
    assert run(code, SATLIGHT_SCORING_ONLY="1") == ["BertModel"]
