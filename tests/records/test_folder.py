"""The folder format on disk: every mistake has its message, and writing is whole or not at all."""

import errno
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from satlight.errors import SatlightError
from satlight.records import dense, folder, save_records, split_records, tables
from satlight.records.folder import open_folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))


RECORD_MISTAKES = [
    (("score", 3, float("nan")), r"row 3 .*instruction_id 'c', model_id 'org/large-70b'.*'score': got nan"),
    (("score", 1, 85.0), r"row 1 .*'score': got 85\.0\. A score lies in \[0, 1\].*divide by 100"),
    (("score", 1, -0.1), r"row 1 .*'score': got -0\.1"),
    (("score", 2, None), r"row 2 .*'score': got None\. Every record needs a score"),
    (("score", 2, float("inf")), r"row 2 .*'score': got inf"),
    (("cost_usd", 0, -1.0), r"row 0 .*'cost_usd': got -1\.0\. A cost"),
    (("cost_usd", 1, float("inf")), r"row 1 .*'cost_usd': got inf\. A cost .* is a finite number"),
    (("cost_usd", 1, float("nan")), r"row 1 .*'cost_usd': got nan"),
    (("model_id", 1, "gpt-9"), r"row 1 .*'model_id': got 'gpt-9'\. No candidate.*Known: 'tiny-1b', 'org/large-70b'"),
    (("model_id", 1, None), r"row 1 .*'model_id': got None"),
    (("instruction_id", 4, "z"), r"row 4 .*'instruction_id': got 'z'\. No instruction has this id"),
    (("model_id", 1, "tiny-1b"), r"row 1 .*model_id 'tiny-1b'.*An earlier row has the same pair"),
]


@pytest.mark.parametrize(("change", "message"), RECORD_MISTAKES)
@pytest.mark.parametrize("batch_rows", [1 << 22, 2])
def test_mistakes_in_records(write_folder, spoiled, monkeypatch, change, message, batch_rows):
    monkeypatch.setattr(tables, "BATCH_ROWS", batch_rows)  # row numbers must count over the batches
    path = write_folder(records=spoiled(*change))
    with pytest.raises(SatlightError, match=message) as caught:
        open_folder(path)
    assert str(path / "records.parquet") in str(caught.value)


INSTRUCTION_MISTAKES = [
    ({"instruction": ["1+1?", None, "x"]}, r"row 1 .*'instruction': got None"),
    ({"instruction": ["1+1?", "2+2?", " \n"]}, r"row 2 .*'instruction': got ' \\n'"),
    ({"instruction_id": ["a", "a", "c"]}, r"row 1 .*'instruction_id': got 'a'\. An earlier row has this id"),
    ({"instruction_id": ["a", "b", None]}, r"row 2 .*'instruction_id': got None"),
    ({"dataset": [None, "math", "code"]}, r"row 0 .*'dataset': got None"),
    ({"split": ["train", "dev", "test"]}, r"row 1 .*'split': got 'dev'.*train, validation, test, dropped"),
    ({"split": ["train", None, "test"]}, r"row 1 .*'split': got None\. Give the split of every row, or of none"),
    ({"instruction": None}, r"lacks the column 'instruction'\. It has 'instruction_id', 'dataset'"),
    ({"instruction": [1.5, 2.5, 3.5]}, r"column 'instruction': is Float64; it must be text"),
]


@pytest.mark.parametrize(("change", "message"), INSTRUCTION_MISTAKES)
def test_mistakes_in_instructions(write_folder, change, message):
    path = write_folder(instructions=change)
    with pytest.raises(SatlightError, match=message) as caught:
        open_folder(path)
    assert str(path / "instructions.parquet") in str(caught.value)


MODEL_MISTAKES = [
    ({}, "must be a list of objects"),
    ([], "must be a list of objects"),
    ([{"model_id": "tiny-1b"}, {"name": "x"}], "entry 1 .*got model_id None"),
    ([{"model_id": "tiny-1b"}, {"model_id": "tiny-1b"}], "entry 1 .*'tiny-1b' appears twice"),
    ([{"model_id": "x", "params_b": "7B"}], "entry 0 .*got params_b '7B'"),
    ([{"model_id": "x", "price_in": -1}], r"got price_in -1; it must be a number 0 \(free\) or more, null = unknown"),
    ([{"model_id": "x", "price_in": 10**400}], "got price_in 1000"),
    ([{"model_id": "x", "params_b": 0}], "got params_b 0; it must be a number above 0"),
    ([{"model_id": "x", "institute": 7}], "got institute 7; text"),
    ([{"model_id": "x", "notes": 7}], "got notes 7; a list of sentences"),
    ([{"model_id": "x"}, {"model_id": " x\t"}], "entry 1 .*'x' appears twice"),
    ([{"model_id": "x", "release_date": "May 2024"}], "got release_date 'May 2024'; write YYYY-MM"),
    ([{"model_id": "x", "open_weights": "yes"}], "got open_weights 'yes'"),
    ([{"model_id": "x", "notes": "It supports Chinese."}], "got notes .*a list of sentences"),
]


@pytest.mark.parametrize(("models", "message"), MODEL_MISTAKES)
def test_mistakes_in_models(write_folder, models, message):
    with pytest.raises(SatlightError, match=rf"models\.json.*{message}"):
        open_folder(write_folder(models=models))


def test_a_candidate_without_records(write_folder):
    models = [{"model_id": "tiny-1b"}, {"model_id": "org/large-70b"}, {"model_id": "silent"}]
    with pytest.raises(SatlightError, match=r"has no record for the candidate 'silent'.*leave it out"):
        open_folder(write_folder(models=models))


def test_unknown_score_column_lists_the_numeric_ones(write_folder):
    with pytest.raises(SatlightError, match=r"no numeric column 'correct'.*Available: 'score', 'strict'\."):
        open_folder(write_folder(), score_column="correct")


def test_missing_folder_file_and_column(write_folder, tmp_path):
    with pytest.raises(SatlightError, match="nowhere does not exist"):
        open_folder(tmp_path / "nowhere")
    path = write_folder(records={"score": None})
    with pytest.raises(SatlightError, match=r"records\.parquet lacks the column 'score'"):
        open_folder(path)
    (path / "models.json").unlink()
    with pytest.raises(SatlightError, match=r"lacks 'models\.json'\..*satlight data import --from"):
        open_folder(path)
    with pytest.raises(SatlightError, match=r"instructions\.parquet is a file"):
        open_folder(path / "instructions.parquet")


@pytest.mark.parametrize("file", ["instructions.parquet", "records.parquet", "models.json"])
def test_broken_files(write_folder, file):
    path = write_folder()
    (path / file).write_bytes(b"{ no such thing")
    with pytest.raises(SatlightError, match=f"{file}(:| cannot be read as parquet| not valid JSON)"):
        open_folder(path)


def test_a_file_cut_off_in_the_middle(write_folder):
    path = write_folder()
    whole = (path / "records.parquet").read_bytes()
    (path / "records.parquet").write_bytes(b"\0" * 300 + whole[300:])  # footer fine, data gone
    with pytest.raises(SatlightError, match=r"records\.parquet"):
        open_folder(path)


def test_number_ids_are_text(write_folder):
    ids = {"instruction_id": [1, 1, 2, 3, 3]}
    records = open_folder(write_folder(instructions={"instruction_id": [1, 2, 3]}, records=ids))
    assert records.instructions["instruction_id"].to_list() == ["1", "2", "3"]
    assert records.known.sum() == 5


def test_rotations_of_number_ids_are_text(write_folder):
    rotation_of = pl.Series([None, None, 1.0])  # pandas turns integers next to nulls into floats
    path = write_folder(
        instructions={"instruction_id": [1, 2, 3], "rotation_of": rotation_of},
        records={"instruction_id": [1, 1, 2, 3, 3]},
    )
    assert open_folder(path).instructions["rotation_of"].to_list() == [None, None, "1"]


def test_numeric_groups(write_folder):
    path = write_folder(instructions={"split": None, "level": [1.0, float("nan"), float("nan")]})
    assert len(split_records(open_folder(path), group_column="level", test_fraction=0.5, validation_fraction=0)) == 3


def test_free_models_cost_0(write_folder):
    models = [{"model_id": "tiny-1b", "price_in": 0, "price_out": 0.0}, {"model_id": "org/large-70b"}]
    assert open_folder(write_folder(models=models)).candidates[0].price_in == 0


def test_white_space_around_names_of_candidates(write_folder):
    names = ["tiny-1b ", "org/large-70b", "tiny-1b", " org/large-70b", "tiny-1b"]
    records = open_folder(
        write_folder(models=[{"model_id": "tiny-1b"}, {"model_id": "org/large-70b\n"}], records={"model_id": names})
    )
    assert records.model_ids == ["tiny-1b", "org/large-70b"]
    assert records.known.sum() == 5
    assert records.filter(candidates="tiny-1b ").model_ids == ["tiny-1b"]


def test_a_dataset_called_all(write_folder):
    lines = open_folder(write_folder(instructions={"dataset": ["all", "math", "math"]})).describe()
    assert [(line["dataset"], line["instructions"]) for line in lines] == [("all", 1), ("math", 2), ("(all)", 3)]


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ([], "must be an object"),
        ({"name": 7}, "got name 7"),
        ({"simulated": "no"}, "got simulated"),
        ({"notes": "x"}, "got notes"),
        ({"notes": [1]}, "list of sentences"),
    ],
)
def test_mistakes_in_about(write_folder, about, message):
    path = write_folder()
    (path / "about.json").write_text(json.dumps(about))
    with pytest.raises(SatlightError, match=rf"about\.json.*{message}"):
        open_folder(path)


def test_columns_of_other_types(write_folder):
    with pytest.raises(SatlightError, match=r"column 'image': is Int64; it must be a path"):
        open_folder(write_folder("one", instructions={"image": [1, 2, 3]}))
    with pytest.raises(SatlightError, match=r"column 'instruction_id': is List.*must be text"):
        open_folder(write_folder("two", records={"instruction_id": [["a"]] * 5}))
    with pytest.raises(SatlightError, match=r"column 'cost_usd': is String; it must be a number"):
        open_folder(write_folder("three", records={"cost_usd": ["1"] * 5}))


def test_image_paths_become_absolute(write_folder):
    path = write_folder()
    frame = pl.read_parquet(path / "instructions.parquet")
    frame = frame.with_columns(image=pl.Series(["images/a.png", None, f"{path}/b.png"]))
    frame.write_parquet(path / "instructions.parquet")
    images = open_folder(path).instructions["images"].to_list()
    assert images == [[f"{path}/images/a.png"], None, [f"{path}/b.png"]]


@pytest.mark.parametrize("image", ["../secret.png", "/etc/passwd", "images/../../x.png", ".", "../demo2/a.png"])
def test_images_outside_of_the_folder_are_refused(write_folder, image):
    path = write_folder(instructions={"image": [None, image, "a.png"]})
    with pytest.raises(SatlightError, match=r"row 1 .*'image': got .*An image must lie in .*demo; copy it there"):
        open_folder(path)


def test_images_are_copied_with_the_records(write_folder, tmp_path):
    path = write_folder(instructions={"image": ["a.png", "sub/a.png", "a.png"]})
    (path / "sub").mkdir()
    (path / "a.png").write_bytes(b"one")
    (path / "sub" / "a.png").write_bytes(b"other")
    save_records(open_folder(path), tmp_path / "saved")
    images = [image for (image,) in open_folder(tmp_path / "saved").instructions["images"].to_list()]
    assert [Path(image).read_bytes() for image in images] == [b"one", b"other", b"one"]
    assert all(image.startswith(f"{tmp_path}/saved/images/") for image in images)
    (path / "a.png").unlink()
    with pytest.raises(SatlightError, match=r"image .*a\.png .* does not exist"):
        save_records(open_folder(path), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_save_and_open_again(write_folder, tmp_path):
    records = open_folder(write_folder(), score_column="strict")
    records.candidates = (
        *records.candidates[:1],
        records.candidates[1].__class__("org/large-70b", notes=("It is big.",)),
    )
    save_records(records, tmp_path / "saved")
    again = open_folder(tmp_path / "saved")
    assert again.fingerprint == records.fingerprint
    assert again.candidates == records.candidates
    assert again.instructions.equals(records.instructions)
    np.testing.assert_array_equal(again.costs, np.where(records.known, records.costs, np.nan))
    assert again.name == "demo"
    assert json.loads((tmp_path / "saved" / "about.json").read_text())["notes"] == [
        "score is the column 'strict' of the source."
    ]


def test_simulated_records_stay_labelled(write_folder, tmp_path):
    records = open_folder(write_folder())
    records.simulated, records.expected = True, np.full((3, 2), 0.75, dtype=np.float32)
    save_records(records, tmp_path / "saved")
    again = open_folder(tmp_path / "saved")
    assert again.simulated
    np.testing.assert_array_equal(again.expected, np.where(again.known, np.float32(0.75), np.nan))


def failing_parquet(frame, path, *args, **kwargs):
    Path(path).write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("when", ["instructions", "records"])
@pytest.mark.parametrize("old", [True, False])
def test_disk_full_while_saving(write_folder, tmp_path, monkeypatch, when, old):
    records = open_folder(write_folder())
    target = tmp_path / "out" / "saved"
    if old:
        save_records(records, target)
    before = {path: path.read_bytes() for path in target.glob("*")}
    if when == "instructions":
        monkeypatch.setattr(pl.DataFrame, "write_parquet", failing_parquet)
    else:
        monkeypatch.setattr(folder, "write_frames", failing_parquet)
    with pytest.raises(SatlightError, match=r"Cannot write the records to .*No space left on device.*free some space"):
        save_records(records.rows([0]), target)
    assert {path: path.read_bytes() for path in target.glob("*")} == before
    assert list((tmp_path / "out").iterdir()) == ([target] if old else [])


def test_killed_while_saving(write_folder, tmp_path, monkeypatch):
    records = open_folder(write_folder())
    save_records(records, tmp_path / "saved")

    def interrupted(frames, path):
        next(iter(frames))
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "write_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_records(records.rows([0]), tmp_path / "saved")
    assert open_folder(tmp_path / "saved").fingerprint == records.fingerprint


def test_saving_never_deletes_foreign_files(write_folder, tmp_path):
    records = open_folder(write_folder())
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(SatlightError, match=r"it holds 'thesis\.tex', which saving would delete"):
        save_records(records, tmp_path / "home")
    with pytest.raises(SatlightError, match=r"it holds 'thesis\.tex'"):
        save_records(records, tmp_path / "home" / "thesis.tex")
    assert (tmp_path / "home" / "thesis.tex").exists()


# --- large records: the matrix is a file in the cache ---


@pytest.fixture
def large(monkeypatch):
    monkeypatch.setattr(dense, "LARGE_CELLS", 1)


@pytest.mark.usefixtures("large")
def test_large_matrices_are_mapped_and_reused(write_folder, tmp_path, monkeypatch):
    path = write_folder()
    first = open_folder(path)
    assert isinstance(first.outcomes, np.memmap)
    monkeypatch.setattr(dense, "_fill", None)  # a second opening must not build again
    again = open_folder(path)
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.costs, first.costs)
    assert again.filter(candidates="tiny*").outcomes.tolist() == [[0.25], [0.0], [0.5]]


@pytest.mark.usefixtures("large")
def test_a_changed_folder_gets_a_new_matrix_and_loses_the_old(write_folder, tmp_path):
    path = write_folder()
    open_folder(path, score_column="strict")
    first = open_folder(path)
    frame = pl.read_parquet(path / "records.parquet")
    frame.with_columns(score=1 - pl.col("score")).write_parquet(path / "records.parquet")
    assert open_folder(path).outcomes[0, 0] == np.float32(0.75)
    assert first.outcomes[0, 0] == np.float32(0.25)  # a mapped file lives on for who has it open
    assert len(list((tmp_path / "cache" / "matrices").iterdir())) == 2  # "strict" and the new "score"


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("change", [("score", 3, 2.0), ("model_id", 1, "tiny-1b")])
def test_mistakes_leave_nothing_in_the_cache(write_folder, spoiled, tmp_path, change):
    with pytest.raises(SatlightError):
        open_folder(write_folder(records=spoiled(*change)))
    assert list((tmp_path / "cache" / "matrices").iterdir()) == []


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_cache_is_built_again(write_folder, tmp_path, caplog, damage):
    path = write_folder()
    first = np.array(open_folder(path).outcomes)
    (file,) = (tmp_path / "cache" / "matrices").glob("*/outcomes.npy")
    if damage is None:  # another shape
        np.save(file, np.zeros((1, 2), dtype=np.float32))
    else:
        file.write_bytes(damage)
    np.testing.assert_array_equal(open_folder(path).outcomes, first)
    assert "is damaged" in caplog.text
    assert "built again" in caplog.text


@pytest.mark.usefixtures("large")
def test_disk_full_in_the_cache(write_folder, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dense.os, "posix_fallocate", full, raising=False)
    with pytest.raises(SatlightError, match=r"No space left on device.*SATLIGHT_CACHE"):
        open_folder(write_folder())
    assert list((tmp_path / "cache" / "matrices").iterdir()) == []


def test_real_records_open_fast(real_data):
    import time

    path = real_data("routerdc")
    start = time.perf_counter()
    records = open_folder(path, score_column="correct")
    assert time.perf_counter() - start < 1.0
    assert records.shape == (20600, 7)
    test = records.filter(datasets="humaneval", splits="test", candidates="cognitivecomputations/dolphin-2.9*")
    assert test.outcomes.mean() == pytest.approx(0.4939, abs=5e-5)  # as RouterDC's paper prints it


def test_real_records_with_gaps_and_costs(real_data):
    incomplete = open_folder(real_data("mmlu_pro"))
    assert incomplete.known.sum() == 170745
    priced = open_folder(real_data("routerbench"))
    assert np.isfinite(priced.costs).all()
