"""GGUF files: converted once, checked, read like any backbone."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from satlight.backbones import weights
from satlight.backbones.loading import Tokenizer, convert_gguf, load_causal_lm, load_encoder, safetensors_folder
from satlight.backbones.store import Manifest
from satlight.cli import weights as weights_commands
from satlight.errors import SatlightError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SATLIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def states(model: nn.Module, tokenizer: Tokenizer) -> Tensor:
    """Last hidden states of TEXTS, padding set to zero."""
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"]
    with torch.no_grad():
        embedded = model.eval().get_input_embeddings()(inputs["input_ids"])
        return model(inputs_embeds=embedded, attention_mask=mask).last_hidden_state * mask[..., None]


TEXTS = ["Predict whether the model can handle it.", "Yes"]


def write_gguf(path: Path) -> np.ndarray:
    """A two-layer llama with a ten-token vocabulary; returns its embedding matrix."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(10)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<unk>", "<s>", "</s>", "Y", "e", "s", "N", "o", "Ye", "Yes"])
    writer.add_token_types([3, 3, 3, 1, 1, 1, 1, 1, 1, 1])
    writer.add_token_merges(["Y e", "Ye s"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    embeddings = random.standard_normal((10, 32)).astype(np.float32)
    writer.add_tensor("token_embd.weight", embeddings)
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    matrices = {"attn_q": (32, 32), "attn_k": (32, 32), "attn_v": (32, 32), "attn_output": (32, 32)}
    matrices |= {"ffn_gate": (64, 32), "ffn_up": (64, 32), "ffn_down": (32, 64)}
    for layer in range(2):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", np.ones(32, np.float32))
        for name, shape in matrices.items():
            writer.add_tensor(f"blk.{layer}.{name}.weight", random.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return embeddings


def test_gguf_is_converted_once_and_kept(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = write_gguf(tmp_path / "small.gguf")
    decoder, rows, tokenizer = load_causal_lm(str(tmp_path / "small.gguf"), num_layers=1)
    assert torch.equal(rows(range(10)), torch.from_numpy(embeddings))
    assert decoder.config.num_hidden_layers == 1
    assert not hasattr(decoder.config, "quantization_config")
    assert tokenizer("Yes")["input_ids"] == [9]
    assert tokenizer.pad_token == "</s>"
    folder = safetensors_folder(str(tmp_path / "small.gguf"))
    assert folder.is_relative_to(cache)
    assert Manifest.read(folder).damaged(folder) == []  # type: ignore[union-attr]
    monkeypatch.setattr("satlight.backbones.loading.convert_gguf", None)  # calling it again would fail
    assert safetensors_folder(str(tmp_path / "small.gguf")) == folder


def test_weights_fetch_converts_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_gguf(tmp_path / "small.gguf")
    weights_commands.fetch(argparse.Namespace(names=[str(tmp_path / "small.gguf")], accept_terms=False))
    ready = capsys.readouterr().err.rsplit("ready in ", 1)[1].strip()
    assert (Path(ready) / "model.safetensors").is_file()


def test_gguf_in_the_cache_is_converted_beside_itself(cache: Path) -> None:
    folder = cache / "weights" / "a-1" / "small.gguf"
    folder.mkdir(parents=True)
    write_gguf(folder / "small.gguf")
    assert safetensors_folder(str(folder / "small.gguf")) == folder / "safetensors"
    assert weights.manifests().keys() == {folder / "safetensors"}


def test_a_broken_gguf_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(SatlightError, match="cannot be read as a GGUF causal LM"):
        convert_gguf(tmp_path / "broken.gguf", tmp_path / "out")
    with pytest.raises(SatlightError, match=r"broken\.gguf"):
        load_causal_lm(str(tmp_path / "broken.gguf"))
    assert not list(cache.rglob("*.safetensors"))


# Messages


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"num_layers": 3}, r"num_layers is 3, the model has 2 layers; allowed: 0 to 2"),
        ({"num_layers": -1}, r"num_layers is -1.*allowed: 0 to 2"),
        ({"dtype": "fp8"}, r"dtype 'fp8' is unknown; allowed: float32"),
        ({"dropout": 1.0}, r"dropout 1.0 is outside \[0, 1\)"),
    ],
)
def test_arguments_out_of_range(arguments: dict, says: str) -> None:
    with pytest.raises(SatlightError, match=says):
        load_encoder("tiny:bert", **arguments)


def test_unknown_tiny_model() -> None:
    with pytest.raises(SatlightError, match="allowed tiny models: tiny:bert, tiny:llama"):
        load_encoder("tiny:gpt")


def test_a_folder_without_model(tmp_path: Path) -> None:
    with pytest.raises(SatlightError, match=r"no readable config\.json and tokenizer"):
        load_encoder(str(tmp_path))


def test_pickled_weights_are_not_loaded(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    (tmp_path / "llama" / "model.safetensors").unlink()
    torch.save({}, tmp_path / "llama" / "pytorch_model.bin")
    with pytest.raises(SatlightError, match="Pickled weights"):
        load_causal_lm(str(tmp_path / "llama"))


def test_truncated_weights(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    file = tmp_path / "llama" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(SatlightError, match=r"no readable \*\.safetensors"):
        load_causal_lm(str(tmp_path / "llama"))


@pytest.mark.parametrize("damage", ["shape", "missing"])
def test_weights_of_another_shape(save_llama: Callable, tmp_path: Path, damage: str) -> None:
    save_llama(tmp_path / "llama")
    path = tmp_path / "llama" / "config.json"
    change = {"intermediate_size": 48} if damage == "shape" else {"num_hidden_layers": 4}
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(SatlightError, match=r"do not fit its config\.json.*layers"):
        load_causal_lm(str(tmp_path / "llama"))
