"""Importers of published results, images, and settings of commands, with valid inputs to damage."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from faults.readers import Reader, files_writer, import_records, json_lines

BENCH_HEADER = ",sample_id,prompt,eval_name,org/a,b,org/a|total_cost,b|total_cost"
BENCH_ROWS = (
    '0,arc.0,"[\'Why, ""then""?\']",arc-challenge,1.0,0.0,0.25,0.5',
    "1,mmlu.1,\"['Who?', 'B']\",mmlu-law,0.5,1.0,1e-5,0",
)
FEEDBACK = [
    {"instruction_id": f"h{number}", "instruction": f"Question {number}?", "candidate": "m", "score": 0.5}
    | {"cost_usd": None, "latency": 0.25, "rule": "best", "router_version": "v1", "time": "2026-01-01T00:00:00Z"}
    for number in range(3)
]


def _image(kind: str, size: tuple[int, int] = (12, 9)) -> bytes:
    content = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def _mathv(folder: Path) -> None:
    questions = [
        {"id": "1", "question": "Why?\n<image1>", "options": ["x", "y"], "answer": "B", "image": "images/1.png"}
        | {"subject": "logic", "level": 3},
        {
            "id": "2",
            "question": "How many?",
            "options": [],
            "answer": "4",
            "image": "images/1.png",
            "subject": "counting",
        },
    ]
    answers = [
        {"id": "1", "response": "\\boxed{B}", "model_answer": "B", "correct": True},
        {"id": "2", "response": "4"},
    ]
    files_writer(
        v_in_data_in_test__jsonl=json_lines(questions),
        v_in_images_in_1__png=_image("PNG"),
        v_in_outputs_in_Model__jsonl=json_lines(answers),
    )(folder)


def _vlmevalkit(folder: Path) -> None:
    import openpyxl  # an extra, which readers of other files do without

    stored = [base64.b64encode(_image("PNG")).decode(), "1", base64.b64encode(_image("JPEG")).decode()]
    questions = ["Which color?", "How many?", "Which one?"]
    header = ["index", "question", "A", "B", "answer", "category", "prediction", "hit"]
    rows = [[number + 1, text, "red", "2", "A", "color", "A", number % 2] for number, text in enumerate(questions)]
    tsv = "\n".join("\t".join(map(str, row)) for row in [header, *rows])
    data = "\n".join(
        "\t".join(row) for row in [["index", "question", "image"], *zip("123", questions, stored, strict=True)]
    )
    files_writer(v_in_Model_in_Model_SET_result__tsv=tsv, v_in_SET__tsv=data)(folder)
    book = openpyxl.Workbook()
    for row in [header, *rows]:
        book.active.append(row)
    (folder / "v/other").mkdir()
    book.save(folder / "v/other/other_SET_result.xlsx")


def _images(folder: Path) -> None:
    for kind, options in {"PNG": {}, "JPEG": {}, "GIF": {}, "WEBP": {}, "BMP": {}, "TIFF": {}}.items():
        (folder / f"one.{kind.lower()}").write_bytes(_image(kind, (40, 30), **options))


def _read_images(folder: Path) -> None:
    from satlight.errors import SatlightError
    from satlight.images import read_image

    refused = None
    for file in sorted(folder.glob("one.*")):
        try:
            pixels = read_image(str(file))
        except SatlightError as error:
            refused = error
        else:
            assert (pixels.shape[2:], pixels.dtype) == ((3,), np.uint8), "not RGB"
    if refused is not None:
        raise refused


def source_readers() -> list[Reader]:
    """Return the importers that :func:`faults.readers.record_readers` lacks, and the reader of images."""
    bench = files_writer(b_in_all_train__csv="\n".join([BENCH_HEADER, *BENCH_ROWS]))
    feedback = files_writer(**{"f/feedback-1.jsonl": json_lines(FEEDBACK) + "\n"})
    return [
        Reader("routerbench", bench, ("b/*",), import_records("routerbench", "b")),
        Reader("feedback", feedback, ("f/*",), import_records("feedback", "f")),
        Reader("mathv", _mathv, ("v/data/*", "v/outputs/*"), import_records("mathv", "v")),
        Reader("vlmevalkit", _vlmevalkit, ("v/*.tsv", "v/Model/*"), import_records("vlmevalkit", "v")),
        Reader("vlmevalkit xlsx", _vlmevalkit, ("v/other/*",), import_records("vlmevalkit", "v"), 2),
        Reader("images", _images, ("one.*",), _read_images),
    ]


# -- settings of serve, sweep, and onboard -----------------------------------------------------------------

UPSTREAMS = """upstreams:
  small: {model: openai/small, api_base: "http://127.0.0.1:8001/v1", rpm: 60}
  large: {model: openai/large, api_base: "http://127.0.0.1:8002/v1", timeout: 2.5}
exclude: [large]
litellm_settings: {num_retries: 1}
router_settings: {num_retries: 2, plugins: [a.b], fallbacks: [{small: [large]}], model_group_alias: {x: small}}
general_settings: {database_url: none}
model_list: [{model_name: other, litellm_params: {model: openai/other}}]
"""
SWEEP = """program: lightning
command: ["${env}", lightning, fit, -c, full.yaml, "${args}"]
method: random
metric: {name: val_loss, goal: minimize}
run_cap: 3
parameters:
  model.learning_rate: {min: 0.001, max: 0.1, distribution: log_uniform_values}
  seed_everything: {values: [0, 1]}
  config: {values: ["a=b.yaml + c=D", "e=f.yaml"]}
"""
ITEMS = [
    {"instruction_id": f"i{number}", "instruction": f"What is {number} + 1?", "answer": str(number + 1), "task": "sum"}
    | {"choices": ["1", "2"] if number else [], "images": []}
    for number in range(3)
]
RESULTS = [{"id": "i0", "answer": "1"}, {"id": "i1", "score": 0.5}, {"id": "i2", "score": 1}]


def _upstreams(folder: Path) -> None:
    from satlight.serving.upstreams import read_upstreams

    upstreams = read_upstreams(folder / "up.yaml")
    json.dumps(upstreams.litellm_config([], "KEY"), allow_nan=False, ensure_ascii=False, default=str).encode()


def _sweep(folder: Path) -> None:
    from satlight.sweeps.definition import read_sweep

    json.dumps(read_sweep(folder / "sweep.yaml").corners(), allow_nan=False, ensure_ascii=False).encode()


def _onboarding(folder: Path) -> None:
    from satlight.routing.onboarding.items import read_items, read_results

    items = read_items(folder / "items.jsonl")
    results = read_results(folder / "results.jsonl", items, None)
    assert all(isinstance(value, str) or 0 <= value <= 1 for _, value in results), "a score is outside [0, 1]"


def setting_readers() -> list[Reader]:
    """Return the readers of settings of serve and sweep, and of items and results of onboard."""
    answers = files_writer(items__jsonl=json_lines(ITEMS), results__jsonl=json_lines(RESULTS))
    return [
        Reader("upstreams.yaml", files_writer(up__yaml=UPSTREAMS), ("up.yaml",), _upstreams),
        Reader("sweep YAML", files_writer(sweep__yaml=SWEEP), ("sweep.yaml",), _sweep),
        Reader("items and results", answers, ("*.jsonl",), _onboarding),
    ]
