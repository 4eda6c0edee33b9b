"""``satlight data import | describe | validate``."""

import argparse
import json
import subprocess
import sys

import pytest

from satlight.cli.data import add_parser
from satlight.errors import SatlightError
from satlight.records import open_records


def data(*arguments):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    args = parser.parse_args(["data", *map(str, arguments)])
    assert args.run(args) is None


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("instruction,candidate,score,strict\n1+1?,tiny,0,0\n1+1?,large,1,1\n[b]Sort[/b],large,0.5,0\n")
    return path


def test_import(log, tmp_path, capsys):
    data("import", log, "--from", "csv", "--to", tmp_path / "out", "--name", "mine", "--score-column", "strict")
    printed = capsys.readouterr().out
    assert "mine: 2 instructions × 2 candidates" in printed
    assert "Other score columns (--data.score_column): strict" in printed
    records = open_records(tmp_path / "out", score_column="strict")
    assert (records.name, records.model_ids, records.outcomes.sum()) == ("mine", ["tiny", "large"], 1.0)
    assert records.texts[1] == "[b]Sort[/b]"


def test_import_does_not_replace_unasked(log, tmp_path):
    data("import", log, "--from", "csv", "--to", tmp_path / "out")
    with pytest.raises(SatlightError, match=r"exists\. Choose another folder, or add --force"):
        data("import", log, "--from", "csv", "--to", tmp_path / "out")
    data("import", log, "--from", "csv", "--to", tmp_path / "out", "--force", "--name", "new")
    assert open_records(tmp_path / "out").name == "new"


def test_import_of_mistakes_writes_nothing(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("instruction,candidate,score\nq,m,7\n")
    with pytest.raises(SatlightError, match=r"'score': got '7'"):
        data("import", bad, "--from", "csv", "--to", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_options_of_another_format_are_refused(log, tmp_path):
    with pytest.raises(SatlightError, match="--metric belongs to --from lm-eval; csv has no such option"):
        data("import", log, "--from", "csv", "--to", tmp_path / "out", "--metric", "acc")


def test_csv_options_arrive(tmp_path, capsys):
    path = tmp_path / "log.csv"
    path.write_text("prompt,team,model,ok,strict\nq,a,m,1,0\nq,a,m,0,1\n")
    names = "instruction=prompt,dataset=team,candidate=model,score=ok"
    data("import", path, "--from", "csv", "--to", tmp_path / "out", "--columns", names, "--score-column", "strict")
    printed = capsys.readouterr().out
    assert "1 rows repeat an instruction and candidate" in printed
    records = open_records(tmp_path / "out")
    assert (records.outcomes.tolist(), records.datasets.tolist()) == ([[0.5]], ["a"])
    options = ("--columns", *names.split(","), "--repeats", "first", "--to", tmp_path / "first")
    data("import", path, "--from", "csv", *options)
    assert open_records(tmp_path / "first").outcomes.tolist() == [[1.0]]


@pytest.mark.parametrize("columns", ["dataset", "=team", "dataset=", "dataset=a,dataset=b"])
def test_mistakes_in_columns(log, tmp_path, columns):
    with pytest.raises(SatlightError, match="write NAME=COLUMN with each NAME once"):
        data("import", log, "--from", "csv", "--to", tmp_path / "out", "--columns", columns)


def test_describe_shows_full_names(tmp_path, capsys):
    path = tmp_path / "log.csv"
    names = ("a-rather-long-institute/candidate-7b-instruct", "another-long-institute/candidate-7b-instruct")
    path.write_text("instruction,candidate,score\n" + "".join(f"q,{name},{n}\n" for n, name in enumerate(names)))
    data("describe", path)
    printed = "".join(capsys.readouterr().out.split())
    assert "another-long-institute" in printed
    assert "a-rather-long-institute" in printed


def test_lm_eval_options_arrive(tmp_path, capsys):
    sample = {"doc_id": 0, "doc": {"q": "Why?"}, "arguments": [["prompt", " yes"]], "acc": 1.0, "acc_norm": 0.0}
    folder = tmp_path / "logs" / "m"
    folder.mkdir(parents=True)
    (folder / "samples_t_2024.jsonl").write_text(json.dumps(sample))
    options = ("--metric", "acc_norm", "--text-field", "q", "--to", tmp_path / "out")
    data("import", folder.parent, "--from", "lm-eval", *options)
    records = open_records(tmp_path / "out")
    assert (records.texts, records.outcomes.tolist()) == (["Why?"], [[0.0]])
    assert "score is acc_norm for t." in capsys.readouterr().out


def test_describe(log, capsys):
    data("describe", log, "--candidates", "lar*")
    printed = capsys.readouterr().out
    assert "2 instructions × 1 candidates" in printed
    assert "75.00" in printed


def test_describe_as_json(write_folder, capsys):
    data("describe", write_folder(), "--json", "--score-column", "strict", "--datasets", "math")
    about = json.loads(capsys.readouterr().out)
    assert about["candidates"][0] == {
        "candidate": "tiny-1b",
        "params_b": 1.0,
        "release_date": "2024-01",
        "records": 1,
        "mean": 0.0,
    }
    assert about["datasets"][0]["filled"] == 0.5
    assert about["score_column"] == "strict"


def test_describe_writes_unknown_as_null(write_folder, capsys):
    path = write_folder(
        instructions={"split": None}, records={"strict": [0.0, 1.0, None, None, None], "cost_usd": None}
    )
    data("describe", path, "--json", "--score-column", "strict")
    lines = {line["dataset"]: line for line in json.loads(capsys.readouterr().out)["datasets"]}
    assert lines["code"]["oracle"] is None
    assert lines["math"]["oracle"] == 1.0


def test_validate(write_folder, capsys):
    data("validate", write_folder(instructions={"split": ["train"] * 3}))
    printed = capsys.readouterr().out
    assert "3 instructions × 2 candidates) is valid." in printed
    assert "There are no test rows" in printed


def test_validate_counts_repeats(write_folder, capsys):
    instructions = {
        "instruction_id": list("abcde"),
        "dataset": ["d"] * 5,
        "task": ["t"] * 5,
        "split": ["test", "train", "train", "train", "train"],
        "instruction": ["p", "p", "q", "r", "s"],
        "level": None,
    }
    data("validate", write_folder(instructions=instructions))
    printed = capsys.readouterr().out
    assert "Split: 1 dropped, 1 test, 2 train, 1 validation" in printed
    assert "1 rows repeat a text or group" in printed


def test_validate_misses_images(write_folder):
    path = write_folder(instructions={"image": ["here.png", None, "gone.png"]})
    (path / "here.png").touch()
    with pytest.raises(SatlightError, match=r"1 of 2 images of 'demo' do not exist, the first is .*gone\.png"):
        data("validate", path)


def test_help_waits_for_nothing_heavy():
    code = (
        "import argparse, sys; from satlight.cli.data import add_parser; "
        "add_parser(argparse.ArgumentParser().add_subparsers()); "
        "print({'torch', 'polars', 'numpy', 'rich', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_records_do_not_import_torch(write_folder):
    code = (
        "import sys; from satlight.records import open_records, split_records; "
        f"open_records({str(write_folder())!r}).fingerprint; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_split_of_another_column(tmp_path, capsys):
    path = tmp_path / "log.csv"
    rows = ["1?,tiny,0,test,train", "2?,tiny,1,train,test", "3?,tiny,1,test,train"]
    path.write_text("\n".join(["instruction,candidate,score,split,other", *rows]))
    data("describe", path, "--split-column", "other", "--json")
    (line,) = json.loads(capsys.readouterr().out)["datasets"]
    assert (line["train"], line["test"]) == (2, 1)
    data("validate", path, "--split-column", "other")
    assert "1 test, 1 train, 1 validation" in capsys.readouterr().out
    with pytest.raises(SatlightError, match="no column 'nowhere' to take the split from"):
        data("describe", path, "--split-column", "nowhere")
