"""The scripts of experiments/ run to their tables, on small simulated records; their figures mean nothing here.

tests/test_docs.py prints the help of each and parses documented calls; tests/cli/test_experiments.py trains the
configs.
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml

from satlight.backbones.text_encoder import TextEncoder
from satlight.baselines import build
from satlight.bench.cells import plan
from satlight.bench.config import load_config
from satlight.bench.results import CellResult
from satlight.data import AptitudeSpec, CapabilityInstructionDataModule
from satlight.evaluation import evaluate
from satlight.evaluation.protocols import unseen_candidates
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.records import PerformanceRecords, open_records, save_records
from satlight.records.sources import SimulatedSpec
from satlight.routing import CapabilityRouter
from satlight.types import Temperature

ROOT = Path(__file__).parents[2]


def percent(cell: str) -> float:
    """Return the number that a cell begins with; it must be an accuracy in percent."""
    value = float(cell.split()[0])
    assert 0 <= value <= 100
    return value


def write_scores(records: PerformanceRecords, split: str, path: Path, seed: int = 0) -> Path:
    """Write random scores of the rows of a split."""
    rows = records.filter(splits=split)
    score_NM = np.random.default_rng(seed).normal(size=rows.shape)
    table = pl.DataFrame(score_NM, schema=list(rows.model_ids)).with_columns(instruction_id=pl.Series(rows.ids))
    table.write_parquet(path)
    return path


@pytest.fixture(scope="module")
def unsplit(records: PerformanceRecords, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as RouterBench has them: with costs, a column of questions, and no splits."""
    path = tmp_path_factory.mktemp("records") / "routerbench"
    table = records.instructions.with_columns(question="instruction", split=pl.lit(None, pl.String))
    costs = np.tile(np.linspace(0.0001, 0.005, records.shape[1], dtype=np.float32), (records.shape[0], 1))
    save_records(replace(records, instructions=table, costs=costs), path)
    return path


def aptitude_router(folder: Path) -> CapabilityRouter:
    """Return an untrained Model-SAT with the aptitude test of some records."""
    data = CapabilityInstructionDataModule(str(folder), aptitude=AptitudeSpec(num_shots=5))
    data.setup("fit")
    module = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert", trainable=False))
    candidates = data.records.candidates
    return CapabilityRouter(module, candidates, data.capabilities(data.records.model_ids), {}, None, data.aptitude)


def write_results(records: PerformanceRecords, folder: Path) -> Path:
    """Write the results of random scores."""
    test, train = records.filter(splits=["test"]), records.filter(splits=["train"])
    score_NM = np.random.default_rng(0).normal(size=test.shape)
    evaluate(score_NM, test, train, resamples=20, calibration=Temperature()).save(folder)
    return folder / "results.json"


def test_encoders(printed, folder, tmp_path):
    names, routers = ("minilm", "words", "table", "states:tiny:llama"), ("linear", "prefill")
    constants = {"FOLDS": 2, "COMPONENTS": 4, "ROUTERS": routers, "TextEncoder": lambda _: TextEncoder("tiny:bert")}
    constants["FIXED"] = {"prefill": {"components": 4, "decay": 1.0, "steps": 5}}
    files = "--plot", tmp_path / "a.png", "--output", tmp_path / "a.csv"
    rows = printed("encoders/compare", folder, "--per_dataset", 12, "--encoders", *names, *files, **constants)
    found = rows[2 : 2 + len(names) * len(routers)]
    assert [row[:2] for row in found] == [[name, router] for name in names for router in routers]
    assert found[0][3] == "+0.00 (+0.00 to +0.00)"
    assert (tmp_path / "a.png").stat().st_size > 0
    assert pl.read_csv(tmp_path / "a.csv")["accuracy"].round(2).to_list() == [percent(row[2]) for row in found]
    assert [row[0] for row in rows[-len(names) :]] == list(names)
    judged = printed("encoders/compare", folder, "--per_dataset", 12, "--test", 3, "--winners", "words:linear")
    assert judged[-1][:2] == ["words", "linear"]


def test_model_sat_with_other_encoders(printed, records, folder, tmp_path):
    given = records.with_splits(np.where(records.splits == "test", "test", "validation"))
    a, b = (write_scores(given, "validation", tmp_path / f"{seed}.parquet", seed) for seed in (0, 1))
    rows = printed("encoders/model_sat", folder, "--versus", "one", "--scores", f"one={a},{b}", f"other={a},{a}")
    assert [row[0] for row in rows[2:]] == ["one", "other"]
    assert percent(rows[2][1]) == pytest.approx(np.mean([float(x) for x in rows[2][2].split(",")]), abs=0.011)
    assert rows[2][2].split(",")[0] == rows[3][2].split(",")[0]  # the same file
    opened = write_scores(records, "test", tmp_path / "test.parquet")
    with pytest.raises(SystemExit, match="holds test rows"):
        printed("encoders/model_sat", folder, "--versus", "one", "--scores", f"one={opened}")


def test_limits(printed, folder):
    groups = ["--column", "keywords", "--test", "some=writing,coding"]
    rows = printed("limits/limits", folder, *groups, REPETITIONS=2, FOLDS=2)
    assert rows[0] == ["router", "train rows, cross-validated", "test, some"]
    assert len(rows) == 11
    assert all(percent(cell) for row in rows[2:] for cell in row[1:])


def test_calibration(printed, folder, unsplit, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data": {"init_args": {"records": str(folder)}}}))
    for source, router in ((config, "linear"), (unsplit, "tfidf_knn")):
        printed("calibration/scores", source, "--router", router, "--max_rows", 60)
    files = sorted(Path("scores").iterdir())
    assert [file.name for file in files] == ["simulated-linear-0.npz", "simulated-tfidf_knn-0.npz"]
    assert {"validation_paid", "test_expected"} <= set(np.load(files[1]).files)
    methods = ["none", "temperature and bias", "isotonic", "the same, strength 16 (fit_candidates)"]
    rows = printed("calibration/compare", files[0], "--methods", *methods, "--in_domain", "writing", "--open_test")
    assert [row[0] for row in rows] == 2 * ["calibration", "---", *methods]
    assert all(0 <= float(row[1]) <= 1 for row in rows if row[0] in methods)


def test_decision_rules(printed, unsplit):
    rows = printed("decision_rules/targets", unsplit, "--seeds", 1)[2:]
    assert len(rows) == 11
    assert {row[-1] for row in rows} <= {"yes", "no", "–"}
    assert any(row[-1] == "yes" for row in rows)


def test_multimodal(printed, load, tmp_path):
    zoo = SimulatedSpec(num_instructions=60, num_candidates=4)
    spec = AptitudeSpec(num_shots=2, min_shots=1)
    data = partial(CapabilityInstructionDataModule, aptitude=spec)
    rows = load("multimodal/compare", ZOO=zoo, CapabilityInstructionDataModule=data).judged("test", 0)[0]
    scores = write_scores(rows, "test", tmp_path / "random.parquet")
    best = tmp_path / "best.parquet"
    table = pl.DataFrame(rows.expected, schema=list(rows.model_ids))
    table.with_columns(instruction_id=pl.Series(rows.ids)).write_parquet(best)
    found = printed("multimodal/compare", "--versus", "a", "--scores", f"a={scores}", f"b={best}")
    assert [row[0] for row in found] == 3 * ["best of the texts", "a", "b"]
    assert found[2][2] == "100 (100)"


def test_new_candidates(printed, folder, tmp_path):
    options = ["--seeds", 0, "--sizes", 8, "--draws", 1, "--methods", "gaussian_process", "few_results"]
    constants = {"METHODS": {"gaussian_process": {}, "few_results": {"fixed": {"steps": 5}}}, "TUNING_DRAWS": 1}
    printed("new_candidates/run", folder, *options, "--output", tmp_path / "a.parquet", **constants)
    rows = printed("new_candidates/table", tmp_path / "a.parquet", "--plot", tmp_path / "a.png")
    assert rows[0] == ["router", "K = 8"]
    assert all(percent(row[1]) for row in rows if row[0] in constants["METHODS"])
    assert [row[0] for row in rows[-2:]] == ["vs hierarchy", "vs gaussian_process"]
    assert (tmp_path / "a.png").stat().st_size > 0
    options[-1:] = ["network", "--steps", 5]  # the embedder is that of run
    printed("new_candidates/run_network", folder, *options, "--output", tmp_path / "b.parquet")
    rows = printed("new_candidates/table", tmp_path / "b.parquet", "--own", "network")
    assert percent(next(row for row in rows if row[0] == "network")[1])


def test_variances_of_other_zoos(printed, records, tmp_path):
    for name in ("routerdc", "mmlu_pro", "bfcl", "routerbench"):
        save_records(records.rows(range(120)), tmp_path / "zoos" / name)
    small = SimulatedSpec(num_instructions=120, num_candidates=4)
    constants = {"SIZES": (8,), "ROWS": {"routerdc": 100}, "COLUMNS": {}, "DRAWS": 1}
    options = ["--seeds", 0, "--output", tmp_path / "a.parquet"]
    printed("new_candidates/zero_shot", tmp_path / "zoos", *options, **constants, SimulatedSpec=lambda **_: small)
    rows = printed("new_candidates/zero_shot_table", tmp_path / "a.parquet")
    assert len(rows) == 2 + 5 * 6
    assert rows[2][:2] == ["routerdc", "best_single"]


def test_onboarding(printed, folder, tmp_path):
    router = aptitude_router(folder)
    for number in range(3):
        router.save(tmp_path / "out" / "seed0" / f"fold{number}" / "1" / "router")
    files = ["--output", tmp_path / "out", "--plot", tmp_path / "a.png", "--rows", 40]
    constants = {"SIZES": (4, 8, 16), "unseen_candidates": lambda *a, **k: unseen_candidates(*a, **k | {"probes": 64})}
    constants["build"] = lambda name: build(name, fixed={"steps": 5} if name == "few_results" else None)
    rows = printed("onboarding/curve", folder, *files, **constants)
    assert [row[0] for row in rows] == 2 * ["items", "---:", "without it", "4", "8", "16"]
    assert rows[2][6] == "–"
    assert all(percent(cell) for row in rows if row[0].isdecimal() for cell in row[1:7])
    assert (tmp_path / "a.png").stat().st_size > 0


def test_tower_that_is_told_the_dataset(printed, load, records, tmp_path):
    module = load("routerdc_baseline/tower")
    names = dict(zip(sorted(set(records.datasets)), module.IN_DOMAIN + module.OUT_OF_DOMAIN, strict=True))
    table = records.instructions.with_columns(pl.col("dataset").replace(names))
    save_records(replace(records, instructions=table), tmp_path / "routerdc")
    path = tmp_path / "routerdc" / "records.parquet"
    pl.read_parquet(path).with_columns(correct="score").write_parquet(path)
    fixed = {"temperature": 1.0, "steps": 5}
    rows = printed(
        "routerdc_baseline/tower", tmp_path / "routerdc", "--seeds", 0,
        build=lambda name, seed: build(name, seed=seed, fixed=fixed),
    )  # fmt: skip
    assert [row[0] for row in rows] == ["tower", "MiniLM", "told the dataset"]
    assert rows[2][-2] == "–"  # it learns nothing about other datasets
    assert percent(rows[1][-2])


def test_blindtest(printed, records, tmp_path):
    size = records.shape[0]
    drawings = [json.dumps({"distance": n % 7, "shape": "circle" if n % 2 else "square"}) for n in range(size)]
    drawn = pl.Series("params", drawings)
    groups = [f"group {n // 2}" for n in range(size)]
    split = ["test" if n // 2 % 4 == 0 else "train" for n in range(size)]
    table = records.instructions.with_columns(
        drawn, group=pl.Series(groups), split_group=pl.Series(split), instruction="dataset"
    )
    candidates = (replace(records.candidates[0], model_id="claude-3.5-sonnet"), *records.candidates[1:])
    save_records(replace(records, instructions=table, candidates=candidates), tmp_path / "blindtest")
    kept = open_records(tmp_path / "blindtest")
    kept = kept.with_splits(kept.instructions["split_group"].to_list())
    test, train = (write_scores(kept, name, tmp_path / f"{name}.parquet") for name in ("test", "train"))
    rows = printed("blindtest/limits", tmp_path / "blindtest", "--scores", f"mine={test}", TREES=3)
    names = ["router", "---", "best single", "best of the task", "best of the prompt"]
    names += ["forest, task and prompt", "forest, true parameters", "mine", "oracle"]
    assert [row[0] for row in rows] == 2 * names
    half = tmp_path / "half.parquet"
    pl.read_parquet(train)[::2].write_parquet(half)
    rows = printed("blindtest/encoders", tmp_path / "blindtest", "--versus", "mine", "--scores", f"mine={half}")
    assert [row[0] for row in rows[2:]] == ["best of the task", "mine"]
    with pytest.raises(SystemExit, match="holds test rows"):
        printed("blindtest/encoders", tmp_path / "blindtest", "--versus", "a", "--scores", f"a={test}")


def test_tables_of_runs(printed, records, tmp_path):
    results = [write_results(records, tmp_path / run / "1") for run in ("a", "b")]
    rows = printed("main_job/table", *results)
    assert [row[0] for row in rows[2:]] == ["a", "b", "**range**"]
    assert percent(rows[2][2])
    rows = printed("summarize", *results)
    assert {row[0] for row in rows[2:]} == {*records.datasets, "**mean all**"}


def test_develop(output, folder, tmp_path):
    aptitude_router(folder).save(tmp_path / "router")
    text = output("main_job/develop", tmp_path / "router", USED=300, DRAWN=1200, SEEN=6, ALL=8)
    assert re.fullmatch(rf"{tmp_path}/router: reach -?[\d.]+ %, \d of 6 .*; 2 new candidates: reach -?[\d.]+ %\n", text)


def test_routers_are_compared_with_baselines(output, records, folder, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"data": {"init_args": {"records": str(folder)}}}))
    scores = [write_scores(records, "test", tmp_path / f"{seed}.parquet", seed) for seed in (0, 1)]
    lines = output("compare", config, *scores, "--best_of", "keywords").splitlines()
    assert re.findall(r"^all +(\w+(?: of keywords)?) +[\d.]+", "\n".join(lines), re.M) == [
        "router",
        "knn",
        "best of keywords",
        "ensemble",
    ]


@pytest.fixture
def bench(records: PerformanceRecords, folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a finished bench of two untrained routers, with random choices on test rows."""

    def write(**protocols: object) -> Path:
        path, output = tmp_path / "bench.yaml", tmp_path / "out"
        base = {"name": "base", "config": str(ROOT / "configs/full.yaml")}
        methods = [base, base | {"name": "other", "overrides": ["--trainer.max_epochs=1"]}]
        data = {"name": "small", "records": str(folder)} | protocols
        path.write_text(yaml.safe_dump({"methods": methods, "data": [data], "seeds": [0, 1], "output": str(output)}))
        router, rng, test = aptitude_router(folder), np.random.default_rng(0), records.filter(splits=["test"])
        folds = [{"unseen": records.model_ids[:3]}, {"unseen": records.model_ids[3:]}]
        for cell in (cell for cell in plan(load_config(path)) if cell.kind == "config"):
            place = output / "cells" / cell.key
            place.mkdir(parents=True)
            CellResult(folds=folds if cell.protocol else []).write(place)
            columns = {"role": "method", "row": np.arange(test.shape[0]), "dataset": test.datasets}
            columns["outcome"] = rng.integers(0, 2, test.shape[0]).astype(float)
            pl.DataFrame(columns).write_parquet(place / "outcomes.parquet")
            for part in ("-1", "-2") if cell.protocol else ("",):
                router.save(output / "runs" / f"{cell.key}{part}" / "1" / "router")
        return path

    return write


def test_tables_of_ablations(printed, bench, tmp_path):
    rows = printed("ablations/table", bench(), "--plot", tmp_path / "a.png")
    assert rows[0] == ["variant", "validation", "test"]
    assert [row[0] for row in rows[2:]] == ["base", "other"]
    assert rows[3][1].endswith(": +0.00 (+0.00 to +0.00)")  # the same router
    assert not rows[3][2].endswith(": +0.00 (+0.00 to +0.00)")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_tables_of_unseen_candidates(printed, bench):
    rows = printed("unseen/compare", bench(unseen_candidates={"folds": 2, "probes": 30}), "--method", "other")
    names = ["validation", "---", "base", "other", "best candidate", "test, other minus", "---", "base"]
    assert [row[0] for row in rows] == names
    assert percent(rows[2][2]) == percent(rows[3][2]) <= percent(rows[4][2])
    assert len(rows[7][2].split(", ")) == 2


def test_task_prior(output, folder):
    lines = output("task_prior", folder, PRIORS=(0, 60)).splitlines()
    assert [line.split(":")[0].split()[1] for line in lines] == ["0", "60"]
    assert all(percent(line.split(":")[1]) for line in lines)


def test_every_folder_of_scripts_has_a_test():
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    folders = {path.parent.name for path in (ROOT / "experiments").glob("*/*.py")}
    assert [
        folder for folder in sorted(folders) if f'"{folder}/' not in tests and f"experiments/{folder}/" not in tests
    ] == []
