"""The data module: what fit may see, what blocks hold, where a stream of blocks goes on."""

from types import SimpleNamespace

import lightning as L
import numpy as np
import polars as pl
import pytest
import torch

from satlight.data import AptitudeSpec, GroupBlocks, RandomBlocks, SimulatedSpec, TargetSpec, TaskBlocks
from satlight.data.stream import BlockStream
from satlight.errors import SatlightError
from satlight.types import Stage


def blocks_of(loader) -> list:
    return list(loader)


def texts_of(loader) -> list[str]:
    return [text for block in loader for text in block.instructions]


# -- what fit sees -----------------------------------------------------------------------------------------


def test_fit_holds_no_test_row(make):
    data = make()
    data.setup("fit")
    assert set(data.records.splits) == {"train", "validation"}
    assert not any(key.startswith("gamma") for key in data.records.instructions["instruction_id"])
    with pytest.raises(SatlightError, match="The test split of demo is empty"):
        data.test_dataloader()
    data.setup("test")
    assert (data.records.splits == "test").sum() == 18 + 18 + 12
    assert len(texts_of(data.test_dataloader())) == 48


def test_setting_up_again_changes_nothing(make):
    data = make()
    data.setup("fit")
    before = data.aptitude, texts_of(data.val_dataloader())
    data.setup("fit")
    data.setup("test")
    data.setup("fit")
    assert (data.aptitude, texts_of(data.val_dataloader())) == before
    assert "test" in set(data.records.splits)


def test_train_validation_and_core_instructions_are_apart(make):
    data = make(records="simulated", score_column="score", simulated=SimulatedSpec(1500, 4))
    data.setup("test")
    train = texts_of(data.train_dataloader())
    validation, test = texts_of(data.val_dataloader()), texts_of(data.test_dataloader())
    core = {text for task in data.aptitude.tasks for text in task.texts}
    assert len(core) > 100
    assert not core & set(train)
    assert not core & (set(validation) | set(test))  # core items come from the train split
    assert not set(train) & (set(validation) | set(test))
    assert not set(validation) & set(test)
    assert len(train) + len(core) + len(validation) + len(test) <= 1500


def test_groups_never_stand_on_two_sides(make):
    data = make(group_column="family")
    data.setup("test")
    sides = {}
    for family, split in data.records.instructions.select("family", "split").iter_rows():
        sides.setdefault(family, set()).add(split)
    assert max(len(splits - {"dropped"}) for splits in sides.values()) == 1


# -- blocks ------------------------------------------------------------------------------------------------


def test_blocks_carry_the_matrix(make):
    data = make()
    data.setup("fit")
    view = data.train_view()
    seen = []
    for block in data.train_dataloader():
        rows, columns = block.rows.numpy(), block.columns.numpy()
        assert block.shape == (len(rows), len(columns))
        assert block.instructions == [view.records.texts[r] for r in rows]
        assert block.capabilities == [view.capabilities[c] for c in columns]
        assert block.target_BC.dtype == torch.float32
        assert (block.target_BC.numpy() == view.records.outcomes[np.ix_(rows, columns)]).all()
        assert block.known_BC.all()
        assert block.weight_BC is None
        datasets = [sorted(set(view.records.datasets))[g] for g in block.groups]
        assert datasets == view.records.datasets[rows].tolist()
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(view.records.texts)))


def test_unknown_cells_are_marked(tmp_path, records_folder, make):
    for name in ("instructions.parquet", "models.json"):
        (tmp_path / name).write_bytes((records_folder / name).read_bytes())
    table = pl.read_parquet(records_folder / "records.parquet")
    hole = (pl.col("model_id") == "org/two-7b") & pl.col("instruction_id").str.ends_with("5")
    table.filter(~hole).write_parquet(tmp_path / "records.parquet")
    data = make(records=str(tmp_path))
    data.setup("fit")
    unknown = 0
    for block in data.train_dataloader():
        for text, known in zip(block.instructions, block.known_BC, strict=True):
            number = text.split(":")[0].split()[-1]
            assert known.tolist() == [True, not number.endswith("5"), True, True]
            unknown += int((~known).sum())
    assert unknown > 0


def test_capabilities_are_the_accuracies_on_the_core_items(make):
    data = make()
    data.setup("fit")
    (capability,) = data.capabilities(["org/two-7b"])
    task = data.aptitude.tasks[0]
    core = data.records.rows(np.isin(data.records.instructions["instruction_id"].to_list(), task.instruction_ids))
    accuracy = core.outcomes[:, core.model_ids.index("org/two-7b")].mean()
    first = capability.results[0]
    assert (first.task, first.keywords) == (task.name, task.keywords)
    assert (first.accuracy, first.items) == (pytest.approx(accuracy), len(task.instruction_ids))
    assert capability.notes == ("It supports Chinese.",)
    assert len(capability.results) == len(data.aptitude.tasks)


def test_resampled_capabilities_vary_by_block_and_repeat_by_seed(make):
    data = make(aptitude=AptitudeSpec(num_shots=6, min_shots=3, resample=True), sampler=RandomBlocks(8))
    data.setup("fit")
    first = [block.capabilities for block in data.train_dataloader()]
    assert len({str(capabilities) for capabilities in first}) > 1
    assert [block.capabilities for block in data.train_dataloader()] == first
    fixed = {str(block.capabilities) for block in data.val_dataloader()}
    assert fixed == {str(data.capabilities(data.seen))}  # evaluation reads the results as they are


def test_targets_and_weights_of_the_spec_reach_the_blocks(make):
    plain, shrunk = make(), make(targets=TargetSpec(0.5, rank_weight=1.0, disagreement_weight=1.0))
    for data in (plain, shrunk):
        data.setup("fit")
    targets = shrunk.train_view().targets
    assert not np.isin(targets, [0.0, 1.0]).any()
    assert np.abs(targets - plain.train_view().targets).max() < 0.6
    block = next(iter(shrunk.train_dataloader()))
    assert block.weight_BC.shape == block.shape
    assert block.weight_BC.std() > 0
    assert np.isin(next(iter(shrunk.val_dataloader())).target_BC, [0.0, 1.0]).all()  # judged on outcomes


def test_tasks_of_one_name_in_two_datasets_are_two_tasks(tmp_path, records_folder, make):
    for name in ("records.parquet", "models.json"):
        (tmp_path / name).write_bytes((records_folder / name).read_bytes())
    table = pl.read_parquet(records_folder / "instructions.parquet")
    table.with_columns(task=pl.lit("test")).write_parquet(tmp_path / "instructions.parquet")
    data = make(records=str(tmp_path), sampler=TaskBlocks(8), targets=TargetSpec(1.0, task_prior=0.0))
    data.setup("fit")
    for block in data.train_dataloader():
        assert len(set(block.groups.tolist())) == 1
    view = data.train_view()
    for dataset in ("alpha", "beta"):
        rows = view.records.datasets == dataset
        assert view.targets[rows] == pytest.approx(
            np.broadcast_to(view.records.outcomes[rows].mean(axis=0), view.targets[rows].shape), abs=1e-6
        )


def test_evaluation_blocks_hold_the_whole_zoo_and_similar_lengths(make):
    data = make(eval_instructions=10)
    data.setup("test")
    shapes = [block.shape for block in data.test_dataloader()]
    assert shapes == [(10, 4)] * 4 + [(8, 4)]
    lengths = [len(text.encode()) for text in texts_of(data.test_dataloader())]
    assert lengths == sorted(lengths)


def test_blocks_are_bucketed_by_tokens_where_the_module_counts_them(make):
    def spread(text: str) -> int:
        return int(text.split()[2].rstrip(":")) % 7  # nothing to do with bytes

    data = make(eval_instructions=10, sampler=RandomBlocks(4))
    data.setup("test")
    module = SimpleNamespace(count_tokens=lambda texts: [spread(text) for text in texts])
    data.trainer = SimpleNamespace(lightning_module=module)
    read = [spread(text) for text in texts_of(data.test_dataloader())]
    assert read == sorted(read)
    ranges = [np.ptp([spread(text) for text in block.instructions]) for block in data.train_dataloader()]
    assert np.mean(ranges) < 1  # about 4.5 at random


@pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
def test_predict_scores_the_chosen_split(make, split):
    data = make(predict_split=split)
    data.setup("predict")
    expected = len(data.records.splits) if split == "all" else (data.records.splits == split).sum()
    assert len(texts_of(data.predict_dataloader())) == expected > 0


# -- the zoo -----------------------------------------------------------------------------------------------


def test_a_zoo_setting_narrows_the_zoo(make, tmp_path):
    (tmp_path / "small.yaml").write_text("name: small\nmax_params_b: 7\n")
    data = make(zoo_preset=str(tmp_path / "small.yaml"), candidates=["org/*", "other/*"])
    data.setup("test")
    assert data.zoo_candidates == ["org/one-7b", "org/two-7b", "other/four-1b"]
    assert data.train_view().records.model_ids == data.zoo_candidates
    with pytest.raises(SatlightError, match=r"5 of the 5 members .* 'smaller-scale' are missing .* 'demo'"):
        make(zoo_preset="smaller-scale").setup("fit")


def test_unseen_candidates_are_in_no_training_block_and_no_design_but_routable(make):
    data = make(unseen_candidates=["*70b"])
    data.setup("test")
    assert (data.seen, data.unseen) == (["org/one-7b", "org/two-7b", "other/four-1b"], ["org/three-70b"])
    assert data.train_view().records.model_ids == data.seen
    assert {block.shape[1] for block in data.train_dataloader()} == {3}
    assert {block.shape[1] for block in data.val_dataloader()} == {3}
    assert {block.shape[1] for block in data.test_dataloader()} == {4}
    # Without the candidate in the records at all, the same test comes out.
    without = make(candidates=["*7b", "*1b"])
    without.setup("fit")
    assert without.aptitude.item_ids == data.aptitude.item_ids
    assert without.aptitude.reference_mean == data.aptitude.reference_mean
    assert len(data.capabilities(["org/three-70b"])[0].results) == len(data.aptitude.tasks)


@pytest.mark.parametrize(
    ("zoo", "expected"),
    [
        ("all", ["org/one-7b", "org/two-7b", "org/three-70b", "other/four-1b"]),
        ("seen", ["org/one-7b", "org/two-7b", "other/four-1b"]),
        ("unseen", ["org/three-70b"]),
    ],
)
def test_test_and_predict_route_between_the_zoo(make, zoo, expected):
    data = make(unseen_candidates=["org/three-70b"], zoo=zoo)
    data.setup("test")
    assert data.zoo_candidates == expected
    assert data.eval_view("test").records.model_ids == expected
    assert data.control_records().model_ids == expected


def test_train_datasets_limit_training_validation_and_controls_but_not_test(make):
    data = make(train_datasets=["alpha"])
    data.setup("test")
    names = data.records
    assert {task.dataset for task in data.aptitude.tasks} == {"alpha"}
    for loader in (data.train_dataloader(), data.val_dataloader()):
        assert all(text.startswith("alpha") for text in texts_of(loader))
    assert set(data.control_records().datasets) == {"alpha"}
    assert {text.split()[0] for text in texts_of(data.test_dataloader())} == {"alpha", "beta", "gamma"}
    assert set(names.datasets) == {"alpha", "beta", "gamma"}


def test_datasets_and_candidates_limit_everything(make):
    data = make(datasets=["beta"], candidates=["*7b"])
    data.setup("test")
    assert set(data.records.datasets) == {"beta"}
    assert data.records.model_ids == ["org/one-7b", "org/two-7b"]


# -- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"records": "/no/such/folder"}, "'/no/such/folder' do not exist"),
        ({"score_column": "corect"}, r"'corect'.*correct"),
        ({"candidates": ["org/nobody"]}, r"org/nobody.*org/one-7b"),
        ({"datasets": ["delta"]}, r"delta.*alpha"),
        ({"train_datasets": ["delta"]}, r"data\.train_datasets names \['delta'\].*alpha"),
        ({"train_datasets": ["gamma"]}, r"train split of demo is empty for train_datasets \['gamma'\]"),
        ({"datasets": ["gamma"]}, r"train split of demo is empty"),
        ({"unseen_candidates": ["*80b"]}, r"\*80b.*org/one-7b"),
        ({"unseen_candidates": ["*"]}, r"data\.unseen_candidates leaves no candidate to train on"),
        ({"zoo": "unseen"}, r"data\.zoo is 'unseen' but data\.unseen_candidates names none"),
        ({"group_column": "famly"}, r"'famly'.*family"),
        ({"validation_fraction": 1.0}, r"validation_fraction 1\.0"),
        ({"aptitude": AptitudeSpec(num_shots=90, min_shots=90)}, "task with too few core items"),
        ({"aptitude": AptitudeSpec(keywords="/no/such.json", min_shots=3)}, r"/no/such\.json"),
    ],
)
def test_mistakes_are_named_at_setup(make, options, message):
    with pytest.raises(SatlightError, match=f"(?s){message}"):
        make(**options).setup("fit")


def test_an_empty_validation_split_is_named(make):
    data = make(validation_fraction=0.0)
    data.setup("fit")
    with pytest.raises(SatlightError, match="The validation split of demo is empty"):
        data.val_dataloader()


def test_it_must_be_set_up_first(make):
    with pytest.raises(SatlightError, match="not set up"):
        _ = make().records


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
