"""Hard negatives in training: what is embedded when, and that a resumed run mines the same."""

import logging

import numpy as np
import pytest
import torch

from satlight.callbacks import HardNegatives
from satlight.callbacks.hard_negatives import tfidf_vectors
from satlight.data import HardGroupBlocks, HardNegativeBlocks, MiningSpec
from satlight.errors import SatlightError
from satlight.modules import CapabilityEncoder, ModelSAT, OptimizerSpec, RouterLLM

MINING = MiningSpec(near_duplicate=0.9999, last_rank=20)  # a random encoder finds everything alike


def hard(**options) -> dict:
    return {"data": {"sampler": HardNegativeBlocks(8, candidates=3, mining=MINING), **options}}


class Reads(HardNegatives):
    """Remembers the vectors that it handed over, with their epoch."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[tuple[int, np.ndarray]] = []

    def refresh(self, trainer, pl_module) -> None:
        super().refresh(trainer, pl_module)
        self.seen.append((trainer.current_epoch, trainer.datamodule.instruction_vectors))


def module(trainable: bool = True) -> ModelSAT:
    return ModelSAT(
        RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert", trainable=trainable), optimizer=OptimizerSpec(lr=1e-2)
    )


@pytest.fixture(scope="module")
def whole(make_run):
    reads = Reads(every_n_epochs=1)
    return make_run(callbacks=[reads], **hard()).fit(), reads


def test_the_encoder_reads_before_the_first_epoch_and_again_when_asked(whole):
    run, reads = whole
    assert [epoch for epoch, _ in reads.seen] == [0, 1, 2]
    vectors = [vector_RD for _, vector_RD in reads.seen]
    assert all(vector_RD.shape == (len(run.data.training_texts), 32) for vector_RD in vectors)
    assert np.linalg.norm(vectors[0].astype(np.float32), axis=1) == pytest.approx(1.0, abs=1e-2)
    assert (vectors[0] == vectors[1]).all()  # stage 1 does not move the encoder
    assert np.abs(vectors[1] - vectors[2]).max() > 1e-3  # stage 2 does
    assert run.data.instruction_vectors is vectors[2]


def test_vectors_stand_in_the_order_of_the_training_rows(make_run):
    reads = Reads(batch_size=7)
    run = make_run(module=module(trainable=False), callbacks=[reads], max_epochs=1, **hard()).fit()
    encoder = run.module.encoder.eval()
    view = run.data.train_view()
    assert run.data.training_texts == view.records.texts
    for row in (0, 5, len(view.records.texts) - 1):
        with torch.no_grad():
            expected = torch.nn.functional.normalize(encoder.embed([view.records.texts[row]]), dim=-1)[0]
        assert reads.seen[0][1][row] == pytest.approx(expected.numpy(), abs=2e-3)


@pytest.mark.parametrize(("kill_after", "save_every"), [(5, 3), (17, 3), (24, None)])
def test_a_resumed_run_mines_the_same(make_run, whole, tmp_path, kill_after, save_every):
    killed = make_run(tmp_path, kill_after=kill_after, save_every=save_every, callbacks=[HardNegatives(1)], **hard())
    with pytest.raises(RuntimeError):
        killed.fit()
    resumed = make_run(tmp_path, callbacks=[HardNegatives(1)], **hard()).fit(tmp_path / "last.ckpt")
    run, _ = whole
    every = save_every or 10
    assert resumed.watch.steps == run.watch.steps[(kill_after - 1) // every * every :]
    for name, weight in resumed.weights().items():
        assert torch.allclose(weight, run.weights()[name], atol=1e-6, rtol=0), name


def test_without_refresh_a_resumed_run_keeps_the_vectors_of_the_start(make_run, tmp_path):
    # The encoder changes in stage 2; embedding again on resume would mine other negatives.
    killed = make_run(tmp_path, kill_after=17, callbacks=[Reads()], **hard())
    with pytest.raises(RuntimeError):
        killed.fit()
    reads = Reads()
    resumed = make_run(tmp_path, callbacks=[reads], **hard()).fit(tmp_path / "last.ckpt")
    assert reads.seen == []
    assert (resumed.data.instruction_vectors == killed.data.instruction_vectors).all()


def test_other_instructions_are_embedded_again(make_run, tmp_path):
    killed = make_run(tmp_path, kill_after=5, callbacks=[Reads()], **hard())
    with pytest.raises(RuntimeError):
        killed.fit()
    reads = Reads()
    make_run(tmp_path, callbacks=[reads], **hard(seed=1)).fit(tmp_path / "last.ckpt")
    assert [epoch for epoch, _ in reads.seen] == [0]


def test_blocks_are_mined_from_what_the_encoder_read(make_run):
    run = make_run(callbacks=[HardNegatives()], max_epochs=1, connector_epochs=0, **hard()).fit()
    space, sampler = run.data._stream.space(), run.data.sampler
    assert space.vector_RD is run.data.instruction_vectors
    plans = sampler.draw(space, np.random.default_rng([0, 0, 0]))
    texts = run.data.training_texts
    assert [seen for _, seen, _ in run.watch.steps] == [[texts[r] for r in rows] for rows, _ in plans[:10]]


def test_a_frozen_encoder_is_read_once(make_run):
    reads = Reads(every_n_epochs=1)
    make_run(module=module(trainable=False), callbacks=[reads], **hard()).fit()
    assert [epoch for epoch, _ in reads.seen] == [0]


def test_reading_leaves_the_encoder_and_the_random_state_as_they_were(make_run):
    run = make_run(callbacks=[HardNegatives()], max_epochs=1, **hard()).fit()
    run.trainer.datamodule = run.data
    run.module.train()
    before = torch.random.get_rng_state()
    HardNegatives().refresh(run.trainer, run.module)
    assert run.module.encoder.training
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_router_without_encoder_says_what_to_do_and_does_it(make_run):
    alone = ModelSAT(RouterLLM("tiny:llama"), optimizer=OptimizerSpec(lr=1e-2))
    with pytest.raises(SatlightError, match=r"ModelSAT has no capability encoder; set vectors: tfidf"):
        make_run(module=alone, callbacks=[HardNegatives()], max_epochs=1, **hard()).fit()
    reads = Reads(vectors="tfidf", every_n_epochs=1)
    run = make_run(module=alone, callbacks=[reads], max_epochs=2, **hard(blocks_per_epoch=2)).fit()
    assert [epoch for epoch, _ in reads.seen] == [0]
    assert (run.data.instruction_vectors == tfidf_vectors(run.data.training_texts).astype(np.float16)).all()


def test_the_two_tower_router_reads_with_itself(make_run):
    encoder = CapabilityEncoder("tiny:bert", optimizer=OptimizerSpec(lr=1e-3))
    reads = Reads()
    make_run(module=encoder, callbacks=[reads], max_epochs=1, connector_epochs=0, **hard(blocks_per_epoch=2)).fit()
    assert reads.seen[0][1].shape[1] == 32


def test_groups_train_on_mined_negatives_too(make_run):
    sampler = HardGroupBlocks(4, mining=MINING)
    run = make_run(callbacks=[HardNegatives()], max_epochs=1, data={"sampler": sampler}).fit()
    assert {len(texts) for _, texts, _ in run.watch.steps} == {4}


def test_a_sampler_that_asks_for_no_vectors_is_pointed_out(make_run, caplog):
    with caplog.at_level(logging.WARNING, logger="satlight"):
        run = make_run(callbacks=[HardNegatives()], max_epochs=1, data={"blocks_per_epoch": 2}).fit()
    assert "HardNegatives has no effect: data.sampler RandomBlocks" in caplog.text
    assert run.data.instruction_vectors is None


def test_a_sampler_that_gets_no_vectors_says_what_to_add(make_run):
    with pytest.raises(SatlightError, match=r"HardNegativeBlocks needs a vector .*HardNegatives"):
        make_run(max_epochs=1, **hard()).fit()


def test_vectors_of_another_length_are_refused(make_run):
    run = make_run(max_epochs=1, **hard())
    run.data.instruction_vectors = np.ones((3, 2))
    with pytest.raises(SatlightError, match=r"has 3 rows, but there are \d+ training instructions"):
        run.fit()


@pytest.mark.parametrize(("name", "value"), [("every_n_epochs", 0), ("batch_size", 0)])
def test_numbers_out_of_range_are_named(name, value):
    with pytest.raises(SatlightError, match=rf"HardNegatives\.{name} is 0"):
        HardNegatives(**{name: value})


def test_tfidf_vectors_need_text_in_common():
    assert tfidf_vectors(["add 2", "add 3", "take 4", "take 5"]).shape == (4, 3)
    with pytest.raises(SatlightError, match="no n-gram occurs in two of the 2 training instructions"):
        tfidf_vectors(["abc", "xyz"])


def test_a_frozen_encoder_reads_instructions_by_way_of_its_store(monkeypatch):
    from types import SimpleNamespace

    from satlight.callbacks import HardNegatives
    from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM

    texts, read = ["Add 2 and 3.", "Name a river."], []
    for trainable in (False, True):
        encoder = CapabilityEncoder("tiny:bert", trainable=trainable)
        module = ModelSAT(RouterLLM("tiny:llama"), encoder)
        whole = encoder.read_instructions
        monkeypatch.setattr(encoder, "read_instructions", lambda b, whole=whole: read.append(b) or whole(b))
        data = SimpleNamespace(training_texts=texts)
        HardNegatives().refresh(SimpleNamespace(datamodule=data, current_epoch=0), module)
        assert data.instruction_vectors.shape == (2, encoder.output_size)
        assert len(encoder._cache) == (0 if trainable else 2)
    assert read == [texts] or read == [texts[::-1]]
