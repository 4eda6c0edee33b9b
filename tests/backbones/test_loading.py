"""Backbones: train mode, dtype, first K layers, LoRA, saving and reading back, conventions, GGUF, errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCausalLM, Phi3Config, RobertaConfig

from satlight.backbones.conventions import EncoderConvention, read_convention, write_convention
from satlight.backbones.loading import (
    LoraSpec,
    Tokenizer,
    load_causal_lm,
    load_encoder,
    save_causal_lm,
    save_encoder,
    yes_no_token_ids,
)
from satlight.backbones.lora import merged_state_dict
from satlight.backbones.text_encoder import TextEncoder
from satlight.errors import SatlightError

TEXTS = ["Predict whether the model can handle it.", "Yes"]


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


# Loading


@pytest.mark.parametrize("name", ["tiny:bert", "tiny:llama"])
def test_tiny_models_are_the_same_everywhere_and_leave_the_generator_alone(name: str) -> None:
    load = load_encoder if name == "tiny:bert" else load_causal_lm
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, second = load(name), load(name)
    assert torch.equal(torch.rand(3), expected)
    for a, b in zip(first[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(a, b)


def test_pretrained_false_draws_new_weights() -> None:
    torch.manual_seed(0)
    first = load_encoder("tiny:bert", pretrained=False)[0]
    second = load_encoder("tiny:bert", pretrained=False)[0]
    assert not torch.equal(next(first.parameters()), next(second.parameters()))


def test_pretrained_false_uses_the_architecture_of_the_files(tmp_path: Path) -> None:
    encoder, tokenizer, convention = load_encoder("tiny:bert", num_layers=1)
    save_encoder(tmp_path / "saved", encoder, tokenizer, convention)
    torch.manual_seed(1)
    fresh = load_encoder(str(tmp_path / "saved"), pretrained=False)[0]
    assert len(fresh.encoder.layer) == 1
    assert not torch.equal(next(fresh.parameters()), next(encoder.parameters()))


def test_everything_is_in_train_mode(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    for model in (load_encoder("tiny:bert")[0], load_causal_lm(str(tmp_path / "llama"), lora=LoraSpec())[0]):
        assert all(module.training for module in model.modules())


def test_dropout_reaches_every_layer() -> None:
    off = load_encoder("tiny:bert")[0]
    on = load_encoder("tiny:bert", dropout=0.3)[0]
    assert {m.p for m in off.modules() if isinstance(m, nn.Dropout)} == {0.0}
    assert {m.p for m in on.modules() if isinstance(m, nn.Dropout)} == {0.3}
    assert on.config.attention_probs_dropout_prob == 0.3


def test_the_encoder_has_no_pooler() -> None:
    encoder, tokenizer, _ = load_encoder("tiny:bert")
    output = encoder(**tokenizer(TEXTS, padding=True, return_tensors="pt"))
    output.last_hidden_state.sum().backward()
    assert output.pooler_output is None
    assert all(p.grad is not None for name, p in encoder.named_parameters()), "DDP needs every parameter used"


def test_a_bf16_checkpoint_comes_back_in_the_dtype_asked_for(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama", dtype=torch.bfloat16)
    decoder, rows, _ = load_causal_lm(str(tmp_path / "llama"))
    assert {p.dtype for p in decoder.parameters()} == {torch.float32}
    assert rows([1]).dtype == torch.float32
    assert load_causal_lm(str(tmp_path / "llama"), dtype="bfloat16")[0].dtype == torch.bfloat16


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_first_layers_equal_the_full_model_cut_by_hand(save_llama: Callable, tmp_path: Path, layers: int) -> None:
    save_llama(tmp_path / "llama")
    cut, _, tokenizer = load_causal_lm(str(tmp_path / "llama"), num_layers=layers)
    full = load_causal_lm(str(tmp_path / "llama"))[0]
    full.layers = full.layers[:layers]
    assert cut.config.num_hidden_layers == len(cut.layers) == layers
    full.config.num_hidden_layers = layers
    assert torch.equal(states(cut, tokenizer), states(full, tokenizer))


def test_layer_types_are_cut_too(tmp_path: Path) -> None:
    from transformers import Qwen2Config

    _, _, tokenizer = load_causal_lm("tiny:llama")
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "qwen")
    tokenizer.save_pretrained(tmp_path / "qwen")
    decoder, rows, tokenizer = load_causal_lm(str(tmp_path / "qwen"), num_layers=2)
    assert len(decoder.config.layer_types) == 2
    save_causal_lm(tmp_path / "saved", decoder, tokenizer, rows)
    again = load_causal_lm(str(tmp_path / "saved"))[0]
    assert torch.equal(states(again, tokenizer), states(decoder, tokenizer))


def test_a_tokenizer_without_pad_token_pads_with_eos(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    _, _, tokenizer = load_causal_lm("tiny:llama")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "llama")
    assert load_causal_lm(str(tmp_path / "llama"))[2].pad_token == "</s>"


# Head rows


def test_rows_of_an_untied_head_are_those_of_the_files(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    _, rows, _ = load_causal_lm(str(tmp_path / "llama"))
    head = load_file(tmp_path / "llama" / "model.safetensors")["lm_head.weight"]
    assert torch.equal(rows([5, 2]), head[[5, 2]])


def test_rows_of_a_tied_head_are_copies_of_the_embeddings() -> None:
    decoder, rows, _ = load_causal_lm("tiny:llama")
    table = decoder.get_input_embeddings().weight
    assert torch.equal(rows([5, 2]), table[[5, 2]])
    rows([5]).zero_()
    assert table[5].abs().sum() > 0


def test_a_folder_without_head_says_so(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    tensors = load_file(tmp_path / "llama" / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, tmp_path / "llama" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SatlightError, match="no language-model head"):
        load_causal_lm(str(tmp_path / "llama"))


class Spelling:
    """A tokenizer whose vocabulary is given."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert not add_special_tokens
        return [self.words.index(text)] if text in self.words else [100 + ord(c) for c in text]


def test_yes_and_no_as_they_follow_a_prompt() -> None:
    assert yes_no_token_ids(Spelling("Yes", "No", " Yes", " No")) == (2, 3)
    assert yes_no_token_ids(Spelling("Yes", "No", " Yes")) == (0, 1), "both from the same spelling"
    with pytest.raises(SatlightError, match="several tokens"):
        yes_no_token_ids(Spelling("Yes", " No"))


# LoRA


def test_only_adapters_train_and_they_are_float32() -> None:
    decoder, _, _ = load_causal_lm("tiny:llama", lora=LoraSpec(r=4, target_modules=["q_proj"]), dtype="bfloat16")
    trained = {name: p for name, p in decoder.named_parameters() if p.requires_grad}
    assert len(trained) == 2 * 2  # A and B in each of two layers
    assert all(".q_proj.lora_" in name and p.dtype == torch.float32 for name, p in trained.items())
    assert decoder.layers[0].self_attn.v_proj.weight.dtype == torch.bfloat16


def test_defaults_are_the_papers() -> None:
    decoder = load_causal_lm("tiny:llama", lora=LoraSpec())[0]
    layer = decoder.layers[0].mlp.gate_proj
    assert (layer.r["default"], layer.lora_alpha["default"], layer.lora_dropout["default"].p) == (64, 16, 0.1)
    assert not hasattr(decoder.layers[0].self_attn.k_proj, "lora_A"), "the authors leave k_proj out"


def test_lora_on_fused_projections(tmp_path: Path) -> None:
    _, _, tokenizer = load_causal_lm("tiny:llama")
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        pad_token_id=0,
        eos_token_id=2,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "phi3")
    tokenizer.save_pretrained(tmp_path / "phi3")
    decoder = load_causal_lm(str(tmp_path / "phi3"), lora=LoraSpec(r=2))[0]
    adapted = {name.split(".lora_")[0].split(".")[-1] for name, p in decoder.named_parameters() if p.requires_grad}
    assert adapted == {"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}


@pytest.mark.parametrize(("targets", "says"), [(["query"], r"\['query'\].*q_proj"), ([], "match no linear layer")])
def test_lora_targets_that_do_not_exist(targets: list[str], says: str) -> None:
    with pytest.raises(SatlightError, match=says):
        load_causal_lm("tiny:llama", lora=LoraSpec(target_modules=targets))


# Saving


@pytest.mark.parametrize("layers", [1, 2])
def test_a_saved_encoder_reads_back_exactly(tmp_path: Path, layers: int) -> None:
    encoder, tokenizer, convention = load_encoder("tiny:bert", num_layers=layers)
    save_encoder(tmp_path / "saved", encoder, tokenizer, convention)
    again, tokenizer_again, convention_again = load_encoder(str(tmp_path / "saved"))
    assert torch.equal(states(again, tokenizer_again), states(encoder, tokenizer))
    assert tokenizer_again(TEXTS)["input_ids"] == tokenizer(TEXTS)["input_ids"]
    assert convention_again == convention


@pytest.mark.parametrize("tied", [True, False])
def test_a_saved_decoder_reads_back_exactly(save_llama: Callable, tmp_path: Path, tied: bool) -> None:
    save_llama(tmp_path / "llama", tie_word_embeddings=tied)
    decoder, rows, tokenizer = load_causal_lm(str(tmp_path / "llama"), num_layers=2)
    save_causal_lm(tmp_path / "saved", decoder, tokenizer, rows)
    again, rows_again, tokenizer_again = load_causal_lm(str(tmp_path / "saved"))
    answers = yes_no_token_ids(tokenizer)
    assert torch.equal(states(again, tokenizer_again), states(decoder, tokenizer))
    assert yes_no_token_ids(tokenizer_again) == answers
    assert torch.equal(rows_again(answers), rows(answers))
    allowed = {".json", ".safetensors", ".jinja"}
    assert {path.suffix for path in (tmp_path / "saved").iterdir()} <= allowed, "no pickle"


def test_an_untied_head_is_saved_only_where_it_counts(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    decoder, rows, tokenizer = load_causal_lm(str(tmp_path / "llama"))
    save_causal_lm(tmp_path / "saved", decoder, tokenizer, rows)
    with pytest.raises(SatlightError, match=r"not of \[3\]"):
        load_causal_lm(str(tmp_path / "saved"))[1]([3])


def test_lora_is_merged_on_saving_and_kept_in_memory(tmp_path: Path) -> None:
    decoder, rows, tokenizer = load_causal_lm("tiny:llama", lora=LoraSpec(r=4))
    torch.manual_seed(0)
    for name, parameter in decoder.named_parameters():
        if "lora_B" in name:  # B starts at zero, so nothing would be tested
            nn.init.normal_(parameter, std=0.3)
    before = states(decoder, tokenizer)
    save_causal_lm(tmp_path / "saved", decoder, tokenizer, rows)
    assert torch.equal(states(decoder, tokenizer), before)
    again = load_causal_lm(str(tmp_path / "saved"))[0]
    assert not any("lora" in name for name, _ in again.named_parameters())
    assert torch.allclose(states(again, tokenizer), before, atol=1e-5)
    assert not torch.allclose(states(load_causal_lm("tiny:llama")[0], tokenizer), before, atol=0.1)


def test_merging_without_adapters_changes_nothing() -> None:
    decoder = load_causal_lm("tiny:llama")[0]
    assert merged_state_dict(decoder).keys() == decoder.state_dict().keys()


def test_a_full_disk_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder, rows, tokenizer = load_causal_lm("tiny:llama")
    save_causal_lm(tmp_path / "saved", decoder, tokenizer, rows)
    before = (tmp_path / "saved" / "model.safetensors").read_bytes()

    def full(self: object, folder: Path, **options: object) -> None:
        (folder / "model.safetensors").parent.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device")

    monkeypatch.setattr(type(decoder), "save_pretrained", full)
    with pytest.raises(SatlightError, match="No space left on device"):
        save_causal_lm(tmp_path / "saved", decoder, tokenizer, rows)
    assert (tmp_path / "saved" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_saving_something_else_is_a_programmers_error(tmp_path: Path) -> None:
    _, rows, tokenizer = load_causal_lm("tiny:llama")
    with pytest.raises(TypeError, match="Linear"):
        save_causal_lm(tmp_path / "saved", nn.Linear(1, 1), tokenizer, rows)


def test_training_never_reaches_the_files(save_llama: Callable, tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    before = (tmp_path / "llama" / "model.safetensors").read_bytes()
    with torch.no_grad():
        for parameter in load_causal_lm(str(tmp_path / "llama"))[0].parameters():
            parameter.add_(1.0)  # the weights may be mapped from the file
    assert (tmp_path / "llama" / "model.safetensors").read_bytes() == before


# Conventions


@pytest.mark.parametrize(
    ("name", "pooling", "prefix", "normalize"),
    [
        ("intfloat/e5-large-v2", "mean", "query: ", True),
        ("intfloat/multilingual-e5-small", "mean", "query: ", True),
        ("BAAI/bge-small-en-v1.5", "cls", "", True),
        ("intfloat/e5-mistral-7b-instruct", "mean", "", False),
        ("intfloat/multilingual-e5-large-instruct", "mean", "", False),
        ("intfloat/multilingual-e5-base", "mean", "query: ", True),
        ("thenlper/gte-base", "mean", "", True),
        ("Alibaba-NLP/gte-multilingual-base", "cls", "", True),
        ("google/embeddinggemma-300m", "mean", "task: classification | query: ", True),
        ("FacebookAI/roberta-base", "mean", "", False),
    ],
)
def test_conventions_by_family(name: str, pooling: str, prefix: str, normalize: bool) -> None:
    assert read_convention(name, None) == EncoderConvention(pooling, 512, prefix, normalize)


def test_qwen3_embedding_reads_the_last_token_after_an_instruction() -> None:
    convention = read_convention("Qwen/Qwen3-Embedding-0.6B", None)
    assert (convention.pooling, convention.normalize) == ("last", True)
    assert convention.prefix.startswith("Instruct: ")
    assert convention.prefix.endswith("\nQuery:")


def test_layers_after_pooling_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steps = [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    (tmp_path / "modules.json").write_text(json.dumps(steps))
    read_convention("google/embeddinggemma-300m", tmp_path)
    assert "layers after pooling (2_Dense), which satlight does not apply" in caplog.text


@pytest.mark.parametrize("num_layers", [0, 1])
def test_a_cut_encoder_has_vectors_of_its_own(num_layers: int) -> None:
    cut, whole = TextEncoder("tiny:bert", num_layers).eval(), TextEncoder("tiny:bert").eval()
    assert cut.variant != whole.variant == ""
    with torch.no_grad():
        assert not torch.allclose(cut(["Yes No"]), whole(["Yes No"]))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("normalize", [True, False])
def test_conventions_survive_their_files(tmp_path: Path, pooling: str, normalize: bool) -> None:
    written = EncoderConvention(pooling, 77, "passage: ", normalize)
    write_convention(written, tmp_path, dimension=8)
    assert read_convention("intfloat/e5-large-v2", tmp_path) == written, "files win over the name"
    assert read_convention("x", tmp_path, limit=50).max_length == 50


def test_files_as_sentence_transformers_writes_them(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    for path, content in {
        "modules.json": [
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        ],
        "1_Pooling/config.json": {"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True},
        "sentence_bert_config.json": {"max_seq_length": 256},
        "config_sentence_transformers.json": {"prompts": {"query": "Find: "}, "default_prompt_name": None},
    }.items():
        (tmp_path / path).write_text(json.dumps(content))
    assert read_convention("mine", tmp_path) == EncoderConvention("last", 256, "", False)


def test_the_longest_input_follows_the_model(tmp_path: Path) -> None:
    encoder, tokenizer, convention = load_encoder("tiny:bert")
    assert convention.max_length == 128
    config = RobertaConfig.from_dict(encoder.config.to_dict() | {"model_type": "roberta", "pad_token_id": 1})
    AutoModel.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_encoder(str(tmp_path))[2].max_length == 126, "RoBERTa loses two positions to its padding"
