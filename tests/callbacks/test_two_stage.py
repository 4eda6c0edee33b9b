"""Two-stage tuning: what moves when, and on what."""

import logging

import lightning as L
import pytest
import torch

from satlight.callbacks import TwoStageTuning
from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, OptimizerSpec, RouterLLM
from satlight.types import Stage


class Snapshots(L.Callback):
    """The weights at the start of every epoch and at the end."""

    def __init__(self) -> None:
        self.weights: list[dict[str, torch.Tensor]] = []

    def take(self, module) -> None:
        self.weights.append({name: p.detach().clone() for name, p in module.named_parameters()})

    def on_train_epoch_start(self, trainer, pl_module) -> None:
        self.take(pl_module)

    def on_train_end(self, trainer, pl_module) -> None:
        self.take(pl_module)

    def moved(self, epoch: int) -> set[str]:
        before, after = self.weights[epoch], self.weights[epoch + 1]
        return {name for name in before if not torch.equal(before[name], after[name])}


def tiny(**llm) -> ModelSAT:
    # A small rate with every chunk read with gradient: whatever may move moves, and only that.
    return ModelSAT(
        RouterLLM("tiny:llama", freeze_layers=1, **llm),
        CapabilityEncoder("tiny:bert", grad_chunks=None),
        optimizer=OptimizerSpec(lr=1e-3, warmup=0.5, decay="linear", final=0.0, projector_scale=2.0),
    )


@pytest.fixture(scope="module")
def run(make_run):
    snapshots = Snapshots()
    run = make_run(module=tiny(), callbacks=[snapshots], max_epochs=3, data={"blocks_per_epoch": 20}).fit()
    return run, snapshots


def test_stage_1_moves_the_projector_alone(run):
    _, snapshots = run
    assert snapshots.moved(0) == {"projector.linear.weight", "projector.linear.bias"}


def test_stage_2_moves_everything_that_config_does_not_freeze(run):
    run, snapshots = run
    moved = snapshots.moved(1) | snapshots.moved(2)
    still = {"encoder.log_scale"}  # of the encoder alone
    expected = set(snapshots.weights[0]) - run.module.frozen_names() - still
    assert moved == expected
    assert any(name.startswith("encoder.text.") for name in moved)
    assert any(name.startswith("router_llm.backbone.layers.1.") for name in moved)


def test_stage_1_sees_core_tasks_alone_and_stage_2_everything(run):
    run, _ = run
    core = {(task.dataset, task.name) for task in run.data.aptitude.tasks}
    records = run.data.train_view().records
    task_of = {
        text: (dataset, task)
        for text, dataset, task in zip(records.texts, records.datasets, records.tasks, strict=True)
    }
    seen = [set(), set(), set()]
    for epoch, texts, _ in run.watch.steps:
        seen[epoch] |= set(texts)
    assert {task_of[text] for text in seen[0]} == core
    assert {task_of[text] for text in seen[1]} > core
    assert seen[1] == set(records.texts)


def test_each_stage_warms_up_and_decays(run):
    run, _ = run
    names = [group["name"] for group in run.trainer.optimizers[0].param_groups]
    llm, projector = names.index("router_llm"), names.index("projector")
    rates = torch.tensor([rates for _, _, rates in run.watch.steps])
    assert torch.allclose(rates[:, projector], 2 * rates[:, llm])
    assert rates.max().item() == pytest.approx(2e-3)
    stage_1, stage_2 = rates[:20, projector], rates[20:, projector]
    for stage in (stage_1, stage_2):
        peak = int(stage.argmax())
        assert len(stage) * 0.4 <= peak <= len(stage) * 0.6
        assert stage[0] < 0.15 * stage[peak]
        assert stage[-1] < 0.15 * stage[peak]


def test_a_module_that_was_trained_can_be_trained_again(run):
    run, _ = run
    assert {n for n, p in run.module.named_parameters() if not p.requires_grad} == run.module.frozen_names()
    assert run.module.stage == run.data.stage == Stage()


def test_stage_1_to_the_end_says_so(make_run, caplog):
    with caplog.at_level(logging.WARNING, logger="satlight"):
        run = make_run(module=tiny(), max_epochs=1, data={"blocks_per_epoch": 2}).fit()
    assert "leaves no epoch of trainer.max_epochs=1 for stage 2" in caplog.text
    assert run.module.router_llm.head.requires_grad


def test_without_projector_there_is_no_stage_1(make_run, caplog):
    snapshots = Snapshots()
    module = ModelSAT(RouterLLM("tiny:llama"), optimizer=OptimizerSpec(lr=1e-2))
    with caplog.at_level(logging.INFO, logger="satlight"):
        run = make_run(module=module, callbacks=[snapshots], max_epochs=2, data={"blocks_per_epoch": 3}).fit()
    assert caplog.text.count("has no connectors: stage 1 is skipped") == 1
    assert "router_llm.head" in snapshots.moved(0)
    assert run.watch.stages == [Stage()] * 6


def test_no_connector_epochs_is_stage_2_from_the_start(make_run):
    snapshots = Snapshots()
    run = make_run(
        module=tiny(), callbacks=[snapshots], connector_epochs=0, max_epochs=1, data={"blocks_per_epoch": 5}
    ).fit()
    assert "router_llm.head" in snapshots.moved(0)
    assert run.watch.stages == [Stage(end_step=5)] * 5


def test_windows_fit_runs_that_max_steps_ends(make_run):
    run = make_run(module=tiny(), max_epochs=-1, max_steps=15).fit()  # 10 in stage 1, 5 in stage 2
    assert [epoch for epoch, _, _ in run.watch.steps] == [0] * 10 + [1] * 5
    connectors = Stage("connectors", in_domain_only=True, trainable=("projector",), end_step=10)
    assert run.watch.stages == [connectors] * 10 + [Stage(first_step=10, end_step=15)] * 5
    rates = [max(rates) for _, _, rates in run.watch.steps]
    assert max(rates[:10]) == max(rates[10:]) == pytest.approx(2e-3)


def test_negative_epochs_are_refused():
    with pytest.raises(SatlightError, match="connector_epochs is -1"):
        TwoStageTuning(-1)


def test_another_kind_of_module_is_refused():
    with pytest.raises(SatlightError, match=r"needs a satlight\.modules\.BlockRouter, got a LightningModule"):
        TwoStageTuning().on_train_start(None, L.LightningModule())
