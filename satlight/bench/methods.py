"""The three kinds of methods, which turn a problem into a score matrix.

Shape legend: N test instructions and M candidates of the problem.
"""

from __future__ import annotations

import inspect
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satlight.bench.cells import Cell, baseline_class
from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.baselines import Baseline
    from satlight.records import PerformanceRecords

_TIMED = 256
"""Number of instructions on which the decision time of a trained router is measured."""


@dataclass
class Prediction:
    """Scores of a method on a problem.

    Args:
        scores: Log-odds (N, M), or scores without that meaning.
        probabilistic: Whether the scores are log-odds of an expected outcome, so that calibration can be measured.
        fit_seconds: Time to fit by :func:`clock`, without embedding the instructions;
            None = unknown.
        decision_ms: Milliseconds to score the zoo for an instruction, in a batch, without embedding it; None = unknown.
        chosen: Hyperparameters that the method chose on validation rows.
    """

    scores: np.ndarray
    probabilistic: bool = True
    fit_seconds: float | None = None
    decision_ms: float | None = None
    chosen: dict[str, Any] = field(default_factory=dict)


def clock() -> float:
    """Return CPU seconds; wall-clock seconds on CUDA. The difference of two readings is a duration.

    CPU time includes the child processes that this process has waited for. With one thread it equals the
    wall-clock time of an idle machine, no matter how busy this one is. While a GPU works, the CPU waits, so
    that CPU time would be too short.

    Example:
        >>> start = clock()
        >>> _ = sum(range(1_000_000))
        >>> 0 < clock() - start < 10
        True
    """
    import torch

    if torch.cuda.is_available():
        return time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def predict(
    cell: Cell,
    train: PerformanceRecords,
    test: PerformanceRecords,
    output: Path,
    unseen: Sequence[str] = (),
    fold: int | None = None,
) -> Prediction:
    """Run the method of a cell.

    Args:
        cell: The cell.
        train: Training and validation rows.
        test: Test rows, N × M.
        output: Folder of the bench.
        unseen: Candidates to exclude from training; ``train`` has their outcomes on a few rows only.
        fold: Number of the fold, if a protocol trains several times.

    Returns:
        Scores of the test rows, with the times they took.

    Raises:
        SatlightError: The method fails, or returns scores of another shape.
    """
    from satlight.routing.scores import StoredScores

    if cell.kind == "baseline":
        prediction = _baseline(cell, train, test)
    elif cell.kind == "config":
        prediction = _config(cell, train, test, output, list(unseen), fold)
    else:
        prediction = Prediction(StoredScores.read(cell.spec["scores"]).of(test))
    if prediction.scores.shape != test.shape:
        raise SatlightError(
            f"{cell.method} returned scores of shape {prediction.scores.shape} for "
            f"{test.shape[0]} instructions x {test.shape[1]} candidates"
        )
    return prediction


# -- baselines ---------------------------------------------------------------------------------------------


def _baseline(cell: Cell, train: PerformanceRecords, test: PerformanceRecords) -> Prediction:
    from satlight.baselines.base import log_odds

    method = build_method(cell.spec["baseline"], dict(cell.spec["options"]), cell.problem.seed)
    embed = None
    if (embedder := cell.spec.get("embedder")) is not None:
        from satlight.backbones.embedding import build_embedder

        embed = build_embedder(embedder)
        for part in (train, test):  # from the cache; only the following is timed
            asked: Any = part.requests() if embed.reads_images else part.texts
            embed(asked)
    start = clock()
    method.fit(train, embed)
    fitted = clock()
    scores = np.asarray(method.predict(method.inputs(test), test.model_ids))
    done = clock()
    probabilistic = bool(np.all((scores >= 0) & (scores <= 1) | np.isnan(scores)))
    return Prediction(
        log_odds(scores) if probabilistic else scores,
        probabilistic,
        fitted - start,
        1000 * (done - fitted) / len(scores),
        getattr(method, "chosen", {}),
    )


def build_method(name: str, options: dict[str, Any], seed: int) -> Baseline:
    """Return the baseline, with the cell's seed if its constructor takes one that the config does not set."""
    from satlight.baselines import build

    cls = baseline_class(name)
    if "seed" in inspect.signature(cls).parameters:
        options.setdefault("seed", seed)
    if isinstance(judge := options.get("score_pairs"), str):  # YAML can only name a re-ranker
        from satlight.backbones.cross_encoder import load_cross_encoder

        options["score_pairs"] = load_cross_encoder(judge)
    return build(name, **options) if "." not in name else cls(**options)


# -- training configs --------------------------------------------------------------------------------------


def _config(
    cell: Cell, train: PerformanceRecords, test: PerformanceRecords, output: Path, unseen: list[str], fold: int | None
) -> Prediction:
    from satlight.records import open_records, save_records
    from satlight.routing.scores import StoredScores

    name = cell.key if fold is None else f"{cell.key}-{fold}"
    records, runs = output / "problems" / cell.problem.key, output / "runs" / name
    if fold is not None and not unseen:  # hide the rows that are in neither train nor test
        full, records = open_records(records), output / "problems" / name
        if not records.is_dir():
            kept = np.concatenate([part.instructions["instruction_id"] for part in (train, test)])
            save_records(full.rows(np.isin(full.instructions["instruction_id"], kept)), records)
    argv = _arguments(cell, records, output, name, unseen)
    start = clock()
    _satlight(["fit", *argv, *_resume(runs)])
    fitted = clock()
    _satlight(["predict", *argv])
    run = sorted(runs.glob("*/scores.parquet"))[-1].parent
    scores = StoredScores.read(run / "scores.parquet").of(test)
    return Prediction(scores, True, fitted - start, _router_ms(run / "router", test))


def _arguments(cell: Cell, records: Path, output: Path, name: str, unseen: list[str]) -> list[str]:
    """Return the arguments of `fit` and `predict`: the config on the problem's records and splits."""
    settings: dict[str, Any] = {
        "runs": str(output / "runs"),
        "name": name,
        "seed_everything": cell.problem.seed,
        "data.seed": cell.problem.seed,
        "data.records": str(records),
        "data.score_column": "score",
        "data.candidates": None,
        "data.datasets": None,
        "data.train_datasets": cell.problem.train_datasets,
        "data.test_groups": cell.problem.groups,
        "data.predict_split": "test",
        "data.unseen_candidates": unseen or None,
        "data.zoo": "all",
        "data.group_column": None,  # the splits are already drawn
        "data.split_column": "split",
        "trainer.enable_progress_bar": False,
    }
    flags = [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]
    return ["-c", cell.spec["config"], *cell.spec["overrides"], *flags]


def _resume(run: Path) -> list[str]:
    """Return the arguments that resume a training that was killed."""
    return ["--ckpt_path=last"] if list(run.glob("*/checkpoints/last.ckpt")) else []


def _satlight(argv: list[str]) -> None:
    """Run a training verb in its own process; its output goes to the cell's log."""
    done = subprocess.run([sys.executable, "-m", "satlight", *argv], check=False)
    if done.returncode:
        raise SatlightError(f"`satlight {argv[0]}` ended with code {done.returncode}; see log.txt of the cell")


def _router_ms(folder: Path, test: PerformanceRecords) -> float | None:
    """Return milliseconds per instruction of a router folder; None if there is no folder."""
    if not folder.is_dir():
        return None
    from satlight.routing import Router

    router = Router.from_pretrained(folder)
    asked = test.requests() if router.reads_images else test.texts
    asked = asked[:: max(1, len(asked) // _TIMED)][:_TIMED]
    router.score(asked[:1])  # warm up; one-time work is not counted
    start = clock()
    router.score(asked)
    return 1000 * (clock() - start) / len(asked)


def forget_run(cell: Cell, output: Path) -> None:
    """Remove the training of a failed cell, so that it starts from scratch."""
    for run in (output / "runs").glob(f"{cell.key}*"):
        shutil.rmtree(run, ignore_errors=True)
