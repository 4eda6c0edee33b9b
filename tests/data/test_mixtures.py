"""Mixed candidates: results and outcomes of a mixture come from the same candidate, task by task."""

import numpy as np
import pytest

from satlight.data import AptitudeSpec, GroupBlocks, HardGroupBlocks, HardNegativeBlocks, RandomBlocks
from satlight.data.mixtures import Mixtures
from satlight.errors import SatlightError
from satlight.types import Capability, Result, task_key

KINDS = np.array(["law", "maths", "law", "other"])


def capability(name: str, strength: float, *kinds: str) -> Capability:
    """Results whose tasks name their owner, and a note."""
    results = tuple(Result(f"{name} {kind}", kind, 0.5, 20, strength) for kind in kinds)
    return Capability(results, (f"{name} speaks French.",))


def tasks(mixed: Capability) -> tuple[str, ...]:
    assert not mixed.notes
    return tuple(result.task for result in mixed.results)


def test_a_mixture_takes_each_kind_from_the_column_or_one_partner():
    mixtures = Mixtures(np.array([f"kind {k}" for k in range(40)]), num_candidates=5, share=1.0)
    source_CK = mixtures.draw(np.arange(5), np.random.default_rng(0))
    assert source_CK.shape == (5, 40)
    for column, source_K in enumerate(source_CK):
        owners = set(source_K.tolist())
        assert column in owners
        assert len(owners) == 2
        assert 0.2 < (source_K == column).mean() < 0.8


def test_share_says_how_many_columns_are_mixed():
    mixtures = Mixtures(np.array([f"kind {k}" for k in range(40)]), num_candidates=7, share=0.25)
    source_CK = mixtures.draw(np.tile(np.arange(7), 300), np.random.default_rng(0))
    mixed_C = (source_CK != source_CK[:, :1]).any(axis=1)
    assert mixed_C.mean() == pytest.approx(0.25, abs=0.03)


def test_the_capability_of_a_mixture_has_the_results_of_its_sources_and_no_notes():
    mixtures = Mixtures(KINDS, num_candidates=2, share=1.0)
    pair = [capability("a", 1.0, "law", "maths", "chess"), capability("b", -1.0, "law", "maths", "chess")]
    law, maths, other = (sorted(set(KINDS)).index(kind) for kind in ("law", "maths", "other"))
    source_K = np.zeros(3, dtype=np.int64)
    source_K[[law, maths, other]] = 0, 1, 1
    # No instruction is about chess.
    assert tasks(mixtures.capability(pair, source_K)) == ("a chess", "a law", "b maths")
    assert mixtures.capability(pair, np.ones(3, dtype=np.int64)) is pair[1]  # as it is, with its note


def test_a_result_that_its_source_lacks_is_left_out():
    mixtures = Mixtures(KINDS, num_candidates=2, share=1.0)
    pair = [capability("a", 1.0, "law"), capability("b", -1.0, "law", "maths")]
    law, maths = (sorted(set(KINDS)).index(kind) for kind in ("law", "maths"))
    source_K = np.ones(3, dtype=np.int64)
    source_K[[law, maths]] = 1, 0
    assert tasks(mixtures.capability(pair, source_K)) == ("b law",)


def test_a_column_whose_mixture_would_know_nothing_stays_as_it_is():
    mixtures = Mixtures(np.array(["law", "maths"]), num_candidates=2, share=1.0)
    pair = [Capability(capability(*args).results) for args in (("a", 1.0, "law"), ("b", -1.0, "maths"))]
    emptied = 0
    for seed in range(40):
        drawn_CK = mixtures.draw(np.array([0, 1]), np.random.default_rng(seed))
        capabilities, source_CK = mixtures.mix(pair, np.array([0, 1]), np.random.default_rng(seed))
        for column in (0, 1):
            if drawn_CK[column].tolist() == [1, 0]:  # b knows no law, a no maths
                assert capabilities[column] == pair[column]
                assert source_CK[column].tolist() == [column, column]
                emptied += 1
            else:
                assert capabilities[column].results
                assert source_CK[column].tolist() == drawn_CK[column].tolist()
    assert emptied > 5


@pytest.mark.parametrize(("number", "share"), [(1, 0.5), (3, 0.0), (3, 1.5), (3, -0.1)])
def test_too_few_candidates_or_a_wrong_share_is_refused(number, share):
    with pytest.raises(SatlightError, match=r"data\.aptitude\.mixtures"):
        Mixtures(KINDS, number, share)


def test_targets_of_training_blocks_are_those_of_the_candidate_whose_result_is_told(make):
    data = make(aptitude=AptitudeSpec(num_shots=6, min_shots=3, mixtures=1.0), sampler=RandomBlocks(8))
    data.setup("fit")
    view = data.train_view()
    kinds = {task_key(task.dataset, task.name): task.keywords for task in data.aptitude.tasks}
    keys = view.records.task_keys.tolist()
    owners: dict[Result, list[int]] = {}
    for column, own in enumerate(view.capabilities):
        for result in own.results:
            owners.setdefault(result, []).append(column)
    checked = foreign = 0
    for block in data.train_dataloader():
        for c, mixed in enumerate(block.capabilities):
            told = {result.keywords: owners[result] for result in mixed.results}
            for b, row in enumerate(block.rows.tolist()):
                sources = told.get(kinds.get(keys[row], ""), [])
                if len(sources) == 1:  # no other candidate has this very result
                    assert block.target_BC[b, c] == view.targets[row, sources[0]]
                    assert block.known_BC[b, c] == view.records.known[row, sources[0]]
                    checked += 1
                    foreign += sources[0] != block.columns[c]
    assert checked > 20
    assert foreign > 5


def test_mixtures_of_resampled_results_vary_by_block(make):
    spec = AptitudeSpec(num_shots=6, min_shots=3, mixtures=1.0, resample=True)
    data = make(aptitude=spec, sampler=RandomBlocks(8))
    data.setup("fit")
    strengths = {
        (result.keywords, result.strength)
        for block in data.train_dataloader()
        for mixed in block.capabilities
        for result in mixed.results
    }
    real = {(r.keywords, r.strength) for own in data.capabilities(data.seen) for r in own.results}
    assert strengths - real


@pytest.mark.parametrize("sampler", [GroupBlocks(4), HardGroupBlocks(4), HardNegativeBlocks(8)])
def test_samplers_that_choose_by_outcomes_do_not_go_with_mixtures(make, sampler):
    data = make(aptitude=AptitudeSpec(num_shots=6, min_shots=3, mixtures=0.5), sampler=sampler)
    data.setup("fit")
    with pytest.raises(SatlightError, match=rf"{type(sampler).__name__} chooses blocks by the outcomes"):
        data.train_dataloader()


def test_blocks_with_mixtures_repeat_and_evaluation_has_none(make):
    data = make(aptitude=AptitudeSpec(num_shots=6, min_shots=3, mixtures=0.5), sampler=RandomBlocks(8))
    data.setup("fit")
    first = [(block.capabilities, block.target_BC.tolist()) for block in data.train_dataloader()]
    assert [(block.capabilities, block.target_BC.tolist()) for block in data.train_dataloader()] == first
    real = set(data.capabilities(data.seen))
    assert {c for capabilities, _ in first for c in capabilities} - real
    assert {c for block in data.val_dataloader() for c in block.capabilities} == real
