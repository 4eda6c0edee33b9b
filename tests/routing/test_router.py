"""A trained router as a folder and from Python: the same scores anywhere, offline, whole or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from satlight.errors import SatlightError
from satlight.modules import BlockRouter, CapabilityEncoder, LoraSpec, ModelSAT, RouterLLM
from satlight.routing import Router
from satlight.types import Candidate, Result

ZOO = [
    Candidate("org/good-7b", params_b=7.0, notes=("It supports Chinese.",)),
    Candidate("org/poor-1b", institute="org", price_in=0.1),
    Candidate("other/odd"),
]
CAPABILITIES = [
    (
        Result('The model achieves accuracy 95.0% on the task of "Sums".', about="Sums", strength=1.25),
        "It supports Chinese.",
    ),
    (Result('The model achieves accuracy 5.0% on the task of "Sums".', about="Sums", strength=-1.5),),
    ('The model achieves accuracy 50.0% on the task of "Law".', "It is new."),
]
TEXTS = ["What is 2+2?", "Name three rivers that flow through Germany.", "Hi"]


def stirred(module: BlockRouter) -> BlockRouter:
    """As after training: nothing that trains has its first value."""
    torch.manual_seed(5)
    frozen = module.frozen_names()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name not in frozen:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return module


def model_sat(**options) -> ModelSAT:
    module = ModelSAT(RouterLLM("tiny:llama", **options), CapabilityEncoder("tiny:bert", chunking="windows"))
    module.train().projector.follow(module.encoder.encode(CAPABILITIES).detach())
    return module


MODULES = {
    "model_sat": lambda: model_sat(max_instruction_tokens=20, inquiry="Can it?"),
    "capability_first": lambda: model_sat(order="capability_first", num_layers=1),
    "last layer": lambda: model_sat(candidate_layers=1),
    "task attention": lambda: ModelSAT(
        RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), task_attention=True
    ),
    "weighted keywords": lambda: ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert")),
    "lora, yes": lambda: model_sat(score_head="yes", lora=LoraSpec(r=2, target_modules=["q_proj"])),
    "frozen parts": lambda: ModelSAT(
        RouterLLM("tiny:llama", freeze_layers=1),
        CapabilityEncoder("tiny:bert", trainable=False, pooling="cls"),
    ),
    "text, perturbed": lambda: ModelSAT(RouterLLM("tiny:llama", score_head="regression"), perturbations=2),
    "router_llm alone": lambda: RouterLLM("tiny:llama"),
    "encoder alone": lambda: CapabilityEncoder("tiny:bert", max_tokens=40),
}


@pytest.fixture(scope="module")
def router() -> Router:
    torch.manual_seed(0)
    return Router(stirred(model_sat()), ZOO, CAPABILITIES, {"data": {"name": "demo"}})


@pytest.fixture(scope="module")
def folder(router, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("router") / "mine"
    router.save_pretrained(folder)
    return folder


# -- routing -----------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_module(router, make_block):
    with torch.no_grad():
        expected = router.module(make_block(TEXTS, CAPABILITIES))
    scores = router.score(TEXTS)
    assert scores.shape == (3, 3)
    assert torch.allclose(scores, expected, atol=1e-6)
    assert scores.std(dim=1).min() > 1e-3
    some = router.score(TEXTS, ["other/odd", "org/good-7b"])
    assert torch.allclose(some, scores[:, [2, 0]], atol=1e-5)


def test_rankings_are_sorted_probabilities(router):
    scores = router.score(TEXTS)
    for ranking, row in zip(router.route(TEXTS), scores, strict=True):
        assert [choice.score for choice in ranking.choices] == pytest.approx(
            sorted(row.tolist(), reverse=True)
        )
        assert ranking.best == router.model_ids[int(row.argmax())]
        for choice in ranking.choices:
            assert choice.probability == pytest.approx(
                1 / (1 + torch.exp(torch.tensor(-choice.score)).item())
            )
            assert choice.score == pytest.approx(float(row[router.model_ids.index(choice.model_id)]))


def test_one_text_gives_one_ranking_and_no_text_gives_none(router):
    one = router.route(TEXTS[0])
    assert one == router.route(TEXTS)[0] or one.best == router.route(TEXTS)[0].best
    assert router.route([]) == []
    assert router.score([]).shape == (0, 3)


def test_top_k_and_candidates_restrict(router):
    ranking = router.route(TEXTS[0], candidates=["org/poor-1b", "other/odd"])
    assert {choice.model_id for choice in ranking.choices} == {"org/poor-1b", "other/odd"}
    assert router.route(TEXTS[0], top_k=2).choices == router.route(TEXTS[0]).choices[:2]
    assert len(router.route(TEXTS[0], top_k=9).choices) == 3


def test_equal_scores_go_to_the_first_candidate():
    llm = RouterLLM("tiny:llama", score_head="regression")
    torch.nn.init.zeros_(llm.head)
    ranking = Router(llm, ZOO, CAPABILITIES).route("Hi")
    assert [choice.model_id for choice in ranking.choices] == [candidate.model_id for candidate in ZOO]
    assert ranking.to_dict()["route"] == "org/good-7b"
    assert [choice["probability"] for choice in ranking.to_dict()["ranking"]] == [0.5] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.route("Hi", candidates=["org/gone"]), r"does not know .*'org/gone'.*org/good-7b"),
        (lambda r: r.route("Hi", candidates=[]), "list of candidates .* is empty"),
        (lambda r: r.route("Hi", top_k=0), "top_k is 0"),
        (lambda r: Router(r.module, ZOO, CAPABILITIES[:2]), "3 candidates and 2 capabilities"),
        (lambda r: Router(r.module, [], []), "at least one"),
    ],
)
def test_mistakes_are_named(router, call, message):
    with pytest.raises(SatlightError, match=message):
        call(router)


# -- folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODULES)
def test_a_folder_gives_the_same_scores(kind, tmp_path):
    torch.manual_seed(1)
    router = Router(stirred(MODULES[kind]()), ZOO, CAPABILITIES, {"note": [1]})
    expected = router.score(TEXTS)
    router.save_pretrained(tmp_path / "router")
    loaded = Router.from_pretrained(tmp_path / "router")
    assert torch.allclose(loaded.score(TEXTS), expected, atol=1e-5)
    assert expected.std() > 1e-3
    assert loaded.candidates == tuple(ZOO)
    assert loaded.capabilities == tuple(CAPABILITIES)
    assert [getattr(c[0], "strength", None) for c in loaded.capabilities] == [1.25, -1.5, None]
    assert loaded.about == {"note": [1]}
    assert not loaded.module.training
    assert torch.allclose(router.score(TEXTS), expected, atol=1e-6)  # saving changed nothing


def test_saving_replaces_the_whole_folder(router, folder, tmp_path):
    target = tmp_path / "router"
    target.mkdir()
    (target / "old.txt").write_text("old")
    router.save_pretrained(target)
    assert sorted(path.name for path in target.iterdir()) == sorted(path.name for path in folder.iterdir())


def test_a_failure_while_saving_leaves_the_old_folder(router, tmp_path, monkeypatch):
    target = tmp_path / "router"
    router.save_pretrained(target)
    before = (target / "config.json").read_text()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("satlight.routing.router.save_file", full)
    other = Router(router.module, ZOO[:1], CAPABILITIES[:1])
    with pytest.raises(SatlightError, match=r"cannot write .*No space left on device"):
        other.save_pretrained(target)
    assert (target / "config.json").read_text() == before
    assert len(json.loads((target / "zoo.json").read_text())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["router"]


def test_it_loads_offline_from_anywhere_and_holds_no_pickle(folder, router, tmp_path):
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]
    code = (
        "import json, sys; from satlight import Router;"
        "print(json.dumps(Router.from_pretrained(sys.argv[1]).score(json.loads(sys.argv[2])).tolist()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(folder), json.dumps(TEXTS)],
        cwd=tmp_path,
        env={
            **os.environ,
            "SATLIGHT_OFFLINE": "1",
            "SATLIGHT_CACHE": str(tmp_path / "empty"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    )
    assert torch.allclose(torch.tensor(json.loads(result.stdout)), router.score(TEXTS), atol=1e-5)
    assert not (tmp_path / "empty").exists()


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(path: Path, **values) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


@pytest.mark.parametrize("name", ["config.json", "zoo.json", "router.safetensors"])
def test_a_missing_or_broken_file_is_named(copy, name):
    (copy / name).write_bytes(b"{broken")
    with pytest.raises(SatlightError, match=name):
        Router.from_pretrained(copy)
    (copy / name).unlink()
    with pytest.raises(SatlightError, match=name):
        Router.from_pretrained(copy)


def test_another_format_is_refused(copy):
    change(copy / "config.json", format="satlight-router/9")
    with pytest.raises(SatlightError, match=r"'satlight-router/9'.*'satlight-router/1'"):
        Router.from_pretrained(copy)


def test_keys_that_are_missing_or_unknown_are_refused(copy):
    content = json.loads((copy / "config.json").read_text())
    for broken in ({"format": content["format"]}, content | {"router_llm": {"colour": "red"}}):
        (copy / "config.json").write_text(json.dumps(broken))
        with pytest.raises(SatlightError, match=r"config\.json"):
            Router.from_pretrained(copy)
    (copy / "config.json").write_text(json.dumps(content))
    (copy / "zoo.json").write_text(json.dumps([{"candidate": {"colour": "red"}, "capability": []}]))
    with pytest.raises(SatlightError, match=r"zoo\.json"):
        Router.from_pretrained(copy)


def test_weights_that_do_not_fit_are_refused(copy):
    from safetensors.torch import load_file, save_file

    path = copy / "router.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "projector.linear.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(SatlightError, match=r"projector\.linear\.weight"):
        Router.from_pretrained(copy)
    save_file({name: value for name, value in tensors.items() if name != "router_llm.head"}, path)
    with pytest.raises(SatlightError, match=r"lacks \['router_llm\.head'\]"):
        Router.from_pretrained(copy)
    save_file({**tensors, "extra": torch.zeros(1)}, path)
    with pytest.raises(SatlightError, match=r"unknown \['extra'\]"):
        Router.from_pretrained(copy)


def test_only_modules_with_known_parts_can_be_saved(tmp_path):
    class Own(BlockRouter):
        pass

    with pytest.raises(SatlightError, match="A Own cannot be saved as a router folder"):
        Router(Own(), ZOO, CAPABILITIES).save_pretrained(tmp_path / "own")
    assert not (tmp_path / "own").exists()
