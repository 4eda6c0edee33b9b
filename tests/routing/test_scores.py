"""A matrix of scores by name."""

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.routing.scores import StoredScores


@pytest.fixture
def scores() -> StoredScores:
    return StoredScores(["a", "b", "c"], ["m", "n"], np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32))


def test_rows_and_columns_by_name(scores):
    assert scores.at(["c", "a"], ["n", "m"]).tolist() == [[6, 5], [2, 1]]
    assert scores.at(["b"], ["n"]).tolist() == [[4]]


def test_what_was_not_scored_is_named(scores):
    with pytest.raises(
        SatlightError, match=r"2 of the 3 instructions have no scores, the first is 'x'\. Scored"
    ):
        scores.at(["a", "x", "y"], ["m"])
    with pytest.raises(SatlightError, match=r"1 of the 1 candidates .* 'o'\. Scored are 2: 'm', 'n'"):
        scores.at(["a"], ["o"])


@pytest.mark.parametrize(
    ("ids", "models", "message"),
    [
        (["a", "b"], ["m", "n"], r"shape \(3, 2\) for 2 instructions x 2 candidates"),
        (["a", "b", "a"], ["m", "n"], "name the instruction 'a' 2 times"),
        (["a", "b", "c"], ["m", "m"], "name the candidate 'm' 2 times"),
    ],
)
def test_names_that_do_not_fit(scores, ids, models, message):
    with pytest.raises(SatlightError, match=message):
        StoredScores(ids, models, scores.score_NM)


def test_the_file_of_predict(scores, tmp_path):
    table = pl.DataFrame({"instruction_id": ["a", "b"], "m": [1.5, 2.0], "n": [0.0, -3.0]})
    table.write_parquet(tmp_path / "scores.parquet")
    read = StoredScores.read(tmp_path / "scores.parquet")
    assert read.at(["b", "a"], ["n", "m"]).tolist() == [[-3, 2], [0, 1.5]]
    assert read.score_NM.dtype == np.float32


def test_files_that_are_no_scores(tmp_path):
    with pytest.raises(SatlightError, match=r"Cannot read scores from .*none\.parquet"):
        StoredScores.read(tmp_path / "none.parquet")
    for columns in (
        {"id": ["a"], "m": [1.0]},
        {"instruction_id": ["a"]},
        {"instruction_id": ["a"], "m": ["x"]},
    ):
        pl.DataFrame(columns).write_parquet(tmp_path / "scores.parquet")
        with pytest.raises(SatlightError, match="needed are instruction_id and a column of numbers"):
            StoredScores.read(tmp_path / "scores.parquet")
