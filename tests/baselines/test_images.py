"""Baselines on instructions with images: one text, and only the image tells which candidate is right."""

import numpy as np
import polars as pl
import pytest
from PIL import Image

from satlight.backbones.embedding import Embedder, ImageEmbedder, RequestEmbedder
from satlight.baselines import build
from satlight.errors import SatlightError
from satlight.records import PerformanceRecords
from satlight.routers import Router
from satlight.types import AptitudeResults, Candidate, Request

NAMES = ["knn", "linear", "mlp", "inferred_dataset", "cluster", "aptitude_knn"]


@pytest.fixture
def records(tmp_path, monkeypatch):
    """40 drawings with a square on the left, which "left" solves, or on the right, which "right" solves."""
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    images = []
    for row in range(40):
        image = Image.new("RGB", (64, 64), "white")
        x, y = (4 if row % 2 == 0 else 36), int(rng.integers(4, 36))
        image.paste("black", (x, y, x + 24, y + 24))
        image.save(tmp_path / f"{row}.png")
        images.append([str(tmp_path / f"{row}.png")])
    frame = pl.DataFrame(
        {
            "instruction_id": [f"i{row}" for row in range(40)],
            "dataset": ["drawings"] * 40,
            "task": ["left" if row % 2 == 0 else "right" for row in range(40)],
            "split": ["test" if row >= 30 else "validation" if row >= 22 else "train" for row in range(40)],
            "instruction": ["Where is the square?"] * 40,
            "images": images,
        }
    )
    outcomes = np.array([[row % 2 == 0, row % 2 == 1] for row in range(40)], dtype=np.float32)
    return PerformanceRecords(frame, (Candidate("left"), Candidate("right")), outcomes, np.ones((40, 2), dtype=bool))


@pytest.fixture
def embed(records):
    return RequestEmbedder(Embedder("tiny:bert"), ImageEmbedder("tiny:conv"))


def fitted(name, records, embed):
    fixed = {
        "k": 5,
        "alpha": 0.03 if name == "mlp" else 1.0,
        "steps": 250,
        "clusters": 8,
        "nearest": 1,
        "label": "task",
    }
    baseline = build(name)
    grid = {key: value for key, value in (fixed | {"use": "best"}).items() if key in baseline.GRID}
    return build(name, fixed=grid).fit(records.filter(splits=["train", "validation"]), embed)


@pytest.mark.parametrize("name", NAMES)
def test_what_only_the_image_tells_is_learned(records, embed, name):
    test = records.filter(splits="test")
    seeing, blind = fitted(name, records, embed), fitted(name, records, embed.text)
    assert seeing.reads_images
    assert not blind.reads_images
    truth = test.outcomes.argmax(axis=1)
    assert (seeing.predict(seeing.inputs(test), test.model_ids).argmax(axis=1) == truth).all()
    assert np.ptp(blind.predict(blind.inputs(test), test.model_ids), axis=0).max() < 1e-6  # equal texts, equal scores


@pytest.mark.parametrize("name", ["knn", "linear"])
def test_a_folder_holds_both_networks(records, embed, name, tmp_path, monkeypatch):
    test = records.filter(splits="test").requests()
    baseline = fitted(name, records, embed)
    baseline.save(tmp_path / "router")
    expected = baseline.score(test).log_odds_BC
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "empty"))
    loaded = Router.from_pretrained(tmp_path / "router")
    assert loaded.reads_images
    assert loaded.score(test).log_odds_BC == pytest.approx(expected, abs=1e-5)
    assert loaded.route(test[0]).best == "left"
    assert loaded.route(Request("Where?", (test[1].images[0].read_bytes(),))).best == "right"


def test_a_router_of_texts_refuses_images(records, embed):
    asked = records.requests()[0]
    for router in (
        fitted("knn", records, embed.text),
        build("tfidf_knn", fixed={"k": 5}).fit(records.filter(splits="train")),
    ):
        with pytest.raises(
            SatlightError, match=r"requests\[1\] \('Where is the square\?'\) has 1 image.*text only; remove"
        ):
            router.route(["Where?", asked])
        with pytest.raises(SatlightError, match=r"configs/multimodal\.yaml"):
            router.score([asked])
        assert router.route(asked.text).best in records.model_ids


def test_a_candidate_is_admitted_by_results_on_images(records, embed):
    train = records.filter(splits="train")
    ids = tuple(train.instructions["instruction_id"])
    images = tuple(request.images for request in train.requests())
    results = AptitudeResults(ids, tuple(train.texts), train.outcomes[:, 0], images=images)
    grown = fitted("knn", records, embed).admit(Candidate("new"), results)
    scores = grown.score(records.filter(splits="test").requests()).log_odds_BC
    assert (scores[:, 2] > scores[:, 1]).tolist() == [row % 2 == 0 for row in range(30, 40)]
    with pytest.raises(SatlightError, match="3 tuples of images"):
        AptitudeResults(ids, tuple(train.texts), train.outcomes[:, 0], images=images[:3])
