"""VLMEvalKit's result tables and MATH-V's answers become records with images."""

import base64
import io
import json
import sys

import polars as pl
import pytest
from PIL import Image

from satlight.cli import main
from satlight.errors import SatlightError
from satlight.images import read_image
from satlight.records import open_records
from satlight.records.sources import mathv, vlmevalkit


def png(color: str, size=(80, 60)) -> str:
    content = io.BytesIO()
    Image.effect_noise(size, 50).convert("RGB").save(content, "PNG") if color == "noise" else Image.new(
        "RGB", size, color
    ).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()


# -- VLMEvalKit ----------------------------------------------------------------------------------------------


def answers(hits, **changes):
    table = {
        "index": [1, 2, 3],
        "question": ["Which color?", "How many?", "Which one?"],
        "A": ["red", "1", "left"],
        "B": ["blue", "2", None],
        "answer": ["A", "B", "A"],
        "category": ["color", "count", None],
        "split": ["dev", "dev", "validation"],
        "prediction": ["A", "A", "left"],
        "hit": hits,
    }
    return pl.DataFrame(table | changes)


@pytest.fixture
def outputs(tmp_path):
    """Results of two models as VLMEvalKit lays them out, and the dataset with images."""
    root = tmp_path / "outputs"
    one, two = root / "Model_A" / "T20260101_G12", root / "model-b"
    one.mkdir(parents=True)
    two.mkdir()
    answers([1, 0, 1]).write_csv(one / "Model_A_MMMU_DEV_VAL_openai_result.tsv", separator="\t")
    answers([1, 0, 1]).drop("hit").write_csv(one / "Model_A_MMMU_DEV_VAL.tsv", separator="\t")
    (root / "Model_A" / "Model_A_MMMU_DEV_VAL_openai_result.tsv").symlink_to(
        one / "Model_A_MMMU_DEV_VAL_openai_result.tsv"
    )
    answers(["0.0", None, "True"]).write_csv(two / "model-b_MMMU_DEV_VAL_exact_matching_result.csv")
    pl.DataFrame(
        {
            "index": ["1", "2", "3"],
            "question": ["Which color?", "How many?", "Which one?"],
            "image": [png("red", (300, 300)), "1", str([png("noise"), png("blue", (200, 200))])],
        }
    ).write_csv(root / "MMMU_DEV_VAL.tsv", separator="\t")
    return root


def test_vlmevalkit(outputs):
    records = vlmevalkit.read(outputs)
    assert records.model_ids == ["Model_A", "model-b"]
    assert records.outcomes.tolist() == [[1, 0], [0, 0], [1, 1]]
    assert records.known.tolist() == [[True, True], [True, False], [True, True]]
    assert records.instructions["task"].to_list() == ["color", "count", "MMMU_DEV_VAL"]
    assert records.texts[0] == "Which color?\nA. red\nB. blue"
    assert records.ids[0] == "MMMU_DEV_VAL-1"
    assert [len(images) for images in records.images] == [1, 1, 2]
    assert records.images[0] == records.images[1]  # the second row refers to the first
    assert read_image(records.images[0][0])[0, 0].tolist() == [255, 0, 0]
    assert (records.splits == "").all()  # "dev" and "validation" are not ours


def test_vlmevalkit_import_copies_the_images(outputs, tmp_path):
    main(["data", "import", str(outputs), "--from", "vlmevalkit", "--to", str(tmp_path / "records")])
    records = open_records(tmp_path / "records")
    assert all(file.startswith(str(tmp_path / "records" / "images")) for own in records.images for file in own)
    main(["data", "validate", str(tmp_path / "records")])


def test_vlmevalkit_without_the_dataset_says_so(outputs):
    (outputs / "MMMU_DEV_VAL.tsv").unlink()
    tables = vlmevalkit.tables(outputs)
    assert "images" not in tables.instructions.columns
    assert any("3 instructions of MMMU_DEV_VAL have no image" in note for note in tables.notes)


def test_vlmevalkit_reads_xlsx(outputs):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    table = answers([0.0, 1.0, 1.0])
    for line in [table.columns, *table.rows()]:
        book.active.append(list(line))
    folder = outputs / "gpt-x"
    folder.mkdir()
    book.save(folder / "gpt-x_MMMU_DEV_VAL_gpt-4-0125_result.xlsx")
    records = vlmevalkit.read(outputs)
    assert records.outcomes[:, records.model_ids.index("gpt-x")].tolist() == [0, 1, 1]


def test_xlsx_without_openpyxl_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    (tmp_path / "m_D.xlsx").write_bytes(b"PK")
    with pytest.raises(SatlightError, match=r"needs openpyxl.*satlight\[xlsx\]"):
        vlmevalkit.read(tmp_path)


def test_a_damaged_xlsx_is_named(tmp_path):
    pytest.importorskip("openpyxl")
    (tmp_path / "m_D.xlsx").write_bytes(b"PK")
    with pytest.raises(SatlightError, match=r"m_D.xlsx cannot be read as .xlsx"):
        vlmevalkit.read(tmp_path)


@pytest.mark.parametrize(
    ("file", "table", "message"),
    [
        ("model-b/model-b_MMMU_DEV_VAL_openai_result.csv", answers([1, 1, 1]), "both results of 'model-b'"),
        ("elsewhere/other_X_result.csv", answers([1, 1, 1]), "where the model ends is unknown"),
        ("c/c_D_result.csv", answers(["1", "maybe", "0"]), r"row 1 \(counting from 0\), column 'hit': got 'maybe'"),
        (
            "MMMU_DEV_VAL.tsv",
            pl.DataFrame({"index": ["1"], "question": ["Which color?"], "image": ["A" * 99 + "!"]}),
            "index 1, column 'image': is no base64",
        ),
        (
            "MMMU_DEV_VAL.tsv",
            pl.DataFrame({"index": ["1"], "question": ["?"], "image": [base64.b64encode(b"no image" * 20).decode()]}),
            "index 1 is no image of a known format",
        ),
        (
            "MMMU_DEV_VAL.tsv",
            pl.DataFrame({"index": ["1"], "question": ["?"], "image_path": ["../../secret.png"]}),
            "secret.png lies outside of",
        ),
    ],
)
def test_mistakes_in_vlmevalkit(outputs, file, table, message):
    (outputs / file).parent.mkdir(exist_ok=True)
    table.write_csv(outputs / file, separator="\t" if file.endswith(".tsv") else ",")
    with pytest.raises(SatlightError, match=message):
        vlmevalkit.read(outputs)


def test_results_that_are_not_evaluated_are_an_error(tmp_path):
    answers([1, 1, 1]).drop("hit").write_csv(tmp_path / "m_D.csv")
    with pytest.raises(SatlightError, match="has not evaluated: 'm_D'"):
        vlmevalkit.read(tmp_path)


def test_questions_that_differ_between_models_are_dropped(outputs):
    other = answers([1, 1, 1], question=["Which color?", "Changed?", "Which one?"])
    (outputs / "c").mkdir()
    other.write_csv(outputs / "c" / "c_MMMU_DEV_VAL_result.csv")
    tables = vlmevalkit.tables(outputs)
    assert tables.instructions.height == 2
    assert any(note.startswith("1 questions") for note in tables.notes)


# -- MATH-V --------------------------------------------------------------------------------------------------


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "MATH-V"
    lines(
        root / "data" / "test.jsonl",
        [
            {"id": "1", "question": "How many?\n<image1>", "options": [], "answer": "60", "level": 2,
             "subject": "counting", "image": "images/1.png"},
            {"id": "2", "question": "Which?\n<image1>", "options": ["x", "y"], "answer": "B", "level": 1,
             "subject": "logic", "image": "images/2.png"},
        ],
    )  # fmt: skip
    (root / "images").mkdir()
    for name in ("1", "2"):
        Image.new("RGB", (9, 9), "red").save(root / "images" / f"{name}.png")
    lines(root / "data" / "testmini.jsonl", [{"id": "1", "question": "How many?", "answer": "60"}])
    lines(
        root / "outputs" / "open" / "Model-7B.jsonl",
        [
            {"id": "1", "response": r"\boxed{60}", "model_answer": "60", "correct": True},
            {"id": "2", "response": "It is (B) y.", "model_answer": "x", "correct": False},
            {"id": "99", "response": "7"},
        ],
    )
    lines(root / "outputs" / "Other.jsonl", [{"id": "2", "response": "The answer is (B)."}])
    lines(root / "outputs" / "Random-Chance.jsonl", [{"id": "1", "response": "5"}])
    return root


def test_mathv(repository):
    tables = mathv.tables(repository)
    records = mathv.read(repository)
    assert records.model_ids == ["Other", "Model-7B"] or records.model_ids == ["Model-7B", "Other"]
    own = records.filter(candidates="Model-7B")
    assert own.outcomes.ravel().tolist() == [1, 0]
    other = records.filter(candidates="Other")
    assert other.known.ravel().tolist() == [False, True]
    assert other.outcomes[1] == 1
    assert records.texts[1] == "Which?\n<image1>\nA. x\nB. y"
    assert records.tasks.tolist() == ["counting", "logic"]
    assert read_image(records.images[0][0]).shape == (9, 9, 3)
    assert "published 'correct' of 2 answers" in tables.notes[0]
    assert any(note.startswith("1 answers to questions") for note in tables.notes)


@pytest.mark.parametrize(
    ("response", "answer", "options", "right"),
    [
        (r"5 - 1 = 4 cuts. The answer is: 4", "4", [], True),
        ("? should be replaced with 60.", "60", [], False),
        (r"The answer is $\boxed{C}$.", "C", ["1", "2", "3"], True),
        (r"The answer is \textbf{E}.", "E", ["1", "2", "3", "4", "5"], True),
        (r"\boxed{(d)}", "D", ["1", "2", "3", "4"], False),
        ("(C) 2:30", "C", ["2:00", "2:15", "2:30"], True),
        (r"\boxed{\frac{3}{4}}", "0.75", [], True),
        (r"\boxed{18 \mathrm{~km}}", "18", [], False),
        (r"\boxed{x = 12}", "12", [], True),
        (r"$6 \mathrm{~m}$", "A", [r"$6 \mathrm{~m}$", "8"], True),
        ("1,000", "1000", [], True),
        ("", "1", [], False),
        ("1/0", "1", [], False),
    ],
)
def test_the_matching_rule_of_mathv(response, answer, options, right):
    assert mathv.is_right(response, answer, options) is right


def test_mistakes_in_mathv(repository, tmp_path):
    with pytest.raises(SatlightError, match=r"holds none of 'data/test.jsonl'"):
        mathv.read(tmp_path / "outputs")
    lines(repository / "again" / "Other.jsonl", [{"id": "2", "response": "B"}])
    with pytest.raises(SatlightError, match="two files for the candidate 'Other'"):
        mathv.read(repository)
    lines(repository / "again" / "Other.jsonl", [{"id": "2"}])
    (repository / "outputs" / "Other.jsonl").unlink()
    with pytest.raises(SatlightError, match=r"Other.jsonl, line 1: an object with .*'response' is required"):
        mathv.read(repository)
