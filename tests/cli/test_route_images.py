"""``satlight route`` with images: arguments, JSON lines, chat messages, and what cannot be read."""

import base64
import io
import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from satlight.backbones.embedding import Embedder, ImageEmbedder, RequestEmbedder
from satlight.baselines import build
from satlight.cli import main
from satlight.records import PerformanceRecords
from satlight.types import Candidate


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a black and a white image, and a router that sees which is which."""
    folder = tmp_path_factory.mktemp("images")
    for color in ("black", "white"):
        Image.new("RGB", (16, 16), color).save(folder / f"{color}.png")
    rows = [[color, str(folder / f"{color}.png")] for color in ("black", "white") for _ in range(4)]
    frame = pl.DataFrame(
        {
            "instruction_id": [str(row) for row in range(8)],
            "dataset": ["d"] * 8,
            "task": ["t"] * 8,
            "split": ["train"] * 8,
            "instruction": ["Which color?"] * 8,
            "images": [[path] for _, path in rows],
        }
    )
    outcomes = np.array([[color == name for name in ("black", "white")] for color, _ in rows], dtype=np.float32)
    candidates = (Candidate("black"), Candidate("white"))
    records = PerformanceRecords(frame, candidates, outcomes, np.ones((8, 2), dtype=bool))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SATLIGHT_CACHE", str(folder / "cache"))
        embed = RequestEmbedder(Embedder("tiny:bert"), ImageEmbedder("tiny:conv"))
        build("linear", fixed={"alpha": 0.01}).fit(records, embed).save(folder / "seeing")
        build("tfidf_knn", fixed={"k": 10}).fit(records).save(folder / "blind")
    return folder


@pytest.fixture
def route(folder, capsys, monkeypatch, tmp_path):
    """Run the command; return its exit code, the rows on stdout and the text on stderr."""
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))

    def run(*words, stdin=None, router="seeing"):
        if stdin is not None:
            monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = None
        try:
            main(["route", "--router", str(folder / router), *map(str, words)])
        except SystemExit as error:
            code = error.code
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return run


def url(path):
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"


def test_an_instruction_with_images(route, folder):
    for color in ("black", "white"):
        path = folder / f"{color}.png"
        code, lines, err = route("--image", path, "Which color?")
        assert (code, err) == (None, "")
        assert json.loads(lines[0])["route"] == color
        assert json.loads(lines[0])["images"] == [str(path)]
        assert json.loads(route("--image", url(path), "Which color?")[1][0])["route"] == color
    code, lines, _ = route("--image", folder / "white.png", "--input-format", "text", stdin="Which\ncolor?")
    assert (code, json.loads(lines[0])["route"]) == (None, "white")
    code, lines, _ = route("--format", "table", "--image", path, "--image", path, "")
    assert code is None


def test_rows_name_their_images(route, folder, monkeypatch):
    def turn(*parts):
        return [{"role": "user", "content": [{"type": "text", "text": "Which color?"}, *parts]}]

    shown = {"type": "image_url", "image_url": {"url": url(folder / "black.png")}}
    rows = [
        {"instruction": "Which color?", "image": "black.png"},
        {"instruction": "Which color?", "images": ["white.png", str(folder / "white.png")], "id": 7},
        {"instruction": "Which color?", "image": url(folder / "white.png"), "images": None},
        {"instruction": turn(shown)},
        {"instruction": [{"role": "user", "content": "No"}, *turn(shown), {"role": "assistant", "content": "?"}]},
        {"instruction": turn({"type": "input_image", "image_url": url(folder / "white.png")})},
        {"instruction": turn(), "image": "white.png"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(text)
    code, lines, err = route("--file", folder / "rows.jsonl")
    assert (code, err) == (None, "")
    assert [json.loads(line)["route"] for line in lines] == [
        "black", "white", "white", "black", "black", "white", "white"
    ]  # fmt: skip
    assert json.loads(lines[1])["id"] == 7
    monkeypatch.chdir(folder)  # on standard input, paths are relative to the working directory
    one_by_one = route("--input-format", "jsonl", stdin=text)[1]  # scored alone: the last digits may differ
    for alone, together in zip(map(json.loads, one_by_one), map(json.loads, lines), strict=True):
        rankings = (alone.pop("ranking"), together.pop("ranking"))
        assert alone == together
        for one, other in zip(*rankings, strict=True):
            assert one == pytest.approx(other, abs=1e-5)


BAD = [
    ({"image": "gone.png"}, "gone.png (", "does not exist"),
    ({"image": "text.png"}, "text.png (", "is no image of a known format"),
    ({"image": "cut.png"}, "cut.png (", "cannot be read"),
    ({"image": "."}, "cannot be read", "IsADirectoryError"),
    ({"image": "data:image/png;base64,aGVsbG8="}, "The image in ", "is no image of a known format"),
    ({"image": "data:image/png;base64,a"}, "line 2: the image 'data:image", "is not in base64"),
    ({"image": "data:text/html,hello"}, "line 2: the image 'data:text", "must be written as data:image/png;base64"),
    ({"image": "https://example.org/a.png"}, "line 2: the image 'https", "download it and give its path"),
    ({"image": 7}, "line 2: the images are [7]", "a path or a data: URL"),
    ({"images": "a.png"}, "line 2: the images are", "a list of them"),
    ({"image": "a.png", "images": []}, "line 2: the keys 'image' and 'images'", "keep one"),
    (
        {"instruction": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        "[None]",
        "such a 'url'",
    ),
]


@pytest.mark.parametrize(("bad", "place", "message"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_image_costs_no_good_row(route, folder, bad, place, message):
    (folder / "text.png").write_text("no image")
    (folder / "cut.png").write_bytes((folder / "black.png").read_bytes()[:50])
    good = {"instruction": "Which color?", "image": "black.png"}
    rows = [good, {"instruction": "Which color?"} | bad, good | {"image": "white.png"}]
    (folder / "bad.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, lines, err = route("--file", folder / "bad.jsonl")
    assert (code, [json.loads(line)["route"] for line in lines]) == (1, ["black"])
    code, lines, err = route("--file", folder / "bad.jsonl", "--on-error", "skip")
    assert (code, [json.loads(line)["route"] for line in lines]) == (1, ["black", "white"])
    assert "bad.jsonl, line 2" in err
    assert place in err
    assert message in err


def test_a_router_of_texts_refuses_images(route, folder):
    code, lines, err = route("--image", folder / "black.png", "Which color?", router="blind")
    assert (code, lines) == (1, [])
    assert "has 1 image(s), but this router reads text only; remove the images" in err
    assert "configs/multimodal.yaml" in err
    rows = [
        {"instruction": "One"},
        {"instruction": "Two", "image": str(folder / "black.png")},
        {"instruction": "Three"},
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    code, lines, err = route("--input-format", "jsonl", "--on-error", "skip", stdin=text, router="blind")
    assert (code, [json.loads(line)["instruction"] for line in lines]) == (1, ["One", "Three"])
    assert "standard input, line 2 ('Two') has 1 image(s)" in err


def test_images_need_one_instruction(route, folder):
    for words, stdin in ((["--file", folder / "rows.jsonl"], None), ([], "Hi\n"), (["-"], "Hi\n")):
        code, lines, err = route("--image", folder / "black.png", *words, stdin=stdin)
        assert (code, lines) == (1, [])
        assert "--image belongs to one instruction" in err
