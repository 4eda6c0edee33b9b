"""Mining against a brute-force reference, and everything that faiss does not say."""

import numpy as np
import pytest

from satlight.data.negatives import InstructionIndex, first_where, hard_negatives, mean_cosine, neighbors, unit_rows
from satlight.errors import SatlightError

R, D = 400, 12


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(R, D)) * np.linspace(0.1, 9, R)[:, None]


def brute_force(vector_RD: np.ndarray, count: int, near_duplicate: float = 1.0) -> np.ndarray:
    """Nearest others by cosine, ties in the order of the rows, worked out row by row."""
    unit = vector_RD / np.linalg.norm(vector_RD, axis=1, keepdims=True)
    found = []
    for row in range(len(unit)):
        cosine = np.round(unit @ unit[row], 5)
        others = [r for r in range(len(unit)) if r != row and cosine[r] <= near_duplicate]
        others = sorted(others, key=lambda r: (-cosine[r], r))[:count]
        found.append(others + [-1] * (count - len(others)))
    return np.array(found)


# -- the index ---------------------------------------------------------------------------------------------


def test_search_is_by_cosine_whatever_the_lengths(vectors):
    cosine_QK, row_QK = InstructionIndex.build(vectors).search(vectors[:5] * 7, 3)
    unit = unit_rows(vectors)
    assert row_QK[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert cosine_QK[:, 0] == pytest.approx(np.ones(5), abs=1e-5)
    assert cosine_QK[0] == pytest.approx((unit[row_QK[0]] @ unit[0]), abs=1e-5)


@pytest.mark.parametrize(("kind", "share"), [("flat", 1.0), ("hnsw", 0.99), ("ivf", 0.7)])
def test_every_kind_finds_the_nearest_and_repeats_itself(vectors, kind, share):
    index = InstructionIndex.build(vectors, kind)
    found = index.search(vectors, 10)[1]
    exact = InstructionIndex.build(vectors).search(vectors, 10)[1]
    hits = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), exact.tolist(), strict=True)])
    assert hits >= share
    assert (InstructionIndex.build(vectors, kind).search(vectors, 10)[1] == found).all()


def test_the_kind_follows_the_size(vectors, monkeypatch):
    import faiss

    import satlight.data.negatives as module

    def kind(flat: int, hnsw: int) -> type:
        monkeypatch.setattr(module, "FLAT_ROWS", flat)
        monkeypatch.setattr(module, "HNSW_ROWS", hnsw)
        return type(InstructionIndex.build(vectors)._index)

    assert kind(R, R) is faiss.IndexFlatIP
    assert kind(R - 1, R) is faiss.IndexHNSWFlat
    assert kind(1, R - 1) is faiss.IndexIVFFlat


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivf"])
def test_saved_and_loaded_it_answers_the_same(vectors, tmp_path, kind):
    index = InstructionIndex.build(vectors, kind)
    index.save(tmp_path / "deep" / "instructions.index")
    loaded = InstructionIndex.load(tmp_path / "deep" / "instructions.index")
    assert (loaded.size, loaded.width) == (R, D)
    for one, other in zip(index.search(vectors, 9), loaded.search(vectors, 9), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["instructions.index"]


def test_a_failed_save_leaves_the_old_index(vectors, tmp_path, monkeypatch):
    import faiss

    path = tmp_path / "instructions.index"
    InstructionIndex.build(vectors[:10]).save(path)

    def half(index, name):
        with open(name, "wb") as file:
            file.write(b"half")
        raise RuntimeError("disk full")

    monkeypatch.setattr(faiss, "write_index", half)
    with pytest.raises(RuntimeError, match="disk full"):
        InstructionIndex.build(vectors).save(path)
    assert InstructionIndex.load(path).size == 10


def test_what_is_no_index_is_named(tmp_path):
    with pytest.raises(SatlightError, match=r"nowhere does not exist; write an index"):
        InstructionIndex.load(tmp_path / "nowhere")
    (tmp_path / "text").write_text("no index at all, only words")
    with pytest.raises(SatlightError, match=r"text is not an instruction index"):
        InstructionIndex.load(tmp_path / "text")


def test_fewer_rows_than_asked_for_are_marked(vectors):
    cosine_QK, row_QK = InstructionIndex.build(vectors[:2]).search(vectors[:1], 4)
    assert sorted(row_QK[0, :2].tolist()) == [0, 1]
    assert row_QK[0, 2:].tolist() == [-1, -1]
    assert np.isnan(cosine_QK[0, 2:]).all()


def test_ties_come_in_the_order_of_the_rows():
    vector_RD = np.array([[0.0, 1.0], [3.0, 3.0], [1.0, 1.0], [2.0, 2.0], [1.0, 0.0]])
    _, row_QK = InstructionIndex.build(vector_RD).search(np.array([[1.0, 1.0], [1.0, 0.0]]), 5)
    assert row_QK.tolist() == [[1, 2, 3, 0, 4], [4, 1, 2, 3, 0]]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones(3), r"shape \(3,\)"),
        (np.ones((0, 3)), r"shape \(0, 3\)"),
        (np.array([[1.0], [np.nan], [np.inf]]), r"row 1 holds NaN or infinity \(2 of 3 rows do\)"),
    ],
)
def test_bad_vectors_are_named(vectors, bad, message):
    with pytest.raises(SatlightError, match=message):
        InstructionIndex.build(bad)
    with pytest.raises(SatlightError, match=message):
        InstructionIndex.build(vectors).search(bad, 1)


def test_another_width_or_count_is_named(vectors):
    index = InstructionIndex.build(vectors)
    with pytest.raises(SatlightError, match="vectors of 12 features, but the query has 5"):
        index.search(np.ones((1, 5)), 1)
    with pytest.raises(SatlightError, match="search got count 0"):
        index.search(vectors, 0)
    with pytest.raises(SatlightError, match="holds 400 instructions, but 3 vectors"):
        neighbors(index, vectors[:3], 1)


def test_unit_rows_takes_any_type_and_keeps_its_input():
    given = np.array([[3, 4], [0, 0]], dtype=np.float16)[:, ::-1]
    unit = unit_rows(given)
    assert unit.dtype == np.float32
    assert unit.flags.c_contiguous
    assert unit.tolist() == pytest.approx(np.array([[0.8, 0.6], [0.0, 0.0]]))
    assert given.tolist() == [[4, 3], [0, 0]]


# -- neighbors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1.0, 0.6, 0.2])
def test_neighbors_are_those_of_brute_force(vectors, limit):
    found = neighbors(InstructionIndex.build(vectors), vectors, 20, limit)
    np.testing.assert_array_equal(found, brute_force(vectors, 20, limit))


def test_an_instruction_is_never_its_own_neighbor_even_among_copies():
    vector_RD = np.repeat(np.array([[1.0, 2.0]]), 6, axis=0)
    found = neighbors(InstructionIndex.build(vector_RD), vector_RD, 3)
    assert found.tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2], [0, 1, 2], [0, 1, 2]]


def test_near_duplicates_take_no_place():
    rng = np.random.default_rng(1)
    centre = np.array([[1.0, 0.0, 0.0, 0.0]])
    copies = centre + 0.01 * rng.normal(size=(120, 4))  # many more than a first search returns
    others = centre + 0.6 * rng.normal(size=(30, 4))
    vector_RD = np.concatenate([copies, others])
    found = neighbors(InstructionIndex.build(vector_RD), vector_RD, 5, near_duplicate=0.99)
    np.testing.assert_array_equal(found, brute_force(vector_RD, 5, 0.99))
    assert found[:120].min() >= 120


def test_many_ties_are_cut_in_the_order_of_the_rows():
    # 99 rows with one and the same cosine to row 0, in places that nothing but their number orders
    vector_RD = np.array([[1.0, 0.0]] + [[1.0, 1.0]] * 50 + [[1.0, -1.0]] * 49)
    found = neighbors(InstructionIndex.build(vector_RD), vector_RD, 4)
    assert found[0].tolist() == [1, 2, 3, 4]


def test_instructions_without_a_vector_have_and_are_no_neighbors():
    vector_RD = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    found = neighbors(InstructionIndex.build(vector_RD), vector_RD, 2)
    assert found.tolist() == [[-1, -1], [2, -1], [1, -1], [-1, -1]]


def test_an_approximate_index_that_finds_too_few_ends(vectors):
    import faiss

    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(D), D, 100, faiss.METRIC_INNER_PRODUCT)
    index.train(unit_rows(vectors))
    index.add(unit_rows(vectors))
    index.nprobe = 1  # a hundredth of the rows is looked at
    found = neighbors(InstructionIndex(index), vectors, 50)
    assert (found == -1).any()
    assert ((found >= 0).sum(axis=1) < 50).mean() > 0.9
    for row, near in enumerate(found.tolist()):
        assert row not in near


# -- negatives ---------------------------------------------------------------------------------------------


def test_first_where_by_hand():
    value = np.array([[5, 6, 7], [5, 6, 7], [5, 6, 7]])
    good = np.array([[False, True, True], [False, False, False], [True, False, True]])
    assert first_where(value, good, 2).tolist() == [[6, 7], [-1, -1], [5, 7]]
    assert first_where(value, good, 4).tolist() == [[6, 7, -1, -1], [-1, -1, -1, -1], [5, 7, -1, -1]]


NEAR = np.array([[3, 1, 4, 2], [0, 2, 3, 4], [1, -1, -1, -1], [0, 1, 2, 4], [0, 1, 2, -1]])
TARGET = np.array([[1.0, 0.9], [0.0, 0.45], [0.2, 0.0], [1.0, 0.0], [0.0, 0.3]])
KNOWN = np.array([[True, True], [True, True], [True, True], [True, False], [True, True]])


@pytest.mark.parametrize(
    ("row", "column", "count", "margin", "expected"),
    [
        (0, 0, 2, 0.0, [1, 4]),  # 3 is nearer, but the candidate solves it
        (0, 0, 4, 0.0, [1, 4, 2, -1]),
        (0, 0, 3, 0.9, [1, 4, -1]),  # 2 is failed by 0.8 only
        (0, 1, 3, 0.0, [1, 4, 2]),  # 3 is nearest, but not known
        (0, 1, 3, 0.5, [4, 2, -1]),  # 0.9 - 0.45 is less
        (3, 0, 1, 0.0, [1]),
        (2, 0, 2, 0.3, [-1, -1]),  # the one neighbor is failed by 0.2 only
    ],
)
def test_negatives_by_hand(row, column, count, margin, expected):
    found = hard_negatives(NEAR, np.array([row]), np.array([column]), TARGET, KNOWN, count, margin)
    assert found.tolist() == [expected]


def test_an_index_of_minus_one_never_reads_the_last_row():
    # Row 4, the last, is failed by candidate 0; the -1 of row 2 must not become it.
    found = hard_negatives(NEAR, np.array([2, 4]), np.array([0, 0]), TARGET, KNOWN, 3)
    assert found.tolist() == [[1, -1, -1], [1, -1, -1]]


def test_negatives_of_many_pairs_are_those_of_each(vectors):
    rng = np.random.default_rng(2)
    target, known = rng.random((R, 3)), rng.random((R, 3)) < 0.7
    near = neighbors(InstructionIndex.build(vectors), vectors, 15)
    rows, columns = np.nonzero(known & (target >= 0.5))
    found = hard_negatives(near, rows, columns, target, known, 4, margin=0.2)
    for row, column, mined in zip(rows, columns, found, strict=True):
        wanted = [
            r
            for r in near[row]
            if known[r, column] and target[r, column] < 0.5 and target[row, column] - target[r, column] >= 0.2
        ][:4]
        assert mined.tolist() == wanted + [-1] * (4 - len(wanted))


# -- how hard they are -------------------------------------------------------------------------------------


def test_mean_cosine_by_hand():
    vector_RD = np.array([[2.0, 0.0], [1.0, 1.0], [0.0, 5.0]])
    assert mean_cosine(vector_RD, np.array([0, 0]), np.array([1, 2])) == pytest.approx(0.5**0.5 / 2)
    assert np.isnan(mean_cosine(vector_RD, np.array([], dtype=int), np.array([], dtype=int)))
