"""The base class of baselines: routers that learn from records in one call, without a training config.

Shape legend: N instructions, M candidates, D features.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from satlight.errors import SatlightError
from satlight.files import read_json
from satlight.records import PerformanceRecords
from satlight.records.names import listed
from satlight.routers import Router
from satlight.storage import folder as files
from satlight.storage.classes import build, call
from satlight.storage.state import Packer, Unpacker
from satlight.types import Candidate, Request

Instruction = str | Request
"""A text, or a text with images."""

Embed = Callable[[Sequence[Any]], np.ndarray]
"""N instructions to float32 (N, D) vectors of length 1.

A function gets texts, e.g. :class:`satlight.backbones.embedding.Embedder`. An object with the attribute
``reads_images = True`` gets requests, e.g. :class:`satlight.backbones.embedding.RequestEmbedder`.
"""

FITTED_SPLITS = ("train", "validation")
"""Splits that a baseline reads."""

STATE = "state.json"
"""File of a router folder with what a baseline learned, except the arrays."""

_EPSILON = 1e-6


class Baseline(Router):
    """A router that is not a LightningModule.

    A subclass has a constructor whose parameters all have defaults, :meth:`fit` and :meth:`predict`; scoring,
    saving and loading follow from them. Most are easier to write as a
    :class:`~satlight.baselines.tuning.TunedBaseline`, which chooses hyper-parameters.

    Attributes:
        needs_embeddings: Whether ``fit`` must be given an ``embed``.
        predicts_outcomes: Whether predictions are expected outcomes in [0, 1], so that log-odds follow.
        GRID: Hyper-parameters and the values to choose from on validation rows; in every combination.
        chosen: The values in use, after ``fit``.
        columns: Names of the columns that :meth:`predict` learned, "" for a removed candidate; None = the candidates.
    """

    needs_embeddings: ClassVar[bool] = True
    predicts_outcomes: ClassVar[bool] = True
    GRID: ClassVar[Mapping[str, Sequence[Any]]] = {}
    chosen: dict[str, Any]
    columns: tuple[str, ...] | None = None

    @abstractmethod
    def fit(self, records: PerformanceRecords, embed: Embed | None = None) -> Self:
        """Learn from rows with split "train", choose hyper-parameters on rows with split "validation".

        The choice among :attr:`GRID` is the one with the highest macro mean (over datasets) of routed
        accuracy on validation rows, the first among equals; the final fit uses train and validation rows. A
        candidate that was not in training is a column that is known on the probe rows only. An
        implementation sets :attr:`candidates` to those of the records.

        Args:
            records: N instructions × M candidates. Unknown outcomes never count.
            embed: Embedder of texts, or of texts with images; may be None where ``needs_embeddings`` is False.

        Returns:
            Itself.

        Raises:
            SatlightError: Test rows among the records, no train rows, no embedder where one is needed.
        """

    @abstractmethod
    def predict(self, instructions: Sequence[Instruction], candidates: Sequence[str]) -> np.ndarray:
        """Score instructions for candidates.

        Args:
            instructions: N texts; requests where :attr:`reads_images` is True.
            candidates: M names out of those in the records, in any order.

        Returns:
            Finite float32 (N, M), a column per name in that order: expected outcomes in [0, 1] unless
            :attr:`predicts_outcomes` is False.

        Raises:
            SatlightError: A name that was not in the records, or no ``fit`` before.
        """

    # -- as a router ---------------------------------------------------------------------------------------

    def log_odds(self, requests: Sequence[Request], candidates: Sequence[str]) -> np.ndarray:
        """Return log-odds of the expected outcomes, or the predictions where they are something else."""
        asked = requests if self.reads_images else texts_of(requests)
        score_BC = np.asarray(self.predict(asked, candidates))
        return log_odds(score_BC) if self.predicts_outcomes else score_BC

    def inputs(self, records: PerformanceRecords) -> Sequence[Instruction]:
        """Return the instructions of records as :meth:`predict` takes them: requests, or texts."""
        return records.requests() if self.reads_images else records.texts

    def remove(self, model_id: str) -> Self:
        """Remove a candidate; what was learned stays, so that the scores of the others do."""
        other = super().remove(model_id)
        other.columns = tuple("" if name == model_id else name for name in self.columns or self.model_ids)
        return other

    def rename(self, model_id: str, new: str) -> Self:
        other = super().rename(model_id, new)
        if self.columns is not None:
            other.columns = tuple(new if name == model_id else name for name in self.columns)
        return other

    def _with(self, candidate: Candidate) -> Self:
        other = super()._with(candidate)
        if self.columns is not None:
            other.columns = (*self.columns, candidate.model_id)
        return other

    def _keep(self, rows: PerformanceRecords) -> None:
        """Keep the candidates, and what the records were."""
        self.candidates, self.about = rows.candidates, {"data": rows.facts()}

    def learned(self) -> dict[str, Any]:
        """Return the attributes that :meth:`save` keeps: all but unchanged arguments of the constructor.

        A subclass leaves out what it can do without, e.g. training rows.
        """
        args = self.init_args
        return {
            name: value
            for name, value in sorted(vars(self).items())
            if name != "init_args" and not (name in args and value is args[name])
        }

    def relearn(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`learned` returned; the constructor ran before."""
        vars(self).update(state)

    def write(self, folder: Path) -> dict[str, Any]:
        """Write the learned attributes as state.json and safetensors."""
        self._require_fit()
        apart = (
            "candidates",
            "calibration",
            "rule",
            "about",
            "loaded_from",
        )  # the first ones are in zoo.json and config.json
        state = {name: value for name, value in self.learned().items() if name not in apart}
        packer = Packer(folder, self._who)
        tree = packer.pack(state, "")
        files.write_json(folder / STATE, {"candidates": self.model_ids, "state": tree})
        files.save_arrays(folder, packer.arrays)
        return {}

    @classmethod
    def restore(
        cls, folder: Path, config: Mapping[str, Any], candidates: tuple[Candidate, ...], allow: Sequence[str]
    ) -> Self:
        """Build the baseline from its arguments and give it the learned attributes."""
        where = str(folder / files.CONFIG)
        args = {key: build(value, folder, allow, where) for key, value in config["init_args"].items()}
        baseline = call(cls, args, where)
        content = read_json(folder / STATE, files.ADVICE)
        with files.sound(folder / STATE):
            names = [candidate.model_id for candidate in candidates]
            if content["candidates"] != names:
                raise SatlightError(
                    f"{folder / files.ZOO} names {listed(names)}, but {STATE} was learned for "
                    f"{listed(content['candidates'])}; save the router again"
                )
            unpacker = Unpacker(files.load_arrays(folder), folder, allow, str(folder / STATE))
            baseline.relearn(unpacker.unpack(content["state"]))
        return baseline

    def _named(self, candidates: Sequence[str] | None) -> list[str]:
        self._require_fit()
        return super()._named(candidates)

    @property
    def _who(self) -> str:
        return type(self).__name__

    def _require_fit(self) -> None:
        if not self.candidates:
            raise SatlightError(
                f"{self._who} has no candidates: call fit(records) first. A fit of your own sets "
                "self.candidates = records.candidates"
            )

    def _columns(self, candidates: Sequence[str]) -> np.ndarray:
        """Return columns of candidates by name, int64 (len(candidates),).

        Raises:
            SatlightError: An unknown name.
        """
        self._require_fit()
        column = {name: m for m, name in enumerate(self.columns or self.model_ids)}
        if unknown := [name for name in candidates if not name or name not in column]:
            raise SatlightError(
                f"{self._who} was asked to score {listed(unknown)}, which it was not fitted on. Known: "
                f"{listed(self.model_ids)}. Fit it on records with outcomes of the others."
            )
        return np.array([column[name] for name in candidates], dtype=np.int64)


def texts_of(instructions: Sequence[Instruction]) -> list[str]:
    """Return the texts of instructions, without their images."""
    return [one.text if isinstance(one, Request) else one for one in instructions]


def log_odds(expected: np.ndarray) -> np.ndarray:
    """Return log-odds of expected outcomes in [0, 1], float32, finite at both ends; NaN stays NaN.

    Example:
        >>> log_odds(np.array([0.5, 1.0])).tolist()
        [0.0, 13.815...]
    """
    p = np.clip(expected.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return (np.log(p) - np.log1p(-p)).astype(np.float32)


def fitted_rows(records: PerformanceRecords, who: str) -> PerformanceRecords:
    """Return the train and validation rows of records; "dropped" rows serve no split and are left out.

    Args:
        records: What ``fit`` was given.
        who: Name of the baseline, for messages.

    Raises:
        SatlightError: Test rows, rows without a split, or no train rows.
    """
    for wrong, meaning in (("test", "test rows"), ("", "rows without a split")):
        if count := int((records.splits == wrong).sum()):
            raise SatlightError(
                f"{who}.fit got {count} {meaning} of '{records.name}'; it learns from train and validation "
                "rows. Mark them with records.with_splits(split_records(records)) and pass "
                ".filter(splits=['train', 'validation'])."
            )
    if not (records.splits == "train").any():
        raise SatlightError(
            f"{who}.fit got no train rows of '{records.name}', only {listed(sorted(set(records.splits)))}."
        )
    kept = np.isin(records.splits, FITTED_SPLITS)
    return records if kept.all() else records.rows(kept)
