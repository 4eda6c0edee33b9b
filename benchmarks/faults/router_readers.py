"""Routers, checkpoints, and results of a bench, with valid ones to damage."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np

from faults.readers import Reader, baseline, check_candidates, command, record_readers, strict, text_readers
from faults.source_readers import setting_readers, source_readers


def _model_sat(folder: Path) -> None:
    import torch

    from satlight.modules import CapabilityEncoder, ModelSAT, RouterLLM
    from satlight.routing import CapabilityRouter
    from satlight.types import Candidate, Capability, Result

    torch.manual_seed(0)
    module = ModelSAT(RouterLLM("tiny:llama"), CapabilityEncoder("tiny:bert"), task_attention=True)
    results = [Capability((Result("algebra", "algebra", 0.5, 20, z),), (f"It is {z}.",)) for z in (1.0, -1.0)]
    CapabilityRouter(module, [Candidate("m", params_b=7, price_in=1.0), Candidate("n")], results).save(
        folder / "router"
    )


def _scored(router: Any) -> np.ndarray:
    """Return the scores of a request, B × C; they and the calibration must be finite."""
    scores, calibration = router.score(["What is 2 + 2?"]), router.calibration
    assert np.isfinite(scores.log_odds_BC).all(), "scores are not finite"
    assert np.isfinite(scores.probability_BC).all(), "probabilities are not finite"
    assert np.isfinite([calibration.temperature, calibration.bias]).all(), "the calibration is not finite"
    return scores.log_odds_BC


def _load_router(folder: Path) -> None:
    from satlight import Router
    from satlight.storage.card import record_test

    router = Router.from_pretrained(folder / "router")
    scores = _scored(router)
    check_candidates(router.candidates)
    record_test(folder / "router", {"all": {"routed": 50.0}})
    router.save(folder / "out")
    assert np.array_equal(_scored(Router.from_pretrained(folder / "out")), scores), "other scores after saving"


def _backbone(folder: Path) -> None:
    _model_sat(folder)
    (folder / "router/encoder").rename(folder / "encoder")
    shutil.rmtree(folder / "router")


def _load_backbone(folder: Path) -> None:
    import torch

    from satlight.modules import CapabilityEncoder

    encoder = CapabilityEncoder(str(folder / "encoder"))
    with torch.no_grad():
        assert encoder.embed(["What is 2 + 2?"]).isfinite().all(), "vectors are not finite"


def _run_of(source: Path) -> Callable[[Path], None]:
    return lambda folder: shutil.copytree(source, folder / "run", ignore=shutil.ignore_patterns("router", "last.ckpt"))


def _export(folder: Path) -> None:
    from satlight import Router

    command("export", folder / "run", "--to", folder / "out")
    (folder / "out").rename(folder / "whole")  # what is refused from here on was written completely
    _scored(Router.from_pretrained(folder / "whole"))


def _trained_on(folder: Path) -> None:
    from satlight.data.trained_on import TrainedOn

    TrainedOn({"instruction": frozenset("ab"), "group g": frozenset("c")}).save(folder / "trained_on.parquet")


def _load_trained_on(folder: Path) -> None:
    from satlight.data.trained_on import TrainedOn

    TrainedOn.load(folder / "trained_on.parquet")


def _write_bench(folder: Path) -> None:
    data = {"name": "zoo", "records": "simulated", "simulated": {"num_instructions": 120, "num_candidates": 3}}
    content = {"methods": ["tfidf_knn"], "data": [data], "seeds": [0], "output": "bench", "resamples": 20, "workers": 1}
    (folder / "small.yaml").write_text(json.dumps(content))
    with chdir(folder):
        command("bench", "small.yaml")


def _report(folder: Path) -> None:
    with chdir(folder):
        command("bench", "small.yaml", "--report-only")
        for path in folder.glob("bench/results.json"):
            strict(path.read_text())


def router_readers(run: Path | None) -> list[Reader]:
    """Return the readers of routers, and of checkpoints of a training run if there is one."""
    methods: dict[str, dict[str, Any]] = {
        "tfidf_knn": {},
        "knn": {},
        "forest": {"fixed": {"leaf": 80}},
        "mlp": {"fixed": {"steps": 250, "alpha": 0.3}},
        "irt": {},
    }
    made = [Reader("router folder, Model-SAT", _model_sat, ("router/**/*",), _load_router, 12)]
    for name, options in methods.items():
        build = lambda folder, name=name, options=options: baseline(name, folder / "router", **options)  # noqa: E731
        made.append(Reader(f"router folder, {name}", build, ("router/**/*",), _load_router, 4))
    made.append(Reader("backbone folder", _backbone, ("encoder/**/*",), _load_backbone, 3))
    made.append(Reader("trained_on.parquet", _trained_on, ("*.parquet",), _load_trained_on, 1))
    made.append(Reader("bench results", _write_bench, ("bench/cells/*/*.json", "bench/cells/*/*.parquet"), _report, 1))
    if run is not None:
        made.append(Reader("checkpoint", _run_of(run), ("run/checkpoints/best.ckpt",), _export, 4))
        made.append(Reader("config.yaml of a run", _run_of(run), ("run/config.yaml",), _export, 2))
    return made


def all_readers(run: Path | None) -> list[Reader]:
    """Return every reader; those of checkpoints need a run folder."""
    return [*record_readers(), *source_readers(), *text_readers(), *setting_readers(), *router_readers(run)]
