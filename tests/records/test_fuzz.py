"""Every reader of outside files gives records or a SatlightError, whatever the bytes: nothing else, and no crash.

``SATLIGHT_FUZZ=1000`` sets the number of examples per reader (default 200); they are the same in every run.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from satlight.capability.keywords import load_keywords
from satlight.errors import SatlightError
from satlight.records import open_records
from satlight.records.outputs import CandidateOutputs
from satlight.records.sources import csv, lm_eval, mmlu_pro, routerbench, routerdc
from satlight.records.zoo import load_setting

fuzzed = settings(
    max_examples=int(os.environ.get("SATLIGHT_FUZZ", "200")),
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**18, 10**400) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PIECES = st.sampled_from(
    b'\x00 \xff \xef\xbb\xbf \r " , \n { ] \\ud83d NaN 1e999 null -1 2 "" \xed\xa0\xbd \' ../ &a[*a] :'.split(b" ")
)
HEAVY = st.sampled_from([b"[" * 3000, b"9" * 400])


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Cut, overwrite, insert and repeat pieces of a valid file."""
    result = content
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(result)))
        stop = min(len(result), start + draw(st.integers(0, 20)))
        kind = draw(st.integers(0, 3))
        piece = (
            draw(PIECES | HEAVY | st.binary(max_size=6)) if kind < 2 else result[start:stop] * 2 if kind == 2 else b""
        )
        result = result[:start] + piece + result[start if kind == 0 else stop :]
        if kind == 3 and draw(st.booleans()):
            result = result[:start]
    return result


def replaced(draw: st.DrawFn, value: object) -> object:
    """Replace a random part of a JSON value by another value, or drop it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 3)):
        key = draw(st.sampled_from(sorted(value)))
        rest = {name: one for name, one in value.items() if name != key}
        return rest if not draw(st.integers(0, 4)) else {**rest, key: replaced(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 3)):
        place = draw(st.integers(0, len(value) - 1))
        return [*value[:place], replaced(draw, value[place]), *value[place + 1 :]]
    return draw(JSON)


@st.composite
def misshapen(draw: st.DrawFn, values: list[object], lines: bool = False) -> bytes:
    """Valid JSON with parts of other types; one value per line, or the first value alone."""
    if lines:
        changed = draw(st.integers(0, len(values) - 1))
        values = [replaced(draw, value) if place == changed else value for place, value in enumerate(values)]
        return "\n".join(map(json.dumps, values)).encode()
    return json.dumps(replaced(draw, values[0])).encode()


def survives(read: Callable[[Path], object], files: dict[str, bytes]) -> None:
    """Write the files to a new folder and read it."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        with suppress(SatlightError):
            read(folder)


ROWS = [
    {"instruction_id": "1", "instruction": "1+1?", "candidate": "m", "score": 1, "cost_usd": 0.5, "split": "test"},
    {
        "instruction_id": "2",
        "instruction": "Wer?",
        "candidate": "m",
        "score": 0.5,
        "choices": ["a", "b"],
        "split": "train",
    },
]
LINES = "\n".join(map(json.dumps, ROWS)).encode()
HEADER = "instruction_id,instruction,candidate,score,cost_usd,split,image,rotation_of"
TABLE = f'{HEADER}\n1,Ä?,m,1,0.5,test,a.png,\n2,"b, c",m,0,,train,,1\n'.encode()


@fuzzed
@given(damaged(TABLE))
def test_csv(content):
    survives(lambda folder: csv.read(folder / "log.csv"), {"log.csv": content})


@fuzzed
@given(damaged(LINES) | misshapen(ROWS, lines=True))
def test_jsonl(content):
    survives(lambda folder: csv.read(folder / "log.jsonl"), {"log.jsonl": content})


DC = [[{"question": "q", "scores": {"m": 0.5, "n": 1}, "cluster_id": 3}, {"question": "p", "scores": {"m": 0}}]]


@fuzzed
@given(damaged(json.dumps(DC[0]).encode()) | misshapen(DC))
def test_routerdc(content):
    survives(routerdc.read, {"mmlu_test.json": content})


BENCH = """,sample_id,prompt,eval_name,a,b,a|total_cost,b|total_cost
0,mbpp.0,"['Sort, ""it""']",mbpp,1.0,0.0,0.5,0.25
1,mmlu-law.1,"['x','y']",mmlu-law,,1,0,0
"""


@fuzzed
@given(damaged(BENCH.encode()))
def test_routerbench(content):
    survives(routerbench.read, {"mbpp_train.csv": content})


PRO = [
    [
        {
            "question_id": 7,
            "question": "q",
            "options": ["a", "b"],
            "answer": "A",
            "category": "law",
            "src": "x",
            "pred": "A",
        },
        {"question_id": 8, "question": "p", "options": ["a"], "answer": "A", "category": None, "pred": None},
    ]
]


@fuzzed
@given(damaged(json.dumps(PRO[0]).encode()) | misshapen(PRO))
def test_mmlu_pro(content):
    survives(mmlu_pro.read, {"model_outputs_m_5shots.json": content})


def zipped() -> bytes:
    with tempfile.TemporaryDirectory() as place:
        with zipfile.ZipFile(f"{place}/a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("answers.json", json.dumps(PRO[0]))
        return Path(place, "a.zip").read_bytes()


@fuzzed
@given(damaged(zipped()))
def test_mmlu_pro_archives(content):
    survives(mmlu_pro.read, {"model_outputs_m_5shots.zip": content})


SAMPLES = [
    {
        "doc_id": number,
        "doc": {"question": "What is a star made of, mostly?", "choices": ["hot", "cold"]},
        "target": 0,
        "arguments": {"gen_args_0": {"arg_0": "Q: x\n\nQ: What is a star made of, mostly?", "arg_1": " hot"}},
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": f"h{number}",
        "acc": 1.0,
    }
    for number in range(2)
]
RESULTS = [
    {
        "model_name": "org/m",
        "higher_is_better": {"t": {"acc": True}},
        "group_subtasks": {"g": ["t"]},
        "n-shot": {"t": 1},
        "n-samples": {"t": {"original": 2, "effective": 2}},
        "configs": {
            "t": {"metric_list": [{"metric": "acc", "higher_is_better": True}], "filter_list": [{"name": "none"}]}
        },
        "config": {"limit": None, "model_args": "pretrained=org/m"},
        "results": {"t": {"acc,none": 1.0}},
    }
]
SAMPLE_LINES, RESULT = "\n".join(map(json.dumps, SAMPLES)).encode(), json.dumps(RESULTS[0]).encode()


@fuzzed
@given(damaged(SAMPLE_LINES) | misshapen(SAMPLES, lines=True))
def test_lm_eval_samples(content):
    survives(lm_eval.read, {"m/samples_t_2024.jsonl": content, "m/results_2024.json": RESULT})


@fuzzed
@given(damaged(RESULT) | misshapen(RESULTS))
def test_lm_eval_results(content):
    other = SAMPLE_LINES.replace(b'"filter": "none", ', b"")
    survives(lm_eval.read, {"m/samples_t_2024.jsonl": other, "m/results_2024.json": content})


def parquet(**columns: list) -> bytes:
    with tempfile.TemporaryFile() as file:
        pl.DataFrame(columns).write_parquet(file)
        file.seek(0)
        return file.read()


MODELS, ABOUT = (
    [[{"model_id": "m", "params_b": 7, "price_in": 0.5, "notes": ["x"]}]],
    [{"name": "x", "simulated": False, "notes": ["x"]}],
)
FOLDER = {
    "instructions.parquet": parquet(instruction_id=["1", "2"], dataset=["d", "d"], instruction=["q", "p"]),
    "records.parquet": parquet(instruction_id=["1", "2"], model_id=["m", "m"], score=[1.0, 0.5], cost_usd=[0.5, None]),
    "outputs.parquet": parquet(instruction_id=["1", "2"], model_id=["m", "m"], output=["x", "y"]),
    "models.json": json.dumps(MODELS[0]).encode(),
    "about.json": json.dumps(ABOUT[0]).encode(),
}


@pytest.mark.parametrize(("name", "values"), [("models.json", MODELS), ("about.json", ABOUT)])
@fuzzed
@given(data=st.data())
def test_json_of_a_folder(name, values, data):
    content = data.draw(damaged(FOLDER[name]) | misshapen(values))
    survives(open_records, {**FOLDER, name: content})


@pytest.mark.parametrize("name", ["instructions.parquet", "records.parquet", "outputs.parquet"])
@fuzzed
@given(data=st.data())
def test_parquet_of_a_folder(name, data):
    read = CandidateOutputs.open if name == "outputs.parquet" else open_records
    survives(read, {**FOLDER, name: data.draw(damaged(FOLDER[name]))})


COLUMN = st.sampled_from(
    [[1, None], [True, False], [[1], [2]], [{"a": 1}, None], [b"x", b"y"], [None, None], [1.5, 2.0], ["", "x"]]
)


@fuzzed
@given(
    st.sampled_from(["instruction_id", "dataset", "instruction", "task", "split", "image", "rotation_of", "choices"]),
    COLUMN,
)
def test_types_of_instruction_columns(column, values):
    frame = {"instruction_id": ["1", "2"], "dataset": ["d", "d"], "instruction": ["q", "p"], column: values}
    survives(open_records, {**FOLDER, "instructions.parquet": parquet(**frame)})


@fuzzed
@given(st.sampled_from(["instruction_id", "model_id", "score", "cost_usd", "expected"]), COLUMN)
def test_types_of_record_columns(column, values):
    frame = {"instruction_id": ["1", "2"], "model_id": ["m", "m"], "score": [1.0, 0.0], column: values}
    survives(open_records, {**FOLDER, "records.parquet": parquet(**frame)})


KEYWORDS = [{"gsm8k": ["arithmetic", "words"], "law": "courts"}]
YAML = b"gsm8k: [arithmetic, words]\nlaw: courts\n"
ZOO = b"name: mine\ncandidates: [m, [a, b]]\nmax_price_in: 3\nreleased_after: 2024-01\n"


@fuzzed
@given(damaged(json.dumps(KEYWORDS[0]).encode()) | misshapen(KEYWORDS))
def test_keywords_in_json(content):
    survives(lambda folder: load_keywords(folder / "k.json"), {"k.json": content})


@fuzzed
@given(damaged(YAML) | misshapen(KEYWORDS))
def test_keywords_in_yaml(content):
    survives(lambda folder: load_keywords(folder / "k.yaml"), {"k.yaml": content})


@fuzzed
@given(
    damaged(ZOO) | misshapen([{"name": "mine", "candidates": ["m", ["a"]], "min_params_b": 1, "open_weights": True}])
)
def test_zoo_settings(content):
    survives(lambda folder: load_setting(folder / "zoo.yaml"), {"zoo.yaml": content})
