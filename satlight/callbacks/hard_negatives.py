"""Embed the training instructions, so that block samplers can find neighbors among them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from satlight.errors import SatlightError

log = logging.getLogger(__name__)


class HardNegatives(Callback):
    """Give the data module an embedding of every training instruction, for samplers that mine neighbors.

    The instructions are embedded before the first epoch. The vectors are part of every checkpoint, so that a
    resumed run mines the same negatives even if the encoder has changed since.

    Args:
        every_n_epochs: Embed again at the start of every n-th epoch, as the encoder trains; None = never.
            A frozen encoder embeds once.
        vectors: ``encoder`` uses the capability encoder of the module; ``tfidf`` needs no encoder: TF-IDF of
            character n-grams, reduced to 128 dimensions.
        batch_size: Instructions that the encoder reads at once.

    Reference: not in the paper; groups of negatives in [Zhang et al. 2025, §4, Eq. 5].
    """

    def __init__(
        self, every_n_epochs: int | None = None, vectors: Literal["encoder", "tfidf"] = "encoder", batch_size: int = 64
    ) -> None:
        for name, value in (("every_n_epochs", every_n_epochs), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise SatlightError(f"HardNegatives.{name} is {value}; it must be 1 or more")
        self.every_n_epochs, self.vectors, self.batch_size = every_n_epochs, vectors, batch_size
        self._state: dict[str, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not data.sampler.needs_vectors:
            log.warning(
                "HardNegatives has no effect: data.sampler %s uses no instruction vectors; "
                "HardNegativeBlocks and HardGroupBlocks do",
                type(data.sampler).__name__,
            )
        elif self._state.get("texts") == _fingerprint(data.training_texts):
            data.instruction_vectors = self._state["vectors"].numpy()
        else:
            self.refresh(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # A run resumed at the start of an epoch already has the vectors of that epoch.
        if not self._state or self.every_n_epochs is None or trainer.current_epoch == self._state["epoch"]:
            return
        changes = self.vectors == "encoder" and self._encoder(pl_module).trainable
        if changes and trainer.current_epoch % self.every_n_epochs == 0:
            self.refresh(trainer, pl_module)

    def refresh(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Embed all training instructions and pass the vectors to the data module."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        texts = data.training_texts
        log.info("HardNegatives: embedding %d training instructions (%s)", len(texts), self.vectors)
        vector_RD = tfidf_vectors(texts) if self.vectors == "tfidf" else self._encode(texts, pl_module)
        # Half precision, as in the checkpoint: a resumed run must mine from the same vectors.
        vector_RD = vector_RD.astype(np.float16)
        self._state = {
            "epoch": trainer.current_epoch,
            "texts": _fingerprint(texts),
            "vectors": torch.from_numpy(vector_RD),
        }
        data.instruction_vectors = vector_RD

    @torch.no_grad()
    def _encode(self, texts: Sequence[str], pl_module: L.LightningModule) -> np.ndarray:
        encoder = self._encoder(pl_module)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        was_training = encoder.training
        encoder.eval()  # no dropout, so the random state of the run stays untouched
        parts = []
        for start in range(0, len(order), self.batch_size):
            batch = [texts[row] for row in order[start : start + self.batch_size]]
            # A frozen encoder caches its vectors on disk; a trained one must not cache this many.
            vectors = encoder.embed(batch) if encoder.trainable else encoder.read_instructions(batch)
            parts.append(torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy())
        encoder.train(was_training)
        vector_RD = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        vector_RD[order] = np.concatenate(parts)
        return vector_RD

    def _encoder(self, pl_module: L.LightningModule) -> Any:
        from satlight.modules import CapabilityEncoder

        encoder = pl_module if isinstance(pl_module, CapabilityEncoder) else getattr(pl_module, "encoder", None)
        if encoder is None:
            raise SatlightError(
                f"HardNegatives.vectors is 'encoder', but {type(pl_module).__name__} has no capability "
                "encoder; set vectors: tfidf"
            )
        return encoder

    def state_dict(self) -> dict[str, Any]:
        return dict(self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = dict(state_dict)


def _fingerprint(texts: Sequence[str]) -> str:
    """Return a hash of the texts and their order: vectors of other instructions must not be used."""
    return hashlib.blake2b("\0".join(texts).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def tfidf_vectors(texts: Sequence[str], size: int = 128) -> np.ndarray:
    """Embed texts by TF-IDF of character n-grams, which suit any language, reduced by SVD.

    Args:
        texts: R texts.
        size: Maximum of D; fewer if there are fewer texts or n-grams.

    Returns:
        float32 (R, D), rows of length 1, or 0 if a text shares no n-gram with another.

    Raises:
        SatlightError: No n-gram occurs in two texts.

    Example:
        >>> vector_RD = tfidf_vectors(["Add 2 and 3.", "Add 4 and 5.", "Name a river.", "Name a city."])
        >>> similarity = vector_RD @ vector_RD.T
        >>> bool(similarity[0, 1] > similarity[0, 2] and similarity[2, 3] > similarity[2, 1])
        True
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), min_df=2, max_features=50_000, sublinear_tf=True)
    try:
        weight = grams.fit_transform(texts)
    except ValueError:  # the message of scikit-learn names its own options
        raise SatlightError(
            f"HardNegatives.vectors is 'tfidf', but no n-gram occurs in two of the {len(texts)} training "
            "instructions; set vectors: encoder"
        ) from None
    size = max(1, min(size, min(weight.shape) - 1))
    return normalize(TruncatedSVD(size, random_state=0).fit_transform(weight)).astype(np.float32)
