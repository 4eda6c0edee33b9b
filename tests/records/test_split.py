"""Splits: nothing on both sides, the same for the same seed, and no silent emptiness."""

from collections import Counter

import numpy as np
import pytest

from satlight.errors import SatlightError
from satlight.records import open_records, split_records, use_split
from satlight.records.split import _say_once


def texts_of(records, split, name):
    return {" ".join(text.split()) for text, one in zip(records.texts, split, strict=True) if one == name}


def test_test_text_leaves_train_and_stays_in_test(make_records):
    texts = ["What is 2 + 2?", "What  is\n2 + 2? ", "Only here", "And here", "More"]
    records = make_records(texts, split=["test", "train", "train", "train", "train"])
    split = split_records(records, validation_fraction=0.34)
    assert split[:2].tolist() == ["test", "dropped"]
    assert Counter(split[2:].tolist()) == {"train": 2, "validation": 1}


def test_dropped_rows_are_told_once(make_records, caplog):
    _say_once.cache_clear()
    texts = ["What is 2 + 2?", "What  is 2 + 2?", "Only here", "And here", "More", "And more"]
    records = make_records(texts, split=["test"] + ["train"] * 5)
    with caplog.at_level("INFO", logger="satlight"):
        for seed in range(3):
            split_records(records, validation_fraction=0.34, seed=seed)
    assert [record.message[:6] for record in caplog.records] == ["1 of 6"]


def test_the_image_is_part_of_the_text(make_records):
    records = make_records(
        ["How many?"] * 4, split=["test", "train", "train", "train"], images=[["a"], ["b"], ["a"], ["c"]]
    )
    split = split_records(records, validation_fraction=0)
    assert split.tolist() == ["test", "train", "dropped", "train"]


def test_no_text_or_group_is_in_two_splits(make_records):
    rng = np.random.default_rng(0)
    n = 600
    texts = [f"question {rng.integers(0, 400)}" for _ in range(n)]
    groups = [None if rng.random() < 0.3 else f"g{rng.integers(0, 150)}" for _ in range(n)]
    # "dropped" rows of a group still have to leave: ties run over texts and groups in turn
    records = make_records(texts, datasets=[f"d{row % 3}" for row in range(n)], group=groups)
    split = split_records(records, validation_fraction=0.2, group_column="group", test_fraction=0.1)
    used = [name for name in ("train", "validation", "test") if (split == name).any()]
    assert used == ["train", "validation", "test"]
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not texts_of(records, split, first) & texts_of(records, split, second)
        in_first = {group for group, one in zip(groups, split, strict=True) if one == first and group}
        in_second = {group for group, one in zip(groups, split, strict=True) if one == second and group}
        assert not in_first & in_second


def test_validation_is_stratified_and_follows_the_seed(make_records):
    n = 300
    datasets = ["big"] * 200 + ["small"] * 100
    records = make_records([f"q{row}" for row in range(n)], datasets=datasets, split=["train"] * n)
    split = split_records(records, validation_fraction=0.1, seed=3)
    assert Counter(zip(datasets, split.tolist(), strict=True)) == {
        ("big", "train"): 180,
        ("big", "validation"): 20,
        ("small", "train"): 90,
        ("small", "validation"): 10,
    }
    np.testing.assert_array_equal(split, split_records(records, validation_fraction=0.1, seed=3))
    assert (split != split_records(records, validation_fraction=0.1, seed=4)).any()


def test_other_rows_and_their_order_do_not_change_the_draw(make_records):
    n = 200
    datasets = ["a", "b"] * (n // 2)
    records = make_records([f"q{row}" for row in range(n)], datasets=datasets, split=["train"] * n)
    split = split_records(records)
    alone = records.filter(datasets="a")
    np.testing.assert_array_equal(split_records(alone), split[records.datasets == "a"])
    order = np.random.default_rng(0).permutation(n)
    np.testing.assert_array_equal(split_records(records.rows(order)), split[order])


def test_without_a_split_test_is_drawn_by_hash_whatever_the_seed(make_records):
    n = 2000
    records = make_records([f"q{row}" for row in range(n)])
    split = split_records(records, seed=1)
    assert 0.27 < (split == "test").mean() < 0.33
    np.testing.assert_array_equal(split == "test", split_records(records, seed=2) == "test")
    smaller = split_records(records, test_fraction=0.1)
    assert set(np.flatnonzero(smaller == "test")) < set(np.flatnonzero(split == "test"))


def test_groups_are_drawn_as_wholes(make_records):
    groups = [row // 10 for row in range(500)]
    records = make_records([f"q{row}" for row in range(500)], group=groups)
    split = split_records(records, group_column="group")
    assert "dropped" not in split
    assert all(len(set(split[np.array(groups) == group])) == 1 for group in range(50))


def test_a_test_part_can_be_drawn_from_pure_training_records(make_records):
    records = make_records([f"q{row}" for row in range(100)], split=["train"] * 100)
    assert "test" not in split_records(records)
    assert (split_records(records, test_fraction=0.5) == "test").sum() > 30


def test_splitting_twice_changes_nothing(make_records):
    texts = [f"q{row % 80}" for row in range(100)]
    records = make_records(texts, group=[row // 7 for row in range(100)])
    split = split_records(records, group_column="group", test_fraction=0.2)
    again = split_records(records.with_splits(split), group_column="group", seed=9)
    np.testing.assert_array_equal(split, again)


def test_given_validation_rows_stay(make_records):
    records = make_records(["p", "q", "q ", "r"], split=["validation", "test", "validation", "train"])
    assert split_records(records).tolist() == ["validation", "test", "dropped", "train"]


def test_a_large_group_does_not_swallow_training(make_records):
    records = make_records([f"q{row}" for row in range(20)], split=["train"] * 20, group=[0] * 15 + [1] * 5)
    split = split_records(records, validation_fraction=0.1, group_column="group")
    assert Counter(split.tolist()) == {"train": 15, "validation": 5}


def test_the_split_may_come_from_another_column(make_records):
    records = make_records(
        ["a", "b", "c"],
        split=["test", "train", "train"],
        by_group=["train", "test", "train"],
        some=["test", None, "train"],
    )
    assert use_split(records) is records
    assert use_split(records, "by_group").splits.tolist() == ["train", "test", "train"]
    with pytest.raises(SatlightError, match=r"row 1 .*column 'some': got None.*Give the split of every row"):
        use_split(records, "some")
    with pytest.raises(SatlightError, match=r"column 'instruction': got 'a'.*Allowed: train, validation"):
        use_split(records, "instruction")
    with pytest.raises(SatlightError, match=r"no column 'nowhere' to take the split from\. Available: "):
        use_split(records, "nowhere")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_fraction": 1.0}, r"Got validation_fraction 1\.0; it must be in \[0, 1\)"),
        ({"test_fraction": 0.0}, r"Got test_fraction 0\.0; it must be in \(0, 1\)"),
        ({"test_fraction": 0.2}, r"Got test_fraction 0\.2, but 'records' already marks 1 test rows"),
        ({"group_column": "family"}, r"no column 'family' to group by\. Available: 'instruction_id'"),
        ({"group_column": "same"}, r"No training rows are left in 'records'.*2 rows dropped"),
    ],
)
def test_mistakes(make_records, options, message):
    records = make_records(["p", "q", "r"], split=["test", "train", "train"], same=["x"] * 3)
    with pytest.raises(SatlightError, match=message):
        split_records(records, **options)


def test_empty_splits_are_errors(make_records):
    with pytest.raises(SatlightError, match=r"No validation rows can be drawn.*validation_fraction to 0"):
        split_records(make_records(["p", "p"], split=["train"] * 2))
    with pytest.raises(SatlightError, match=r"No test rows were drawn from the 2 instructions"):
        split_records(make_records(["p", "q"]), test_fraction=1e-9)
    with pytest.raises(SatlightError, match=r"All 2 instructions of 'records' were drawn as test rows"):
        split_records(make_records(["p", "q"]), test_fraction=1 - 1e-9)


def test_only_test_rows_are_fine(make_records):
    assert set(split_records(make_records(["p", "q"], split=["test"] * 2))) == {"test"}


def test_routerdc_drops_its_23_repeats(real_data):
    records = open_records(real_data("routerdc"))
    split = split_records(records)
    dropped = Counter(records.datasets[split == "dropped"].tolist())
    assert (split == "test").sum() == 13002
    assert dropped == {"mmlu": 16, "arc_easy": 4, "arc_challenge": 2, "cmmlu": 1}  # as its SOURCE.md counts
    assert not texts_of(records, split, "train") & texts_of(records, split, "test")


def test_blindtest_drawings_stay_together(real_data):
    records = open_records(real_data("blindtest"))
    by_group = records.with_splits(records.instructions["split_group"].to_list())
    split = split_records(by_group, group_column="group")
    assert "dropped" not in split
    assert (split == "validation").sum() > 200
