"""Importers: published and logged results in their own formats."""

import json
import zipfile

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.records import open_records
from satlight.records.dense import build_records
from satlight.records.folder import save_tables
from satlight.records.sources import SOURCES, csv, mmlu_pro, routerdc, source

# --- CSV and JSON lines ---

CSV = """instruction,candidate,score,dataset,strict,group,cost_usd
"1+1, what is it?",tiny,0.5,math,0,g1,
"1+1, what is it?",large,1,math,1,g1,0.5
Sort.,tiny,0,code,0,g2,
"""


@pytest.fixture
def write(tmp_path):
    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return path

    return write


def test_csv(write):
    records = open_records(write("log.csv", CSV))
    assert records.texts == ["1+1, what is it?", "Sort."]
    assert records.model_ids == ["tiny", "large"]
    assert records.datasets.tolist() == ["math", "code"]
    assert records.instructions["group"].to_list() == ["g1", "g2"]
    assert records.outcomes.tolist() == [[0.5, 1.0], [0.0, 0.0]]
    assert records.known.tolist() == [[True, True], [True, False]]
    assert records.costs[0, 1] == 0.5
    assert records.name == "log"
    assert open_records(write("log.csv", CSV), score_column="strict").outcomes[0].tolist() == [0.0, 1.0]


def test_jsonl_is_the_same(write):
    frame = pl.read_csv(write("log.csv", CSV))
    lines = "\n".join(json.dumps(row) for row in frame.to_dicts())
    one, other = open_records(write("log.csv", CSV)), open_records(write("log.jsonl", lines))
    assert one.fingerprint == other.fingerprint
    assert open_records(write("log.ndjson", lines)).datasets.tolist() == ["math", "code"]


def test_ids_of_a_csv_depend_on_dataset_and_text_only(write):
    text = "instruction,candidate,score,dataset\nq,m,1,a\nq,m,0,b\n"
    first = csv.read(write("log.csv", text))
    assert first.shape == (2, 1)
    turned = csv.read(write("log2.csv", "instruction,model_id,score,dataset\nq,m,0,b\nq,m,1,a\n"))
    assert set(first.instructions["instruction_id"]) == set(turned.instructions["instruction_id"])


def test_csv_takes_details_of_candidates(write):
    models = write("models.json", [{"model_id": "large", "params_b": 70}])
    assert [one.params_b for one in csv.read(write("log.csv", CSV), models=models).candidates] == [None, 70.0]


CSV_MISTAKES = [
    ("instruction,candidate\nq,m\n", r"lacks the column 'score'\. It has 'instruction', 'model_id'"),
    ("text,score\nq,1\n", r"lacks the column 'instruction', 'candidate'"),
    ("instruction,candidate,score\nq,m,1\nq2,m,good\n", r"row 1 .*'score': got 'good'\. A number"),
    ("instruction,candidate,score\nq,m,NaN\n", r"row 0 .*'score': got 'NaN'"),
    ("instruction,candidate,score\nq,m,\n", r"row 0 .*'score': got None"),
    ("instruction,candidate,score\nq,m,2\n", r"row 0 .*'score': got '2'\. A score lies in \[0, 1\]"),
    ("instruction,candidate,score,cost_usd\nq,m,1,inf\n", r"row 0 .*'cost_usd': got 'inf'\. A number"),
    ("instruction,candidate,score,cost_usd\nq,m,1,-1\n", r"row 0 .*'cost_usd': got -1\.0\. A cost|got '-1'"),
    ("instruction,candidate,score, score\nq,m,1,0\n", r"two columns of the name 'score'"),
    ("instruction,candidate,score,split\nq,m,1,train\nq,n,1,test\n", r"row 1 .*'split': got 'test'\. An earlier row"),
    ("instruction,candidate,score,image\nq,m,1,../x.png\n", r"row 0 .*'image': got '\.\./x\.png'"),
    ("instruction,candidate,score\nq,m,1\nq,,0\n", r"row 1 .*'model_id': got None.*name of its candidate"),
    ("instruction,candidate,score\nq,m,1\nq,n,1\n,m,0\n", r"row 2 .*'instruction': got None"),
    ("instruction,candidate,score\n", "has no rows"),
    ("", "cannot be read"),
    (
        "instruction_id,instruction,candidate,score\n1,q,m,1\n1,p,n,1\n",
        r"row 1 .*'instruction': got 'p'\. An earlier row of the same instruction_id has another value",
    ),
]


@pytest.mark.parametrize(("text", "message"), CSV_MISTAKES)
def test_mistakes_in_a_csv(write, text, message):
    path = write("log.csv", text)
    with pytest.raises(SatlightError, match=message) as caught:
        csv.read(path)
    assert str(path) in str(caught.value)


def test_mistakes_in_a_jsonl(write, tmp_path):
    with pytest.raises(SatlightError, match=r"log\.jsonl, line 1: not valid JSON"):
        csv.read(write("log.jsonl", "{broken"))
    with pytest.raises(SatlightError, match=r"none\.csv does not exist"):
        csv.read(tmp_path / "none.csv")


# --- RouterDC ---


@pytest.fixture
def routerdc_folder(write):
    def row(question, *scores, **extra):
        return {"question": question, "scores": dict(zip(("a/one", "b/two"), scores, strict=True)), **extra}

    write("dc/mmlu_train.json", [row("q1", 0.31, 0.0, cluster_id=4), row("q2", 0.99, 0.1, cluster_id=2)])
    write("dc/mmlu_test.json", [row("q3", 0, 0.5)])
    write("dc/gsm8k-train.json", [row("q4", 0.3, 1.0)])
    return write("dc/MATH_prealgebra.json", [row("q5", 1, 0)]).parent


def test_routerdc(routerdc_folder):
    records = routerdc.read(routerdc_folder)
    rows = {text: row for row, text in enumerate(records.texts)}
    outcome = {text: records.outcomes[row].tolist() for text, row in rows.items()}
    assert outcome["q1"] == [1.0, 0.0]  # any probability above 0 is right
    assert outcome["q4"] == pytest.approx([0.3, 1.0])  # a share of samples is a share
    assert outcome["q5"] == [1.0, 0.0]
    assert records.splits[rows["q1"]] == records.splits[rows["q4"]] == "train"
    assert records.splits[rows["q3"]] == records.splits[rows["q5"]] == "test"
    assert records.datasets[rows["q5"]] == "math_prealgebra"
    assert records.instructions["cluster_id"].to_list() == [None, None, None, 4, 2]
    raw = routerdc.read(routerdc_folder, score_column="score")
    assert raw.outcomes[rows["q1"], 0] == pytest.approx(0.31)


def test_mistakes_in_routerdc(write, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SatlightError, match=r"holds no \.json file"):
        routerdc.read(tmp_path / "empty")
    with pytest.raises(SatlightError, match=r"entry 0 .*got 'question'; an object with 'question' and 'scores'"):
        routerdc.read(write("x_test.json", [{"question": "q"}]))
    with pytest.raises(SatlightError, match="must be a non-empty list"):
        routerdc.read(write("y_test.json", {}))
    with pytest.raises(SatlightError, match=r"entry 0 .*got the score 'high' of 'm'; a number from 0 to 1"):
        routerdc.read(write("z_test.json", [{"question": "q", "scores": {"m": "high"}}]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": None, "scores": {"m": 1}}, "got question None; text"),
        ({"question": "q", "scores": [1]}, r"got scores \[1\]; an object"),
        ({"question": "q", "scores": {"m": None}}, "got the score None of 'm'.* Leave the candidate out"),
        ({"question": "q", "scores": {"m": True}}, "got the score True of 'm'"),
        ({"question": "q", "scores": {"m": 1}, "cluster_id": "4"}, "got cluster_id '4'; an integer"),
        ({"question": "q", "scores": {"m": 1, "m ": 0}}, "An earlier row has the same pair"),
    ],
)
def test_fields_of_routerdc_of_other_types(write, row, message):
    with pytest.raises(SatlightError, match=message):
        routerdc.read(write("x_test.json", [row]))


def test_routerdc_import_equals_the_converted_records(real_data, tmp_path):
    """Published files, rebuilt from the converted ones, give the same matrix again."""
    whole = open_records(real_data("routerdc"), score_column="correct").filter(datasets=["arc_*", "mbpp"])
    raw = open_records(real_data("routerdc")).filter(datasets=["arc_*", "mbpp"])
    for name in whole.instructions["source_file"].unique():
        at = (whole.instructions["source_file"] == name).to_numpy()
        rows = [
            {"question": text, "scores": dict(zip(raw.model_ids, scores, strict=True))}
            for text, scores in zip(np.array(raw.texts, dtype=object)[at], raw.outcomes[at].tolist(), strict=True)
        ]
        (tmp_path / name).write_text(json.dumps(rows))
    again = routerdc.read(tmp_path)
    order = np.argsort(again.instructions["instruction_id"].to_numpy())
    expected = np.argsort(whole.instructions["instruction_id"].to_numpy())
    np.testing.assert_array_equal(again.outcomes[order], whole.outcomes[expected])
    np.testing.assert_array_equal(again.splits[order], whole.splits[expected])


# --- MMLU-Pro ---


def answer(number, pred, *, options=("x", "y"), right="A", **extra):
    return {
        "question_id": number,
        "question": f"Question {number}?",
        "options": list(options),
        "answer": right,
        "category": "law",
        "src": "ori_mmlu-law",
        "pred": pred,
        "model_outputs": "long text",
        **extra,
    }


@pytest.fixture
def zip_up(tmp_path):
    def zip_up(model, answers, member="answers.json"):
        path = tmp_path / "pro" / f"model_outputs_{model}_5shots.zip"
        path.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("__MACOSX/._answers.json", "junk")
            archive.writestr(member, answers if isinstance(answers, str) else json.dumps(answers))
        return path.parent

    return zip_up


def test_mmlu_pro(zip_up):
    zip_up("Yi-34B", [answer(70, "A"), answer(71, None), answer(72, "A", right="B"), answer(80, "A")])
    folder = zip_up("gemma-7b", ["summary", answer(71, "A "), answer(70, "B"), answer(72, "A")])
    tables = mmlu_pro.tables(folder)
    records = build_records(tables)
    assert records.model_ids == ["Yi-34B", "gemma-7b"]
    assert records.instructions["instruction_id"].to_list() == ["mmlu_pro-00070", "mmlu_pro-00071", "mmlu_pro-00080"]
    assert records.texts[0] == "Question 70?\nA. x\nB. y"
    assert records.outcomes.tolist() == [[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    assert records.known.tolist() == [[True, True], [True, True], [True, False]]  # 80 was not asked: not wrong
    assert records.instructions.row(0, named=True) | {"choices": None} == {
        "instruction_id": "mmlu_pro-00070",
        "dataset": "mmlu_pro",
        "task": "ori_mmlu-law",
        "split": None,
        "instruction": "Question 70?\nA. x\nB. y",
        "question_id": 70,
        "choices": None,
        "answer": "A",
        "category": "law",
    }
    assert "1 questions whose text, options or answer differ between files were dropped." in tables.notes
    assert "1 elements that are not answers were ignored." in tables.notes


def test_white_space_is_no_difference_between_files(zip_up):
    zip_up("a", [answer(1, "A")])
    folder = zip_up("b", [answer(1, "A", question=" Question  1? ", options=("x ", "y"))])
    assert mmlu_pro.read(folder).shape == (1, 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("question_id", 1.5),
        ("question_id", None),
        ("question_id", 10**30),
        ("question", 7),
        ("options", None),
        ("options", [["x"]]),
        ("answer", None),
        ("src", ["x"]),
        ("category", 7),
    ],
)
def test_fields_of_mmlu_pro_of_other_types(zip_up, field, value):
    with pytest.raises(SatlightError, match=rf"entry 0 .*got {field} "):
        mmlu_pro.read(zip_up("x", [{**answer(1, "A"), field: value}]))


def test_mistakes_in_mmlu_pro(zip_up, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SatlightError, match=r"holds no \.zip or \.json file"):
        mmlu_pro.read(tmp_path / "empty")
    with pytest.raises(SatlightError, match=r"none\.zip does not exist"):
        mmlu_pro.read(tmp_path / "none.zip")
    with pytest.raises(SatlightError, match=r"x_5shots\.zip, entry 0 .*lacks 'answer', 'options'"):
        mmlu_pro.read(zip_up("x", [{"question_id": 1, "question": "q"}]))
    with pytest.raises(SatlightError, match="question_id 1 appears twice"):
        mmlu_pro.read(zip_up("x", [answer(1, "A"), answer(1, "B")]))
    with pytest.raises(SatlightError, match=r"x_5shots\.zip: not valid JSON"):
        mmlu_pro.read(zip_up("x", "{broken"))
    with pytest.raises(SatlightError, match=r"must hold exactly one \.json file"):
        mmlu_pro.read(zip_up("x", [], member="readme.txt"))
    with pytest.raises(SatlightError, match="must hold a JSON list"):
        mmlu_pro.read(zip_up("x", {}))
    zip_up("x", [answer(1, "A")])
    with pytest.raises(SatlightError, match=r"No question .* is the same in all files"):
        mmlu_pro.read(zip_up("y", [answer(1, "A", right="B")]))
    (tmp_path / "pro" / "model_outputs_x_0shot.json").write_text("[]")
    with pytest.raises(SatlightError, match="two files for the candidate 'x'"):
        mmlu_pro.read(tmp_path / "pro")
    (tmp_path / "pro" / "bad.zip").write_text("no zip")
    with pytest.raises(SatlightError, match=r"bad\.zip cannot be read"):
        mmlu_pro.read(tmp_path / "pro" / "bad.zip")


# --- opening by flag ---


def test_every_importer_writes_a_folder_that_opens(routerdc_folder, tmp_path):
    tables = source("routerdc").tables(routerdc_folder)
    save_tables(tables, tmp_path / "saved")
    again = open_records(tmp_path / "saved", score_column="correct")
    assert again.fingerprint == routerdc.read(routerdc_folder).fingerprint
    assert open_records(tmp_path / "saved").outcomes.max() < 1.0 + 1e-6
    for name in SOURCES:
        assert callable(source(name).read)
        assert callable(source(name).tables)


def test_open_records_chooses(write_folder):
    assert open_records(write_folder(), candidates="tiny*", datasets=["math"]).shape == (2, 1)
    path = write_folder("other", instructions={"dataset": ["x", "y", "x"]})
    with pytest.raises(SatlightError, match=r"datasets=y\) has no record for the candidate 'org/large-70b'"):
        open_records(path, datasets="y")
    assert open_records(path, datasets="y", candidates="tiny-1b").shape == (1, 1)


def test_open_records_mistakes(tmp_path, write):
    with pytest.raises(SatlightError, match=r"The records 'nowhere' do not exist.*or one of the words 'simulated'"):
        open_records("nowhere")
    with pytest.raises(SatlightError, match=r"Cannot tell how to read .*\.xml.*\(csv, feedback, .*, vlmevalkit\)"):
        open_records(write("x.xml", "<a/>"))
    with pytest.raises(SatlightError, match=r"Unknown records format 'xls'.*Available: csv, feedback, lm-eval"):
        source("xls")
    with pytest.raises(SatlightError, match=r"The simulated zoo has no score column 'correct'\. Available: 'score'"):
        open_records("simulated", score_column="correct")
