"""From scores to the table: routed accuracy beside every control, with intervals and calibration.

Shape legend: N instructions and M candidates of the test records, R bootstrap resamples.

Units in results: accuracies, their intervals and differences are percent, and the areas
``aiq``, ``zero_router_aiq`` and ``nauc`` too; ``cost_*`` are US dollars per 1,000 instructions,
``selection_entropy`` is in bits and ``log_loss`` in nats; everything else is a fraction or a ratio. None =
cannot be measured.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from satlight.errors import SatlightError
from satlight.evaluation.controls import Control, matrices, measure_controls
from satlight.evaluation.results import RoutingResults
from satlight.evaluation.spending import Spending, areas, cost_state, mean_parts
from satlight.evaluation.text_controls import TEXT_CONTROLS
from satlight.metrics import forecast, functional, selection
from satlight.metrics.bootstrap import bootstrap_means, percentile_interval

if TYPE_CHECKING:
    from satlight.metrics.calibration import Temperature
    from satlight.records import PerformanceRecords

Entry = dict[str, Any]

VERSUS = ("best_single", "dataset_best", "task_best", "zero_router", *TEXT_CONTROLS)
"""Controls that the router is compared with, instruction by instruction: those that never saw a test row."""


def evaluate(
    score_NM: np.ndarray | Tensor,
    test: PerformanceRecords,
    train: PerformanceRecords | None,
    groups: dict[str, list[str]] | None = None,
    *,
    seed: int = 0,
    resamples: int = 2000,
    split: str = "test",
    calibration: Temperature | None = None,
    controls: dict[str, Control] | None = None,
    core: Collection[str] | None = None,
) -> RoutingResults:
    """Judge a router's scores on test records, beside all controls.

    Each instruction goes to the candidate with the highest score (the first of equals). If that candidate
    has no record there, the instruction is left out of ``routed`` and counted in ``n_unknown``. Groups are
    macro means over their datasets; their ``gap_closed`` is that of the macro means. Intervals are 95 %
    percentile bootstrap over instructions, within each dataset; a dataset's interval depends on its own
    rows and the seed alone. Costs are reported where every record has one.

    Args:
        score_NM: Log-odds (N, M) in the order of ``test``.
        test: Records to be judged on, N × M.
        train: Train and validation records, which controls choose and learn from; None = without these.
        groups: Names of dataset groups, e.g. ``{"in_domain": ["mmlu", "gsm8k"]}``; None = ``all``.
        seed: Of the bootstrap.
        resamples: R, number of bootstrap resamples.
        split: Name of the judged split, written into the results.
        calibration: Temperature fitted on validation rows; adds ``ece_calibrated``, and changes nothing else.
        controls: What :func:`satlight.evaluation.measure_controls` gives for the same test and train records,
            where many routers are judged on them; None = measured here.
        core: Ids of the core instructions among ``train``, see :func:`satlight.evaluation.measure_controls`.

    Returns:
        The results, ready to print and save.

    Raises:
        SatlightError: Scores of another shape or not finite, or a group of unknown datasets.

    Example:
        >>> import polars as pl
        >>> from satlight.records import PerformanceRecords
        >>> from satlight.types import Candidate
        >>> rows = pl.DataFrame({"instruction_id": ["1", "2"], "dataset": ["a", "a"], "task": ["a", "a"],
        ...     "split": ["test", "test"], "instruction": ["x", "y"]})
        >>> outcomes = np.array([[1, 0], [0, 1]], dtype=np.float32)
        >>> records = PerformanceRecords(rows, (Candidate("m"), Candidate("n")), outcomes, outcomes >= 0)
        >>> results = evaluate(np.array([[2.0, 1.0], [0.0, 3.0]]), records, records)
        >>> results.groups["all"]["routed"], results.groups["all"]["best_single"]
        (100.0, 50.0)
    """
    score_NM = _checked_scores(score_NM, test)
    names = list(dict.fromkeys(test.datasets.tolist()))
    groups = check_groups({"all": names} if groups is None else groups, names)
    choice_N = functional.choose(score_NM)
    spending = Spending.of(test, train)
    controls = measure_controls(test, train, core) if controls is None else controls
    columns = _columns(choice_N, test, controls, spending)
    datasets: dict[str, Entry] = {}
    draws: dict[str, dict[str, Tensor]] = {}
    parts = {}
    for name in names:
        rows = torch.from_numpy(np.flatnonzero(test.datasets == name))
        columns_here = {key: _rows_of(control, rows) for key, control in columns.items()}
        draws[name] = _draws(columns_here, resamples, zlib.crc32(f"{seed} {name}".encode()))
        datasets[name] = {
            **_accuracies(columns_here),
            **_intervals(draws[name]),
            **_relative(columns_here),
            **_of_scores(score_NM[rows], test, rows, calibration),
            "best_single_candidate": _candidate(columns_here["best_single"], test),
            "dataset_best_candidate": _candidate(columns_here["dataset_best"], test),
        }
        if spending is not None:
            datasets[name] |= spending.costs(columns, rows)
            parts[name] = spending.parts(score_NM, rows)
    best = _column(columns["best_single"])
    merged: dict[str, Entry] = {}
    for name, members in groups.items():
        merged[name] = _group([datasets[member] for member in members], [draws[member] for member in members])
        if spending is not None:
            merged[name] |= areas(mean_parts([parts[member] for member in members]), best)
    for name in parts:
        datasets[name] |= areas(parts[name], best)
    return RoutingResults(
        datasets={name: _with_gaps(entry) for name, entry in datasets.items()},
        groups={name: _with_gaps(entry) for name, entry in merged.items()},
        candidates=test.model_ids,
        split=split,
        score_column=test.score_column,
        data={
            "name": test.name,
            "fingerprint": test.fingerprint,
            "simulated": test.simulated,
            "costs": cost_state(test),
        },
        seed=seed,
        calibration=None if calibration is None else asdict(calibration),
    )


def _group(entries: list[Entry], draws: list[dict[str, Tensor]]) -> Entry:
    """Macro means over the datasets of a group, with intervals from the same resamples."""
    means = {key: torch.stack([draw[key] for draw in draws]).mean(0) for key in draws[0]}
    return _macro(entries) | _intervals(means)


def check_groups(groups: dict[str, list[str]], datasets: list[str]) -> dict[str, list[str]]:
    """The groups, each dataset once; call it before training to learn of a typo in time.

    Args:
        groups: Datasets of each group.
        datasets: Names of the datasets that exist.

    Returns:
        The same groups without repetitions.

    Raises:
        SatlightError: A group is empty or names a dataset that does not exist.
    """
    for name, members in groups.items():
        if not members:
            raise SatlightError(
                f"The group '{name}' is empty; name at least one of the datasets {sorted(datasets)}"
            )
        if unknown := sorted(set(members) - set(datasets)):
            raise SatlightError(
                f"The group '{name}' names {unknown}, but the test records hold the datasets "
                f"{sorted(datasets)}; correct the name, or leave it out of the group"
            )
    return {name: list(dict.fromkeys(members)) for name, members in groups.items()}


def _checked_scores(score_NM: np.ndarray | Tensor, test: PerformanceRecords) -> Tensor:
    score_NM = torch.as_tensor(score_NM).detach().cpu().float()
    if tuple(score_NM.shape) != test.shape:
        raise SatlightError(
            f"The scores have shape {tuple(score_NM.shape)}, but the records '{test.name}' are "
            f"{test.shape[0]} instructions x {test.shape[1]} candidates; score exactly these, in this order"
        )
    if len(bad := (~score_NM.isfinite()).nonzero()):
        row, column = bad[0].tolist()
        raise SatlightError(
            f"{len(bad)} scores are not finite, the first for instruction "
            f"'{test.instructions['instruction_id'][row]}' and candidate '{test.model_ids[column]}' "
            f"({score_NM[row, column]}); scores are finite log-odds, so the router has diverged or overflowed"
        )
    return score_NM


def _columns(
    choice_N: Tensor, test: PerformanceRecords, controls: dict[str, Control], spending: Spending | None
) -> dict[str, Control]:
    """Outcomes under the router and under every control; with true probabilities, what to expect of them."""
    columns = {"routed": Control(*functional.outcomes_of(choice_N, *matrices(test)), choice_N), **controls}
    if spending is not None:
        columns["zero_router"] = spending.zero_router(choice_N)
    if test.expected is not None:
        expected_NM = torch.from_numpy(np.array(test.expected, dtype=np.float32))
        known_NM = torch.ones_like(expected_NM, dtype=torch.bool)
        for name in ("routed", "best_single"):
            choices = columns[name].choices
            assert choices is not None
            columns[f"{name}_expected"] = Control(
                *functional.outcomes_of(choices, expected_NM, known_NM), choices
            )
    return columns


def _rows_of(control: Control, rows: Tensor) -> Control:
    choices = None if control.choices is None else control.choices[rows]
    return replace(control, outcomes=control.outcomes[rows], known=control.known[rows], choices=choices)


def _accuracies(columns: dict[str, Control]) -> Entry:
    routed = columns["routed"]
    return {
        "n": len(routed.known),
        "n_unknown": int((~routed.known).sum()),
        **{
            name: 100 * functional.masked_mean(control.outcomes.double(), control.known).item()
            for name, control in columns.items()
        },
    }


def _relative(columns: dict[str, Control]) -> Entry:
    """Gain@R, Gain@B and Gap@O of one dataset, which their means over datasets are made of."""
    accuracy = _accuracies(columns)
    return {
        "gain_random": selection.gain_over(accuracy["routed"], accuracy["random"]),
        "gain_best_single": selection.gain_over(accuracy["routed"], accuracy["best_single"]),
        "gap_oracle": selection.gap_to(accuracy["routed"], accuracy["oracle"]),
    }


def _of_scores(
    score_NM: Tensor, test: PerformanceRecords, rows: Tensor, calibration: Temperature | None
) -> Entry:
    """Forecast and calibration, the share of each candidate among the choices, and its own accuracy."""
    outcome_NM, known_NM = matrices(test.rows(rows.numpy()))
    choice_N = functional.choose(score_NM)
    share_M = functional.selection_share(choice_N, len(test.model_ids))
    group_N = torch.zeros(len(rows), dtype=torch.long)
    single_M = 100 * functional.group_means(outcome_NM, known_NM, group_N, 1)[0]
    calibrated = {}
    if calibration is not None:
        error = forecast.expected_calibration_error(calibration.apply(score_NM), outcome_NM, known_NM)
        calibrated["ece_calibrated"] = error.item()
    return {
        "ece": forecast.expected_calibration_error(score_NM, outcome_NM, known_NM).item(),
        **calibrated,
        "brier": forecast.brier_score(score_NM, outcome_NM, known_NM).item(),
        "forecast_accuracy": forecast.forecast_accuracy(score_NM, outcome_NM, known_NM).item(),
        "auroc": forecast.forecast_auroc(score_NM, outcome_NM, known_NM).item(),
        "log_loss": forecast.forecast_log_loss(score_NM, outcome_NM, known_NM).item(),
        "rare_solver_recall": selection.rare_solver_recall(choice_N, outcome_NM, known_NM).item(),
        "share": dict(zip(test.model_ids, share_M.tolist(), strict=True)),
        "single": dict(zip(test.model_ids, single_M.tolist(), strict=True)),
    }


def _candidate(control: Control, test: PerformanceRecords) -> str | None:
    """The one candidate that a control chooses for a whole dataset."""
    column = _column(control)
    return None if column == functional.NONE else test.model_ids[column]


def _column(control: Control) -> int:
    assert control.choices is not None
    return int(control.choices[0])


def _draws(columns: dict[str, Control], resamples: int, seed: int) -> dict[str, Tensor]:
    """Resampled percentages (R,): routed, and routed minus a control on the same instructions."""
    routed = columns["routed"]
    values, known = {"interval": routed.outcomes}, {"interval": routed.known}
    for name in VERSUS:
        if name in columns:
            values[f"versus_{name}"] = routed.outcomes - columns[name].outcomes
            known[f"versus_{name}"] = routed.known & columns[name].known
    value_KN, known_KN = torch.stack(list(values.values())), torch.stack(list(known.values()))
    draw_KR = 100 * bootstrap_means(value_KN, known_KN, resamples=resamples, seed=seed)
    return dict(zip(values, draw_KR, strict=True))


def _intervals(draws: dict[str, Tensor]) -> Entry:
    return {key: list(percentile_interval(draw_R)) for key, draw_R in draws.items()}


def _macro(entries: list[Entry]) -> Entry:
    """Mean over datasets, key by key; counts are added. A gap in one dataset is a gap in the mean."""
    first = entries[0]
    merged: Entry = {key: sum(entry[key] for entry in entries) for key in ("n", "n_unknown")}
    for key, value in first.items():
        if isinstance(value, dict):
            merged[key] = {name: _mean([entry[key][name] for entry in entries]) for name in value}
        elif isinstance(value, float):
            merged[key] = _mean([entry[key] for entry in entries])
    merged["best_single_candidate"] = first["best_single_candidate"]
    return merged


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _with_gaps(entry: Entry) -> Entry:
    """The finished entry: with the shares of the gap closed, rounded, None for NaN."""
    entry["gap_closed"] = functional.gap_closed(entry["routed"], entry["best_single"], entry["oracle"])
    entry["v_b"] = selection.accuracy_ratio(entry["routed"], entry["best_single"])
    entry["selection_entropy"] = selection.entropy_of_shares(
        torch.tensor(list(entry["share"].values()), dtype=torch.double)
    ).item()
    if "bayes_optimal" in entry:
        entry["reachable_gap_closed"] = functional.gap_closed(
            entry["routed_expected"], entry["best_single_expected"], entry["bayes_optimal"]
        )
    return {key: _tidy(value) for key, value in entry.items()}


def _tidy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tidy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
