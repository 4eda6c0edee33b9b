"""What all router modules share: schedule, honest metrics, checkpoints that fit or say why not."""

import lightning as L
import pytest
import torch

from satlight.errors import SatlightError
from satlight.losses import Pointwise, WeightedSum
from satlight.modules import BlockRouter, CapabilityEncoder, ModelSAT, OptimizerSpec, RouterLLM


class Table(BlockRouter):
    """Scores are a table by row and column of the whole matrix: a router whose every number is known."""

    def __init__(self, rows: int = 8, columns: int = 3, **options) -> None:
        super().__init__(**options)
        self.table = torch.nn.Parameter(torch.zeros(rows, columns))

    def score(self, block):
        return self.table[block.rows][:, block.columns]


def trainer(**options) -> L.Trainer:
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 1,
    }
    return L.Trainer(**(quiet | options))


@pytest.fixture
def blocks(make_block):
    """Two blocks of four instructions in two datasets."""
    texts, zoo = ["x"] * 4, [("a",), ("b",), ("c",)]
    outcomes = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    parts = []
    for start in (0, 4):
        rows = torch.arange(start, start + 4)
        parts.append(make_block(texts, zoo, rows=rows, groups=rows // 6, target_BC=outcomes))
    return parts


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (OptimizerSpec(warmup=0.5, decay="none"), [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        (OptimizerSpec(warmup=0.0, decay="linear", final=0.2), [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]),
        (OptimizerSpec(warmup=0.0, decay="cosine", final=0.0), [1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087]),
    ],
)
def test_learning_rate_factors(spec, expected):
    assert [spec.factor(step, 8) for step in range(6)] == pytest.approx(expected, abs=1e-4)
    assert spec.factor(8, 8) == pytest.approx(1.0 if spec.decay == "none" else spec.final)
    assert spec.factor(99, 8) == spec.factor(8, 8)


def test_training_follows_the_schedule(blocks):
    module = Table(optimizer=OptimizerSpec(lr=0.1, warmup=0.5, decay="linear", final=0.0))
    rates = []

    class Watch(L.Callback):
        def on_train_batch_end(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer(max_epochs=2, callbacks=[Watch()]).fit(module, torch.utils.data.DataLoader(blocks, batch_size=None))
    # the rate after each of 4 steps: what the next one uses
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.0])


def test_a_run_without_end_needs_one(blocks):
    with pytest.raises(SatlightError, match=r"trainer\.max_epochs or trainer\.max_steps"):
        trainer(max_epochs=-1).fit(Table(), torch.utils.data.DataLoader(blocks, batch_size=None))


def test_validation_metrics_are_those_of_hand(blocks):
    module = Table()
    with torch.no_grad():
        module.table[:] = torch.tensor([2.0, 0.0, -2.0])  # always candidate 0
    loader = torch.utils.data.DataLoader(blocks, batch_size=None)
    (metrics,) = trainer().validate(module, loader, verbose=False)
    # rows 0-5 are dataset 0 (outcomes of candidate 0: 1 0 0 1 1 0), rows 6-7 dataset 1 (0 1)
    assert metrics["val_routed_accuracy"] == pytest.approx((3 / 6 + 1 / 2) / 2)
    score, target = module.table.detach(), torch.cat([block.target_BC for block in blocks])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(score, target)
    assert metrics["val_loss"] == pytest.approx(loss.item(), abs=1e-6)
    # one bin per score: mean outcomes 4/8, 4/8, 2/8 against sigmoid(2), 0.5, sigmoid(-2)
    ece = (abs(0.8808 - 0.5) + 0 + abs(0.1192 - 0.25)) / 3
    assert metrics["val_ece"] == pytest.approx(ece, abs=1e-3)


def test_parts_of_a_sum_are_logged(blocks):
    objective = WeightedSum({"cell": Pointwise(), "again": Pointwise()}, {"cell": 1.0, "again": 0.5})
    session = trainer(log_every_n_steps=1)
    session.fit(Table(objective=objective), torch.utils.data.DataLoader(blocks, batch_size=None))
    logged = session.logged_metrics
    assert {"train_loss", "train_cell", "train_again"} <= set(logged)
    assert logged["train_loss"] == pytest.approx(logged["train_cell"] + 0.5 * logged["train_again"])


def test_a_module_must_have_something_to_train():
    class Frozen(Table):
        def frozen_parameters(self):
            return ["table"]

    with pytest.raises(SatlightError, match="Frozen has nothing to train"):
        Frozen()._groups()


def test_a_block_router_alone_scores_nothing(blocks):
    with pytest.raises(NotImplementedError):
        BlockRouter()(blocks[0])


def test_every_training_step_has_a_seed_of_its_own(blocks):
    draws = []

    class Noisy(Table):
        def score(self, block):
            draws.append(torch.rand(()).item())
            return super().score(block)

    def run(seed, epochs, **options):
        draws.clear()
        L.seed_everything(seed, verbose=False)
        torch.rand(len(draws) + epochs)  # what happened before the fit does not matter
        loader = torch.utils.data.DataLoader(blocks, batch_size=None)
        trainer(max_epochs=epochs, **options).fit(Noisy(), loader)
        return list(draws)

    two = run(1, 2)
    assert len(set(two)) == 4
    assert run(1, 1) == two[:2]
    assert run(2, 1) != two[:2]
    assert len(set(run(1, 2, accumulate_grad_batches=2))) == 4


# -- checkpoints -------------------------------------------------------------------------------------------


def model(**llm) -> ModelSAT:
    torch.manual_seed(0)
    return ModelSAT(RouterLLM("tiny:llama", **llm), CapabilityEncoder("tiny:bert", trainable=False))


def saved(module) -> dict:
    checkpoint = {"state_dict": module.state_dict()}
    module.on_save_checkpoint(checkpoint)
    return checkpoint


def test_checkpoints_leave_out_what_config_freezes_but_not_what_a_stage_froze():
    module = model(freeze_layers=1)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name.startswith("projector."))  # stage 1
    names = set(saved(module)["state_dict"])
    assert not any(name.startswith("encoder.text.") for name in names)
    assert not any(".embed_tokens." in name or ".layers.0." in name for name in names)
    assert any(".layers.1." in name for name in names)
    assert {"router_llm.head", "router_llm.bias", "projector.linear.weight", "projector.spread"} <= names


def test_a_checkpoint_restores_everything(tmp_path):
    module = model()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name not in module.frozen_names():
                parameter.add_(torch.randn_like(parameter))
    torch.save(saved(module), tmp_path / "a.ckpt")
    other, checkpoint = model(), torch.load(tmp_path / "a.ckpt", weights_only=True)
    other.on_load_checkpoint(checkpoint)
    other.load_state_dict(checkpoint["state_dict"])
    for name, parameter in module.named_parameters():
        assert torch.equal(dict(other.named_parameters())[name], parameter), name


def test_a_checkpoint_of_another_shape_names_the_tensor():
    checkpoint = saved(model())
    checkpoint["state_dict"]["projector.linear.weight"] = torch.zeros(7, 32)
    with pytest.raises(SatlightError, match=r"projector\.linear\.weight is \(7, 32\) there and \(32, 32\) here"):
        model().on_load_checkpoint(checkpoint)


def test_a_checkpoint_of_another_model_names_what_differs():
    with pytest.raises(SatlightError, match=r"written by another model.*layers\.1\.") as error:
        model(num_layers=1).on_load_checkpoint(saved(model()))
    assert "config.yaml" in str(error.value)
    with pytest.raises(SatlightError, match=r"it lacks \['router_llm\.backbone\.layers\.1\."):
        model().on_load_checkpoint(saved(model(num_layers=1)))
