"""Cross-encoders (re-rankers): score pairs of texts that are read together.

Shape legend: N pairs, T tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from satlight.backbones import loading as backbones
from satlight.backbones.tiny import tiny_config_and_tokenizer
from satlight.errors import SatlightError

BATCH = 32
LONGEST = 512
"""Maximum tokens of a pair; beyond it, the end of the longer text is truncated."""


class CrossEncoder(nn.Module):
    """Score N (instruction, output) pairs: float32 (N,), higher is better.

    Args:
        network: A transformers model for sequence classification.
        tokenizer: Its tokenizer.
        max_tokens: Maximum tokens of a pair.
    """

    def __init__(self, network: nn.Module, tokenizer: backbones.Tokenizer, max_tokens: int) -> None:
        super().__init__()
        self.network, self.tokenizer, self.max_tokens = network.eval(), tokenizer, max_tokens

    @torch.inference_mode()
    def forward(self, pairs: list[tuple[str, str]]) -> np.ndarray:
        """Return the logit of each pair; with two classes, the second minus the first."""
        device = next(self.network.parameters()).device
        order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
        score_N = np.empty(len(pairs), dtype=np.float32)
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            tokens = self.tokenizer(
                [pairs[i][0] for i in rows],
                [pairs[i][1] for i in rows],
                padding=True,
                truncation="longest_first",
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(device)
            logits = self.network(**tokens).logits.float()
            score_N[rows] = (logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0)).cpu().numpy()
        return score_N


def load_cross_encoder(name: str) -> CrossEncoder:
    """Load a re-ranker by name, in float32, onto the GPU if there is one.

    Args:
        name: Backbone name (see :mod:`satlight.backbones.weights`) of a model for sequence classification
            with one output (Cappy, BGE and GTE re-rankers) or two (the second is "good"); ``tiny:bert`` has
            random weights from a fixed seed.

    Raises:
        SatlightError: Unknown name, weights neither cached nor reachable, or without such a head.

    Example:
        >>> load_cross_encoder("tiny:bert")([("1+1?", "2"), ("1+1?", "I do not know.")]).shape
        (2,)
    """
    if name.startswith("tiny:"):
        config, tokenizer = tiny_config_and_tokenizer(name)
        config.num_labels = 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = AutoModelForSequenceClassification.from_config(config)
    else:
        network, tokenizer = _pretrained(name)
    if (labels := network.config.num_labels) not in (1, 2):
        raise SatlightError(
            f"cross-encoder {name!r} has {labels} classes; a re-ranker has one output, or two of which the "
            "second is 'good'."
        )
    longest = min(LONGEST, tokenizer.model_max_length)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return CrossEncoder(network.to(device), tokenizer, longest)


def _pretrained(name: str) -> tuple[PreTrainedModel, backbones.Tokenizer]:
    folder = backbones.safetensors_folder(name)
    config, tokenizer = backbones._config_and_tokenizer(name, folder)
    try:
        with backbones._quiet():
            network, info = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, dtype=torch.float32, use_safetensors=True, local_files_only=True,
                trust_remote_code=False, output_loading_info=True,
            )  # fmt: skip
    except (OSError, ValueError, SafetensorError) as error:
        raise SatlightError(
            f"cross-encoder {name!r}: {folder} is no model for sequence classification with readable "
            f"*.safetensors ({error})."
        ) from error
    if info["missing_keys"]:
        raise SatlightError(
            f"cross-encoder {name!r}: {folder} lacks {len(info['missing_keys'])} tensors, e.g. "
            f"{min(info['missing_keys'])!r}; an embedder without a classification head cannot judge pairs."
        )
    return network, tokenizer
