"""The data module: what fit may see, what blocks hold, where a stream of blocks goes on."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch

from satlight.data import AptitudeSpec, RandomBlocks, SimulatedSpec, TargetSpec, TaskBlocks
from satlight.errors import SatlightError


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
    data.trainer = SimpleNamespace(lightning_module=module, global_rank=0, world_size=1)
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
