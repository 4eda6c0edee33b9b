"""Folders of satlight 0.1 are still read: a folder of today is turned into one of then."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from satlight.capability.text import statement
from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.routing import CapabilityRouter, Router
from satlight.types import AptitudeResults, Candidate

TEXTS = ["What is 2+2?", "Name three rivers that flow through Germany."]
MODULES = {
    "windows": lambda: ModelSAT(
        RouterLLM("tiny:llama", inquiry="Can it?", max_instruction_tokens=20, candidate_layers=1),
        CapabilityEncoder("tiny:bert", chunking="windows", max_tokens=64, pooling="cls"),
    ),
    "every option": lambda: ModelSAT(
        RouterLLM("tiny:llama", score_head="regression"),
        CapabilityEncoder("tiny:bert"),
        task_attention=True,
        two_towers=True,
        instruction_vector=True,
    ),
    "text": lambda: ModelSAT(RouterLLM("tiny:llama"), perturbations=2),
    "router_llm alone": lambda: RouterLLM("tiny:llama", order="capability_first"),
    "encoder alone": lambda: CapabilityEncoder("tiny:bert"),
}


def written_by_0_1(router: CapabilityRouter, folder: Path) -> Path:
    """Write a router as satlight 0.1 did: parts by name, capabilities as sentences in zoo.json."""
    router.save(folder)
    module = router.module
    encoder = module if isinstance(module, CapabilityEncoder) else getattr(module, "encoder", None)
    llm = module if isinstance(module, RouterLLM) else getattr(module, "router_llm", None)
    for name, part in (("encoder", encoder), ("router_llm", llm)):
        if part is module:
            shutil.move(folder / "module", folder / name)
    options = {
        "task_attention": "task_attention",
        "two_towers": "two_towers",
        "instruction_vector": "instruction_projector",
    }
    llm_options = ("order", "score_head", "candidate_layers", "max_instruction_tokens", "inquiry")
    config = {
        "format": "satlight-router/1",
        "module": type(module).__name__,
        "perturbations": getattr(module, "perturbations", 1),
        **{option: getattr(module, part, None) is not None for option, part in options.items()},
        "encoder": encoder
        and {"chunking": encoder.chunking, "max_tokens": encoder.text.max_tokens, "pooling": encoder.text.pooling},
        "projector": encoder and {"standardize": True},
        "router_llm": llm and {name: getattr(llm, name) for name in llm_options},
        "calibration": {"temperature": router.calibration.temperature, "bias": router.calibration.bias},
        "about": dict(router.about),
    }
    zoo = [
        {
            "candidate": candidate,
            "capability": [
                *(
                    {"text": statement(r, capability.style), "about": r.keywords, "strength": r.strength}
                    for r in capability.results
                ),
                *capability.notes,
            ],
        }
        for candidate, capability in zip(
            json.loads((folder / "zoo.json").read_text()), router.capabilities, strict=True
        )
    ]
    for name, content in (("config.json", config), ("zoo.json", zoo)):
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    for name in ("aptitude.json", "README.md"):
        (folder / name).unlink()
    return folder


@pytest.fixture
def old(router, tmp_path) -> Path:
    return written_by_0_1(router, tmp_path / "old")


@pytest.mark.parametrize("kind", MODULES)
def test_it_gives_the_same_scores_and_can_be_saved_as_of_today(make_router, tmp_path, kind):
    router = make_router(MODULES[kind](), about={"note": [1]})
    old = Router.from_pretrained(written_by_0_1(router, tmp_path / "old"))
    expected = router.score(TEXTS)
    assert np.allclose(old.score(TEXTS).log_odds_BC, expected.log_odds_BC, atol=1e-5)
    assert np.allclose(old.score(TEXTS).probability_BC, expected.probability_BC, atol=1e-6)
    assert expected.log_odds_BC.std() > 1e-3
    assert (old.candidates, old.calibration) == (router.candidates, router.calibration)
    assert old.about == {"note": [1]}
    old.save(tmp_path / "new")
    assert json.loads((tmp_path / "new" / "config.json").read_text())["format"] == "satlight-router/2"
    new = Router.from_pretrained(tmp_path / "new")
    assert np.array_equal(new.score(TEXTS).log_odds_BC, old.score(TEXTS).log_odds_BC)


def test_capabilities_are_read_from_the_sentences(old, router):
    for read, expected in zip(Router.from_pretrained(old).capabilities, router.capabilities, strict=True):
        assert read.notes == expected.notes
        assert [(r.keywords, r.strength) for r in read.results] == [(r.keywords, r.strength) for r in expected.results]
        rounded = [round(r.accuracy, 3) for r in expected.results]
        assert [r.accuracy for r in read.results] == pytest.approx(rounded)


def test_graded_sentences_stay_graded(make_router, tmp_path):
    from dataclasses import replace

    router = make_router(RouterLLM("tiny:llama"))
    router.capabilities = tuple(replace(c, style="graded") for c in router.capabilities)
    old = Router.from_pretrained(written_by_0_1(router, tmp_path / "old"))
    assert [c.style for c in old.capabilities] == ["graded", "graded", "plain"]  # the third has no result
    assert np.allclose(old.score(TEXTS).log_odds_BC, router.score(TEXTS).log_odds_BC, atol=1e-5)


def test_the_first_folders_had_no_calibration_and_fewer_options(old):
    content = json.loads((old / "config.json").read_text())
    for key in ("calibration", "task_attention", "two_towers", "instruction_vector"):
        del content[key]
    (old / "config.json").write_text(json.dumps(content))
    scores = Router.from_pretrained(old).score(TEXTS)
    assert np.allclose(scores.probability_BC, 1 / (1 + np.exp(-scores.log_odds_BC)))


def test_it_cannot_admit(old):
    with pytest.raises(SatlightError, match=r"without its aptitude test.*satlight export"):
        Router.from_pretrained(old).admit(Candidate("new"), AptitudeResults(("a",), ("1+1?",), np.array([1.0])))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", lambda c: c.pop("encoder")),
        ("config.json", lambda c: c.update(encoder=3)),
        ("config.json", lambda c: c.update(router_llm=None)),
        ("config.json", lambda c: c.update(router_llm=None, encoder=None)),
        ("config.json", lambda c: c.update(router_llm={"colour": "red"})),
        ("config.json", lambda c: c.update(calibration=[])),
        ("config.json", lambda c: c.update(about=3)),
        ("config.json", lambda c: c.update(perturbations="many")),
        ("zoo.json", lambda z: z.clear()),
        ("zoo.json", lambda z: z[0].pop("capability")),
        ("zoo.json", lambda z: z[0].pop("candidate")),
        ("zoo.json", lambda z: z[0].update(capability=3)),
        ("zoo.json", lambda z: z[0].update(capability=[3])),
        ("zoo.json", lambda z: z[0].update(capability=[{"text": "It is good."}])),
        ("zoo.json", lambda z: z[0]["capability"][0].update(text="It is good.")),
        ("zoo.json", lambda z: z[0]["capability"][0].update(strength="high")),
        ("zoo.json", lambda z: z[0]["capability"][0].update(strength=float("nan"))),
        ("zoo.json", lambda z: z.append(z[0])),
    ],
)
def test_damage_is_named(old, name, change):
    content = json.loads((old / name).read_text())
    change(content)
    (old / name).write_text(json.dumps(content))
    with pytest.raises(SatlightError, match=rf"({name}|router\.safetensors).*(?i:export|allowed|takes)"):
        Router.from_pretrained(old)
