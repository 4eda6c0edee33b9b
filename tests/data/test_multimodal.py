"""Blocks with images: workers, shares, aptitude tests, broken files."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import lightning as L
import numpy as np
import polars as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from satlight.capability import AptitudeTest
from satlight.cli import main
from satlight.data import AptitudeSpec, GroupBlocks, MultimodalDataModule, RandomBlocks, SimulatedSpec, TaskBlocks
from satlight.errors import SatlightError
from satlight.images import MAX_SIDE
from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM, VisionEncoder
from satlight.records import open_records, save_records
from satlight.types import Stage

SPEC = SimulatedSpec(420, 5)


@pytest.fixture
def make():
    def build(stage="fit", **options) -> MultimodalDataModule:
        aptitude = AptitudeSpec(num_shots=4, min_shots=2)
        data = MultimodalDataModule(**({"simulated": SPEC, "num_workers": 0, "aptitude": aptitude} | options))
        data.setup(stage)
        return data

    return build


def share(blocks) -> float:
    return float(np.mean([bool(images) for block in blocks for images in block.images]))


# -- blocks --------------------------------------------------------------------------------------------------


def test_blocks_hold_the_images_of_their_rows(make):
    data = make()
    for loader in (data.train_dataloader(), data.val_dataloader()):
        blocks = list(loader)
        assert {len(images) for block in blocks for images in block.images} == {0, 1, 2}
        assert all(image.dtype == np.uint8 and image.shape == (128, 128, 3)
                   for block in blocks for images in block.images for image in images)  # fmt: skip
    view = data.train_view()
    block = next(iter(data.train_dataloader()))
    for row, images in zip(block.rows.tolist(), block.images, strict=True):
        files = view.records.images[row]
        assert all((np.asarray(Image.open(file)) == image).all() for file, image in zip(files, images, strict=True))


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_blocks(make, workers):
    plain, parallel = make(), make(num_workers=workers)
    loaders = [data.train_dataloader() for data in (plain, parallel)]
    for epoch in range(2):
        for loader in loaders:
            loader.sampler.set_epoch(epoch)
        for one, other in zip(*loaders, strict=True):
            assert one.instructions == other.instructions
            assert all(
                (a == b).all() for x, y in zip(one.images, other.images, strict=True) for a, b in zip(x, y, strict=True)
            )


def test_workers_draw_nothing_before_the_stage_is_set(make):
    data = make(num_workers=1, aptitude=AptitudeSpec(num_tasks=3, num_shots=4, min_shots=2))
    loader = data.train_dataloader()
    started = iter(loader)  # as Lightning does, before callbacks set the stage
    data.stage = Stage("first", in_domain_only=True)
    allowed = set(np.flatnonzero(data.in_domain(data.train_view().records)).tolist())
    assert set(next(started).rows.tolist()) <= allowed


class Recorder(L.LightningModule):
    """Keep the rows of every training block."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.rows: list[list[int]] = []

    def training_step(self, block, _):
        self.rows.append(block.rows.tolist())
        return self.weight

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(tmp_path, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return L.Trainer(default_root_dir=tmp_path, **(quiet | options))


def test_training_resumes_in_the_middle_of_an_epoch(make, tmp_path):
    def run(path=None):
        module, data = Recorder(), make(num_workers=1, blocks_per_epoch=4)
        saving = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=3, save_top_k=-1)
        trainer = L.Trainer(
            default_root_dir=tmp_path, max_epochs=2, callbacks=[saving], limit_val_batches=0, accelerator="cpu",
            enable_progress_bar=False, enable_model_summary=False, logger=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data, ckpt_path=path)
        return module.rows

    whole = run()
    assert len(whole) == 8
    assert run(tmp_path / "step=6.ckpt") == whole[6:]


@pytest.mark.parametrize("sampler", [RandomBlocks(16), TaskBlocks(8), GroupBlocks(4)])
def test_the_share_of_images_holds_for_every_sampler(make, sampler):
    as_given, half = (make(sampler=sampler, image_share=given) for given in (None, 0.5))
    assert share(as_given.train_dataloader()) > 0.6
    # Groups need a negative in their task, which fewer instructions with images have.
    tolerance = 0.2 if isinstance(sampler, GroupBlocks) else 0.05
    assert share(half.train_dataloader()) == pytest.approx(0.5, abs=tolerance)
    rows = [row for block in make(image_share=0.5).train_dataloader() for row in block.rows.tolist()]
    assert len(set(rows)) == len(rows)  # no instruction twice in a pass
    stream = half._stream
    again = make(sampler=sampler, image_share=0.5)
    again.train_dataloader()
    for epoch in range(2):
        drawn = zip(stream.blocks(epoch), again._stream.blocks(epoch), strict=True)
        assert all((one[0] == other[0]).all() for one, other in drawn)


def test_shares_of_none_and_all(make):
    assert share(make(image_share=0.0).train_dataloader()) == 0
    assert share(make(image_share=1.0).train_dataloader()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_share": 1.5}, r"data.image_share is 1.5; it must lie in \[0, 1\]"),
        ({"num_workers": -1}, "data.num_workers is -1"),
        ({"cached_images": -1}, "data.cached_images is -1"),
        ({"split_column": "nowhere"}, "no column 'nowhere' to take the split from"),
        ({"split_column": "task"}, r"column 'task': got .* Allowed: train, validation, test, dropped"),
    ],
)
def test_mistakes(make, options, message):
    with pytest.raises(SatlightError, match=message):
        make(**options)


def test_a_share_without_images_is_an_error(make):
    data = make(records="simulated", image_share=0.5)
    with pytest.raises(SatlightError, match=r"none of the .* training instructions to draw from has images"):
        data.train_dataloader()


def test_lengths_count_images(make):
    data = make()
    records = data.train_view().records
    counts = np.array([len(images) for images in records.images])
    texts = np.array([len(text.encode()) for text in records.texts])
    assert np.unique((data._lengths(records) - texts)[counts > 0] / counts[counts > 0]).size == 1


@pytest.mark.parametrize("tokens", [1, 64])
def test_blocks_are_bucketed_by_the_tokens_that_the_model_reads_of_an_image(make, tokens):
    data = make(sampler=RandomBlocks(8))
    vision = VisionEncoder("tiny:conv", tokens=tokens)
    router = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), vision=vision)
    data.trainer = SimpleNamespace(lightning_module=router)
    records = data.train_view().records
    texts = router.count_tokens(records.texts)
    counts = [len(images) for images in records.images]
    assert data._lengths(records).tolist() == [a + tokens * b for a, b in zip(texts, counts, strict=True)]


# -- aptitude ------------------------------------------------------------------------------------------------


def test_core_items_with_images_leave_training_and_others_stay(make):
    data = make()
    core = {item for task in data.aptitude.tasks for item in task.instruction_ids}
    training = set(data.train_view().records.ids)
    assert not core & training
    assert len(training) > 100  # equal texts with other images are no core items
    texts = {text for task in data.aptitude.tasks for text in task.texts}
    assert texts & set(data.training_texts)


def test_the_aptitude_test_keeps_names_of_images(make, tmp_path):
    test = make().aptitude
    drawn = [task for task in test.tasks if task.images]
    assert drawn
    assert all(len(task.images) == len(task.texts) for task in drawn)
    test.save(tmp_path / "test.json")
    assert AptitudeTest.load(tmp_path / "test.json") == test
    test.export(tmp_path / "items.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert {len(line.get("images", [])) for line in lines} == {0, 1, 2}
    assert "/" not in "".join(name for line in lines for name in line.get("images", []))


def test_a_copy_of_a_core_item_under_another_id_is_held(make):
    data = make()
    records = data.records
    core = data.aptitude.holds(records)
    renamed = pl.Series("instruction_id", [f"x{row}" for row in range(records.shape[0])])
    renamed = records.instructions.with_columns(renamed)
    copies = type(records)(
        records.instructions.with_columns(renamed), records.candidates, records.outcomes, records.known
    )
    assert (data.aptitude.holds(copies) == core).all()


# -- a second split column -----------------------------------------------------------------------------------


def test_blindtest_by_drawing(make):
    folder = (Path(__file__).parents[2] / ".." / "shared" / "data" / "blindtest").resolve()
    if not folder.is_dir():
        pytest.skip(f"no real records at {folder}")
    data = make("test", records=str(folder), split_column="split_group", group_column="group", simulated=SPEC)
    splits, groups = data.records.splits, data.records.instructions["group"].to_numpy()
    assert (splits == "test").sum() == (data.records.instructions["split_group"] == "test").sum()
    parts = [set(groups[splits == part]) for part in ("train", "validation", "test")]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    block = next(iter(data.test_dataloader()))
    assert all(len(images) == 1 and max(images[0].shape) <= MAX_SIDE for images in block.images)


# -- broken files --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("multimodal") / "records"
    save_records(open_records("simulated-multimodal", simulated=SimulatedSpec(280, 4)), target)
    return target


def spoil(file, how):
    if how == "missing":
        file.unlink()
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "truncated":
        file.write_bytes(file.read_bytes()[:200])
    elif how == "text":
        file.write_text("no image")
    else:
        Image.new("1", (9000, 9000)).save(file)


@pytest.mark.parametrize(
    ("how", "message", "workers"),
    [
        ("missing", "does not exist", 0),
        ("empty", "is empty", 0),
        ("truncated", "cannot be read", 0),
        ("truncated", "cannot be read", 1),
        ("text", "is no image of a known format", 0),
        ("huge", "has 9000 × 9000 pixels", 0),
    ],
)
def test_a_broken_image_is_named_with_its_instruction(make, folder, tmp_path, how, message, workers):
    copy = tmp_path / "records"
    shutil.copytree(folder, copy)
    data = make(records=str(copy), num_workers=workers)
    records = data.train_view().records
    row = next(row for row, images in enumerate(records.images) if images)
    file = records.images[row][0]
    spoil(Path(file), how)
    with pytest.raises(SatlightError, match=message) as caught:
        list(data.train_dataloader())
    assert str(caught.value).startswith(f"Instruction '{records.ids[row]}': The image {file}")
    assert "Traceback" not in str(caught.value)


def test_the_command_line_shows_no_traceback(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "records")
    for file in tmp_path.glob("records/images/*"):
        file.write_bytes(b"")
    arguments = ["--model=satlight.modules.CapabilityEncoder", "--model.trainable=false",
                 "--data=satlight.data.MultimodalDataModule", "--data.records=records",
                 "--data.aptitude.min_shots=2", "--data.aptitude.num_shots=4", "--trainer.max_steps=1"]  # fmt: skip
    with pytest.raises(SystemExit):
        main(["fit", *arguments])
    shown = "".join(capsys.readouterr())
    assert "Instruction 'sim-multimodal-" in shown
    assert "is empty" in shown
    assert "Traceback" not in shown
