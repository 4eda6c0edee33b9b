"""A matrix of scores by name."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from satlight.errors import SatlightError
from satlight.routing import Router, StoredScores
from satlight.types import AptitudeResults, Candidate, Request, Temperature


@pytest.fixture
def scores() -> StoredScores:
    return StoredScores(["a", "b", "c"], ["m", "n"], np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32))


def test_rows_and_columns_by_name(scores):
    assert scores.at(["c", "a"], ["n", "m"]).tolist() == [[6, 5], [2, 1]]
    assert scores.at(["b"], ["n"]).tolist() == [[4]]


def test_what_was_not_scored_is_named(scores):
    with pytest.raises(SatlightError, match=r"2 of the 3 instructions have no scores, the first is 'x'\. Scored"):
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
    for columns in ({"id": ["a"], "m": [1.0]}, {"instruction_id": ["a"]}, {"instruction_id": ["a"], "m": ["x"]}):
        pl.DataFrame(columns).write_parquet(tmp_path / "scores.parquet")
        with pytest.raises(SatlightError, match="needed are instruction_id and a column of numbers"):
            StoredScores.read(tmp_path / "scores.parquet")


# -- as a router -------------------------------------------------------------------------------------------


def test_they_route_what_was_scored(scores):
    by_id = [Request("", metadata={"instruction_id": key}) for key in ("c", "a")]
    assert scores.score(by_id, ["n", "m"]).log_odds_BC.tolist() == [[6, 5], [2, 1]]
    assert [ranking.best for ranking in scores.route(by_id)] == ["n", "n"]
    texts = StoredScores(scores.instruction_ids, scores.model_ids, scores.score_NM, ["1?", "2?", "3?"])
    assert texts.route("2?").to_dict()["ranking"][1]["score"] == 3
    with pytest.raises(SatlightError, match=r"1 of the 1 instructions have no scores, the first is '4\?'"):
        texts.route("4?")


@pytest.mark.parametrize("texts", [None, ["1?", "2?", "3?"]])
def test_they_survive_a_folder(scores, texts, contents, tmp_path):
    stored = StoredScores(scores.instruction_ids, scores.model_ids, scores.score_NM, texts)
    own = {"n": Temperature(0.5, 2.0)}
    stored.calibration, stored.about = Temperature(2.0, 1.0, own), {"note": 1}
    stored.save(tmp_path / "scores")
    loaded = Router.from_pretrained(tmp_path / "scores")
    assert isinstance(loaded, StoredScores)
    requests = [Request("", metadata={"instruction_id": "b"})]
    assert loaded.score(requests).probability_BC.tolist() == stored.score(requests).probability_BC.tolist()
    assert (loaded.texts, loaded.calibration, loaded.about["note"]) == (texts, stored.calibration, 1)
    loaded.save(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "scores")


def test_the_calibration_of_a_candidate_follows_its_name(scores):
    calibrated = StoredScores(scores.instruction_ids, scores.model_ids, scores.score_NM)
    calibrated.calibration = Temperature(2.0, 1.0, {"n": Temperature(0.5, 2.0)})
    request = [Request("", metadata={"instruction_id": "b"})]
    plain = calibrated.score(request, ["n"]).probability_BC
    renamed = calibrated.rename("n", "new")
    assert renamed.score(request, ["new"]).probability_BC == plain
    assert calibrated.calibration.candidates.keys() == {"n"}
    assert calibrated.remove("n").calibration == Temperature(2.0, 1.0)


def test_they_cannot_admit(scores):
    results = AptitudeResults(("a",), ("1?",), np.array([1.0]))
    with pytest.raises(SatlightError, match=r"StoredScores cannot admit 'new' .*Model-SAT"):
        scores.admit(Candidate("new"), results)


@pytest.mark.parametrize(
    "change",
    [
        {"instruction_ids": 3},
        {"instruction_ids": ["a", "b"]},
        {"instruction_ids": ["a", "a", "b"]},
        {"instruction_ids": [1, 2, 3]},
        {"texts": ["1?"]},
        {"texts": 3},
        {"texts": [1, 2, 3]},
    ],
)
def test_damaged_folders_are_named(scores, change, tmp_path):
    scores.save(tmp_path / "scores")
    path = tmp_path / "scores" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SatlightError, match=r"config\.json.*Export"):
        Router.from_pretrained(tmp_path / "scores")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_refused(scores, value, tmp_path):
    scores.score_NM[1, 1] = value
    scores.save(tmp_path / "scores")
    with pytest.raises(SatlightError, match=r"router\.safetensors: score_NM has values that are not finite"):
        Router.from_pretrained(tmp_path / "scores")


def test_a_table_that_is_missing_is_named(scores, tmp_path):
    scores.save(tmp_path / "scores")
    save_file({"other": np.zeros(1)}, tmp_path / "scores" / "router.safetensors")
    with pytest.raises(SatlightError, match=r"router\.safetensors.*score_NM.*Export"):
        Router.from_pretrained(tmp_path / "scores")


def test_images_need_an_id(scores):
    images = (Path("a.png"),)
    assert scores.route(Request("", images, {"instruction_id": "b"})).best == "n"
    with pytest.raises(SatlightError, match=r"requests\[0\] \('b'\) has images and no instruction_id"):
        scores.route(Request("b", images))
