"""A bench on drawings: methods with and without images, and the thumbnails in the report."""

import re

import polars as pl
import pytest
from PIL import Image

from satlight.bench.cells import EMBEDDING, plan
from satlight.bench.config import load_config
from satlight.bench.examples import EXAMPLES
from satlight.bench.report import write_report
from satlight.errors import SatlightError
from satlight.images import read_image

EMBEDDER = {"text": "tiny:bert", "image": "tiny:conv"}


@pytest.fixture
def drawings(toy_records, tmp_path):
    """The toy records with one text for all instructions: only the image tells which candidate solves it."""
    folder = tmp_path / "drawings"
    (folder / "images").mkdir(parents=True)
    for name in ("records.parquet", "models.json"):
        (folder / name).write_bytes((toy_records / name).read_bytes())
    frame = pl.read_parquet(toy_records / "instructions.parquet")
    for row in frame.to_dicts():
        side, number = int(row["instruction"][-1]), int(row["instruction_id"].split("-")[1])
        image = Image.new("RGB", (256, 256), "white")
        corner = (128 * (side % 2) + number, 128 * (side // 2) + number)
        image.paste("black", (*corner, corner[0] + 90, corner[1] + 90))
        image.save(folder / "images" / f"{row['instruction_id']}.png")
    image = pl.format("images/{}.png", "instruction_id").alias("image")
    frame.with_columns(image, pl.lit("Where is it?").alias("instruction")).write_parquet(
        folder / "instructions.parquet"
    )
    return folder


def test_images_decide_and_misses_are_shown(compute, bench_file, drawings, tmp_path, monkeypatch):
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    fixed = {"fixed": {"k": 10}}
    methods = [
        {"name": "seeing", "baseline": "knn", "options": {"fixed": {"k": 10}}},
        {"name": "blind", "baseline": "knn", "options": fixed, "embeddings": "text"},
        {"name": "words", "baseline": "tfidf_knn", "options": fixed},
    ]
    file = bench_file(methods, data_records=str(drawings), embedder=EMBEDDER, seeds=[0])
    (board,) = compute(file)
    routed = {entry.name: entry.groups["all"].routed for entry in board.methods}
    assert board.failures == []
    assert routed["seeing"] > routed["blind"] + 20
    assert routed["blind"] == routed["words"]
    config = load_config(file)
    cells = plan(config)
    assert [c.spec["backbone"] for c in cells if c.kind == EMBEDDING][1] == "tiny:bert"
    board.entries.sort(key=lambda entry: entry.name)  # the blind one first: it has misses to show
    monkeypatch.setattr("satlight.bench.report.boards", lambda *_: [board])
    write_report(config, cells, tmp_path / "out", file.read_text())
    page = (tmp_path / "out" / "report.html").read_text()
    urls = re.findall(r'<img src="(data:image/webp;base64,[^"]+)"', page)
    assert 0 < len(urls) <= EXAMPLES
    from satlight.images import image_source

    assert max(read_image(image_source(urls[0], tmp_path, "page")).shape) == 128
    assert "Missed by blind" in page


def test_the_embedder_is_checked(bench_file):
    assert load_config(bench_file(["knn"])).embedder == "minilm"
    spec = load_config(bench_file(["knn"], embedder=EMBEDDER | {"cells": 3})).embedder
    assert (spec.text, spec.image, spec.cells, spec.image_weight) == ("tiny:bert", "tiny:conv", 3, 0.5)
    with pytest.raises(SatlightError, match="embedder"):
        load_config(bench_file(["knn"], embedder={"video": "x"}))
