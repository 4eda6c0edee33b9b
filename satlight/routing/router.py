"""A trained router, ready to use: load, score, route, save."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from satlight.errors import SatlightError
from satlight.files import atomic_path
from satlight.metrics.calibration import Temperature
from satlight.modules import BlockRouter, CapabilityEncoder, ModelSAT, Projector, RouterLLM
from satlight.modules.model_sat import OPTIONS
from satlight.types import Block, Candidate, Capability, Result

FORMAT = "satlight-router/1"


@dataclass(frozen=True)
class Choice:
    """One candidate for one instruction.

    Args:
        model_id: The candidate.
        probability: Predicted Pr(correct) in [0, 1], calibrated: sigmoid(score / temperature + bias).
        score: Log-odds, as the module gives them.
    """

    model_id: str
    probability: float
    score: float


@dataclass(frozen=True)
class Ranking:
    """Candidates for one instruction, best first."""

    choices: tuple[Choice, ...]

    @property
    def best(self) -> str:
        """The candidate to send the instruction to."""
        return self.choices[0].model_id

    def to_dict(self) -> dict[str, Any]:
        """{"route": best candidate, "ranking": [{"model_id", "probability", "score"}, ...]}."""
        return {"route": self.best, "ranking": [asdict(choice) for choice in self.choices]}


class Router:
    """A module, a zoo and the zoo's capability representations.

    Args:
        module: A trained :class:`~satlight.modules.ModelSAT`, :class:`~satlight.modules.RouterLLM` or
            :class:`~satlight.modules.CapabilityEncoder`; put in eval mode.
        candidates: M candidates.
        capabilities: Their capability representations.
        about: Facts kept with the router, e.g. what it was trained on.
        calibration: Temperature and bias of the probabilities; none unless given. Scores stay as they are.

    Example:
        >>> module = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"))
        >>> router = Router(module, [Candidate("a"), Candidate("b")], [("It is good.",), ("It is poor.",)])
        >>> router.score(["What is 2+2?"]).shape
        torch.Size([1, 2])
        >>> len(router.route("What is 2+2?").choices)
        2
    """

    def __init__(
        self,
        module: BlockRouter,
        candidates: Sequence[Candidate],
        capabilities: Sequence[Capability],
        about: dict[str, Any] | None = None,
        calibration: Temperature = Temperature(),  # noqa: B008  frozen
    ) -> None:
        if len(candidates) != len(capabilities) or not candidates:
            raise SatlightError(
                f"A router needs one capability per candidate and at least one, got {len(candidates)} "
                f"candidates and {len(capabilities)} capabilities"
            )
        self.module = module.eval()
        self.candidates, self.capabilities = tuple(candidates), tuple(capabilities)
        self.about = about or {}
        self.calibration = calibration

    @property
    def model_ids(self) -> list[str]:
        """Names of the candidates, in the order of the columns of :meth:`score`."""
        return [candidate.model_id for candidate in self.candidates]

    def _columns(self, candidates: Sequence[str] | None) -> list[int]:
        if candidates is None:
            return list(range(len(self.candidates)))
        known = {name: column for column, name in enumerate(self.model_ids)}
        unknown = [name for name in candidates if name not in known]
        if unknown or not candidates:
            raise SatlightError(
                f"The router does not know the candidates {unknown}; its zoo is {self.model_ids}"
                if unknown
                else "The list of candidates to choose from is empty"
            )
        return [known[name] for name in dict.fromkeys(candidates)]

    @torch.inference_mode()
    def score(self, instructions: Sequence[str], candidates: Sequence[str] | None = None) -> Tensor:
        """Log-odds of success.

        Args:
            instructions: B texts.
            candidates: Names of C candidates; None = the whole zoo.

        Returns:
            float32 (B, C) on the CPU.

        Raises:
            SatlightError: An unknown candidate.
        """
        columns = self._columns(candidates)
        if not instructions:
            return torch.zeros(0, len(columns))
        block = Block(
            list(instructions),
            [self.capabilities[c] for c in columns],
            rows=torch.arange(len(instructions)),
            columns=torch.tensor(columns),
            groups=torch.zeros(len(instructions), dtype=torch.long),
        )
        return self.module.score(block).float().cpu()

    def route(
        self,
        instructions: str | Sequence[str],
        candidates: Sequence[str] | None = None,
        top_k: int | None = None,
    ) -> Any:
        """Rank candidates.

        Args:
            instructions: One text, or several.
            candidates: Choose among these only; None = the whole zoo.
            top_k: Keep the first so many, at least 1; None = all.

        Returns:
            A :class:`Ranking` for one text, a list of them for several.

        Raises:
            SatlightError: An unknown candidate, or ``top_k`` below 1.
        """
        if top_k is not None and top_k < 1:
            raise SatlightError(f"top_k is {top_k}; it must be 1 or more")
        texts = [instructions] if isinstance(instructions, str) else list(instructions)
        names = [self.model_ids[c] for c in self._columns(candidates)]
        score_BC = self.score(texts, candidates)
        probability_BC = self.calibration.apply(score_BC).sigmoid()
        rankings = []
        for b in range(len(texts)):
            order = torch.sort(score_BC[b], descending=True, stable=True).indices[:top_k].tolist()
            rankings.append(
                Ranking(
                    tuple(Choice(names[c], float(probability_BC[b, c]), float(score_BC[b, c])) for c in order)
                )
            )
        return rankings[0] if isinstance(instructions, str) else rankings

    # -- folder --------------------------------------------------------------------------------------------

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the router as a folder, whole or not at all: config.json, zoo.json, safetensors, tokenizers.

        The folder loads offline, without the training data and without the pretrained weights.
        """
        from satlight.backbones.loading import save_causal_lm, save_encoder

        encoder, router_llm = _parts(self.module)
        config: dict[str, Any] = {
            "format": FORMAT,
            "module": type(self.module).__name__,
            "perturbations": getattr(self.module, "perturbations", 1),
            **{option: hasattr(self.module, term.name) for option, term in OPTIONS.items()},
            "encoder": encoder
            and {
                "chunking": encoder.chunking,
                "max_tokens": encoder.text.max_tokens,
                "pooling": encoder.text.pooling,
            },
            "projector": encoder
            and {"standardize": getattr(self.module, "projector", Projector()).standardize},
            "router_llm": router_llm
            and {
                "order": router_llm.order,
                "score_head": router_llm.score_head,
                "candidate_layers": router_llm.candidate_layers,
                "max_instruction_tokens": router_llm.max_instruction_tokens,
                "inquiry": router_llm.inquiry,
            },
            "calibration": asdict(self.calibration),
            "about": self.about,
        }
        zoo = [
            {"candidate": asdict(candidate), "capability": [_to_json(statement) for statement in capability]}
            for candidate, capability in zip(self.candidates, self.capabilities, strict=True)
        ]
        rest = {
            name: tensor.detach().cpu().contiguous()
            for name, tensor in self.module.state_dict().items()
            if isinstance(tensor, Tensor) and not _saved_elsewhere(name)
        }
        with _writing(folder) as temporary:
            if encoder is not None:
                save_encoder(
                    temporary / "encoder",
                    encoder.text.backbone,
                    encoder.text.tokenizer,
                    encoder.text.convention,
                )
            if router_llm is not None:
                save_causal_lm(
                    temporary / "router_llm", router_llm.backbone, router_llm.tokenizer, router_llm.head_rows
                )
            save_file(rest, temporary / "router.safetensors")
            for name, content in (("config.json", config), ("zoo.json", zoo)):
                text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
                (temporary / name).write_text(text, encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> Router:
        """Load what :meth:`save_pretrained` wrote.

        Raises:
            SatlightError: No router there, another format, or files that do not fit together.
        """
        folder = Path(folder)
        config, zoo = _read(folder, "config.json"), _read(folder, "zoo.json")
        with _sound(folder / "config.json"):
            if (found := config.get("format")) != FORMAT:
                raise SatlightError(
                    f"{folder / 'config.json'}: format is {found!r}; this version reads {FORMAT!r}"
                )
            module = _build(folder, config)
            calibration = Temperature(**config.get("calibration", {}))  # older folders have none
        with _sound(folder / "router.safetensors"):
            rest = load_file(folder / "router.safetensors")
            missing, unexpected = module.load_state_dict(rest, strict=False)
        if unexpected or (lost := [name for name in missing if not _saved_elsewhere(name)]):
            raise SatlightError(
                f"{folder}: router.safetensors lacks {lost[:3] if not unexpected else []} "
                f"and has the unknown {unexpected[:3]}; export the router again"
            )
        with _sound(folder / "zoo.json"):
            candidates = [
                Candidate(**{**entry["candidate"], "notes": tuple(entry["candidate"]["notes"])})
                for entry in zoo
            ]
            capabilities = [
                tuple(_from_json(statement) for statement in entry["capability"]) for entry in zoo
            ]
        return cls(module, candidates, capabilities, config.get("about"), calibration)


def _parts(module: BlockRouter) -> tuple[CapabilityEncoder | None, RouterLLM | None]:
    encoder, router_llm = None, None
    if isinstance(module, ModelSAT):
        encoder, router_llm = module.encoder, module.router_llm
    elif isinstance(module, RouterLLM):
        router_llm = module
    elif isinstance(module, CapabilityEncoder):
        encoder = module
    # A subclass may score in its own way, which a folder of plain parts would silently lose.
    for part, plain in (
        (module, (ModelSAT, RouterLLM, CapabilityEncoder)),
        (encoder, (CapabilityEncoder,)),
        (router_llm, (RouterLLM,)),
        *((term, tuple(OPTIONS.values())) for term in getattr(module, "terms", ())),
    ):
        if part is not None and type(part) not in plain:
            raise SatlightError(
                f"A {type(part).__name__} cannot be saved as a router folder, only a {plain[-1].__name__} "
                "itself. Keep the checkpoint and its config.yaml, or use Router(module, ...) in Python."
            )
    return encoder, router_llm


def _build(folder: Path, config: dict[str, Any]) -> BlockRouter:
    """The module that config.json describes, with its backbones."""
    encoder = config["encoder"] and CapabilityEncoder(str(folder / "encoder"), **config["encoder"])
    router_llm = config["router_llm"] and RouterLLM(str(folder / "router_llm"), **config["router_llm"])
    if router_llm is None:
        return encoder
    if config.get("module") == "RouterLLM":
        return router_llm
    projector = Projector(**config["projector"]) if encoder else None
    return ModelSAT(
        router_llm,
        encoder,
        projector,
        perturbations=config["perturbations"],
        **{option: config[option] for option in OPTIONS},
    )


@contextmanager
def _writing(folder: Path | str) -> Iterator[Path]:
    """A new folder that takes the place of ``folder`` when it is complete."""
    try:
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            yield temporary
    except (OSError, SafetensorError) as error:
        raise SatlightError(
            f"cannot write {folder}: {error}. Nothing half-written was kept; make room there, or choose "
            "another folder"
        ) from error


@contextmanager
def _sound(path: Path) -> Iterator[None]:
    """Name the file that is missing or damaged, or does not fit the others."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else error
        raise SatlightError(
            f"{path} is missing, damaged, or does not fit the rest of its folder ({what}); export the "
            "router again"
        ) from error


def _to_json(statement: str) -> str | dict[str, Any]:
    if not isinstance(statement, Result):
        return statement
    return {"text": str(statement), "about": statement.about, "strength": statement.strength}


def _from_json(statement: str | dict[str, Any]) -> str:
    return statement if isinstance(statement, str) else Result(**statement)


def _saved_elsewhere(name: str) -> bool:
    """Backbones have their own folders; metric states and caches are not part of a router."""
    return "backbone." in name or name.endswith("_extra_state") or name.startswith(("val_", "objective."))


def _read(folder: Path, name: str) -> Any:
    path = folder / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SatlightError(
            f"{path} cannot be read ({error}); --router takes a folder that `fit`, `satlight export` or "
            "save_pretrained wrote"
        ) from error
