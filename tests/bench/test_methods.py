"""Methods with a training config: the arguments of `fit` and `predict`, and a complete run."""

from pathlib import Path

import polars as pl
import pytest

from satlight.backbones.cross_encoder import load_cross_encoder
from satlight.bench import methods
from satlight.bench.cells import plan
from satlight.bench.config import load_config
from satlight.cli import main
from satlight.errors import SatlightError
from satlight.records import open_records

ROOT = Path(__file__).parents[2]
OVERRIDES = [
    "-c",
    str(ROOT / "configs/overlay/debug.yaml"),
    "--trainer.accelerator=cpu",
    "--trainer.logger=null",
    "--trainer.max_epochs=1",
    "--trainer.enable_model_summary=false",
    "--data.blocks_per_epoch=2",
    "--data.aptitude.num_tasks=2",
    "--data.aptitude.num_shots=3",
    "--data.aptitude.min_shots=2",
    "--data.seed=7",
]


@pytest.fixture
def path(bench_file):
    method = {"name": "sat", "config": str(ROOT / "configs/full.yaml"), "overrides": OVERRIDES}
    return bench_file([method], seeds=[3], data_groups={"both": ["alpha", "beta"]})


@pytest.fixture
def calls(monkeypatch):
    """Arguments of every training verb, which runs in this process instead of its own."""
    calls = []

    def run(argv):
        calls.append(argv)
        main(argv)

    monkeypatch.setattr(methods, "_satlight", run)
    return calls


def test_a_training_config_is_fitted_asked_and_judged(path, calls, compute):
    (board,) = compute(path)
    assert board.failures == []
    (sat,) = board.methods
    assert 0 <= sat.groups["both"].routed <= 100
    assert sat.fit_seconds > 0
    assert sat.decision_ms > 0
    fit, predict = calls
    assert (fit[0], predict[0]) == ("fit", "predict")
    for flag in ("--seed_everything=3", "--data.seed=3", "--data.score_column=score", "--data.datasets=null"):
        assert flag in fit
        assert fit.index(flag) > fit.index("--data.seed=7")  # the bench has the last word
    config = load_config(path)
    cell = plan(config)[-1]
    run = Path(config.output) / "runs" / cell.key / "1"
    assert (run / "scores.parquet").is_file()
    assert methods._resume(run.parent) == ["--ckpt_path=last"]
    methods.forget_run(cell, Path(config.output))
    assert methods._resume(run.parent) == []


def test_a_training_that_fails_says_where_to_look(monkeypatch):
    monkeypatch.setattr(methods.sys, "executable", "false")
    with pytest.raises(SatlightError, match=r"`satlight fit` ended with code 1; see log.txt of the cell"):
        methods._satlight(["fit"])


def test_scores_of_another_shape_are_refused(bench_file, compute, toys, tmp_path):
    import toys as module

    class Short(module.Toy):
        def predict(self, instructions, candidates):
            return super().predict(instructions, candidates)[:, :2]

    module.Short = Short
    (board,) = compute(bench_file(["toys.Short"], seeds=[0]))
    assert board.failures == [
        "Short, seed 0: Short returned scores of shape (20, 2) for 20 instructions x 4 candidates"
    ]


def test_a_re_ranker_is_named_by_its_cross_encoder(records_folder, tmp_path):
    for path in records_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rows = {"instruction_id": ["alpha-0"] * 2, "model_id": ["org/one-7b", "org/two-7b"], "output": ["0", "Who knows"]}
    pl.DataFrame(rows).write_parquet(tmp_path / "outputs.parquet")
    records = open_records(tmp_path, "correct")
    router = methods.build_method("rerank", {"score_pairs": "tiny:bert", "outputs": str(tmp_path)}, seed=3)
    router.fit(records.filter(splits="train"))
    text, names = records.texts[:1], rows["model_id"]
    expected = load_cross_encoder("tiny:bert")([(text[0], output) for output in rows["output"]])
    assert router.predict(text, names)[0].tolist() == expected.tolist()
