"""CSV and JSON lines: the role of a column follows from its name, and nothing is dropped without a word."""

import json

import pytest

from satlight.errors import SatlightError
from satlight.records import open_records, split_records
from satlight.records.dense import build_records
from satlight.records.folder import save_tables
from satlight.records.sources import csv


@pytest.fixture
def write(tmp_path):
    def write(text, name="log.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_number_ids_and_rotations_are_text(write):
    rows = "".join(f"{n},question {n},m,1,{n - 1 if n % 2 else ''}\n" for n in range(100))
    records = csv.read(write(f"instruction_id,instruction,candidate,score,rotation_of\n{rows}"))
    assert records.instructions["rotation_of"].to_list()[:4] == [None, "0", None, "2"]
    assert build_records(
        csv.tables(write(f"instruction_id,instruction,candidate,score,rotation_of\n{rows}"))
    ).known.all()
    split = split_records(records, validation_fraction=0)
    assert (split == "dropped").sum() == 50  # no rotation is in train or test


def test_ids_keep_their_leading_zeros(write):
    records = csv.read(write("instruction_id,instruction,candidate,score\n007,q,m,1\n7,p,m,1\n"))
    assert records.instructions["instruction_id"].to_list() == ["007", "7"]


def test_a_column_that_becomes_fractional_late(write):
    rows = "".join(f"q{n},m,1,1,{n}\n" for n in range(10_000))
    path = write(f"instruction,candidate,score,strict,note\n{rows}q,m,1,0.5,none\n")
    assert open_records(path, score_column="strict").outcomes[-1, 0] == 0.5


def test_numeric_groups(write):
    rows = "".join(f"q{n},m,1,{n // 10}\n" for n in range(100))
    records = csv.read(write(f"instruction,candidate,score,conversation\n{rows}"))
    split = split_records(records, group_column="conversation", validation_fraction=0)
    groups = records.instructions["conversation"].to_numpy()
    assert not set(groups[split == "test"]) & set(groups[split == "train"])


def test_score_columns_are_declared(write):
    path = write("instruction,candidate,correct,strict,year\nq,m,1,0,2024\n")
    tables = csv.tables(path, score_columns=["correct", "strict"])
    assert tables.score_columns() == ["correct", "strict", "score"]
    assert "score is the column 'correct'." in tables.notes
    assert tables.instructions["year"].to_list() == ["2024"]
    with pytest.raises(SatlightError, match=r"lacks the column 'score'"):
        csv.tables(path)
    with pytest.raises(SatlightError, match=r"lacks the column 'missing'"):
        open_records(path, score_column="missing")
    with pytest.raises(SatlightError, match=r"row 0 .*'year': got '2024'\. A score lies in"):
        open_records(path, score_column="year")


LOG = """prompt,team,model,score,cost,response,timestamp
1+1?,a,tiny,1,0.5,two,10:00
1+1?,a,tiny,0,1.5,three,10:01
1+1?,a,large,1,,two,10:02
Sort.,b,tiny,0.5,,no,10:03
"""
COLUMNS = {"instruction": "prompt", "dataset": "team", "candidate": "model", "cost_usd": "cost"}


def test_real_logs(write, tmp_path):
    tables = csv.tables(write(LOG), columns=COLUMNS)
    records = build_records(tables)
    assert records.outcomes.tolist() == [[0.5, 1.0], [0.5, 0.0]]
    assert records.known.tolist() == [[True, True], [True, False]]
    assert records.costs[0, 0] == 1.0
    assert records.datasets.tolist() == ["a", "b"]
    averaged, differing = sorted(tables.notes)
    assert averaged.startswith("1 rows repeat an instruction and candidate; scores and costs are the means")
    assert (
        differing
        == "Columns that differ between the answers to one instruction belong to the records: 'response', 'timestamp'."
    )
    save_tables(tables, tmp_path / "saved")
    assert open_records(tmp_path / "saved").fingerprint == records.fingerprint
    import polars as pl

    assert pl.read_parquet(tmp_path / "saved" / "records.parquet")["response"].to_list() == ["two", "two", "no"]


def test_repeats(write):
    path = write(LOG)
    assert csv.read(path, columns=COLUMNS, repeats="first").outcomes[0, 0] == 1.0
    with pytest.raises(SatlightError, match=r"row 1 .*An earlier row has the same pair"):
        csv.read(path, columns=COLUMNS, repeats="error")
    wrong = write("instruction,candidate,score\nq,m,2\nq,m,-1\n")  # their mean would be a score
    with pytest.raises(SatlightError, match=r"row 0 .*got '2'"):
        csv.read(wrong)


def test_reading_directly_says_what_was_averaged(write, caplog):
    caplog.set_level("INFO")
    open_records(write("instruction,candidate,score\nq,m,1\nq,m,0\n"))
    assert "1 rows repeat an instruction and candidate" in caplog.text


def test_columns_that_do_not_exist(write):
    with pytest.raises(SatlightError, match=r"lacks the column 'nothing'"):
        csv.tables(write(LOG), columns={**COLUMNS, "task": "nothing"})
    tables = csv.tables(write("instruction,candidate,score,dataset,team\nq,m,1,x,y\n"), columns={"dataset": "team"})
    assert tables.instructions["dataset"].to_list() == ["y"]
    assert "Columns replaced by --columns: 'dataset'." in tables.notes


def test_names_with_white_space_are_one_candidate(write):
    assert csv.read(write("instruction,candidate,score\nq,m ,1\np, m,1\nr,m,0\n")).model_ids == ["m"]


def test_models_that_match_no_candidate(write, caplog):
    models = write(json.dumps([{"model_id": "org/m", "price_in": 1}]), "models.json")
    csv.read(write("instruction,candidate,score\nq,m,1\n"), models=models)
    assert "names 'org/m', which match no candidate. Candidates without details: 'm'" in caplog.text


def test_conversations(write):
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": [{"type": "text", "text": "1+1?"}]},
    ]
    lines = [{"instruction": chat, "candidate": "m", "score": 1}, {"instruction": "2+2?", "candidate": "m", "score": 0}]
    tables = csv.tables(write("\n".join(map(json.dumps, lines)), "log.jsonl"))
    assert build_records(tables).texts == ["1+1?", "2+2?"]
    assert tables.notes == ("1 instructions are conversations, of which the last user turn was read.",)
    lines[1]["instruction"] = {"text": "2+2?"}
    with pytest.raises(
        SatlightError, match=r"row 1 .*'instruction': got a dict\. A text is required, or a list of messages"
    ):
        csv.read(write("\n".join(map(json.dumps, lines)), "log.jsonl"))


def test_choices_of_jsonl_are_lists(write):
    line = {"instruction": "q", "candidate": "m", "score": 1, "choices": ["a", 2]}
    assert csv.read(write(json.dumps(line), "log.jsonl")).instructions["choices"].to_list() == [["a", "2"]]


DEEP = b'{"instruction": "q", "candidate": "m", "score": ' + b"[" * 3000 + b"]" * 3000 + b"}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (DEEP, "line 2: not valid JSON .nested more than 100 levels"),
        (b'{"instruction": "caf\xe9", "candidate": "m", "score": 1}', "line 2: byte 0xe9 is not UTF-8"),
        (b'{"instruction": "a\x00b", "candidate": "m", "score": 1}', "line 2: a NUL byte"),
        (b'{"instruction": "\\ud83d", "candidate": "m", "score": 1}', "line 2: a lone surrogate"),
        (b'{"instruction": "q", "candidate": "m", "score": NaN}', "line 2: not valid JSON .NaN"),
        (b'{"instruction": "q", "candidate": "m", "score": 1e999}', "line 2: not valid JSON .1e999 is too large"),
        (b'{"instruction": "q", "candidate"', "line 2: not valid JSON"),
        (b'["q", "m", 1]', "line 2: got a list; an object is required"),
    ],
)
def test_damaged_lines_are_named(write, content, message):
    with pytest.raises(SatlightError, match=rf"log\.jsonl, {message}"):
        csv.read(write(b'{"instruction": "p", "candidate": "m", "score": 1}\n' + content, "log.jsonl"))


def test_blank_lines(write):
    assert csv.read(write("instruction,candidate,score\nq,m,1\n\np,m,0\n\n\n")).texts == ["q", "p"]


@pytest.mark.parametrize("rows", ['"q,m,1\np,m,0\n', 'q"q,m,1\np,m,0\n', "q,m,1,0\n", '"q" q,m,1\n'])
def test_broken_quotes_and_rows(write, rows):
    with pytest.raises(SatlightError, match=r"log\.csv cannot be read as CSV: .* as many cells as the first line"):
        csv.read(write(f"instruction,candidate,score\n{rows}"))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_marks(write, ends, mark):
    text = ends.join(["instruction,candidate,score", "q,m,1", "p,m,0", ""])
    assert csv.read(write(mark + text.encode())).outcomes.tolist() == [[1.0], [0.0]]
