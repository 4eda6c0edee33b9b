"""Vectors of texts with images: what they tell apart, and what stays as it is without images."""

import io

import numpy as np
import pytest
from PIL import Image

from satlight.backbones.embedding import Embedder, ImageEmbedder, RequestEmbedder
from satlight.errors import SatlightError
from satlight.types import Request


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def drawing(tmp_path):
    """Write a white image with a black square at a place."""

    def draw(name, x, y):
        image = Image.new("RGB", (64, 64), "white")
        image.paste("black", (x, y, x + 24, y + 24))
        image.save(tmp_path / name)
        return tmp_path / name

    return draw


@pytest.fixture
def embedder():
    return RequestEmbedder(Embedder("tiny:bert"), ImageEmbedder("tiny:conv"), image_weight=0.3)


def test_texts_alone_are_the_vectors_of_the_text_embedder(embedder, drawing):
    texts = ["What is 2 + 2?", "How many?"]
    alone = embedder.text(texts)
    mixed = embedder([Request(texts[0]), Request(texts[1], (drawing("a.png", 4, 4),))])
    assert np.array_equal(mixed[0, :32], alone[0])
    assert not mixed[0, 32:].any()
    assert np.array_equal(embedder(texts)[:, :32], alone)  # without any image in the batch, too
    assert embedder(texts).shape == mixed.shape


def test_parts_have_the_declared_weight_and_rows_unit_norm(embedder, drawing):
    one, other = drawing("a.png", 4, 4), drawing("b.png", 36, 36)
    vectors = embedder([Request("How many?", (one,)), Request("How many?", (one, other)), Request("How many?")])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert (vectors[:2, 32:] ** 2).sum(axis=1) == pytest.approx([0.3, 0.3], abs=1e-5)
    images = embedder.image([one, other])
    mean = images.sum(axis=0) / np.linalg.norm(images.sum(axis=0))
    assert vectors[1, 32:] == pytest.approx(0.3**0.5 * mean, abs=1e-5)


def test_cells_keep_where_things_are(drawing):
    corners = [drawing("a.png", 4, 4), drawing("b.png", 36, 36)]
    cosine = {cells: np.prod(ImageEmbedder("tiny:conv", cells)(corners), axis=0).sum() for cells in (1, 4)}
    assert cosine[4] < cosine[1] - 0.001
    assert ImageEmbedder("tiny:conv", 4)(corners).shape == (2, 32 * 16)


def test_vectors_are_cached_by_content(drawing, monkeypatch):
    path = drawing("a.png", 4, 4)
    vector = ImageEmbedder("tiny:conv")([path])
    copy = path.with_name("copy.png")
    copy.write_bytes(path.read_bytes())
    again = ImageEmbedder("tiny:conv")
    monkeypatch.setattr(again, "_embed", lambda images: pytest.fail("the vector is in the cache"))
    assert np.array_equal(again([copy]), vector)
    assert np.array_equal(again([path.read_bytes(), copy]), vector[[0, 0]])


def test_images_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(SatlightError, match=r"text\.png is no image of a known format"):
        ImageEmbedder("tiny:conv")([tmp_path / "text.png"])
    with pytest.raises(SatlightError, match=r"gone\.png does not exist"):
        ImageEmbedder("tiny:conv")([tmp_path / "gone.png"])


def test_numbers_out_of_range():
    with pytest.raises(SatlightError, match="cells=0"):
        ImageEmbedder("tiny:conv", cells=0)
    with pytest.raises(SatlightError, match=r"image_weight=1\.5"):
        RequestEmbedder(Embedder("tiny:bert"), ImageEmbedder("tiny:conv"), 1.5)


def test_contents_and_files_have_equal_vectors(embedder, drawing):
    path = drawing("a.png", 4, 4)
    content = io.BytesIO(path.read_bytes()).getvalue()
    vectors = embedder([Request("How many?", (path,)), Request("How many?", (content,))])
    assert np.array_equal(vectors[0], vectors[1])
