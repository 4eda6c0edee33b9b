"""The stream of training blocks: passes, epochs, resuming; refined training rows."""

import lightning as L
import numpy as np
import polars as pl
import pytest

from satlight.data import AptitudeSpec, GroupBlocks, RandomBlocks, TaskBlocks
from satlight.data.stream import BlockStream
from satlight.errors import SatlightError
from satlight.types import Stage


def blocks_of(loader) -> list:
    return list(loader)


def texts_of(loader) -> list[str]:
    return [text for block in loader for text in block.instructions]


# -- the stream --------------------------------------------------------------------------------------------


@pytest.fixture
def plans(make):
    """The sampler of a set-up data module, and how to read plans as lists."""

    def build(**options):
        data = make(**options)
        data.setup("fit")
        data.train_dataloader()
        return data._stream

    return build


def lists(plans) -> list:
    return [(rows.tolist(), columns.tolist()) for rows, columns in plans]


@pytest.mark.parametrize("sampler", [RandomBlocks(16), TaskBlocks(8), GroupBlocks(4)])
def test_epochs_cut_the_stream_without_loss(plans, sampler):
    whole = plans(sampler=sampler)
    passes = [lists(whole.blocks(epoch)) for epoch in range(3)]
    assert passes[0] != passes[1]
    stream = [plan for one in passes for plan in one]
    short = plans(sampler=sampler, blocks_per_epoch=4)
    assert len(short) == 4
    cut = [plan for epoch in range(len(stream) // 4) for plan in lists(short.blocks(epoch))]
    assert cut == stream[: len(cut)]


def test_an_epoch_may_be_longer_than_a_pass(plans):
    sampler = plans(blocks_per_epoch=50)
    drawn = lists(sampler.blocks(0))
    assert len(drawn) == 50
    rows = [row for plan in drawn for row in plan[0]]
    counts = np.bincount(rows)
    assert counts.min() >= counts.max() - 1


def test_another_seed_is_another_stream(plans):
    assert lists(plans(seed=0).blocks(0)) == lists(plans(seed=0).blocks(0))
    one = plans(seed=0)
    one.data.seed = 1
    assert lists(one.blocks(0)) != lists(plans(seed=0).blocks(0))


def test_stage_one_draws_instructions_of_core_tasks_alone(plans):
    sampler = plans(aptitude=AptitudeSpec(num_tasks=2, num_shots=6, min_shots=3))
    allowed = set(np.flatnonzero(sampler.in_domain_R).tolist())
    everything = set(range(len(sampler.in_domain_R)))
    assert 0 < len(allowed) < len(everything)
    assert {row for rows, _ in sampler.blocks(0) for row in rows.tolist()} == everything
    sampler.data.stage = Stage(in_domain_only=True)
    inside = {row for epoch in range(2) for rows, _ in sampler.blocks(epoch) for row in rows.tolist()}
    assert inside == allowed
    assert len(sampler.blocks(0)) == len(sampler)  # an epoch is as long in either stage


def test_the_space_of_a_stage_is_one_object(plans):
    sampler = plans(aptitude=AptitudeSpec(num_tasks=2, num_shots=6, min_shots=3))
    whole = sampler.space()
    sampler.data.stage = Stage(in_domain_only=True)
    part = sampler.space()
    assert part is sampler.space()
    assert len(part.task_R) == sampler.in_domain_R.sum()
    sampler.data.stage = Stage()
    assert sampler.space() is whole


def test_a_stage_without_instructions_is_an_error_not_an_endless_loop(plans):
    full = plans()
    data = full.data
    data.stage = Stage("connectors", in_domain_only=True)
    sampler = BlockStream(data, full._all, np.zeros_like(full.in_domain_R))
    with pytest.raises(
        SatlightError, match=r"RandomBlocks built no block from 0 instructions of the core tasks \(stage 'connectors'\)"
    ):
        sampler.blocks(0)


def test_resuming_leaves_out_exactly_what_was_done(plans):
    sampler = plans()
    sampler.set_epoch(2)
    whole = lists(sampler)
    sampler.resume(epoch=2, done=3)
    assert lists(sampler) == whole[3:]
    assert lists(sampler) == whole  # once


def test_the_iterator_asks_for_the_stage_when_it_starts_not_when_it_is_made(plans):
    sampler = plans(aptitude=AptitudeSpec(num_tasks=2, num_shots=6, min_shots=3))
    iterator = iter(sampler)
    sampler.data.stage = Stage(in_domain_only=True)
    assert lists(iterator) == lists(sampler.blocks(0))


def test_state_travels_through_a_new_data_module(make, plans):
    data = make()
    assert data.state_dict() == {}
    data.load_state_dict({"epoch": 1, "done": 2})
    data.setup("fit")
    data.train_dataloader()
    assert lists(data._stream) == lists(plans().blocks(1))[2:]
    assert isinstance(data, L.LightningDataModule)


# -- refined training rows ---------------------------------------------------------------------------------


def test_a_cap_limits_training_rows_alone(make):
    whole, capped = make(), make(max_per_dataset=10)
    for data in (whole, capped):
        data.setup("test")
    assert np.unique(capped.train_view().records.datasets, return_counts=True)[1].tolist() == [10, 10]
    assert set(capped.training_texts) < set(whole.training_texts)
    assert capped.aptitude == whole.aptitude
    for split in ("validation", "test"):
        assert capped.eval_view(split).records.texts == whole.eval_view(split).records.texts
    again = make(max_per_dataset=10)
    again.setup("fit")
    assert again.training_texts == capped.training_texts


def test_near_duplicates_of_validation_rows_are_not_trained_on(make):
    data = make(near_duplicates=0.8)  # the questions of a dataset differ in two numbers
    whole = make()
    for one in (data, whole):
        one.setup("fit")
    left_out = set(whole.training_texts) - set(data.training_texts)
    assert left_out
    assert {text.split()[0] for text in data.training_texts + sorted(left_out)} == {"alpha", "beta"}
    assert texts_of(data.val_dataloader()) == texts_of(whole.val_dataloader())


def test_the_circle_test_reaches_the_targets_but_not_the_aptitude_test(tmp_path, records_folder, make):
    for name in ("records.parquet", "models.json"):
        (tmp_path / name).write_bytes((records_folder / name).read_bytes())
    table = pl.read_parquet(records_folder / "instructions.parquet").with_columns(rotation_of=pl.lit(None, pl.String))
    turned = table.filter(pl.col("split") == "train").with_columns(
        rotation_of=pl.col("instruction_id"), instruction_id=pl.col("instruction_id") + "-rotation-1"
    )
    pl.concat([table, turned]).write_parquet(tmp_path / "instructions.parquet")
    records = pl.read_parquet(records_folder / "records.parquet")
    failed = records.filter(pl.col("model_id") == "org/one-7b").with_columns(
        instruction_id=pl.col("instruction_id") + "-rotation-1", correct=pl.lit(0.0)
    )
    failed = failed.filter(pl.col("instruction_id").is_in(turned["instruction_id"].to_list()))
    pl.concat([records, failed]).write_parquet(tmp_path / "records.parquet")
    plain, circled = make(), make(records=str(tmp_path), circle_share=1.0)
    for data in (plain, circled):
        data.setup("test")
    assert circled.training_texts == plain.training_texts
    assert circled.train_view().targets[:, 0].sum() == 0  # none of its successes survived
    assert plain.train_view().targets[:, 0].sum() > 10
    assert (circled.train_view().targets[:, 1:] == plain.train_view().targets[:, 1:]).all()
    assert circled.capabilities(circled.seen) == plain.capabilities(plain.seen)
    for split in ("validation", "test"):
        assert (circled.eval_view(split).targets == plain.eval_view(split).targets).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"circle_share": 0.3}, "needs instructions with rotated options, and 'demo' has none"),
        ({"circle_share": 2.0}, r"circle_share is 2\.0"),
        ({"near_duplicates": 0.0}, r"near_duplicates is 0\.0"),
        ({"near_duplicates": 0.5}, r"near_duplicates=0\.5 leaves no training instruction of 'demo'"),
        ({"max_per_dataset": 0}, "max_per_dataset is 0"),
    ],
)
def test_refinements_that_cannot_be_are_named(make, options, message):
    with pytest.raises(SatlightError, match=message):
        make(**options).setup("fit")


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_train_on_blocks_of_their_own(plans, make, world_size):
    whole = plans(blocks_per_epoch=7)
    streams = [
        BlockStream(whole.data, whole._all, whole.in_domain_R, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    epochs = []
    for epoch in range(3):
        for stream in streams:
            stream.set_epoch(epoch)
        parts = [lists(stream) for stream in streams]
        assert {len(part) for part in parts} == {len(streams[0])} == {-(-7 // world_size)}
        epochs += [part[step] for step in range(len(parts[0])) for part in parts]  # steps in order, processes in turn
    one = plans(blocks_per_epoch=len(epochs))
    assert epochs == lists(one.blocks(0))  # nothing twice, nothing left out
