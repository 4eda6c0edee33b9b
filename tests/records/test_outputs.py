"""Candidate outputs beside the records: found by text and name, checked when opened."""

import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.records import open_records
from satlight.records.outputs import CandidateOutputs

ROWS = [
    {"instruction_id": "alpha-0", "model_id": "org/one-7b", "output": "zero"},
    {"instruction_id": "alpha-0", "model_id": "org/two-7b", "output": "It is 0."},
    {"instruction_id": "beta-3", "model_id": "org/one-7b", "output": ""},
    {"instruction_id": "beta-3", "model_id": "org/two-7b", "output": "9"},
]
TEXTS = ["beta question 3: what is 3 times 3?", "alpha question 0: what is 0 times 0?"]


@pytest.fixture
def folder(records_folder, tmp_path):
    """A records folder with the given rows in outputs.parquet."""

    def make(rows):
        for path in records_folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        pl.DataFrame(rows).write_parquet(tmp_path / "outputs.parquet")
        return tmp_path

    return make


def test_outputs_come_in_the_order_asked_for(folder):
    outputs = CandidateOutputs.open(folder(ROWS))
    assert outputs.look_up(TEXTS, ["org/two-7b", "org/one-7b"]) == [["9", ""], ["It is 0.", "zero"]]
    assert outputs.look_up([TEXTS[0]] * 3, ["org/two-7b"]) == [["9"]] * 3


def test_of_the_same_text_twice_the_first_output_counts():
    frame = pl.DataFrame({"instruction": ["?", "?"], "model_id": ["a", "a"], "output": ["first", "second"]})
    assert CandidateOutputs(frame).look_up(["?"], ["a"]) == [["first"]]


def test_a_missing_output_is_an_error_that_names_it(folder):
    outputs = CandidateOutputs.open(folder(ROWS))
    with pytest.raises(SatlightError, match=r"2 of 4 outputs are missing, the first of 'org/three-70b' .*beta"):
        outputs.look_up(TEXTS, ["org/one-7b", "org/three-70b"])


def test_records_with_outputs_open_as_ever(folder, records_folder):
    assert open_records(folder(ROWS)).fingerprint == open_records(records_folder).fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction_id": "gone"}, r"row 1 .*column 'instruction_id': got 'gone'.*instructions\.parquet"),
        ({"model_id": "gone"}, r"row 1 .*column 'model_id': got 'gone'.*models\.json"),
        ({"output": None}, r"row 1 .*column 'output': got None.*remove rows"),
        (ROWS[0], r"row 1 .*got 'alpha-0'.*one output"),
    ],
)
def test_a_wrong_row_is_named(folder, change, message):
    path = folder([ROWS[0], ROWS[1] | change])
    with pytest.raises(SatlightError, match=rf"outputs\.parquet, {message}"):
        CandidateOutputs.open(path)


def test_a_missing_column_is_named(folder):
    with pytest.raises(SatlightError, match="lacks the column 'output'"):
        CandidateOutputs.open(folder([{"instruction_id": "alpha-0", "model_id": "org/one-7b"}]))


def test_a_broken_file_is_named(folder):
    path = folder(ROWS)
    (path / "outputs.parquet").write_bytes(b"PAR1")
    with pytest.raises(SatlightError, match=r"outputs\.parquet cannot be read as parquet"):
        CandidateOutputs.open(path)


def test_a_folder_without_outputs_says_what_to_add(records_folder):
    with pytest.raises(SatlightError, match=r"has no outputs\.parquet.*'instruction_id'.*data_format"):
        CandidateOutputs.open(records_folder)
