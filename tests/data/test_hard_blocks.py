"""Blocks of hard negatives: what stands in them, when they are filled, and that they repeat."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from satlight.data import GroupBlocks, HardGroupBlocks, HardNegativeBlocks, MiningSpec
from satlight.data.blocks import BlockSpace
from satlight.data.negatives import unit_rows
from satlight.errors import SatlightError

R, C, TASKS = 90, 4, 3


@pytest.fixture
def space() -> BlockSpace:
    rng = np.random.default_rng(0)
    task_R = rng.integers(0, TASKS, R)
    return BlockSpace(
        target_RC=(rng.random((R, C)) < 0.5).astype(np.float32),
        known_RC=rng.random((R, C)) < 0.9,
        length_R=rng.integers(5, 400, R),
        task_R=task_R,
        # tasks are directions, so that near instructions mostly share one
        vector_RD=np.eye(TASKS)[task_R] + 0.4 * rng.normal(size=(R, TASKS)),
    )


def cosine(space: BlockSpace) -> np.ndarray:
    unit = unit_rows(space.vector_RD)
    return unit @ unit.T


def lists(plans) -> list:
    return [(rows.tolist(), columns.tolist()) for rows, columns in plans]


SAMPLERS = [HardNegativeBlocks(8), HardNegativeBlocks(8, candidates=2), HardGroupBlocks(4), HardGroupBlocks(3, 1.0)]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_plans_follow_from_the_generator_and_the_vectors_alone(sampler, space):
    def draw(seed, of):
        return lists(sampler.draw(of, np.random.default_rng(seed)))

    first = draw(1, space)
    assert draw(1, replace(space)) == first  # another object with the same content: nothing is remembered
    assert draw(2, space) != first
    assert len(draw(2, space)) == len(first) == sampler.count(space)
    other = replace(space, vector_RD=space.vector_RD[::-1].copy())
    assert draw(1, other) != first
    assert draw(1, space) == first


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)
def test_steps_of_a_pass_are_known_before_the_vectors(sampler, space):
    assert sampler.count(replace(space, vector_RD=None)) == sampler.count(space)


@pytest.mark.parametrize("sampler", [HardNegativeBlocks(8), HardGroupBlocks(4)], ids=lambda s: type(s).__name__)
def test_without_vectors_it_says_what_to_add(sampler, space):
    with pytest.raises(
        SatlightError, match=rf"{type(sampler).__name__} needs a vector .* satlight\.callbacks\.HardNegatives"
    ):
        sampler.draw(replace(space, vector_RD=None), np.random.default_rng(0))


# -- groups ------------------------------------------------------------------------------------------------


def test_groups_hold_a_positive_and_the_nearest_failures_of_its_candidate(space):
    similarity = cosine(space)
    plans = HardGroupBlocks(4, mining=MiningSpec(near_duplicate=0.99)).draw(space, np.random.default_rng(0))
    assert len(plans) > R / 2
    for rows, (column,) in plans:
        positive, negatives = rows[0], rows[1:]
        assert space.known_RC[rows, column].all()
        assert space.target_RC[rows, column].tolist() == [1.0, 0.0, 0.0, 0.0]
        failed = np.flatnonzero(space.known_RC[:, column] & (space.target_RC[:, column] == 0))
        failed = failed[(failed != positive) & (similarity[positive, failed] <= 0.99)]
        nearest = failed[np.argsort(-similarity[positive, failed], kind="stable")][:3]
        assert sorted(negatives.tolist()) == sorted(nearest.tolist())


def test_the_same_positives_as_groups_without_mining(space):
    hard, plain = (s.draw(space, np.random.default_rng(0)) for s in (HardGroupBlocks(4), GroupBlocks(4)))
    assert sorted(rows[0] for rows, _ in hard) == sorted(rows[0] for rows, _ in plain)


def test_too_few_neighbors_are_filled_from_the_task_and_counted(space, caplog):
    sampler = HardGroupBlocks(4, mining=MiningSpec(last_rank=1))
    with caplog.at_level(logging.INFO, logger="satlight"):
        plans = sampler.draw(space, np.random.default_rng(0))
        sampler.draw(space, np.random.default_rng(1))
    similarity, filled = cosine(space), 0
    for rows, (column,) in plans:
        assert len(rows) == 4  # every task has enough failures
        assert len(set(rows.tolist())) == 4
        assert (space.target_RC[rows[1:], column] == 0).all()
        assert space.known_RC[rows[1:], column].all()
        allowed = (np.arange(R) != rows[0]) & (np.round(similarity[rows[0]], 5) <= 0.95)
        nearest = int(np.flatnonzero(allowed)[np.argmax(similarity[rows[0]][allowed])])
        outside = [row for row in rows[1:] if row != nearest]
        assert {int(task) for task in space.task_R[outside]} <= {int(space.task_R[rows[0]])}
        assert (similarity[rows[0], rows[1:]] <= 0.95 + 1e-5).all()
        filled += len(outside)
    assert len(caplog.records) == 1  # once for one space
    assert caplog.records[0].levelname == "WARNING"
    assert "HardGroupBlocks: mean cosine" in caplog.text
    assert f"{filled} of {3 * len(plans)} filled from the same task" in caplog.text
    assert "increase data.sampler.mining.last_rank or near_duplicate to fill fewer" in caplog.text


def test_mined_negatives_are_harder_than_random_ones_and_the_log_says_how_hard(space, caplog):
    with caplog.at_level(logging.INFO, logger="satlight"):
        plans = HardGroupBlocks(4).draw(space, np.random.default_rng(0))
    similarity = cosine(space)
    mined = np.mean([similarity[rows[0], row] for rows, _ in plans for row in rows[1:]])
    random = GroupBlocks(4).draw(space, np.random.default_rng(0))
    plain = np.mean([similarity[rows[0], row] for rows, _ in random for row in rows[1:]])
    assert mined > plain + 0.1
    assert f"HardGroupBlocks: mean cosine {mined:.3f} (random negatives of the same task 0." in caplog.text


def test_a_positive_among_near_duplicates_alone_forms_no_group():
    space = BlockSpace(
        target_RC=np.array([[1.0], [0.0], [1.0], [0.0]], dtype=np.float32),
        known_RC=np.ones((4, 1), dtype=bool),
        length_R=np.ones(4, dtype=np.int64),
        task_R=np.array([0, 0, 1, 1]),
        vector_RD=np.array([[1.0, 0.0], [1.0, 0.001], [0.0, 1.0], [0.9, 1.0]]),
    )
    plans = HardGroupBlocks(2, mining=MiningSpec(last_rank=1)).draw(space, np.random.default_rng(0))
    # row 0: its task holds a copy alone, and its one neighbor (row 3) is of another task, which is fine
    assert sorted(lists(plans)) == [([0, 3], [0]), ([2, 3], [0])]
    alone = replace(space, target_RC=np.array([[1.0], [0.0], [1.0], [1.0]], dtype=np.float32))
    assert HardGroupBlocks(2).draw(alone, np.random.default_rng(0)) == []


def test_the_margin_keeps_half_right_answers_out(space):
    soft = replace(space, target_RC=np.where(space.target_RC > 0, 0.9, np.tile([0.0, 0.4], (R, C // 2))))
    plans = HardGroupBlocks(3, mining=MiningSpec(margin=0.6)).draw(soft, np.random.default_rng(0))
    assert {float(soft.target_RC[row, columns[0]]) for rows, columns in plans for row in rows[1:]} == {0.0}
    assert {int(columns[0]) % 2 for _, columns in plans} == {0}  # 0.9 - 0.4 is too little
    loose = HardGroupBlocks(3, mining=MiningSpec(margin=0.4)).draw(soft, np.random.default_rng(0))
    assert {float(soft.target_RC[row, columns[0]]) for rows, columns in loose for row in rows[1:]} == {0.0, 0.4}


def test_the_first_ranks_are_passed_over(space):
    similarity = cosine(space)
    everybody_fails = replace(space, target_RC=np.zeros((R, C), dtype=np.float32), known_RC=np.ones((R, C), dtype=bool))
    everybody_fails.target_RC[5] = 1.0
    (plan,) = HardGroupBlocks(3, mining=MiningSpec(1.0, first_rank=2)).draw(everybody_fails, np.random.default_rng(0))
    order = [row for row in np.argsort(-similarity[5], kind="stable").tolist() if row != 5]
    assert plan[0].tolist() == [5, *order[2:4]]


# -- neighborhoods ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 8, R, R + 5])
def test_every_instruction_stands_in_exactly_one_block_of_a_pass(size, space):
    plans = HardNegativeBlocks(size).draw(space, np.random.default_rng(0))
    assert sorted(np.concatenate([rows for rows, _ in plans]).tolist()) == list(range(R))
    assert [len(rows) for rows, _ in plans[:-1]] == [size] * (len(plans) - 1)
    assert all(columns.tolist() == list(range(C)) for _, columns in plans)


def test_the_first_block_holds_the_nearest_instructions_with_another_outcome(space):
    similarity = cosine(space)
    rows, columns = HardNegativeBlocks(8, candidates=1, mining=MiningSpec(1.0)).draw(space, np.random.default_rng(0))[0]
    anchor, column = rows[0], columns[0]
    assert space.known_RC[anchor, column]  # else the example would show nothing
    other = space.known_RC[:, column] & (space.target_RC[:, column] != space.target_RC[anchor, column])
    order = [row for row in np.argsort(-similarity[anchor], kind="stable").tolist() if other[row]]
    assert rows[1:].tolist() == order[:7]


def test_neighbors_without_a_differing_outcome_are_filling(space, caplog):
    same = replace(space, target_RC=np.ones((R, C), dtype=np.float32))
    with caplog.at_level(logging.INFO, logger="satlight"):
        plans = HardNegativeBlocks(8).draw(same, np.random.default_rng(0))
    assert len(plans) == -(-R // 8)
    count = R - len(plans)
    assert f"{count} of {count} filled from the same task (100.0%)" in caplog.text
    rows = plans[0][0]  # while rows are free, filling is of the anchor's task
    assert len(set(space.task_R[rows].tolist())) == 1


def test_blocks_hold_nearer_instructions_than_random_ones_of_their_task(space, caplog):
    with caplog.at_level(logging.INFO, logger="satlight"):
        plans = HardNegativeBlocks(8).draw(space, np.random.default_rng(0))
    similarity = cosine(space)
    mined = np.mean([similarity[rows[0], row] for rows, _ in plans for row in rows[1:]])
    message = caplog.records[0].getMessage()
    assert message.startswith(f"HardNegativeBlocks: mean cosine {mined:.3f} (random")


def test_an_empty_space_has_no_blocks(space):
    nothing = space.subset(np.array([], dtype=np.int64))
    assert HardNegativeBlocks(8).draw(nothing, np.random.default_rng(0)) == []
    assert HardNegativeBlocks(8).count(nothing) == 0


def test_a_subset_takes_its_vectors_along(space):
    keep = np.flatnonzero(space.task_R == 1)
    part = space.subset(keep)
    assert (part.vector_RD == space.vector_RD[keep]).all()
    plans = HardNegativeBlocks(8).draw(part, np.random.default_rng(0))
    assert sorted(np.concatenate([rows for rows, _ in plans]).tolist()) == list(range(len(keep)))


# -- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"near_duplicate": 0.0}, r"near_duplicate is 0\.0; it must lie in \(0, 1\]"),
        ({"near_duplicate": 1.1}, r"near_duplicate is 1\.1"),
        ({"margin": -0.1}, r"margin is -0\.1; it must lie in \[0, 1\]"),
        ({"first_rank": -1}, "first_rank is -1; it must be 0 or more"),
        ({"first_rank": 9, "last_rank": 9}, "last_rank is 9; it must be above first_rank = 9"),
    ],
)
def test_numbers_out_of_range_are_named(spec, message):
    with pytest.raises(SatlightError, match=rf"data\.sampler\.mining\.{message}"):
        MiningSpec(**spec)


def test_sizes_out_of_range_are_named():
    with pytest.raises(SatlightError, match=r"HardGroupBlocks\.size is 1"):
        HardGroupBlocks(1)
    with pytest.raises(SatlightError, match=r"HardNegativeBlocks\.instructions is 0"):
        HardNegativeBlocks(0)


def test_no_group_at_all_is_an_error(space):
    with pytest.raises(SatlightError, match="HardGroupBlocks found no group"):
        HardGroupBlocks(4).count(replace(space, target_RC=np.ones((R, C), dtype=np.float32)))
