"""Vectors on disk: computed once, whole files, damage named."""

import weakref

import numpy as np
import pytest
import torch

from satlight.backbones.embedding import Embedder
from satlight.backbones.vectors import VectorStore, identity
from satlight.errors import SatlightError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path))


def lengths(texts):
    return np.array([[len(text), 1.0] for text in texts])


def never(texts):
    raise AssertionError(f"computed again: {texts}")


def test_the_arrays_of_batches_are_not_kept():
    """Kept between the large temporary arrays of a forward pass, they fragment the heap: 1.3 GB for 10,000 texts."""
    batches = []

    def embed(texts):
        vectors_ND = lengths(texts).astype(np.float32)
        batches.append(weakref.ref(vectors_ND))
        return vectors_ND

    store = VectorStore("e")
    assert store.read(["a", "bcd", "xy"], embed, batch_size=1).shape == (3, 2)
    assert [batch() for batch in batches] == [None] * 3


def test_a_text_is_computed_once_even_by_another_process():
    asked = []

    def embed(texts):
        asked.extend(texts)
        return lengths(texts)

    store = VectorStore("e")
    first = store.read(["a", "bcd", "a"], embed)
    assert first.tolist() == [[1, 1], [3, 1], [1, 1]]
    assert sorted(asked) == ["a", "bcd"]
    assert VectorStore("e").read(["bcd", "a"], never).tolist() == [[3, 1], [1, 1]]
    assert store.read(["a", "xy"], embed).tolist() == [[1, 1], [2, 1]]
    assert asked[-1] == "xy"


def test_embedders_do_not_share_vectors():
    VectorStore("e").read(["a"], lengths)
    assert VectorStore("other").read(["a"], lambda texts: np.zeros((1, 2))).tolist() == [[0, 0]]


def test_batches_hold_texts_of_like_length():
    sizes = []

    def embed(texts):
        sizes.append([len(text) for text in texts])
        return lengths(texts)

    VectorStore("e").read(["aaaa", "b", "ccc", "dd"], embed, batch_size=2)
    assert sizes == [[1, 2], [3, 4]]


def test_what_was_computed_before_a_crash_is_kept(monkeypatch):
    monkeypatch.setattr("satlight.backbones.vectors.SHARD_BATCHES", 1)

    def fails_at_long(texts):
        if len(texts[0]) > 2:
            raise KeyboardInterrupt
        return lengths(texts)

    with pytest.raises(KeyboardInterrupt):
        VectorStore("e").read(["a", "bcd"], fails_at_long, batch_size=1)
    assert VectorStore("e").read(["a"], never).tolist() == [[1, 1]]


def cut(path):
    path.write_bytes(b"cut off")


def flip_in_a_vector(path):
    content = bytearray(path.read_bytes())
    content[content.index(np.float32(3).tobytes())] ^= 1  # of "bcd"; keys are hashes
    path.write_bytes(content)


def of_other_texts(path):
    from safetensors.numpy import save_file

    save_file({"keys": np.zeros((2, 16), np.uint8), "vectors": np.zeros((1, 2), np.float32)}, path)


@pytest.mark.parametrize("damage", [cut, flip_in_a_vector, of_other_texts])
def test_a_damaged_file_is_computed_again_with_a_warning(damage, caplog):
    store = VectorStore("e")
    store.read(["a", "bcd"], lengths)
    (path,) = store.folder.glob("*.safetensors")
    damage(path)
    assert VectorStore("e").read(["bcd"], lengths).tolist() == [[3, 1]]
    assert f"{path.name} is damaged" in caplog.text
    caplog.clear()
    assert VectorStore("e").read(["bcd"], never).tolist() == [[3, 1]]
    assert not caplog.text


def test_a_file_without_a_checksum_is_read():
    from safetensors.numpy import load_file, save_file

    store = VectorStore("e")
    store.read(["a"], lengths)
    (path,) = store.folder.glob("*.safetensors")
    save_file(load_file(path), path)  # as older releases wrote it
    assert VectorStore("e").read(["a"], never).tolist() == [[1, 1]]


def test_a_batch_stays_within_its_budget():
    asked = []

    def embed(texts):
        asked.append([len(text) for text in texts])
        return lengths(texts)

    texts = ["a", "bb", "cc", "dddddddd", "eee"]
    store = VectorStore("e")
    store.read(texts, embed, budget=6)
    assert asked == [[1, 2, 2], [3], [8]]


def test_vectors_do_not_depend_on_threads_or_batches(monkeypatch):
    texts = ["Sort a list. " * n for n in range(1, 30)]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = Embedder("tiny:bert", batch_size=1)(texts)
        monkeypatch.setenv("SATLIGHT_CACHE", str(VectorStore("e").folder))
        torch.set_num_threads(2)
        monkeypatch.setattr("satlight.backbones.embedding.BATCH_TOKENS", 256)
        np.testing.assert_allclose(Embedder("tiny:bert")(texts), one, atol=2e-6)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_identity_follows_the_files(tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    before = identity(str(folder))
    (folder / "notes.md").write_text("not part of the model")
    assert identity(str(folder)) == before
    (folder / "model.safetensors").write_bytes(b"two")
    assert identity(str(folder)) != before


def test_embedder_gives_unit_rows_and_refuses_nonsense():
    vectors = Embedder("tiny:bert")(["What is 2 + 2?", "Sort."])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    with pytest.raises(SatlightError, match="no texts"):
        Embedder("tiny:bert")([])
    with pytest.raises(SatlightError, match="batch_size=0"):
        Embedder("tiny:bert", batch_size=0)


@pytest.mark.parametrize("broken", ["mkdir", "file"])
def test_a_store_that_cannot_be_written_or_read_warns_once_and_goes_on(monkeypatch, caplog, broken):
    if broken == "file":  # a file in the place of the folder
        folder = VectorStore("lengths").folder
        folder.parent.parent.mkdir(parents=True, exist_ok=True)
        folder.parent.write_text("")
    else:
        monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    store = VectorStore("lengths")
    for texts in (["a", "bcd"], ["bcd", "ef"]):
        assert store.read(texts, lengths).tolist() == lengths(texts).tolist()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "SATLIGHT_CACHE" in caplog.text


def test_a_read_only_store_with_everything_in_it_is_read(monkeypatch, caplog):
    VectorStore("lengths").read(["a"], lengths)
    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert VectorStore("lengths").read(["a"], never).tolist() == [[1, 1]]
    monkeypatch.setattr("safetensors.safe_open", refuse)
    assert VectorStore("lengths").read(["a"], lengths).tolist() == [[1, 1]]
    assert "cannot be read" in caplog.text


def refuse(*args, **kwargs):
    raise OSError(30, "Read-only file system")
