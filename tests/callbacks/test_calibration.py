"""Temperature scaling: fitted on validation rows, kept in checkpoints, used by test and by the router."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from satlight.callbacks import TemperatureScaling
from satlight.callbacks.calibration import temperature_of
from satlight.cli import main
from satlight.metrics.calibration import fit_candidates
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
from satlight.routing import CapabilityRouter, Router
from satlight.routing.export import export_router
from satlight.types import Candidate, Capability, Temperature

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    scaling = TemperatureScaling()
    run = make_run(folder, callbacks=[scaling], save_every=None, max_epochs=2).fit()
    return run, scaling, folder


def validation(run):
    """Scores, outcomes and mask of the validation rows under the weights in memory."""
    view = run.data.eval_view("validation")
    router = CapabilityRouter(run.module.cpu(), view.records.candidates, view.capabilities)
    known = torch.from_numpy(np.array(view.records.known))
    score = torch.from_numpy(router.score(view.records.texts).log_odds_BC)
    return score, torch.from_numpy(np.array(view.records.outcomes)), known


def test_it_is_fitted_on_the_validation_rows_of_these_weights(run):
    run, scaling, _ = run
    score, outcome, known = validation(run)
    names = run.data.eval_view("validation").records.model_ids
    expected = fit_candidates(score[known], outcome[known], known.nonzero()[:, 1], names)
    for name, own in expected.candidates.items():
        assert scaling.fitted.candidates[name].temperature == pytest.approx(own.temperature, rel=5e-3)
        assert scaling.fitted.candidates[name].bias == pytest.approx(own.bias, abs=5e-3)
    assert len(expected.candidates) == len(names)
    assert scaling.fitted.temperature == pytest.approx(expected.temperature, rel=1e-3)
    assert scaling.fitted.bias == pytest.approx(expected.bias, abs=1e-3)
    assert expected != Temperature()


def test_the_checkpoint_and_the_exported_router_have_it(run, tmp_path):
    run, scaling, folder = run
    checkpoint = folder / "last.ckpt"
    assert temperature_of(torch.load(checkpoint, weights_only=True)) == scaling.fitted
    router = Router.from_pretrained(export_router(run.module, run.data, checkpoint, tmp_path / "router"))
    assert router.calibration == scaling.fitted
    text = run.data.records.texts[0]
    assert set(router.calibration.candidates) == set(router.model_ids)
    for choice in router.route(text).choices:
        own = scaling.fitted.candidates[choice.model_id]
        log_odds = choice.score / own.temperature + own.bias
        assert choice.probability == pytest.approx(1 / (1 + np.exp(-log_odds)), abs=1e-6)


def test_probabilities_change_and_the_ranking_does_not():
    module = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"))
    notes = [Capability(notes=(f"It is {word}.",)) for word in ("good", "poor", "new")]
    zoo = [Candidate(name) for name in "abc"], notes
    plain = CapabilityRouter(module, *zoo).route("What is 2+2?")
    scaled = CapabilityRouter(module, *zoo, calibration=Temperature(3.0, 1.0)).route("What is 2+2?")
    assert [(c.model_id, c.score) for c in scaled.choices] == [(c.model_id, c.score) for c in plain.choices]
    assert all(s.probability > p.probability for s, p in zip(scaled.choices, plain.choices, strict=True))


def test_a_checkpoint_without_it_gives_plain_probabilities(make_run, tmp_path):
    run = make_run(tmp_path, save_every=None, max_epochs=1, data={"blocks_per_epoch": 2}).fit()
    folder = export_router(run.module, run.data, tmp_path / "last.ckpt", tmp_path / "router")
    assert Router.from_pretrained(folder).calibration == Temperature()


def test_scores_that_are_not_finite_do_not_end_the_training(make_run, tmp_path, caplog):
    class Diverged(ModelSAT):
        def score(self, block):
            return super().score(block) + (0.0 if self.training else torch.inf)

    scaling = TemperatureScaling()
    module = Diverged(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"))
    with caplog.at_level(logging.WARNING, logger="satlight"):
        data = {"blocks_per_epoch": 2}
        make_run(tmp_path, module=module, callbacks=[scaling], max_epochs=1, data=data).fit()
    assert scaling.fitted is None
    assert "no temperature was fitted" in caplog.text


def test_the_commands_report_the_error_before_and_after(records_folder, tmp_path, capsys):
    words = [
        *("-c", f"{ROOT}/configs/full.yaml", "-c", f"{ROOT}/configs/overlay/debug.yaml"),
        f"--runs={tmp_path}",
        "--trainer.accelerator=cpu",
        "--trainer.max_epochs=2",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.logger=false",
        f"--data.records={records_folder}",
        "--data.score_column=correct",
        "--data.blocks_per_epoch=2",
    ]
    main(["fit", *words])
    capsys.readouterr()
    main(["test", *words])
    results = json.loads((tmp_path / "full/1/results.json").read_text())
    config = json.loads((tmp_path / "full/1/router/config.json").read_text())
    assert results["calibration"] == config["calibration"]
    assert config["calibration"]["candidates"]
    entry = results["groups"]["all"]
    assert entry["ece"] != entry["ece_calibrated"]
    assert f"all {entry['ece']:.3f} → {entry['ece_calibrated']:.3f}" in capsys.readouterr().out
