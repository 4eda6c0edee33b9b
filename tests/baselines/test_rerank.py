"""Re-ranking: the best-looking output wins, and every part must be there."""

import numpy as np
import polars as pl
import pytest

from satlight.backbones.cross_encoder import load_cross_encoder
from satlight.baselines import build
from satlight.baselines.rerank import Rerank
from satlight.errors import SatlightError
from satlight.records.outputs import CandidateOutputs

ANSWERS = {"adds": "The sum", "sorts": "A sorted list", "weak": "No"}


@pytest.fixture
def outputs(new_texts):
    """ "adds" talks of sums, "sorts" of lists, whatever it is asked."""
    rows = [(text, name, answer) for text in new_texts for name, answer in ANSWERS.items()]
    return CandidateOutputs(pl.DataFrame(rows, ["instruction", "model_id", "output"], orient="row"))


def shared_words(pairs):
    """A judge that likes outputs which repeat the instruction's words."""
    return np.array([sum(word in output.split() for word in text.split()) for text, output in pairs])


def test_the_output_that_the_judge_likes_wins(two_topics, new_texts, outputs):
    router = Rerank(shared_words, outputs).fit(two_topics)
    score = router.predict(new_texts, ["weak", "sorts", "adds"])
    assert (score.dtype, score.shape) == (np.float32, (3, 3))
    assert score.argmax(axis=1).tolist() == [2, 1, 2]  # "sum", "list", "sum"


def test_a_cross_encoder_judges_pairs_of_instruction_and_output(two_topics, new_texts, outputs):
    judge = load_cross_encoder("tiny:bert")
    score = build("rerank", score_pairs=judge, outputs=outputs).fit(two_topics).predict(new_texts, list(ANSWERS))
    expected = judge([(text, answer) for text in new_texts for answer in ANSWERS.values()])
    assert np.array_equal(score, expected.reshape(3, 3))


def test_what_is_missing_is_said(two_topics, new_texts, outputs, records_folder):
    with pytest.raises(SatlightError, match=r"has no outputs\.parquet"):
        Rerank(shared_words, records_folder)
    for parts in ({}, {"score_pairs": shared_words}, {"outputs": outputs}):
        with pytest.raises(SatlightError, match="Rerank judges what candidates answered"):
            Rerank(**parts).fit(two_topics)
    router = Rerank(shared_words, outputs).fit(two_topics)
    with pytest.raises(SatlightError, match="'other', which it was not fitted on"):
        router.predict(new_texts, ["adds", "other"])
    with pytest.raises(SatlightError, match="1 of 1 outputs are missing"):
        router.predict(["never asked"], ["adds"])
    with pytest.raises(SatlightError, match="2 test rows"):
        Rerank(shared_words, outputs).fit(two_topics.with_splits(["test"] * 2 + ["train"] * 78))
    with pytest.raises(SatlightError, match=r"gave \(9,\) for 9 pairs, or scores that are not finite"):
        Rerank(lambda pairs: np.full(len(pairs), np.nan), outputs).fit(two_topics).predict(new_texts, list(ANSWERS))
