"""The importer of RouterBench."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.records import open_records
from satlight.records.sources import routerbench

EXAMPLES = "Question: 1 + 1?\nAnswer: 2\n\nQuestion: "
HEADER = (
    ",sample_id,prompt,eval_name,org/a,b,org/a|model_response,org/a|total_cost,b|total_cost,oracle_model_to_route_to"
)


def row(number, name, prompt, a="1.0", b="0.0", cost="0.25"):
    cells = [number, f"{name}.{number}", repr([prompt]), name, a, b, "['x']", cost, "0.5", "b"]
    return ",".join('"' + str(cell).replace('"', '""') + '"' for cell in cells)


@pytest.fixture
def folder(tmp_path) -> Path:
    train = [
        row(0, "arc-challenge", EXAMPLES + "Why?"),
        row(1, "arc-challenge", EXAMPLES + 'How, "then"?', "0.0", "1.0"),
    ]
    train += [row(2, "mmlu-law", "Who?"), row(3, "mmlu-law", "Gap?", a=""), row(0, "arc-challenge", "again")]
    (tmp_path / "all_train.csv").write_text("\n".join([HEADER, *train]) + "\n")
    (tmp_path / "arc_test.csv").write_text("\n".join([HEADER, row(9, "arc-challenge", EXAMPLES + "When?")]) + "\n")
    return tmp_path


def test_wide_files_become_records(folder):
    records = routerbench.read(folder)
    assert records.model_ids == ["org/a", "b"]
    assert records.instructions["instruction_id"][0] == "routerbench-arc-challenge.0"
    assert records.datasets.tolist() == ["arc_challenge", "arc_challenge", "mmlu", "arc_challenge"]
    assert records.instructions["task"].to_list()[2] == "law"
    assert records.instructions["split"].to_list() == ["train", "train", "train", "test"]
    assert records.instructions["question"].to_list() == [
        "Question: Why?",
        'Question: How, "then"?',
        "Who?",
        "Question: When?",
    ]
    assert records.outcomes.tolist() == [[1, 0], [0, 1], [1, 0], [1, 0]]
    assert records.costs[0].tolist() == [0.25, 0.5]
    notes = " ".join(routerbench.tables(folder).notes)
    assert "1 rows without a score of every candidate were dropped" in notes
    assert "1 rows that repeat a sample_id" in notes


def test_a_pickle_is_never_read(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    file = tmp_path / "routerbench_0shot.pkl"
    file.write_bytes(pickle.dumps(Harm()))
    with pytest.raises(SatlightError, match="A pickle runs code when it is read"):
        routerbench.tables(file)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"a": "2"}, r"column 'org/a'.*A score lies in \[0, 1\]"),
        ({"a": "x"}, "column 'org/a'"),
        ({"cost": "-1"}, "A cost in US dollars is at least 0"),
    ],
)
def test_mistakes_are_named(tmp_path, cells, message):
    file = tmp_path / "x.csv"
    file.write_text("\n".join([HEADER, row(0, "mbpp", "q", **cells)]) + "\n")
    with pytest.raises(SatlightError, match=message):
        routerbench.tables(file)
    file.write_text("sample_id,prompt\n1,x\n")
    with pytest.raises(SatlightError, match="eval_name"):
        routerbench.tables(file)


def test_the_published_part_returns(real_data, tmp_path):
    """The converted data, written in the format of the source, gives the same matrix."""
    known = open_records(real_data("routerbench"))
    table = known.instructions.select(
        pl.col("instruction_id").str.strip_prefix("routerbench-").alias("sample_id"),
        pl.col("instruction").map_elements(lambda text: repr([text]), pl.String).alias("prompt"),
        pl.col("dataset").str.replace("_", "-").alias("eval_name"),
    )
    scores = {name: known.outcomes[:, m] for m, name in enumerate(known.model_ids)}
    costs = {f"{name}|total_cost": known.costs[:, m] for m, name in enumerate(known.model_ids)}
    (tmp_path / "all_train.csv").write_text(table.hstack(pl.DataFrame(scores | costs)).write_csv())
    records = routerbench.read(tmp_path)
    assert records.shape == known.shape == (2205, 11)
    assert np.array_equal(records.outcomes, known.outcomes)
    assert np.allclose(records.costs, known.costs)
    assert records.texts == known.texts
    arc = records.datasets == "arc_challenge"
    assert max(map(len, records.instructions.filter(pl.Series(arc))["question"])) < 1500 < max(map(len, records.texts))
