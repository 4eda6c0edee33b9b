"""Power cuts: a resumed run ends exactly where an uninterrupted one does."""

import pytest
import torch

KILLS = {  # the power goes after this step; checkpoints every so many steps, None = after each validation
    "in stage 1": (5, 3),
    "at the end of stage 1": (10, 3),
    "in stage 2": (17, 3),
    "from the first step of an epoch": (12, 11),
    "from a validation": (24, None),
}


@pytest.fixture(scope="module")
def whole(make_run):
    return make_run().fit()


@pytest.mark.parametrize(("kill_after", "save_every"), KILLS.values(), ids=KILLS)
def test_a_resumed_run_equals_an_uninterrupted_one(make_run, whole, tmp_path, kill_after, save_every):
    killed = make_run(tmp_path, kill_after=kill_after, save_every=save_every)
    with pytest.raises(RuntimeError):
        killed.fit()
    assert len(killed.watch.steps) == kill_after
    resumed = make_run(tmp_path).fit(tmp_path / "last.ckpt")

    every = save_every or 10
    saved = (kill_after - 1) // every * every  # the power goes before this step's checkpoint is written
    assert len(whole.watch.steps) == 30
    # It sees the remaining blocks, each once, at the same learning rates.
    assert resumed.watch.steps == whole.watch.steps[saved:]
    assert resumed.trainer.global_step == 30

    expected = whole.weights()
    for name, weight in resumed.weights().items():
        assert torch.allclose(weight, expected[name], atol=1e-6, rtol=0), name
    metrics = {key: float(value) for key, value in whole.trainer.callback_metrics.items()}
    assert metrics.keys() >= {"val_loss", "val_routed_accuracy", "val_ece"}
    assert {key: float(value) for key, value in resumed.trainer.callback_metrics.items()} == pytest.approx(
        metrics, abs=1e-6
    )


def test_from_the_last_step_of_an_epoch_it_goes_on_with_the_next(make_run, whole, tmp_path):
    # Lightning does not make up for the validation that the power cut prevented, so that metrics and the
    # encoder's cache may differ; what is trained on does not.
    killed = make_run(tmp_path, kill_after=12, save_every=10)
    with pytest.raises(RuntimeError):
        killed.fit()
    resumed = make_run(tmp_path).fit(tmp_path / "last.ckpt")
    assert resumed.watch.steps == whole.watch.steps[10:]
