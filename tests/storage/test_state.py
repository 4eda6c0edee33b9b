"""Learned attributes as JSON and arrays: exact round trips, and errors that name the attribute."""

import json
import sys
import types
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestRegressor
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.neural_network import MLPRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from satlight.errors import SatlightError
from satlight.storage.classes import Configured
from satlight.storage.estimators import ESTIMATORS
from satlight.storage.folder import load_arrays, save_arrays
from satlight.storage.state import Packer, Unpacker

X = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
Y = np.random.default_rng(1).normal(size=(40, 2))


@dataclass(frozen=True)
class Pair:
    left: int
    right: np.ndarray


class Net(Configured, nn.Module):
    def __init__(self, width: int, inner: nn.Module | None = None) -> None:
        super().__init__()
        self.linear, self.inner = nn.Linear(width, 2), inner
        self.register_buffer("rows", torch.zeros(5), persistent=False)


@pytest.fixture
def mine(monkeypatch):
    module = types.ModuleType("mine")
    monkeypatch.setitem(sys.modules, "mine", module)
    for cls in (Pair, Net):
        monkeypatch.setattr(cls, "__module__", "mine")
        setattr(module, cls.__name__, cls)


def packed(value, folder):
    packer = Packer(folder, "Thing")
    tree = json.loads(json.dumps(packer.pack({"part": value}, ""), allow_nan=False))
    save_arrays(folder, packer.arrays)
    return tree


def unpacked(tree, folder):
    return Unpacker(load_arrays(folder), folder, ["mine"], "state.json").unpack(tree)["part"]


def round_trip(value, folder):
    return unpacked(packed(value, folder), folder)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, "text", 0.1, -0.0, float("inf"), [1, [2]], (1, ("a",)), {}, {"@": 1, "b": (2,)}),
        *({1: "a", (2, "b"): 0.5}, np.float32, np.int64(3), np.float32(0.1), np.bool_(True)),
    ],
    ids=repr,
)
def test_plain_values(value, tmp_path):
    found = round_trip(value, tmp_path)
    assert type(found) is type(value)
    assert repr(found) == repr(value)


@pytest.mark.parametrize(
    "array",
    [
        *(X, X.T, np.asfortranarray(Y), X[::2, 1], np.zeros((0, 3)), np.array(2.0), np.array([True, False])),
        *(np.array([["ab", "c"]]), np.arange(3, dtype=np.int32), X.astype(np.float16)),
    ],
)
def test_arrays_keep_type_values_and_order_in_memory(array, tmp_path):
    found = round_trip(array, tmp_path)
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert np.array_equal(found, array)
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        assert found.flags.f_contiguous
    assert np.array_equal(X @ round_trip(X[:7].T, tmp_path), X @ X[:7].T)


def test_sparse_matrices_and_tensors(tmp_path):
    matrix = csr_matrix(np.eye(3, 5, dtype=np.float32))
    found = round_trip(matrix, tmp_path)
    assert found.dtype == np.float32
    assert (found != matrix).nnz == 0
    tensor = torch.arange(6).reshape(2, 3)
    assert torch.equal(round_trip(tensor, tmp_path), tensor)


@pytest.mark.parametrize(
    "estimator",
    [
        Ridge(2.0).fit(X, Y.astype(np.float32)),
        LinearRegression().fit(X, Y),
        MLPRegressor(hidden_layer_sizes=(4,), max_iter=5000, random_state=0).fit(X, Y),
        RandomForestRegressor(3, random_state=0).fit(X, Y),
        RandomForestRegressor(3, random_state=0).fit(X, Y[:, 0]),
        PCA(2).fit(X),
        StandardScaler().fit(X),
        LogisticRegression().fit(X, np.arange(40) % 3),
    ],
    ids=lambda estimator: type(estimator).__name__,
)
def test_estimators_predict_the_same(estimator, tmp_path):
    found = round_trip(estimator, tmp_path)
    assert type(found) is type(estimator)
    name = next(n for n in ("predict_proba", "predict", "transform") if hasattr(estimator, n))
    assert np.array_equal(getattr(found, name)(X), getattr(estimator, name)(X))


def test_tfidf_keeps_its_vocabulary(tmp_path):
    tfidf = TfidfVectorizer(dtype=np.float32, ngram_range=(1, 2)).fit(["sort the list", "add the numbers"])
    found = round_trip(tfidf, tmp_path)
    texts = ["the list of numbers", "unknown"]
    assert (found.transform(texts) != tfidf.transform(texts)).nnz == 0
    assert packed(tfidf, tmp_path) == packed(found, tmp_path)


def test_dataclasses_and_modules(mine, tmp_path):
    pair = round_trip([Pair(1, X)], tmp_path)[0]
    assert isinstance(pair, Pair)
    assert np.array_equal(pair.right, X)
    net = Net(3, Net(4))
    before = torch.get_rng_state()
    found = round_trip(net, tmp_path)
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(found.inner, Net)
    assert not found.training
    assert all(torch.equal(found.state_dict()[key], value) for key, value in net.state_dict().items())
    assert set(load_arrays(tmp_path)) == {
        f"part.{key}.{kind}" for key in ("linear", "inner.linear") for kind in ("weight", "bias")
    }


def test_classes_that_are_not_allowed_are_refused(mine, tmp_path):
    for value in (Pair(1, X), Net(2)):
        tree = packed(value, tmp_path)
        with pytest.raises(SatlightError, match=r"class_path is 'mine\.\w+'; allowed are"):
            Unpacker(load_arrays(tmp_path), tmp_path, [], "state.json").unpack(tree)


Point = namedtuple("Point", "x")


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (len, "a builtin_function_or_method"),
        ({1, 2}, "a set"),
        (b"bytes", "a bytes"),
        (Point(1), "a Point"),
        (OrderedDict(a=1), "a OrderedDict"),
        (SVC(), "a SVC"),
        (nn.Linear(2, 2), "a Linear"),
        (np.random.default_rng(0), "a Generator"),
        (np.array([object()]), "an array of object"),
        (np.array([1.0, np.nan]), "an array with values that are not finite"),
        (torch.zeros(2, dtype=torch.bfloat16), "a tensor of torch.bfloat16"),
        (Path("x"), "a PosixPath"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_stored_is_named(value, what, tmp_path):
    with pytest.raises(SatlightError, match=rf"Thing cannot be stored: its attribute 'part\.0' is {what}") as error:
        packed([value], tmp_path)
    assert "Keep what was learned as one of these" in str(error.value)


def test_damaged_trees_are_refused(tmp_path):
    tree = packed(RandomForestRegressor(1, random_state=0).fit(X, Y), tmp_path)
    arrays = load_arrays(tmp_path)
    for field, value in (("left_child", 10**6), ("right_child", 0), ("feature", 99)):
        name = next(key for key in arrays if key.endswith(f".{field}"))
        broken = {key: array.copy() for key, array in arrays.items()}
        broken[name][0] = value
        with pytest.raises(SatlightError, match="a decision tree"):
            Unpacker(broken, tmp_path, [], "state.json").unpack(tree)


@pytest.mark.parametrize(
    ("tree", "error", "message"),
    [
        ({"@": "pickle"}, SatlightError, "state.json: the kind 'pickle' is unknown; allowed are float"),
        ({"@": "_class__"}, SatlightError, "is unknown"),
        ({"@": "array", "name": "gone"}, KeyError, "gone"),
        ({"no": "kind"}, KeyError, "@"),
        (
            {"@": "estimator", "class_path": "sklearn.svm.SVC", "params": {"@": "dict", "items": {}},
             "fitted": {"@": "dict", "items": {}}},
            SatlightError,
            "class_path is 'sklearn.svm.SVC'; allowed estimators are sklearn.cluster.KMeans",
        ),
        (
            {"@": "csr", "shape": [1, 2], "data": {"@": "array", "name": "one"},
             "indices": {"@": "array", "name": "far"}, "indptr": {"@": "array", "name": "ends"}},
            ValueError,
            "indices",
        ),
    ],
)  # fmt: skip
def test_damaged_content_is_refused(tree, error, message, tmp_path):
    arrays = {"one": np.ones(1), "far": np.array([7]), "ends": np.array([0, 1])}
    with pytest.raises(error, match=message):
        Unpacker(arrays, tmp_path, [], "state.json").unpack(tree)


def test_the_list_of_estimators_names_public_classes():
    assert all(path.startswith("sklearn.") and "._" not in path for path in ESTIMATORS)
