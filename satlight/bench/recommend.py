"""From a log to measured routers: splits, tasks, and bench cells within a time budget.

The rows of the log are divided into train, validation and test. Routers are cells of a bench whose "test" rows are the
validation rows of the log, so that its folder holds no test row of the log. :mod:`satlight.bench.recommendation` picks
one and opens the test rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from satlight.bench.cells import CONTROLS, EMBEDDING, Cell, open_data, plan
from satlight.bench.config import BenchConfig, DataSpec, MethodSpec
from satlight.bench.results import CellResult
from satlight.bench.runner import run_cells
from satlight.errors import SatlightError
from satlight.evaluation.spending import cost_state
from satlight.files import read_text
from satlight.records import save_records, split_records

if TYPE_CHECKING:
    from satlight.capability.clusters import TaskCluster
    from satlight.records import PerformanceRecords

log = logging.getLogger(__name__)

ON_WORDS = ("tfidf_knn", "inferred_dataset")
"""Baselines that need no embedder."""

ON_VECTORS = ("linear", "knn", "cluster", "inferred_dataset", "aptitude_knn", "irt")
"""Baselines on embeddings, the fastest first."""

MODEL_SAT = "model_sat"

FEWEST = 100
"""Minimum number of instructions of a log."""

FEWEST_GROUPS = 20
"""Minimum number of groups of a log: each is in one of train, validation and test, and of the folds of routers."""

TEST_FRACTION, VALIDATION_FRACTION = 0.3, 0.2
"""Shares of test rows, where the log marks none, and of validation rows among the others."""

RARE = 0.5
"""Share of the instructions of the most often asked candidate, below which the report warns."""

TRAINING = 0.5
"""Share of the remaining time that Model-SAT trains; the rest is for setting up, validation and scoring."""

_PROBED = 16
_LEAST_SECONDS = 5.0


@dataclass(frozen=True)
class Request:
    """Settings of a recommendation.

    Args:
        records: Records folder, ``.csv`` or ``.jsonl`` file, or ``simulated``.
        output: Folder of cells, report and router.
        minutes: Time budget for fitting routers.
        score_column: Column of outcomes.
        text_column: Column of the instructions that routers read.
        group_column: Instructions with the same value stay in one split.
        datasets: Datasets to use; None = all.
        candidates: Candidates to use, names or patterns; None = all.
        embedder: Text embedder; None = only routers on words.
        config: Training config of Model-SAT; None = leave it out.
        seed: Seed of splits and methods.
        workers: Number of cells to run at once; None = one per core.
    """

    records: str
    output: Path
    minutes: float = 10.0
    score_column: str = "score"
    text_column: str = "instruction"
    group_column: str | None = None
    datasets: list[str] | None = None
    candidates: list[str] | None = None
    embedder: str | None = "minilm"
    config: str | None = None
    seed: int = 0
    workers: int | None = None


@dataclass
class Log:
    """A log with splits and tasks.

    Args:
        records: All rows with their splits.
        clusters: Clusters that serve as tasks; none where the log has tasks.
        notes: Sentences for the reader.
    """

    records: PerformanceRecords
    clusters: list[TaskCluster]
    notes: list[str] = field(default_factory=list)

    @property
    def has_costs(self) -> bool:
        """True if every record has a cost."""
        return cost_state(self.records) == "complete"


# -- the log -----------------------------------------------------------------------------------------------


def open_log(request: Request) -> Log:
    """Open, check and split the log, and find tasks where it has none.

    Raises:
        SatlightError: Too few rows, one candidate, or no instruction that two candidates have answered.
    """
    data = DataSpec(
        "log", request.records, request.score_column, text_column=request.text_column, datasets=request.datasets
    )
    records = open_data(data)
    if request.candidates is not None:
        records = records.filter(candidates=request.candidates)
    _check(records)
    if request.group_column in records.instructions.columns:  # split_records reports an unknown one
        _check_groups(records, str(request.group_column))
    marked = bool((records.splits == "test").any())
    split = split_records(
        records,
        validation_fraction=VALIDATION_FRACTION,
        seed=request.seed,
        group_column=request.group_column,
        test_fraction=None if marked else TEST_FRACTION,
    )
    records, notes = records.with_splits(split), []
    if not (records.splits == "validation").any():
        raise SatlightError(f"'{records.name}' has no validation rows, although it marks splits; mark some, or none")
    # A dataset that occurs only in test has nothing that a router could have learned.
    known = np.isin(records.datasets, records.datasets[records.splits == "train"])
    if not known.all():
        foreign = sorted(set(records.datasets[~known].tolist()))
        notes.append(f"Left out, without train rows: the datasets {', '.join(foreign)}.")
        records = records.rows(known)
    from satlight.capability.clusters import cluster_tasks

    records, clusters = cluster_tasks(records, seed=request.seed)
    if rare := _rarely_known(records):
        notes.append(rare)
    state = cost_state(records)
    if state == "none":
        notes.append("The log has no costs (column cost_usd), so costs are left out: only quality is compared.")
    elif state == "incomplete":
        assert records.costs is not None
        count = int((~np.isfinite(records.costs[records.known])).sum())
        notes.append(
            f"{count} of {int(records.known.sum())} records have no cost_usd, so costs are left out: an unknown price "
            "is not 0. Only quality is compared."
        )
    return Log(records, clusters, notes)


def _check(records: PerformanceRecords) -> None:
    if records.shape[1] < 2:
        raise SatlightError(
            f"'{records.name}' has one candidate, {records.model_ids[0]}; there is nothing to route between. Give a "
            "log with at least two candidates"
        )
    if records.shape[0] < FEWEST:
        raise SatlightError(
            f"'{records.name}' has {records.shape[0]} instructions; at least {FEWEST} are needed to train and to test "
            "a router, and thousands to see a gain of one point. Log more instructions"
        )
    known = np.asarray(records.known, dtype=np.float32)
    together = known.T @ known
    np.fill_diagonal(together, 0)
    if not together.any():
        raise SatlightError(
            f"No instruction of '{records.name}' was answered by two candidates, so it is unknown whether another "
            "candidate would have done better. Let all candidates answer the same instructions, a few hundred at least"
        )


def _rarely_known(records: PerformanceRecords) -> str | None:
    """Return a warning about candidates that answered far fewer instructions than others; None = there are none."""
    count = np.asarray(records.known).sum(axis=0)
    rare = [(name, n) for name, n in zip(records.model_ids, count, strict=True) if n < RARE * count.max()]
    if not rare:
        return None
    named = ", ".join(f"{name} ({n})" for name, n in rare[:5])
    return (
        f"Outcomes of some candidates are known on few of the {records.shape[0]} instructions: {named}. Their means "
        "are comparable only if these instructions are a random sample. If a router chose who answers, they are not: "
        "a candidate that is asked only what it is good at looks best. Then let all candidates answer a random sample "
        "of the instructions, and give the log of that sample."
    )


def _check_groups(records: PerformanceRecords, column: str) -> None:
    values = records.instructions[column]
    sizes = values.drop_nulls().value_counts()["count"]
    groups = len(sizes) + values.null_count()
    if groups < FEWEST_GROUPS:
        raise SatlightError(
            f"--group-column {column}: '{records.name}' has {groups} groups in {records.shape[0]} instructions, the "
            f"largest with {max(sizes.to_list(), default=1)}. No group is divided among train, validation and test "
            f"rows, so at least {FEWEST_GROUPS} are needed. Name a column of small groups, such as a conversation or a "
            "user, or leave "
            "out --group-column"
        )


# -- the bench ---------------------------------------------------------------------------------------------


def methods(request: Request, log: Log) -> list[MethodSpec]:
    """Return the routers to measure, the fastest first."""
    found = [MethodSpec(f"{name}_words" if name in ON_VECTORS else name, baseline=name) for name in ON_WORDS]
    if request.embedder is not None:
        found += [MethodSpec(name, baseline=name, embeddings=True) for name in ON_VECTORS]
    if request.config is not None:
        # Longer instructions are shortened, so the limit follows the log; prompts of many tokens cost time.
        limit = f"--model.router_llm.max_instruction_tokens={token_limit(log.records)}"
        overrides = [limit, _max_time(60 * TRAINING * request.minutes)]  # with more minutes, it is another training
        found.append(MethodSpec(MODEL_SAT, config=request.config, overrides=overrides))
    return found


def _max_time(seconds: float) -> str:
    """Return the option that ends a training, with a validation of what was learned so far.

    Example:
        >>> _max_time(3723.5)
        '--trainer.max_time=00:01:02:03'
    """
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    return f"--trainer.max_time={hours // 24:02d}:{hours % 24:02d}:{minutes % 60:02d}:{int(seconds) % 60:02d}"


def token_limit(records: PerformanceRecords) -> int:
    """Return a limit that nine of ten train instructions meet by estimate, from 32 to 128 tokens."""
    from satlight.costs import prompt_tokens

    texts = [text for text, split in zip(records.texts, records.splits, strict=True) if split == "train"]
    return int(np.clip(np.quantile(prompt_tokens(texts), 0.9), 32, 128))


def development_bench(request: Request, log: Log) -> list[Cell]:
    """Write the rows that routers are chosen on, and return the cells of their bench.

    Train rows remain train rows, from which each method draws its own validation rows; validation rows become its test
    rows. The test rows of the log are not written.
    """
    records = log.records
    rows = records.rows(np.isin(records.splits, ["train", "validation"]))
    rows = rows.with_splits(np.where(rows.splits == "validation", "test", "train"))
    folder = request.output / "records" / rows.fingerprint
    if not folder.is_dir():
        save_records(rows, folder)
    config = BenchConfig(
        methods=methods(request, log),
        data=[DataSpec(records.name, str(folder), group_column=request.group_column)],
        output=str(request.output),
        seeds=[request.seed],
        embedder=request.embedder or "minilm",
        resamples=200,
    )
    return plan(config)


@dataclass
class Progress:
    """Messages while cells run; replace the functions to show it.

    Args:
        start: Called with the name of a cell that starts.
        done: Called with its name and result; None = it did not run.
    """

    start: Callable[[str], Any] = lambda name: None
    done: Callable[[str, CellResult | None], Any] = lambda name, result: None


def run_within(request: Request, log: Log, cells: list[Cell], progress: Progress) -> list[str]:
    """Run the cells one after another until the time is over; existing results cost no time.

    Args:
        request: The request.
        log: The log.
        cells: From :func:`development_bench`.
        progress: Told about each cell.

    Returns:
        Sentences about routers that did not run.
    """
    end, notes = time.monotonic() + 60 * request.minutes, []
    by_key = {cell.key: cell for cell in cells}
    late: list[str] = []
    embedding = next((cell for cell in cells if cell.kind == EMBEDDING), None)
    too_long = _too_long(request, log, embedding, end)
    if too_long is not None:
        notes.append(too_long)
    for cell in cells:
        needs = [by_key[key] for key in cell.needs]
        if too_long is not None and (cell is embedding or embedding in needs):
            continue
        old = CellResult.read(request.output, cell.key)
        if old is None or (old.failed and old.error_kind in ("Timeout", "NeedsFailed")):
            left = end - time.monotonic()
            if left < _LEAST_SECONDS and cell.kind != CONTROLS:
                late.append(cell.method)
                progress.done(cell.method, None)
                continue
            progress.start(cell.method)
            limit = max(round(left), _LEAST_SECONDS)
            run = _within(cell, limit)
            run_cells([*needs, run], request.output, workers=1, timeout=limit, retry_failed=old is not None)
        result = CellResult.read(request.output, cell.key)
        progress.done(cell.method, result)
        if result is not None and result.error_kind == "Timeout":
            late.append(cell.method)
        elif result is not None and not result.failed and _ended_early(request, cell):
            notes.append(
                f"The time limit ended the training of {cell.method} before its last epoch. With more --minutes it is "
                "trained longer."
            )
    if late:
        notes.append(
            f"Not fitted within {request.minutes:g} minutes: {', '.join(late)}. The same command with more --minutes "
            "continues."
        )
    return notes


def _within(cell: Cell, seconds: float) -> Cell:
    """Return the cell of a training that ends in time; its key remains that of the nominal time."""
    if cell.kind != "config":
        return cell
    overrides = [*cell.spec["overrides"], _max_time(TRAINING * seconds)]
    return replace(cell, spec=cell.spec | {"overrides": overrides})


def _ended_early(request: Request, cell: Cell) -> bool:
    """Return whether the time limit ended the training of a cell, as Lightning's timer writes into its log."""
    path = request.output / "cells" / cell.key / "log.txt"
    return cell.kind == "config" and path.is_file() and "Time limit reached" in read_text(path, "remove it")


def _too_long(request: Request, log: Log, embedding: Cell | None, end: float) -> str | None:
    """Return why the instructions cannot be embedded in time; None if they can, or already are."""
    if embedding is None:
        return None
    from satlight.backbones.embedding import Embedder

    embed = Embedder(str(request.embedder))
    absent = embed.store.absent(log.records.texts)
    if len(absent) <= _PROBED:
        return None
    step = len(absent) // _PROBED
    embed(absent[:1])  # loads the network
    start = time.monotonic()
    embed(absent[1::step][:_PROBED])
    seconds = (time.monotonic() - start) / _PROBED * len(absent)
    if seconds <= 0.6 * (end - time.monotonic()):
        return None
    return (
        f"Routers on embeddings were left out: embedding {len(absent)} instructions would take about "
        f"{seconds / 60:.0f} minutes. Raise --minutes to {max(2, round(seconds / 60 / 0.5))}, or use a GPU."
    )
