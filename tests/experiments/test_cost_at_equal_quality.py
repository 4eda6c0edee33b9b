"""The script of experiments/cost_at_equal_quality on a tiny simulated zoo, next to the package's own figures."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from satlight.bench.config import load_config
from satlight.evaluation import evaluate
from satlight.files import write_table
from satlight.records import open_records, split_records
from satlight.routing import StoredScores

SCRIPT = Path(__file__).parents[2] / "experiments/cost_at_equal_quality/run.py"
BENCH = """
methods: [inferred_dataset, {name: model_sat, scores: "RUNS/{seed}/scores.parquet"}]
data: [{name: toy, records: simulated, simulated: {num_instructions: 700, num_candidates: 4, test_fraction: 0.4}}]
seeds: [0, 1]
"""


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("cost_at_equal_quality", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bench(run, tmp_path_factory):
    """A bench whose Model-SAT knows the true probabilities, with noise and twice too confident."""
    folder = tmp_path_factory.mktemp("bench")
    path = folder / "toy.yaml"
    path.write_text(BENCH.replace("RUNS", str(folder)))
    (data,) = load_config(path).data
    for seed in (0, 1):
        records = run.Problem.of(data, seed).records
        noise = np.random.default_rng(seed).normal(0, 0.3, records.shape)
        logit_NM = (2 * (np.log(records.expected) - np.log1p(-records.expected) + noise)).astype(np.float32)
        ids = records.instructions["instruction_id"].to_list()
        StoredScores(ids, records.model_ids, logit_NM, records.texts).save(folder / str(seed) / "router")
        table = pl.DataFrame({"instruction_id": ids}).hstack(pl.DataFrame(logit_NM, schema=records.model_ids))
        write_table(table, folder / str(seed) / "scores.parquet")
    return path


def _table(text):
    return {line.split("|")[1].strip(): line.split("|")[2:-1] for line in text.splitlines() if line.startswith("| ")}


def test_areas_are_those_of_the_bench_and_the_opening_is_logged(run, bench, tmp_path, monkeypatch, capsys):
    argv = ["run.py", str(bench), "--split", "test", "--scores", str(tmp_path / "scores"), "--resamples", "20"]
    argv += ["--plot", str(tmp_path / "curves.png"), "--log", str(tmp_path / "opened.log")]
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setattr(run, "TARGETS", (0.6, 0.8))
    run.main()
    out = capsys.readouterr().out
    assert "test split of toy, seeds [0, 1]" in (tmp_path / "opened.log").read_text()
    assert (tmp_path / "curves.png").stat().st_size > 10_000
    in_bench, calibrated, _ = (_table(part) for part in out.split("| router |")[1:])
    config = load_config(bench)
    values = []
    for seed in config.seeds:
        problem = run.Problem.of(config.data[0], seed)
        test, train = problem.rows("test"), problem.rows("train", "validation")
        score_NM = StoredScores.read(bench.parent / str(seed) / "scores.parquet").of(test)
        values.append(evaluate(score_NM, test, train, resamples=10).groups["all"])
    shown = in_bench["model_sat"]
    assert float(shown[0].split("±")[0]) == pytest.approx(np.mean([one.aiq for one in values]), abs=0.006)
    assert float(shown[1]) == pytest.approx(np.mean([min(one.qnc, 1) for one in values]), abs=6e-4)
    zero = float(in_bench["zero router"][0].split("±")[0])
    assert zero == pytest.approx(np.mean([one.zero_router_aiq for one in values]), abs=0.006)
    assert zero < float(shown[0].split("±")[0])
    # Calibration halves the confidence, and Model-SAT − Model-SAT is 0.
    assert float(calibrated["model_sat"][3]) < float(shown[3])
    assert calibrated["model_sat"][4].strip() == "+0.00 (+0.00 to +0.00)"
    assert sum(line.startswith("| model_sat | 0.") for line in out.splitlines()) == 2


def test_validation_rows_are_judged_without_test_rows(run, bench, tmp_path, monkeypatch, capsys):
    log = tmp_path / "opened.log"
    argv = ["run.py", str(bench), "--scores", str(tmp_path / "scores"), "--resamples", "5", "--log", str(log)]
    monkeypatch.setattr("sys.argv", argv)
    run.main()
    assert not log.exists()
    assert {path.parent.name for path in tmp_path.rglob("*.npz")} == {"validation"}
    with np.load(next(tmp_path.rglob("model_sat-0.npz"))) as content:
        assert list(content) == ["validation"]


def test_a_threshold_is_fitted_on_validation_rows(run):
    """Probabilities that are 0.2 too low buy too much quality; the fitted threshold does not."""
    rng = np.random.default_rng(0)
    sides = []
    for size in (4000, 4000):
        truth = rng.uniform(0.3, 1, (size, 2))
        truth[:, 1] = 0.95
        score = np.log(truth - 0.2) - np.log1p(-(truth - 0.2))
        ones, cost = np.ones_like(truth, dtype=bool), np.tile([0.001, 0.01], (size, 1))
        outcome = (rng.random(truth.shape) < truth).astype(float)
        sides.append(run.RuleRows(score.astype(np.float32), cost, outcome, ones, cost, None, ("cheap", "dear")))
    raw, fitted = (float(run._realized([sides], kind, 0.7, 20).split()[0]) for kind in ("raw", "fitted"))
    assert raw > 0.8
    assert fitted == pytest.approx(0.7, abs=0.03)


def test_missing_costs_end_the_comparison(run, bench):
    records = run.Problem.of(load_config(bench).data[0], 0).rows("test")
    with pytest.raises(SystemExit, match="an outcome or a cost is missing"):
        run.Judge(replace(records, costs=None), records, 5)


def test_prepared_records_get_the_validation_rows_of_the_bench(load, output, tmp_path):
    """experiments/routerbench/prepare.py marks test rows only, so that each seed of fit draws as the bench does."""
    path = tmp_path / "toy.yaml"
    path.write_text(BENCH.replace("num_instructions: 700", "num_instructions: 300"))
    output("routerbench/prepare", path, "--to", tmp_path / "records")
    prepared = open_records(tmp_path / "records")
    assert set(prepared.splits) == {"train", "test"}
    (data,) = load_config(path).data
    for seed in (0, 1):
        of_bench = load("cost_at_equal_quality/run").Problem.of(data, seed).records
        assert (split_records(prepared, seed=seed) == of_bench.splits).all()
