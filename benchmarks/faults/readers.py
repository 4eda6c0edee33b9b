"""Everything that reads a file from outside, with valid inputs to damage."""

from __future__ import annotations

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from satlight.errors import SatlightError


@dataclass(frozen=True)
class Reader:
    """A reader and how to try it.

    Args:
        name: For the table.
        build: Writes valid inputs into a folder.
        victims: Patterns of the files that may be damaged.
        use: Reads the folder; what it writes goes to ``out`` in it. Raises AssertionError if it accepts NaN.
        share: Relative number of inputs.
    """

    name: str
    build: Callable[[Path], None]
    victims: tuple[str, ...]
    use: Callable[[Path], None]
    share: int = 4


def command(*argv: object) -> str:
    """Run a command in this process.

    Returns:
        What it printed.

    Raises:
        SatlightError: It ended with code 1 and a sentence.
    """
    from satlight.cli import main

    out, err = io.StringIO(), io.StringIO()
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main([str(word) for word in argv])
    except SystemExit as end:
        said = err.getvalue().strip()
        if end.code == 1 and "error: " in said:
            raise SatlightError(said) from end
        raise RuntimeError(f"exit code {end.code}, stderr {said[-300:]!r}") from end
    return out.getvalue()


# -- records -----------------------------------------------------------------------------------------------


def check_records(records: Any) -> None:
    """Raise AssertionError if records hold NaN or infinity where a number is known."""
    assert np.isfinite(records.outcomes[records.known]).all(), "outcomes are not finite"
    for name in ("costs", "expected"):
        matrix = getattr(records, name)
        assert matrix is None or not np.isinf(matrix).any(), f"{name} are infinite"  # NaN = unknown
    check_candidates(records.candidates)


def check_candidates(candidates: Iterable[Any]) -> None:
    """Raise AssertionError if a number of a candidate is not finite, or a text cannot be encoded."""
    for candidate in candidates:
        for key, value in asdict(candidate).items():
            assert not isinstance(value, float) or math.isfinite(value), f"{key} of a candidate is {value}"
        json.dumps(asdict(candidate), ensure_ascii=False, allow_nan=False).encode()


def import_records(format_: str, path: str, *more: str) -> Callable[[Path], None]:
    def use(folder: Path) -> None:
        from satlight.records import open_records

        command("data", "import", folder / path, "--from", format_, "--to", folder / "out", *more)
        check_records(open_records(folder / "out"))

    return use


ROWS = [
    {"instruction_id": "1", "instruction": "1+1?", "candidate": "m", "score": 1, "cost_usd": 0.5, "split": "test"},
    {
        "instruction_id": "2",
        "instruction": "Ä?",
        "candidate": "m",
        "score": 0.5,
        "choices": ["a", "b"],
        "split": "train",
    },
    {"instruction_id": "2", "instruction": "Ä?", "candidate": "n", "score": 0, "choices": ["a", "b"], "split": "train"},
]
TABLE = """instruction_id,instruction,dataset,candidate,score,cost_usd,split,rotation_of
1,Ä?,d,m,1,0.5,test,
1,Ä?,d,n,0,0.1,test,
2,"b, c",d,m,0,,train,
2,"b, c",d,n,0.25,3e-4,train,
"""
MODELS = [
    {"model_id": "m", "params_b": 7, "price_in": 0.5, "price_out": 1, "release_date": "2024-01", "notes": ["x"]},
    {"model_id": "n", "params_b": 0.5, "open_weights": True},
]
DC = [{"question": "q", "scores": {"m": 0.5, "n": 1}, "cluster_id": 3}, {"question": "p", "scores": {"m": 0, "n": 1}}]
PRO = [
    {
        "question_id": 7,
        "question": "q",
        "options": ["a", "b"],
        "answer": "A",
        "category": "law",
        "src": "x",
        "pred": "A",
    },
    {"question_id": 8, "question": "p", "options": ["a"], "answer": "A", "category": "law", "src": "x", "pred": None},
]
SAMPLES = [
    {
        "doc_id": number,
        "doc": {"question": f"What is star {number} made of, mostly?", "choices": ["hot", "cold"]},
        "target": 0,
        "arguments": {"gen_args_0": {"arg_0": f"Q: x\n\nQ: What is star {number} made of, mostly?", "arg_1": " hot"}},
        "filter": "none",
        "metrics": ["acc"],
        "doc_hash": f"h{number}",
        "acc": 1.0,
    }
    for number in range(3)
]
RESULT = {
    "model_name": "org/m",
    "higher_is_better": {"t": {"acc": True}},
    "group_subtasks": {"g": ["t"]},
    "n-shot": {"t": 1},
    "n-samples": {"t": {"original": 3, "effective": 3}},
    "configs": {"t": {"metric_list": [{"metric": "acc", "higher_is_better": True}], "filter_list": [{"name": "none"}]}},
    "config": {"limit": None, "model_args": "pretrained=org/m"},
    "results": {"t": {"acc,none": 1.0}},
}


def files_writer(**contents: Any) -> Callable[[Path], None]:
    """Return a function that writes files; ``__`` in a name is a dot, other values than bytes become JSON."""

    def build(folder: Path) -> None:
        for name, content in contents.items():
            path = folder / name.replace("__", ".").replace("_in_", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                content = content.encode()
            path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    return build


def json_lines(rows: list[Any]) -> str:
    return "\n".join(map(json.dumps, rows))


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("answers.json", json.dumps(PRO))
    return file.getvalue()


def _records_folder(folder: Path) -> None:
    (folder / "mine").mkdir()
    ids = {"instruction_id": ["1", "2", "3"]}
    texts = {
        "dataset": ["d"] * 3,
        "task": ["t"] * 3,
        "instruction": ["q", "p", "r"],
        "split": ["train", "test", "train"],
    }
    pl.DataFrame(ids | texts).write_parquet(folder / "mine/instructions.parquet")
    pairs = {"instruction_id": list("112233"), "model_id": list("mnmnmn")}
    scores = {"score": [1.0, 0.5, 0.0, 1.0, 0.0, 0.0], "cost_usd": [0.5, None, 0.1, 0.1, 0.2, 0.3]}
    pl.DataFrame(pairs | scores).write_parquet(folder / "mine/records.parquet")
    pl.DataFrame(pairs | {"output": list("uvwxyz")}).write_parquet(folder / "mine/outputs.parquet")
    (folder / "mine/models.json").write_text(json.dumps(MODELS))
    (folder / "mine/about.json").write_text(json.dumps({"name": "x", "simulated": False, "notes": ["x"]}))


def _open_folder(folder: Path) -> None:
    from satlight.records import open_records

    check_records(open_records(folder / "mine"))
    command("data", "describe", folder / "mine", "--json")


def _open_outputs(folder: Path) -> None:
    from satlight.records.outputs import CandidateOutputs

    CandidateOutputs.open(folder / "mine")


def record_readers() -> list[Reader]:
    """Return the readers of results and records."""
    folder = ("mine/instructions.parquet", "mine/records.parquet", "mine/models.json", "mine/about.json")
    logs = files_writer(m_in_samples_t_2024__jsonl=json_lines(SAMPLES), m_in_results_2024__json=RESULT)
    lines = files_writer(log__jsonl=json_lines(ROWS))
    pro = files_writer(pro_in_model_outputs_m_5shots__json=PRO)
    pro_zip = files_writer(pro_in_model_outputs_m_5shots__zip=_zip())
    dc, models = files_writer(dc_in_mmlu_test__json=DC, dc_in_law_train__json=DC), ("--models", "models.json")
    return [
        Reader("csv", files_writer(log__csv=TABLE), ("log.csv",), import_records("csv", "log.csv"), 6),
        Reader("jsonl", lines, ("log.jsonl",), import_records("csv", "log.jsonl"), 6),
        Reader("lm-eval", logs, ("m/*",), import_records("lm-eval", "m"), 8),
        Reader("routerdc", dc, ("dc/*",), import_records("routerdc", "dc")),
        Reader("mmlu-pro", pro, ("pro/*",), import_records("mmlu-pro", "pro")),
        Reader("mmlu-pro archive", pro_zip, ("pro/*",), import_records("mmlu-pro", "pro"), 2),
        Reader(
            "models.json, prices", files_writer(log__csv=TABLE, models__json=MODELS), ("models.json",),
            lambda folder: import_records("csv", "log.csv", "--models", str(folder / models[1]))(folder),
        ),
        Reader("records folder", _records_folder, folder, _open_folder, 10),
        Reader("outputs.parquet", _records_folder, ("mine/outputs.parquet",), _open_outputs, 2),
    ]  # fmt: skip


# -- texts, settings, requests -----------------------------------------------------------------------------

KEYWORDS = {"gsm8k": ["arithmetic", "words"], "law": "courts"}
KEYWORDS_YAML = "gsm8k: [arithmetic, words]\nlaw: courts\n"
ZOO = "name: mine\ncandidates: [m, [a, b]]\nmax_price_in: 3\nmin_params_b: 0.5\nreleased_after: 2024-01\n"
BENCH = """methods:
  - tfidf_knn
  - {baseline: cluster, name: clusters, options: {clusters: 4}}
  - {scores: scores.parquet, name: mine, settings: [all]}
data:
  - name: toy
    records: simulated
    settings: [all]
    groups: {first: [writing]}
    test_fraction: 0.2
    simulated: {num_instructions: 100, num_candidates: 3, seed: 1}
    release: {founders: 2}
seeds: [0, 1]
timeout: 60.5
resamples: 50
output: out
"""
PROMPTS = [{"global index": f"a_{number}", "prompt_formatted": f"Question {number}?"} for number in range(3)]
REQUESTS = [{"instruction": "What is 2+2?", "id": 7}, {"instruction": "Sort a list.", "more": {"a": [1.5, None]}}]


def _keywords(name: str) -> Callable[[Path], None]:
    def use(folder: Path) -> None:
        from satlight.capability.keywords import load_keywords

        json.dumps(load_keywords(folder / name), ensure_ascii=False).encode()

    return use


def _zoo(folder: Path) -> None:
    from satlight.records.zoo import load_setting

    setting = load_setting(folder / "zoo.yaml")
    values = asdict(setting).values()
    assert all(math.isfinite(value) for value in values if isinstance(value, float)), "a limit is not finite"


def _bench(folder: Path) -> None:
    from satlight.bench.config import load_config

    config = load_config(folder / "bench.yaml")
    json.dumps(asdict(config), allow_nan=False, ensure_ascii=False, default=str).encode()


def baseline(name: str, folder: Path, **options: Any) -> None:
    """Fit a baseline on a small simulated zoo and save it."""
    from satlight.backbones.embedding import Embedder
    from satlight.baselines import build
    from satlight.records import open_records, split_records
    from satlight.records.sources import SimulatedSpec

    records = open_records("simulated", simulated=SimulatedSpec(120, 3))
    method = build(name, **options)
    records = records.with_splits(split_records(records)).filter(splits=["train", "validation"])
    method.fit(records, Embedder("tiny:bert") if method.needs_embeddings else None).save(folder)


def _requests(folder: Path) -> None:
    baseline("tfidf_knn", folder / "router")
    (folder / "in.jsonl").write_text(json_lines(REQUESTS))


def strict(line: str) -> Any:
    """Parse what was printed; NaN and infinity are refused."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} was printed")

    return json.loads(line, parse_constant=refuse)


def _route(folder: Path) -> None:
    for line in command("route", "--router", folder / "router", "--file", folder / "in.jsonl").splitlines():
        strict(line)


def _arena(folder: Path) -> None:
    files_writer(prompts__json=PROMPTS, names__json={"m": "org/m"})(folder)
    frame = {"instruction_id": [one["global index"] for one in PROMPTS], "m": [0.5, 1.0, 2.0], "n": [1.0, 0.0, 3.0]}
    pl.DataFrame(frame).write_parquet(folder / "scores.parquet")


def _export_arena(folder: Path) -> None:
    options = ("--prompts", "prompts.json", "--scores", "scores.parquet", "--names", "names.json")
    paths = [word if word.startswith("--") else folder / word for word in options]
    command("export-arena", *paths, "--name", "x", "--to", folder / "out")


def _stored(folder: Path) -> None:
    from satlight.routing import StoredScores

    scores = StoredScores.read(folder / "scores.parquet")
    assert np.isfinite(scores.score_NM).all(), "scores are not finite"


def text_readers() -> list[Reader]:
    """Return the readers of capability texts, settings, and requests."""
    return [
        Reader("keywords.json", files_writer(k__json=KEYWORDS), ("k.json",), _keywords("k.json")),
        Reader("keywords.yaml", files_writer(k__yaml=KEYWORDS_YAML), ("k.yaml",), _keywords("k.yaml")),
        Reader("zoo setting", files_writer(zoo__yaml=ZOO), ("zoo.yaml",), _zoo),
        Reader("bench YAML", files_writer(bench__yaml=BENCH), ("bench.yaml",), _bench),
        Reader("requests for route", _requests, ("in.jsonl",), _route),
        Reader("RouterArena prompts", _arena, ("prompts.json", "names.json"), _export_arena, 3),
        Reader("scores.parquet", _arena, ("scores.parquet",), _stored, 2),
    ]
