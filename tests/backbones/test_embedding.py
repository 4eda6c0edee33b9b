"""The embedder that baselines are handed; tests/test_vectors.py is about what it keeps on disk."""

import numpy as np
import pytest

from satlight.backbones.embedding import Embedder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path))


def test_vectors_are_the_encoders_scaled_to_length_one():
    embedder = Embedder("tiny:bert", batch_size=2)
    texts = ["a longer text than the others", "b", "b", ""]
    vectors = embedder(texts)
    assert vectors.dtype == np.float32
    assert np.array_equal(vectors[1], vectors[2])
    for text, vector in zip(texts, vectors, strict=True):
        alone = embedder._encoder([text])[0].detach().numpy()
        assert vector == pytest.approx(alone / np.linalg.norm(alone), abs=1e-5)


def test_no_network_is_loaded_for_texts_that_are_known():
    vectors = Embedder("tiny:bert")(["one", "two"])
    again = Embedder("tiny:bert")
    assert np.array_equal(again(["two", "one"]), vectors[::-1])
    assert "_encoder" not in vars(again)


def test_tiny_backbones_are_the_same_in_every_process(tmp_path, monkeypatch):
    one = Embedder("tiny:bert")(["some text"])
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "elsewhere"))
    assert np.array_equal(Embedder("tiny:bert")(["some text"]), one)
