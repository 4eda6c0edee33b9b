"""Load and save pretrained networks; hides transformers and peft from the rest of satlight.

Loading takes a backbone name (see :mod:`satlight.backbones.weights`) and returns modules in float32 and
in train mode, whatever the files say. ``trust_remote_code`` is always off and no pickle is read.

    B texts, T tokens, V entries of the vocabulary, D features
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from satlight.backbones import weights
from satlight.backbones.conventions import EncoderConvention, read_convention, write_convention
from satlight.backbones.e5_binary import convert_e5
from satlight.backbones.efficientnet import convert_pth
from satlight.backbones.head_rows import HeadRows, save_rows, tied_rows, untied_rows, yes_no_token_ids
from satlight.backbones.lora import LoraSpec, lora_targets, merged_state_dict
from satlight.backbones.scoring import import_transformers, reduced_environment
from satlight.backbones.store import CONVERTED, Manifest, new_folder, say
from satlight.backbones.tiny import tiny_config_and_tokenizer
from satlight.errors import SatlightError
from satlight.files import atomic_path, locked

import_transformers()
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging  # noqa: E402

Tokenizer = PreTrainedTokenizerBase

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Their position ids start after the padding index, so two positions are never used.
_OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
_DROPOUT_KEYS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "hidden_dropout", "attention_dropout", "dropout",
    "embedding_dropout", "mlp_dropout", "resid_pdrop", "embd_pdrop", "attn_pdrop", "activation_dropout",
)  # fmt: skip


def load_encoder(
    name: str, *, num_layers: int | None = None, dropout: float = 0.0, dtype: str = "float32", pretrained: bool = True
) -> tuple[nn.Module, Tokenizer, EncoderConvention]:
    """Load a text encoder, its tokenizer, and its input convention.

    Args:
        name: Backbone name, e.g. ``"minilm"``, ``"intfloat/e5-large-v2"``, ``"./mine"``, ``"tiny:bert"``.
        num_layers: Keep only the first K layers; None = all, 0 = the token embeddings alone.
        dropout: Probability for every dropout of the model, in [0, 1).
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        pretrained: False = same architecture with random weights, drawn from torch's global generator.

    Returns:
        The encoder in train mode; called with ``input_ids`` and ``attention_mask`` it returns an object with
        ``last_hidden_state`` (B, T, D). Its own pooling layer is removed.

    Raises:
        SatlightError: Unknown name, weights neither cached nor reachable, ``num_layers`` out of range,
            files of another architecture.

    Example:
        >>> encoder, tokenizer, convention = load_encoder("tiny:bert")
        >>> encoder(**tokenizer("Hello.", return_tensors="pt")).last_hidden_state.shape[-1]
        32
    """
    model, tokenizer, folder = _load(name, num_layers, dropout, dtype, pretrained, least_layers=0)
    if hasattr(model, "pooler"):
        model.register_module("pooler", None)  # unused; DDP would wait for its gradients
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    if model.config.model_type in _OFFSET_POSITIONS:
        positions -= 2
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, int | float) or longest < 1:
        raise SatlightError(
            f"backbone {name!r}: model_max_length in tokenizer_config.json is {longest!r:.80}; it must be 1 or more"
        )
    return model, tokenizer, read_convention(name, folder, int(min(positions, longest)))


def load_causal_lm(
    name: str,
    *,
    num_layers: int | None = None,
    lora: LoraSpec | None = None,
    dropout: float = 0.0,
    dtype: str = "float32",
) -> tuple[nn.Module, HeadRows, Tokenizer]:
    """Load a decoder without its language-model head, a reader of single head rows, and the tokenizer.

    A router uses only the rows of "Yes" and "No"; the full head (V × D) is never built.

    Args:
        name: Backbone name, e.g. ``"smollm2-135m"``, ``"microsoft/Phi-3-mini-4k-instruct"``, ``"./mine"``.
        num_layers: Keep only the first K layers and the final norm; None = all.
        lora: Adapters to add; everything else is then frozen. None = all parameters train.
        dropout: Probability for every dropout of the model, in [0, 1); LoRA has its own.
        dtype: ``float32``, ``bfloat16`` or ``float16``. Adapters are always float32.

    Returns:
        decoder: In train mode; called with ``inputs_embeds`` (B, T, D) it returns an object with
            ``last_hidden_state`` (B, T, D). ``decoder.get_input_embeddings()`` embeds token ids.
        rows: token ids → float (len(ids), D), a copy of those rows of the head.
        tokenizer: Always has a pad token.

    Raises:
        SatlightError: As :func:`load_encoder`; also a LoRA target that the model does not have.

    Example:
        >>> decoder, rows, tokenizer = load_causal_lm("tiny:llama")
        >>> rows(yes_no_token_ids(tokenizer)).shape
        torch.Size([2, 32])
    """
    model, tokenizer, folder = _load(name, num_layers, dropout, dtype, pretrained=True)
    if folder is None or model.config.tie_word_embeddings:
        rows = tied_rows(model.get_input_embeddings())
    else:
        rows = untied_rows(name, folder, model.dtype)
    if lora is not None:
        _add_lora(model, lora, name)
    return model.train(), rows, tokenizer


def save_encoder(folder: Path | str, encoder: nn.Module, tokenizer: Tokenizer, convention: EncoderConvention) -> None:
    """Write an encoder as a folder that :func:`load_encoder` and sentence-transformers read exactly.

    Args:
        folder: Target, replaced atomically.
        encoder: From :func:`load_encoder`.
        tokenizer: Its tokenizer.
        convention: Its input convention; stored, since the name of the folder does not reveal the family.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "encoder"
        >>> encoder, tokenizer, convention = load_encoder("tiny:bert")
        >>> save_encoder(target, encoder, tokenizer, convention)
        >>> load_encoder(str(target))[2] == convention
        True
    """
    model = _pretrained_model(encoder)
    with atomic_path(folder) as temporary, _writing(folder):
        model.save_pretrained(temporary)
        _save_tokenizer(tokenizer, temporary)
        write_convention(convention, temporary, model.config.hidden_size)


def save_causal_lm(folder: Path | str, decoder: nn.Module, tokenizer: Tokenizer, rows: HeadRows) -> None:
    """Write a decoder as a folder that :func:`load_causal_lm` reads, with LoRA adapters merged.

    The decoder in memory does not change. Only the rows of "Yes" and "No" of an untied head are stored.

    Args:
        folder: Target, replaced atomically.
        decoder: From :func:`load_causal_lm`.
        tokenizer: Its tokenizer.
        rows: Its reader of head rows.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "router_llm"
        >>> decoder, rows, tokenizer = load_causal_lm("tiny:llama")
        >>> save_causal_lm(target, decoder, tokenizer, rows)
        >>> torch.equal(load_causal_lm(str(target))[1]([5]), rows([5]))
        True
    """
    model = _pretrained_model(decoder)
    with atomic_path(folder) as temporary, _writing(folder):
        model.save_pretrained(temporary, state_dict=merged_state_dict(model))
        _save_tokenizer(tokenizer, temporary)
        if not model.config.tie_word_embeddings:
            save_rows(temporary, yes_no_token_ids(tokenizer), rows)


def _save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write a tokenizer without traces of where it was loaded from and how it was called last."""
    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        backend.no_truncation()  # every call sets both again
        backend.no_padding()
    for key in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder)


def safetensors_folder(name: str) -> Path:
    """Return the safetensors folder of a backbone; a GGUF, .pth or .bin file is converted once and cached.

    Args:
        name: Name of a backbone with files (all but ``tiny:``).

    Raises:
        SatlightError: As :func:`satlight.backbones.weights.resolve`; also a file that cannot be converted.
    """
    path = weights.resolve(name)
    if path.suffix not in CONVERTED:
        return path
    folder = weights.converted_folder(path)
    if not Manifest.is_intact(folder):
        with locked(weights.store() / ".locks" / f"{folder.parent.name}-{folder.name}.lock"):
            if not Manifest.is_intact(folder):
                say(f"Converting {path.name} to safetensors, once.")
                with new_folder(folder) as temporary:
                    {".gguf": convert_gguf, ".pth": convert_pth, ".bin": convert_e5}[path.suffix](path, temporary)
                    Manifest.write(temporary, f"{name} (converted)")
    return folder


def convert_gguf(path: Path, folder: Path) -> None:
    """Write the causal LM of a GGUF file as a float32 safetensors folder with config and tokenizer.

    bfloat16 and float16 would round the dequantized values.

    Args:
        path: The ``.gguf`` file.
        folder: Target, created.

    Raises:
        SatlightError: Not a GGUF file of an architecture that transformers supports.
    """
    place, file = str(path.parent), path.name
    try:
        with _quiet():
            read = AutoModelForCausalLM.from_pretrained(place, gguf_file=file, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
    except Exception as error:  # the gguf reader raises anything on a damaged file
        raise SatlightError(
            f"{path} cannot be read as a GGUF causal LM ({type(error).__name__}: {error}). Use another file, "
            "or a model folder with safetensors."
        ) from error
    # A model read from GGUF counts as quantized and cannot be saved; a fresh one with its values can.
    values = {key: value for key, value in read.config.to_dict().items() if key != "quantization_config"}
    with torch.device("meta"):
        fresh = AutoModelForCausalLM.from_config(type(read.config).from_dict(values), dtype=torch.float32)
    fresh.load_state_dict(read.state_dict(), assign=True)
    fresh.tie_weights()
    with _writing(folder):
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _pretrained_model(module: nn.Module) -> PreTrainedModel:
    if not isinstance(module, PreTrainedModel):
        raise TypeError(f"expected a module from load_encoder or load_causal_lm, got {type(module).__name__}")
    return module


def _load(
    name: str, num_layers: int | None, dropout: float, dtype: str, pretrained: bool, least_layers: int = 1
) -> tuple[PreTrainedModel, Tokenizer, Path | None]:
    """Return the model without head in train mode, a tokenizer with a pad token, and their folder."""
    if dtype not in DTYPES:
        raise SatlightError(f"backbone {name!r}: dtype {dtype!r} is unknown; allowed: {', '.join(DTYPES)}.")
    if not 0 <= dropout < 1:
        raise SatlightError(f"backbone {name!r}: dropout {dropout} is outside [0, 1).")
    if name.startswith("tiny:"):
        folder, (config, tokenizer) = None, tiny_config_and_tokenizer(name)
    else:
        folder = safetensors_folder(name)
        config, tokenizer = _config_and_tokenizer(name, folder)
    _keep_first_layers(config, num_layers, name, least_layers)
    for key in _DROPOUT_KEYS:
        # classifier_dropout and other nullable keys belong to heads that are not loaded
        if getattr(config, key, None) is not None:
            setattr(config, key, dropout)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not pretrained:
        model = AutoModel.from_config(config, dtype=DTYPES[dtype])
    elif folder is None:
        with torch.random.fork_rng(devices=[]):  # same weights everywhere; global generator unchanged
            torch.manual_seed(0)
            model = AutoModel.from_config(config, dtype=DTYPES[dtype])
    else:
        model = _read_weights(name, folder, config, DTYPES[dtype])
    return model.train(), tokenizer, folder  # from_pretrained returns eval mode and the Trainer would keep it


def _config_and_tokenizer(name: str, folder: Path) -> tuple[PreTrainedConfig, Tokenizer]:
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what transformers raises on a damaged file is arbitrary
        raise SatlightError(
            f"backbone {name!r}: {folder} has no readable config.json and tokenizer ({error}). A model "
            "folder holds config.json, tokenizer.json and *.safetensors."
        ) from error
    return config, tokenizer


def _read_weights(name: str, folder: Path, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Load the model of ``config`` from ``folder``; layers beyond the config are not read."""
    try:
        with _quiet(), reduced_environment():
            model, info = AutoModel.from_pretrained(
                folder, config=config, dtype=dtype, use_safetensors=True, local_files_only=True,
                trust_remote_code=False, output_loading_info=True, ignore_mismatched_sizes=True,
            )  # fmt: skip
    except Exception as error:  # what transformers raises on damaged files is arbitrary
        raise SatlightError(
            f"backbone {name!r}: {folder} has no readable *.safetensors ({error}). Pickled weights "
            "(.bin, .pt) are not loaded; choose a revision with safetensors or convert the files."
        ) from error
    lacking = {key for key in info["missing_keys"] if not key.startswith("pooler.")}
    wrong = lacking | {key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]}
    if wrong:
        raise SatlightError(
            f"backbone {name!r}: the weights in {folder} do not fit its config.json "
            f"({type(model).__name__}): {len(wrong)} tensors are missing or have another shape, "
            f"e.g. {min(wrong)!r}. Fetch the model again or correct config.json."
        )
    if broken := [key for key, value in model.named_parameters() if not value.isfinite().all()]:
        raise SatlightError(
            f"backbone {name!r}: {broken[0]} in {folder} has values that are not finite (NaN or infinity); the file is "
            "damaged. Fetch the model again."
        )
    return model


def _keep_first_layers(config: PreTrainedConfig, num_layers: int | None, name: str, least: int = 1) -> None:
    available = config.num_hidden_layers
    if num_layers is None:
        return
    if not least <= num_layers <= available:
        raise SatlightError(
            f"backbone {name!r}: num_layers is {num_layers}, the model has {available} layers; "
            f"allowed: {least} to {available}, or null for all."
        )
    config.num_hidden_layers = num_layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:num_layers]


def _add_lora(model: PreTrainedModel, lora: LoraSpec, name: str) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=lora_targets(model, lora, name)
    )
    inject_adapter_in_model(config, model)  # in place: no wrapper, parameter names stay as they are
    for parameter in model.parameters():
        if parameter.requires_grad:  # bf16 would round small updates to zero
            parameter.data = parameter.data.float()


@contextmanager
def _writing(folder: Path | str) -> Iterator[None]:
    """Raise a SatlightError with a remedy if ``folder`` cannot be written."""
    try:
        with _quiet():
            yield
    except (OSError, SafetensorError, UnicodeError) as error:  # a damaged vocabulary holds halves of characters
        raise SatlightError(
            f"cannot write {folder}: {error}. Nothing half-written was kept. Make room there, or choose "
            "another folder (for the cache: SATLIGHT_CACHE), and try again."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' reports of unused tensors, which truncation and removed heads cause."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
