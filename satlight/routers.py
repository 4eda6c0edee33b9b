"""The router protocol: whatever scores requests for candidates can be saved, loaded, served and compared."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self, overload

import numpy as np

from satlight.costs import expected_costs, require_costs
from satlight.errors import SatlightError
from satlight.rules import BestQuality, Rule, parse_rule, rule_from
from satlight.storage import card, hub
from satlight.storage import folder as files
from satlight.storage.classes import Configured, build, describe, import_class
from satlight.storage.provenance import provenance
from satlight.storage.typed import typed
from satlight.types import AptitudeResults, Candidate, Ranking, Request, Scores, Temperature


class Router(Configured, ABC):
    """Score requests for candidates; the base class of Model-SAT routers, baselines and stored scores.

    A subclass defines :meth:`log_odds`, :meth:`write` and :meth:`restore`, and :meth:`admit` where its method
    can take in a candidate without training.

    Attributes:
        candidates: M candidates, the columns of :meth:`score`.
        calibration: Temperature and bias of the probabilities, per candidate where fitted; scores stay as they are.
        rule: Decision rule of :meth:`route`.
        about: Facts kept with the router, e.g. what it was trained on.
        loaded_from: Folder that it was loaded from; None = made in this process.
    """

    candidates: tuple[Candidate, ...] = ()
    calibration: Temperature = Temperature()
    rule: Rule = BestQuality()
    about: Mapping[str, Any] = {}
    loaded_from: Path | None = None

    @property
    def reads_images(self) -> bool:
        """True if scores depend on the images of requests; a router that does not read them refuses them."""
        return False

    # -- to be defined -------------------------------------------------------------------------------------

    @abstractmethod
    def log_odds(self, requests: Sequence[Request], candidates: Sequence[str]) -> np.ndarray:
        """Score at least one request for candidates of the zoo: finite float32 (B, C)."""

    @abstractmethod
    def write(self, folder: Path) -> dict[str, Any]:
        """Write what was learned into ``folder``, and return what config.json is to keep besides."""

    @classmethod
    @abstractmethod
    def restore(
        cls, folder: Path, config: Mapping[str, Any], candidates: tuple[Candidate, ...], allow: Sequence[str]
    ) -> Self:
        """Build what :meth:`write` wrote."""

    def admit(self, candidate: Candidate, results: AptitudeResults) -> Self:
        """Return the same router with one more candidate, known by its results alone; nothing is trained.

        Args:
            candidate: The new candidate.
            results: Its outcomes, usually on the core items.

        Raises:
            SatlightError: A candidate that the router has already, results that say nothing to the method, or
                a method that cannot do it.
        """
        raise SatlightError(
            f"{type(self).__name__} cannot admit '{candidate.model_id}' without training: its parameters "
            f"belong to the candidates that it was trained on. Methods that can: {', '.join(ADMITTING)}"
        )

    def remove(self, model_id: str) -> Self:
        """Return the same router without one of its candidates; nothing is trained.

        Raises:
            SatlightError: An unknown candidate, or the only one.
        """
        self._named([model_id])
        if len(self.candidates) == 1:
            raise SatlightError(f"'{model_id}' is the only candidate of the router; admit another one before")
        other = copy.copy(self)
        other.candidates = tuple(one for one in self.candidates if one.model_id != model_id)
        own = {name: one for name, one in self.calibration.candidates.items() if name != model_id}
        other.calibration = replace(self.calibration, candidates=own)
        return other

    def rename(self, model_id: str, new: str) -> Self:
        """Return the same router with another name for one of its candidates.

        Raises:
            SatlightError: An unknown candidate, or a name that is empty or in use.
        """
        self._named([model_id])
        if not new.strip() or new in self.model_ids:
            raise SatlightError(f"The new name of '{model_id}' is {new!r:.80}; it must be a text that no candidate has")
        other = copy.copy(self)
        other.candidates = tuple(
            replace(one, model_id=new) if one.model_id == model_id else one for one in self.candidates
        )
        own = {new if name == model_id else name: one for name, one in self.calibration.candidates.items()}
        other.calibration = replace(self.calibration, candidates=own)
        return other

    # -- scoring -------------------------------------------------------------------------------------------

    @property
    def model_ids(self) -> list[str]:
        """Names of the candidates, in the order of the columns of :meth:`score`."""
        return [candidate.model_id for candidate in self.candidates]

    def score(self, requests: Sequence[Request | str], candidates: Sequence[str] | None = None) -> Scores:
        """Score requests.

        Args:
            requests: B requests or plain texts.
            candidates: Names of C candidates; None = the whole zoo.

        Raises:
            SatlightError: An unknown candidate, an empty list of candidates, images for a router that reads text
                only, or scores that are not finite.
        """
        names = self._named(candidates)
        wanted = [Request(one) if isinstance(one, str) else one for one in requests]
        for number, request in enumerate(wanted):
            self.check_images(request, f"requests[{number}]")
        score_BC = np.zeros((0, len(names)), dtype=np.float32)
        if wanted:
            score_BC = self._log_odds(wanted, names)
        if not np.isfinite(score_BC).all():
            raise SatlightError(
                f"{self.loaded_from or type(self).__name__} gave scores that are not finite (NaN or infinity); the "
                "router diverged in training. Export another checkpoint or train again"
            )
        logit_BC = self.calibration.apply(score_BC.astype(np.float64), names)
        return Scores(score_BC, (0.5 * (1 + np.tanh(logit_BC / 2))).astype(np.float32), tuple(names))

    def _log_odds(self, requests: list[Request], names: list[str]) -> np.ndarray:
        """Return :meth:`log_odds`; where the folder of a method of satlight holds nonsense, name it."""
        try:
            return np.asarray(self.log_odds(requests, names), dtype=np.float32)
        except files.UNSOUND as error:
            if (
                isinstance(error, SatlightError)
                or self.loaded_from is None
                or not type(self).__module__.startswith("satlight.")
            ):
                raise
            raise SatlightError(
                f"The router in {self.loaded_from} cannot score ({type(error).__name__}: {error}): its files are "
                f"damaged or do not fit each other. {files.AGAIN}"
            ) from error

    @overload
    def route(  # type: ignore[overload-overlap]
        self,
        requests: Request | str,
        candidates: Sequence[str] | None = None,
        top_k: int | None = None,
        rule: Rule | str | None = None,
    ) -> Ranking: ...

    @overload
    def route(
        self,
        requests: Sequence[Request | str],
        candidates: Sequence[str] | None = None,
        top_k: int | None = None,
        rule: Rule | str | None = None,
    ) -> list[Ranking]: ...

    def route(
        self,
        requests: Request | str | Sequence[Request | str],
        candidates: Sequence[str] | None = None,
        top_k: int | None = None,
        rule: Rule | str | None = None,
    ) -> Ranking | list[Ranking]:
        """Rank candidates by a decision rule, the chosen one first.

        Args:
            requests: One request or text, or several.
            candidates: Choose among these only; None = the whole zoo.
            top_k: Keep the first K, at least 1; None = all.
            rule: A rule or its text, e.g. ``"cheapest@0.9"``, see :meth:`rule_for`; None = that of the router.

        Returns:
            A :class:`~satlight.types.Ranking` for one request, a list of them for several.

        Raises:
            SatlightError: A request that is no text, is empty or holds half of a character, an unknown candidate,
                images for a router that reads text only, ``top_k`` below 1, no such rule, or a rule that needs the
                cost of a candidate without one.
        """
        if top_k is not None and (isinstance(top_k, bool) or not isinstance(top_k, Integral) or top_k < 1):
            raise SatlightError(f"top_k is {top_k!r:.80}; it must be a whole number, 1 or more")
        if isinstance(requests, str | Request):
            _check_text(requests, "the request")
            return self._ranked([requests], candidates, top_k, rule)[0]
        if not isinstance(requests, Sequence) or isinstance(requests, bytes | bytearray):
            raise SatlightError(
                f"route got {requests!r:.80} ({type(requests).__name__}); give a text, a Request, or a list of them"
            )
        for number, request in enumerate(requests):
            _check_text(request, f"requests[{number}]")
        return self._ranked(requests, candidates, top_k, rule)

    def rule_for(self, rule: Rule | str | None) -> Rule:
        """Return the rule that a text stands for.

        Args:
            rule: A text such as ``"cheapest@0.9"``; that of the router's own rule gives the latter, with its fitted
                threshold. A rule is returned as it is; None = the router's own.

        Raises:
            SatlightError: No such rule.
        """
        wanted = parse_rule(rule) if isinstance(rule, str) else rule or self.rule
        return self.rule if isinstance(rule, str) and wanted.text == self.rule.text else wanted

    def _ranked(
        self,
        requests: Sequence[Request | str],
        candidates: Sequence[str] | None,
        top_k: int | None,
        rule: Rule | str | None,
    ) -> list[Ranking]:
        rule = self.rule_for(rule)
        known = {candidate.model_id: candidate for candidate in self.candidates}
        zoo = [known[name] for name in self._named(candidates)]
        if rule.needs_costs:
            require_costs(zoo, f"The rule {rule.text}")
        scores = self.score(requests, candidates)
        cost_BC = expected_costs(zoo, requests)
        order_BC = None if isinstance(rule, BestQuality) else rule.order(scores.probability_BC, cost_BC)
        return scores.rankings(top_k, order_BC, cost_BC, rule.text)

    def check_images(self, request: Request, name: str) -> None:
        """Raise if the request has images and the router reads text only.

        Args:
            request: The request.
            name: Its name in the message.

        Raises:
            SatlightError: Images that would be ignored.
        """
        if request.images and not self.reads_images:
            raise SatlightError(
                f"{name} ({request.text!r:.60}) has {len(request.images)} image(s), but this router reads text only; "
                "remove the images, or train a router that sees them with configs/multimodal.yaml"
            )

    def _named(self, candidates: Sequence[str] | None) -> list[str]:
        known = self.model_ids
        if candidates is None:
            return known
        if isinstance(candidates, str):
            raise SatlightError(f"candidates is the text {candidates!r:.80}; give a list of names")
        if unknown := [name for name in candidates if name not in known]:
            raise SatlightError(f"The router does not know the candidates {unknown}; its zoo is {known}")
        if not candidates:
            raise SatlightError("The list of candidates to choose from is empty")
        return list(dict.fromkeys(candidates))

    def _with(self, candidate: Candidate) -> Self:
        """Return a shallow copy with one more candidate, for :meth:`admit`."""
        if candidate.model_id in self.model_ids:
            raise SatlightError(f"The router has a candidate '{candidate.model_id}' already; choose another name")
        other = copy.copy(self)
        other.candidates = (*self.candidates, candidate)
        return other

    # -- folder --------------------------------------------------------------------------------------------

    def save(self, folder: Path | str) -> None:
        """Write the router as a folder, whole or not at all.

        The folder loads offline, without the training data and without the pretrained weights: config.json,
        zoo.json, safetensors, and a model card.

        Raises:
            SatlightError: It cannot be written, or something in the router cannot be stored.
        """
        with files.writing(folder) as temporary:
            config = {
                "format": files.FORMAT,
                **describe(self, temporary),
                **self.write(temporary),
                "calibration": asdict(self.calibration),
                "rule": describe(self.rule, temporary),
                "about": {**provenance(), **self.about},
            }
            files.write_json(temporary / files.CONFIG, config)
            files.write_json(temporary / files.ZOO, [asdict(candidate) for candidate in self.candidates])
            (temporary / files.CARD).write_text(card.text(config, self.candidates), encoding="utf-8")

    @classmethod
    def from_pretrained(cls, source: Path | str, allow: Sequence[str] = (), revision: str | None = None) -> Router:
        """Load a router folder, or one on the Hugging Face hub.

        Args:
            source: A folder that :meth:`save` wrote, or ``"owner/name"`` on the hub.
            allow: Modules whose classes the folder may name, besides satlight's own and registered ones.
            revision: Branch, tag or commit on the hub.

        Raises:
            SatlightError: No router there, another format, a class that is not allowed, a file that is
                missing or damaged, weights that are not finite.
        """
        folder = hub.local_folder(source, revision)
        config = files.upgraded(folder, files.read_config(folder))
        router_class = import_class(config.get("class_path"), allow, str(folder / files.CONFIG))
        if not issubclass(router_class, Router):
            raise SatlightError(f"{folder / files.CONFIG}: class_path is {config['class_path']!r}; allowed are routers")
        candidates = files.read_zoo(folder)
        with files.sound(folder / files.CONFIG):
            router = router_class.restore(folder, config, candidates, allow)
            router.candidates = candidates
            router.calibration = typed(Temperature, config["calibration"], "calibration")
            where = str(folder / files.CONFIG)
            router.rule = rule_from(build(config.get("rule"), folder, allow, where), where)
            router.about = dict(config["about"])
        router.loaded_from = folder
        return router

    def push_to_hub(self, repo_id: str, private: bool = False, token: str | None = None) -> str:
        """Upload the router folder to the Hugging Face hub.

        Args:
            repo_id: ``"owner/name"``; made if it does not exist.
            private: Whether a new repository is private.
            token: Access token; None = that of ``hf auth login``.

        Returns:
            The address of the commit.
        """
        return hub.push(self.save, repo_id, private, token)


def _check_text(request: object, name: str) -> None:
    """Raise unless a request is a text that a tokenizer can read."""
    text = request.text if isinstance(request, Request) else request
    if not isinstance(text, str):
        raise SatlightError(f"{name} is {text!r:.80} ({type(text).__name__}); give a text or a Request with one")
    if not text.strip() and not (isinstance(request, Request) and (request.images or request.metadata)):
        raise SatlightError(f"{name} is empty; give a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SatlightError(
            f"{name} holds the lone surrogate {text[error.start]!r}, half of a character; decode the text as UTF-8"
        ) from error


ADMITTING = (
    "Model-SAT", "knn", "tfidf_knn", "aptitude_knn", "inferred_dataset", "cluster", "uniroute", "linear", "irt",
    "gaussian_process", "few_results",
)  # fmt: skip
"""Methods that admit a candidate by its results, for messages; baselines by name (docs/baselines.md)."""
