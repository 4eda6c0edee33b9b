"""``satlight data rotate | refine``, from records to refined records."""

import argparse
import json

import numpy as np
import polars as pl
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
def questions(tmp_path):
    """Twelve questions of three options that one of four candidates solves; two texts are the same."""
    folder = tmp_path / "questions"
    folder.mkdir()
    numbers = [*range(11), 10]
    pl.DataFrame(
        {
            "instruction_id": [f"q{row}" for row in range(12)],
            "dataset": ["quiz"] * 12,
            "split": ["test"] * 3 + ["train"] * 9,
            "instruction": [f"What follows {n}?\nA. {n + 1}\nB. {n + 2}\nC. nothing" for n in numbers],
            "choices": [[str(n + 1), str(n + 2), "nothing"] for n in numbers],
            "answer": ["A"] * 12,
        }
    ).write_parquet(folder / "instructions.parquet")
    models = ["one", "two", "three", "four"]
    (folder / "models.json").write_text(json.dumps([{"model_id": name} for name in models]))
    pl.DataFrame(
        [
            {"instruction_id": f"q{row}", "model_id": name, "score": float(row % 4 == column)}
            for row in range(12)
            for column, name in enumerate(models)
        ]
    ).write_parquet(folder / "records.parquet")
    return folder


def test_from_rotating_to_refined_records(questions, tmp_path, capsys):
    data("rotate", questions, "--to", tmp_path / "rotated")
    printed = " ".join(capsys.readouterr().out.split())
    assert "9 hard instructions have 18 rotations" in printed
    assert "Let the candidates answer the rows" in printed
    rotated = open_records(tmp_path / "rotated")
    assert rotated.shape == (30, 4)
    awaiting = rotated.instructions.filter(pl.col("rotation_of").is_not_null())
    assert awaiting["answer"].to_list() == ["B", "C"] * 9

    # candidate "two" always says B, all others know the answer
    answers = [
        {"instruction_id": key, "model_id": name, "score": float(name != "two" or answer == "B")}
        for key, answer in awaiting.select("instruction_id", "answer").iter_rows()
        for name in rotated.model_ids
    ]
    path = tmp_path / "rotated" / "records.parquet"
    old = pl.read_parquet(path).select("instruction_id", "model_id", "score")
    pl.concat([old, pl.DataFrame(answers).with_columns(pl.col("score").cast(pl.Float32))]).write_parquet(path)
    data("refine", tmp_path / "rotated", "--to", tmp_path / "refined", "--circle-share", 0.3)
    refined = open_records(tmp_path / "refined")
    assert refined.instructions["instruction_id"].to_list() == [f"q{row}" for row in range(12)]
    train = refined.splits == "train"
    assert set(refined.splits) == {"train", "validation", "test"}
    lucky = np.arange(12) % 4 == 1
    two = refined.outcomes[:, refined.model_ids.index("two")]
    assert two[train].tolist() == [0.0] * int(train.sum())
    assert two[~train & lucky].tolist() == [1.0] * int((~train & lucky).sum())
    assert refined.outcomes[train & ~lucky].sum() == (train & ~lucky).sum()


def test_duplicates_and_caps(questions, tmp_path, capsys):
    data("refine", questions, "--to", tmp_path / "out", "--near-duplicates", 1, "--max-per-dataset", 5)
    records = open_records(tmp_path / "out")
    assert (records.splits == "train").sum() == 5
    assert (records.splits == "test").sum() == 3
    assert len({"q10", "q11"} & set(records.instructions["instruction_id"])) <= 1
    assert "quiz" in capsys.readouterr().out


def test_nothing_to_do_is_said(questions, tmp_path):
    with pytest.raises(SatlightError, match=r"Nothing to refine: give --circle-share, --near-duplicates"):
        data("refine", questions, "--to", tmp_path / "out")


@pytest.mark.parametrize("verb", [["rotate"], ["refine", "--max-per-dataset", 3]])
def test_they_do_not_replace_unasked(questions, tmp_path, verb):
    data(*verb, questions, "--to", tmp_path / "out")
    with pytest.raises(SatlightError, match=r"exists\. Choose another folder, or add --force"):
        data(*verb, questions, "--to", tmp_path / "out")
    data(*verb, questions, "--to", tmp_path / "out", "--force")


def test_validate_counts_rotations(questions, tmp_path, capsys):
    data("rotate", questions, "--to", tmp_path / "out")
    capsys.readouterr()
    data("validate", tmp_path / "out")
    assert "18 rows repeat a text or group of another split, or are rotations of another row" in " ".join(
        capsys.readouterr().out.split()
    )
