"""The simulated multimodal zoo: only its images show what an answer takes."""

import numpy as np
import pytest

from satlight.cli import main
from satlight.errors import SatlightError
from satlight.images import content_keys, read_image
from satlight.records import PerformanceRecords, open_records, split_records
from satlight.records.simulated import SimulatedMultimodalZoo, SimulatedZoo, bayes_optimal, best_without_images
from satlight.records.simulated.drawings import STYLES
from satlight.records.sources import SimulatedSpec


@pytest.fixture(scope="module")
def zoo() -> PerformanceRecords:
    return SimulatedMultimodalZoo(num_instructions=1200, num_candidates=12).generate()


def test_texts_say_nothing_about_the_style(zoo):
    styles = {}
    for text, task, images in zip(zoo.texts, zoo.tasks.tolist(), zoo.images, strict=True):
        if images:
            styles.setdefault(text, set()).add(task.partition("_")[2])
    assert len(styles) == 12
    assert all(found == set(STYLES) for found in styles.values())


def test_image_counts_and_text_tasks(zoo):
    counts = np.array([len(images) for images in zoo.images])
    assert set(counts.tolist()) == {0, 1, 2}
    assert 0.7 < (counts > 0).mean() < 0.73
    assert len({task for task, count in zip(zoo.task_keys, counts, strict=True) if count == 0}) == 8


def test_images_are_distinct_and_open(zoo):
    files = [file for images in zoo.images for file in images]
    assert len(set(content_keys(files))) == len(files)
    assert read_image(files[0]).shape == (128, 128, 3)


def test_most_of_the_gap_needs_the_images(zoo):
    """Figures of the documentation: test rows of 3000 instructions, 12 candidates, seed 0."""
    records = SimulatedMultimodalZoo(num_instructions=3000, num_candidates=12).generate()
    test = records.splits == "test"
    single = records.expected[test].mean(axis=0).max()
    blind, bayes = best_without_images(records, test), bayes_optimal(records, test)
    assert round(float(single), 3) == 0.631
    assert round(blind, 3) == 0.677
    assert round(bayes, 3) == 0.850
    assert (blind - single) / (bayes - single) < 0.7 - 0.3


def test_without_images_the_bound_is_the_best_router():
    records = SimulatedZoo(num_instructions=300, num_candidates=4).generate()
    assert best_without_images(records) == pytest.approx(bayes_optimal(records))


def test_harder_drawings_are_answered_less_often(zoo):
    difficulty = zoo.instructions["difficulty"].to_numpy()
    drawn = np.array([bool(images) for images in zoo.images])
    mean = zoo.expected.mean(axis=1)
    assert np.corrcoef(difficulty[drawn], mean[drawn])[0, 1] < -0.8


def test_it_is_deterministic_and_nested(zoo, tmp_path, monkeypatch):
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path))
    small = SimulatedMultimodalZoo(num_instructions=60, num_candidates=5).generate()
    assert small.texts == zoo.texts[:60]
    assert (small.outcomes == zoo.outcomes[:60, :5]).all()
    flat, same = ([file for images in own for file in images] for own in (small.images, zoo.images[:60]))
    assert content_keys(flat) == content_keys(same)


def test_splits_share_no_image(zoo):
    split = split_records(zoo)
    assert not (split == "dropped").any()
    assert 0.2 < (split == "test").mean() < 0.3


def test_open_records_and_describe_know_it(capsys):
    records = open_records("simulated-multimodal", simulated=SimulatedSpec(80, 4))
    assert records.shape == (80, 4)
    assert records.simulated
    with pytest.raises(SatlightError, match="no score column 'correct'"):
        open_records("simulated-multimodal", "correct")
    with pytest.raises(SatlightError, match="SimulatedMultimodalZoo got num_candidates=1"):
        open_records("simulated-multimodal", simulated=SimulatedSpec(80, 1))
    main(["data", "describe", "simulated-multimodal"])
    assert "simulated-multimodal: 4000 instructions" in capsys.readouterr().out
