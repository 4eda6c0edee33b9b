"""Export choices as a RouterArena prediction file.

RouterArena (github.com/RouteWorks/RouterArena) asks for two files, which its own
``router_inference/check_config_prediction_files.py`` checks: a configuration with the router's name and
models, and a list with the chosen model for every prompt of its dataset. Answers, costs and accuracies in the
list are null until RouterArena's inference and evaluation fill them in.

Shape legend: N prompts, M candidates.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from satlight.errors import SatlightError
from satlight.files import read_json, read_jsonl, write_text
from satlight.records.names import listed

ADVICE = "check the path, or prepare the file again with RouterArena"


class ArenaPrompt(NamedTuple):
    """A prompt of RouterArena.

    Args:
        key: Its "global index", e.g. ``"ArcMMLU_98"``.
        text: The whole prompt, which the prediction file must repeat verbatim.
    """

    key: str
    text: str


def read_arena_prompts(path: Path | str) -> list[ArenaPrompt]:
    """Read prompts that RouterArena prepared, such as ``dataset/router_data.json``.

    Args:
        path: A JSON list or a JSONL file of objects with ``global index`` and ``prompt_formatted`` (or ``prompt``).

    Returns:
        N prompts in the order of the file.

    Raises:
        SatlightError: It cannot be read, an entry lacks a key, or an index occurs twice.
    """
    path = Path(path)
    lines = path.suffix == ".jsonl"
    entries = [entry for _, entry in read_jsonl(path, ADVICE)] if lines else read_json(path, ADVICE)
    if not isinstance(entries, list) or not entries:
        raise SatlightError(f"{path} must be a list of prompts that is not empty, as RouterArena prepares it.")
    prompts = [_prompt(entry, f"{path}, entry {number} (counting from 0)") for number, entry in enumerate(entries)]
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.key in seen:
            raise SatlightError(f"{path}: the global index '{prompt.key}' occurs twice; keep one of them.")
        seen.add(prompt.key)
    return prompts


def arena_predictions(
    prompts: Sequence[ArenaPrompt], score_NM: np.ndarray, models: Sequence[str], optimality: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Build the entries of the prediction file: for each prompt the model with the highest score.

    Ties go to the first model.

    Args:
        prompts: N prompts.
        score_NM: Scores (N, M), finite.
        models: M names as RouterArena knows them.
        optimality: Indices of prompts for which every other model is listed too, after the choices:
            RouterArena evaluates these as well, to measure how good the choices were.

    Returns:
        N entries, then ``len(optimality)`` · (M - 1) with ``for_optimality``.

    Raises:
        SatlightError: Scores of another shape or not finite, a model twice, or an unknown index.

    Example:
        >>> prompt = ArenaPrompt("AIME_1", "1+1?")
        >>> entries = arena_predictions([prompt], np.array([[0.2, 0.9]]), ["a", "b"], ["AIME_1"])
        >>> [(entry["prediction"], entry["for_optimality"]) for entry in entries]
        [('b', False), ('a', True)]
    """
    if score_NM.shape != (len(prompts), len(models)) or not np.isfinite(score_NM).all():
        raise SatlightError(
            f"Got scores of shape {score_NM.shape} for {len(prompts)} prompts x {len(models)} models, "
            f"{int((~np.isfinite(score_NM)).sum())} of them not finite; score each prompt for each model"
        )
    if len(set(models)) < len(models):
        raise SatlightError(f"Two candidates have the same name for RouterArena: {listed(list(models))}.")
    if unknown := sorted(set(optimality) - {prompt.key for prompt in prompts}):
        raise SatlightError(
            f"{len(unknown)} of {len(set(optimality))} prompts for optimality are not among the {len(prompts)} "
            f"prompts, the first is '{unknown[0]}'. Take both files from the same version of RouterArena."
        )
    chosen = [models[column] for column in score_NM.argmax(1)]
    entries = [_entry(prompt, model, False) for prompt, model in zip(prompts, chosen, strict=True)]
    for prompt, best in zip(prompts, chosen, strict=True):
        if prompt.key in optimality:
            entries += [_entry(prompt, model, True) for model in models if model != best]
    return entries


def save_arena(
    folder: Path | str, name: str, models: Sequence[str], entries: Sequence[dict[str, Any]], robustness: bool = False
) -> tuple[Path, Path]:
    """Write ``config/NAME.json`` and ``predictions/NAME.json``, each whole or not at all.

    Args:
        folder: Output folder: RouterArena's ``router_inference``, or any other folder.
        name: The router's name, which is part of file names.
        models: The models it chooses between.
        entries: From :func:`arena_predictions`.
        robustness: The prompts were those of the robustness set: write ``predictions/NAME-robustness.json``.

    Returns:
        Both paths.

    Raises:
        SatlightError: An invalid file name, or a configuration of that name with other models.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise SatlightError(f"Got the router name '{name}'; it becomes part of file names: no slashes, no leading dot.")
    config = Path(folder) / "config" / f"{name}.json"
    predictions = Path(folder) / "predictions" / f"{name}{'-robustness' if robustness else ''}.json"
    if not config.exists():
        _write(config, {"pipeline_params": {"router_name": name, "models": list(models)}})
    elif (there := _models_of(config)) != list(models):
        raise SatlightError(
            f"{config} exists with other models: {listed(there)}; the models now are {listed(list(models))}. "
            "Choose another name, or delete it."
        )
    _write(predictions, list(entries))
    return config, predictions


def _prompt(entry: Any, where: str) -> ArenaPrompt:
    values = entry if isinstance(entry, dict) else {}
    index, text = values.get("global index"), values.get("prompt_formatted") or values.get("prompt")
    if not (isinstance(index, str) and index and isinstance(text, str) and text):
        got = list(entry) if isinstance(entry, dict) else type(entry).__name__
        raise SatlightError(
            f"{where}: got {got}; an object with the texts 'global index' and 'prompt_formatted' (or "
            "'prompt') is needed."
        )
    return ArenaPrompt(index, text)


def _entry(prompt: ArenaPrompt, model: str, for_optimality: bool) -> dict[str, Any]:
    return {
        "global index": prompt.key,
        "prompt": prompt.text,
        "prediction": model,
        "generated_result": None,
        "cost": None,
        "accuracy": None,
        "for_optimality": for_optimality,
    }


def _models_of(config: Path) -> list[str]:
    content = read_json(config, "repair it, delete it, or choose another name")
    parameters = content.get("pipeline_params") if isinstance(content, dict) else None
    models = parameters.get("models") if isinstance(parameters, dict) else None
    return list(models) if isinstance(models, list) else []


def _write(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=2) + "\n")
