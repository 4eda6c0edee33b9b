"""A trained router as a folder and from Python: the same scores anywhere, offline, whole or not at all."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from satlight.errors import SatlightError
from satlight.images import MAX_SIDE, read_image
from satlight.modules import CapabilityEncoder, LoraSpec, ModelSAT, RouterLLM, VisionEncoder, VisualLearners
from satlight.routing import CapabilityRouter, Router
from satlight.storage.provenance import provenance
from satlight.types import Request, Scores

TEXTS = ["What is 2+2?", "Name three rivers that flow through Germany.", "Hi"]


def model_sat(**options) -> ModelSAT:
    return ModelSAT(RouterLLM("tiny:llama", **options), CapabilityEncoder("tiny:bert", chunking="windows"))


MODULES = {
    "model_sat": lambda: model_sat(max_instruction_tokens=20, inquiry="Can it?"),
    "capability_first": lambda: model_sat(order="capability_first", num_layers=1),
    "last layer": lambda: model_sat(candidate_layers=1),
    "task attention": lambda: ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), task_attention=True),
    "weighted keywords": lambda: ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert")),
    "lora, yes": lambda: model_sat(score_head="yes", lora=LoraSpec(r=2, target_modules=["q_proj"])),
    "frozen parts": lambda: ModelSAT(
        RouterLLM("tiny:llama", freeze_layers=1), CapabilityEncoder("tiny:bert", trainable=False, pooling="cls")
    ),
    "text, perturbed": lambda: ModelSAT(RouterLLM("tiny:llama", score_head="regression"), perturbations=2),
    "frozen eyes": lambda: ModelSAT(
        RouterLLM("tiny:llama"),
        CapabilityEncoder("tiny:bert"),
        vision=VisionEncoder("tiny:vit", tokens=4, num_layers=1),
    ),
    "trained eyes": lambda: ModelSAT(
        RouterLLM("tiny:llama", order="capability_first"),
        CapabilityEncoder("tiny:bert"),
        vision=VisionEncoder("tiny:conv", tokens=4, image_size=32, trainable=True),
        visual_towers=True,
        visual_learners=VisualLearners(rank=2, layers=[1]),
    ),
    "eyes of a text router": lambda: ModelSAT(RouterLLM("tiny:llama"), vision=VisionEncoder("tiny:conv", tokens=1)),
    "router_llm alone": lambda: RouterLLM("tiny:llama"),
    "encoder alone": lambda: CapabilityEncoder("tiny:bert", max_tokens=40),
}


def with_images(folder) -> list[Request]:
    """The texts, the second with two images, the third with one that is larger than a block keeps."""
    paths = []
    for i, size in enumerate([(30, 20), (40, 40), (1100, 90)]):
        pixels = np.random.default_rng(i).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return [Request(TEXTS[0]), Request(TEXTS[1], tuple(paths[:2])), Request(TEXTS[2], (paths[2],))]


# -- routing -----------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_module(router, make_block):
    with torch.no_grad():
        expected = router.module(make_block(TEXTS, router.capabilities)).numpy()
    scores = router.score(TEXTS)
    assert isinstance(scores, Scores)
    assert scores.candidates == tuple(router.model_ids)
    assert (scores.log_odds_BC.shape, scores.log_odds_BC.dtype) == ((3, 3), np.float32)
    assert np.allclose(scores.log_odds_BC, expected, atol=1e-6)
    assert scores.log_odds_BC.std(axis=1).min() > 1e-3
    some = router.score(TEXTS, ["other/odd", "org/good-7b"])
    assert some.candidates == ("other/odd", "org/good-7b")
    assert np.allclose(some.log_odds_BC, scores.log_odds_BC[:, [2, 0]], atol=1e-5)


def test_requests_and_texts_are_the_same(router):
    requests = [Request(TEXTS[0]), TEXTS[1], Request(TEXTS[2], metadata={"id": 7})]
    assert np.array_equal(router.score(requests).log_odds_BC, router.score(TEXTS).log_odds_BC)
    assert router.route(Request(TEXTS[0])) == router.route(TEXTS[0])


def test_images_reach_the_module(make_router, make_block, tmp_path):
    router = make_router(MODULES["trained eyes"]())
    requests = with_images(tmp_path)
    block = make_block(TEXTS, router.capabilities)
    block.images = [tuple(read_image(path, max_side=MAX_SIDE) for path in request.images) for request in requests]
    assert max(block.images[2][0].shape) == MAX_SIDE
    with torch.no_grad():
        expected = router.module(block).numpy()
    got = router.score(requests).log_odds_BC
    assert np.allclose(got, expected, atol=1e-6)
    plain = router.score(TEXTS).log_odds_BC
    assert np.allclose(got[0], plain[0], atol=1e-6)
    assert not np.isclose(got[1:], plain[1:], atol=1e-5).any()


def test_a_text_only_router_refuses_images(router, tmp_path):
    assert not router.reads_images
    with pytest.raises(SatlightError, match=r"requests\[0\] .* has 1 image\(s\), but this router reads text only"):
        router.score([Request("What is this?", (tmp_path / "not even there.png",))])


def test_rankings_are_sorted_probabilities(router):
    scores = router.score(TEXTS)
    for ranking, row in zip(router.route(TEXTS), scores.log_odds_BC, strict=True):
        assert [choice.score for choice in ranking.choices] == pytest.approx(sorted(row.tolist(), reverse=True))
        assert ranking.best == router.model_ids[int(row.argmax())]
        for choice in ranking.choices:
            assert choice.probability == pytest.approx(1 / (1 + np.exp(-(choice.score / 1.5 - 0.25))))
            assert choice.score == pytest.approx(float(row[router.model_ids.index(choice.model_id)]))


def test_one_text_gives_one_ranking_and_no_text_gives_none(router):
    one = router.route(TEXTS[0])
    assert one == router.route(TEXTS)[0] or one.best == router.route(TEXTS)[0].best
    assert router.route([]) == []
    assert router.score([]).log_odds_BC.shape == router.score([]).probability_BC.shape == (0, 3)


def test_top_k_and_candidates_restrict(router):
    ranking = router.route(TEXTS[0], candidates=["org/poor-1b", "other/odd"])
    assert {choice.model_id for choice in ranking.choices} == {"org/poor-1b", "other/odd"}
    assert router.route(TEXTS[0], top_k=2).choices == router.route(TEXTS[0]).choices[:2]
    assert len(router.route(TEXTS[0], top_k=9).choices) == 3


def test_equal_scores_go_to_the_first_candidate(router):
    llm = RouterLLM("tiny:llama", score_head="regression")
    torch.nn.init.zeros_(llm.head)
    ranking = CapabilityRouter(llm, router.candidates, router.capabilities).route("Hi")
    assert [choice.model_id for choice in ranking.choices] == router.model_ids
    assert ranking.to_dict()["route"] == "org/good-7b"
    assert [choice["probability"] for choice in ranking.to_dict()["ranking"]] == [0.5] * 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.route("Hi", candidates=["org/gone"]), r"does not know .*'org/gone'.*org/good-7b"),
        (lambda r: r.route("Hi", candidates=[]), "list of candidates .* is empty"),
        (lambda r: r.route("Hi", top_k=0), "top_k is 0"),
        (lambda r: CapabilityRouter(r.module, r.candidates, r.capabilities[:2]), "3 candidates and 2 capabilities"),
        (lambda r: CapabilityRouter(r.module, [], []), "at least one"),
    ],
)
def test_mistakes_are_named(router, call, message):
    with pytest.raises(SatlightError, match=message):
        call(router)


# -- folder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MODULES)
def test_load_save_and_load_again_give_the_same_scores_and_files(kind, make_router, contents, tmp_path):
    torch.manual_seed(1)
    router = make_router(MODULES[kind](), about={"note": [1]})
    requests = with_images(tmp_path) if router.reads_images else TEXTS
    expected = router.score(requests).log_odds_BC
    router.save(tmp_path / "router")
    loaded = Router.from_pretrained(tmp_path / "router")
    assert isinstance(loaded, CapabilityRouter)
    assert np.allclose(loaded.score(requests).log_odds_BC, expected, atol=1e-5)
    assert expected.std() > 1e-3
    assert loaded.candidates == router.candidates
    assert loaded.capabilities == router.capabilities
    assert loaded.about == {**provenance(), "note": [1]}
    assert not loaded.module.training
    assert np.allclose(router.score(requests).log_odds_BC, expected, atol=1e-6)  # saving changed nothing
    loaded.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "router")
    again = Router.from_pretrained(tmp_path / "again").score(requests).log_odds_BC
    assert np.array_equal(again, loaded.score(requests).log_odds_BC)


def test_saving_replaces_the_whole_folder(router, router_folder, tmp_path):
    target = tmp_path / "router"
    target.mkdir()
    (target / "old.txt").write_text("old")
    router.save(target)
    assert sorted(path.name for path in target.iterdir()) == sorted(path.name for path in router_folder.iterdir())


def test_a_failure_while_saving_leaves_the_old_folder(router, tmp_path, monkeypatch):
    target = tmp_path / "router"
    router.save(target)
    before = (target / "config.json").read_text()

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("satlight.routing.router.save_file", full)
    other = CapabilityRouter(router.module, router.candidates[:1], router.capabilities[:1])
    with pytest.raises(SatlightError, match=r"cannot write .*No space left on device"):
        other.save(target)
    assert (target / "config.json").read_text() == before
    assert len(json.loads((target / "zoo.json").read_text())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["router"]


def test_it_loads_offline_from_anywhere_and_holds_no_pickle(router_folder, router, tmp_path):
    assert not [path for path in router_folder.rglob("*") if path.suffix in {".bin", ".pt", ".pkl", ".ckpt"}]
    code = (
        "import json, sys; from satlight import Router;"
        "scores = Router.from_pretrained(sys.argv[1]).score(json.loads(sys.argv[2]));"
        "print(json.dumps(scores.log_odds_BC.tolist()))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(router_folder), json.dumps(TEXTS)],
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
    assert np.allclose(json.loads(result.stdout), router.score(TEXTS).log_odds_BC, atol=1e-5)
    assert not (tmp_path / "empty").exists()


def test_a_restored_router_scores_as_one_with_weights_by_rows(make_router, tmp_path):
    router = make_router(MODULES["task attention"]())
    plain_BC = router.score(TEXTS).log_odds_BC
    router.save(tmp_path / "router")
    restored = Router.from_pretrained(tmp_path / "router")
    linear = [part for part in restored.module.modules() if isinstance(part, torch.nn.Linear)]
    assert all(part.weight.stride(0) == 1 for part in linear)
    np.testing.assert_allclose(restored.score(TEXTS).log_odds_BC, plain_BC, rtol=0, atol=1e-5)
    for text, row in zip(TEXTS, plain_BC, strict=True):
        np.testing.assert_allclose(restored.score([text]).log_odds_BC[0], row, rtol=0, atol=1e-5)
    restored.save(tmp_path / "again")
    again_BC = Router.from_pretrained(tmp_path / "again").score(TEXTS).log_odds_BC
    np.testing.assert_allclose(again_BC, plain_BC, rtol=0, atol=1e-5)
