"""Block samplers: who meets whom, and that nothing is lost or drawn twice."""

import itertools

import numpy as np
import pytest

from satlight.data import GroupBlocks, RandomBlocks, TaskBlocks
from satlight.data.blocks import BlockSpace, bucketed, disagreement_weights, rank_weights
from satlight.errors import SatlightError

R, C, TASKS = 103, 5, 4


def make_space(seed: int = 0) -> BlockSpace:
    rng = np.random.default_rng(seed)
    return BlockSpace(
        target_RC=(rng.random((R, C)) < np.linspace(0.2, 0.8, C)).astype(np.float32),
        known_RC=rng.random((R, C)) < 0.9,
        length_R=rng.integers(5, 400, R),
        task_R=rng.integers(0, TASKS, R),
    )


@pytest.fixture
def space() -> BlockSpace:
    return make_space()


SAMPLERS = [RandomBlocks(8), TaskBlocks(8), RandomBlocks(8, candidates=2), GroupBlocks(4), GroupBlocks(2, 1.0)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_plans_follow_from_the_generator_alone(sampler, space):
    def draw(seed):
        plans = sampler.draw(space, np.random.default_rng(seed))
        return [(rows.tolist(), columns.tolist()) for rows, columns in plans]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(draw(1)) == len(draw(2))  # a pass is always the same number of steps


@pytest.mark.parametrize("sampler", [RandomBlocks(8), TaskBlocks(8)])
def test_every_instruction_stands_in_exactly_one_block_of_a_pass(sampler, space):
    plans = sampler.draw(space, np.random.default_rng(0))
    assert sorted(np.concatenate([rows for rows, _ in plans]).tolist()) == list(range(R))
    assert max(len(rows) for rows, _ in plans) == 8
    assert all(columns.tolist() == list(range(C)) for _, columns in plans)


def test_task_blocks_hold_one_task(space):
    plans = TaskBlocks(8).draw(space, np.random.default_rng(0))
    tasks = [set(space.task_R[rows].tolist()) for rows, _ in plans]
    assert all(len(found) == 1 for found in tasks)
    # the tasks alternate: blocks are shuffled, not one task after the other
    changes = sum(a != b for a, b in itertools.pairwise(tasks))
    assert changes > TASKS
    random = RandomBlocks(8).draw(space, np.random.default_rng(0))
    assert max(len(set(space.task_R[rows].tolist())) for rows, _ in random) == TASKS


def test_a_share_of_the_candidates_is_drawn_for_each_block(space):
    plans = RandomBlocks(8, candidates=2).draw(space, np.random.default_rng(0))
    pairs = [tuple(columns.tolist()) for _, columns in plans]
    assert all(len(pair) == 2 and pair[0] < pair[1] for pair in pairs)
    assert {c for pair in pairs for c in pair} == set(range(C))
    assert RandomBlocks(8, candidates=C + 1).columns(space, np.random.default_rng(0)).tolist() == list(range(C))


def test_blocks_hold_instructions_of_similar_length(space):
    def spread(batches):
        return np.mean([np.ptp(space.length_R[rows]) for rows in batches])

    rng = np.random.default_rng(0)
    order = rng.permutation(R)
    batches = bucketed(order, space.length_R, 8, rng)
    unsorted = [order[i : i + 8] for i in range(0, R, 8)]
    assert spread(batches) < 0.3 * spread(unsorted)
    lengths = [space.length_R[rows].mean() for rows in batches]
    assert lengths != sorted(lengths)


def test_groups_hold_one_positive_and_negatives_of_one_candidate_and_task(space):
    plans = GroupBlocks(4).draw(space, np.random.default_rng(0))
    for rows, columns in plans:
        assert len(columns) == 1
        column = columns[0]
        assert 2 <= len(rows) <= 4
        assert len(set(rows.tolist())) == len(rows)
        assert space.known_RC[rows, column].all()
        assert space.target_RC[rows, column].tolist() == [1.0] + [0.0] * (len(rows) - 1)
        assert len(set(space.task_R[rows].tolist())) == 1
    positives = [rows[0] for rows, _ in plans]
    assert len(positives) == len(set(positives))  # each instruction is the positive once at most
    assert {len(rows) for rows, _ in plans} == {4}


def test_every_instruction_that_can_be_a_positive_is_one(space):
    possible = []
    for row in range(R):
        same = space.task_R == space.task_R[row]
        for c in range(C):
            solves = space.known_RC[row, c] and space.target_RC[row, c] == 1
            if solves and (same & space.known_RC[:, c] & (space.target_RC[:, c] == 0)).any():
                possible.append(row)
                break
    plans = GroupBlocks(4).draw(space, np.random.default_rng(3))
    assert sorted(rows[0] for rows, _ in plans) == possible


def test_groups_are_smaller_where_negatives_are_few():
    space = BlockSpace(
        target_RC=np.array([[1.0], [1.0], [0.0], [1.0]], dtype=np.float32),
        known_RC=np.ones((4, 1), dtype=bool),
        length_R=np.ones(4, dtype=np.int64),
        task_R=np.array([0, 0, 0, 1]),
    )
    plans = GroupBlocks(4).draw(space, np.random.default_rng(0))
    assert sorted(rows.tolist() for rows, _ in plans) == [[0, 2], [1, 2]]  # row 3 has no negative in its task


def test_rank_weight_prefers_better_candidates(space):
    def share_of_best(weight):
        sampler = GroupBlocks(2, rank_weight=weight)
        columns = [
            int(columns[0]) for seed in range(10) for _, columns in sampler.draw(space, np.random.default_rng(seed))
        ]
        return columns.count(C - 1) / len(columns)  # the last candidate solves most

    assert share_of_best(4.0) > share_of_best(1.0) > share_of_best(0.0)


def test_rank_weights_by_hand():
    target = np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0]])
    known = np.array([[True, True, True, True], [True, True, False, True]])
    # means 1, 0, 1 (one known), 0.5 → ranks 0, 3, 1, 2 of 4 → 1, 1/4, 3/4, 1/2, mean 5/8
    expected = np.array([1.0, 0.25, 0.75, 0.5]) / 0.625
    assert rank_weights(target, known, 1.0) == pytest.approx(expected)
    assert rank_weights(target, known, 0.0) == pytest.approx(np.ones(4))


def test_disagreement_weights_by_hand():
    target = np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    known = np.array([[True] * 4, [True] * 4, [True] * 3 + [False]])
    raw = np.array([0.1 + 1.0, 0.1 + 0.75, 0.1]) ** 2
    assert disagreement_weights(target, known, 2.0) == pytest.approx(raw / raw.mean())
    assert disagreement_weights(target, known, 0.0) == pytest.approx(np.ones(3))


def test_subset_counts_rows_within_itself(space):
    keep = np.flatnonzero(space.task_R == 2)
    part = space.subset(keep)
    rows = np.concatenate([rows for rows, _ in RandomBlocks(8).draw(part, np.random.default_rng(0))])
    assert sorted(rows.tolist()) == list(range(len(keep)))
    assert (part.target_RC == space.target_RC[keep]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomBlocks(0), r"RandomBlocks\.instructions is 0"),
        (lambda: TaskBlocks(candidates=0), r"TaskBlocks\.candidates is 0"),
        (lambda: GroupBlocks(1), r"GroupBlocks\.size is 1"),
    ],
)
def test_sizes_out_of_range_are_named(make, message):
    with pytest.raises(SatlightError, match=message):
        make()


def test_no_group_at_all_is_an_error(space):
    everybody_right = BlockSpace(np.ones((R, C)), space.known_RC, space.length_R, space.task_R)
    with pytest.raises(SatlightError, match="GroupBlocks found no group"):
        GroupBlocks(4).draw(everybody_right, np.random.default_rng(0))
