"""From scores to results: routed accuracy next to every control, with intervals and calibration.

Shape legend: N instructions and M candidates of the test records, P datasets, R bootstrap resamples.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from satlight.errors import SatlightError
from satlight.evaluation.comparison import judged_rows
from satlight.evaluation.controls import Control, matrices, measure_controls
from satlight.evaluation.results import (
    LEAST_GAP,
    ControlResult,
    DatasetResult,
    EvaluatedData,
    GroupResult,
    RoutingResults,
    map_numbers,
)
from satlight.evaluation.spending import CurveInputs, Spending, areas, cost_state
from satlight.evaluation.text_controls import TEXT_CONTROLS
from satlight.metrics import forecast, functional, selection
from satlight.metrics.bootstrap import part_draws, percentile_interval
from satlight.records.groups import check_groups

if TYPE_CHECKING:
    from satlight.records import PerformanceRecords
    from satlight.types import Temperature

COMPARED = ("best_single", "dataset_best", "task_best", "zero_router", *TEXT_CONTROLS)
"""Controls that never see a test outcome; the router is compared with them, instruction by instruction."""

G = TypeVar("G", bound=GroupResult)


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
    """Evaluate a router's scores on test records, next to all controls.

    Each instruction goes to the candidate with the highest score (the first one in a tie). If that candidate
    has no record there, the instruction is counted in ``n_unknown``. Where outcomes are missing, the accuracies and
    costs of the router and of all controls are means over the same ``n_compared`` instructions, see
    :mod:`satlight.evaluation.comparison`. Groups are macro means over their datasets; their ``gap_closed`` is that
    of the macro means. Intervals are 95 % percentile bootstrap over instructions, within each dataset; a dataset's
    interval depends only on its own rows and the seed. Costs are reported where every record has one.

    Args:
        score_NM: Log-odds (N, M) in the order of ``test``.
        test: Records to evaluate on, N × M.
        train: Train and validation records, for the controls; None = controls that need them are unknown.
        groups: Dataset groups by name, e.g. ``{"in_domain": ["mmlu", "gsm8k"]}``; None = one group, ``all``.
        seed: Seed of the bootstrap.
        resamples: R, number of bootstrap resamples.
        split: Name of the evaluated split, written into the results.
        calibration: Temperature fitted on validation rows; it only adds ``ece_calibrated``.
        controls: :func:`satlight.evaluation.measure_controls` of the same records; None = measured here.
        core: Ids of the core instructions among ``train``, see :func:`satlight.evaluation.measure_controls`.

    Returns:
        The results, ready to print and save.

    Raises:
        SatlightError: The scores have another shape or are not finite, or a group names unknown datasets.

    Example:
        >>> from satlight.records.simulated import SimulatedZoo
        >>> test = SimulatedZoo(num_instructions=600, num_candidates=3).generate().filter(splits="test")
        >>> group = evaluate(np.array(test.outcomes), test, None, resamples=10).groups["all"]
        >>> group.routed == group.controls["oracle"].accuracy
        True
    """
    score_NM = _checked_scores(score_NM, test)
    names = list(dict.fromkeys(test.datasets.tolist()))
    groups = check_groups({"all": names} if groups is None else groups, names)
    choice_N = functional.choose(score_NM)
    spending = Spending.of(test, train)
    controls = measure_controls(test, train, core) if controls is None else controls
    columns = _columns(choice_N, test, controls, spending)
    parts = {name: torch.from_numpy(np.flatnonzero(test.datasets == name)) for name in names}
    coverage = [{name: _known_share(control.at(rows)) for name, control in columns.items()} for rows in parts.values()]
    columns = _comparable(columns, list(parts.values()))
    judged = [rows[columns["routed"].known[rows]] for rows in parts.values()]
    draws = _draws(columns, list(parts.values()), [zlib.crc32(f"{seed} {name}".encode()) for name in names], resamples)
    entries = [
        replace(_measure(rows, score_NM, test, columns, spending, calibration), coverage=shares)
        for rows, shares in zip(parts.values(), coverage, strict=True)
    ]
    inputs = [] if spending is None else [spending.curve_inputs(score_NM, rows) for rows in judged]
    finish = partial(_finish_part, draws=draws, inputs=inputs, best=_column(columns["best_single"]))
    places = {name: [names.index(member) for member in members] for name, members in groups.items()}
    return RoutingResults(
        datasets={name: finish(entries[p], [p]) for p, name in enumerate(names)},
        groups={name: finish(_macro([entries[p] for p in own]), own) for name, own in places.items()},
        candidates=test.model_ids,
        split=split,
        score_column=test.score_column,
        data=EvaluatedData(test.name, test.fingerprint, test.simulated, cost_state(test)),
        seed=seed,
        calibration=calibration,
    )


def _finish_part(entry: G, members: list[int], draws: dict[str, Tensor], inputs: list[CurveInputs], best: int) -> G:
    """Finish a dataset or group by the mean draws and cost curves of its members."""
    draw = {name: draw_PR[members].mean(0) for name, draw_PR in draws.items()}
    mean = CurveInputs.mean([inputs[p] for p in members]) if inputs else None
    return _finished(entry, draw, mean, best)


def _known_share(control: Control) -> float:
    """Return the share of the instructions on which a policy has an outcome."""
    return control.known.double().mean().item()


def _comparable(columns: dict[str, Control], parts: Sequence[Tensor]) -> dict[str, Control]:
    """Restrict the outcomes of all policies to the instructions of each dataset that they are compared on."""
    names = list(columns)
    known_EN = torch.stack([control.known for control in columns.values()])
    kept_EN = torch.zeros_like(known_EN)
    for rows in parts:
        row_N, policy_E = judged_rows(known_EN[:, rows], [names.index("routed"), names.index("oracle")])
        kept_EN[:, rows] = policy_E[:, None] & row_N
    return {
        name: replace(control, outcomes=torch.where(kept_N, control.outcomes, 0.0), known=kept_N)
        for (name, control), kept_N in zip(columns.items(), kept_EN, strict=True)
    }


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
    """Return outcomes under the router and every control; with true probabilities, also expected outcomes."""
    columns = {"routed": Control.of(choice_N, *matrices(test)), **controls}
    if spending is not None:
        columns["zero_router"] = spending.zero_router(choice_N)
    if test.expected is not None:
        expected_NM = torch.from_numpy(np.array(test.expected, dtype=np.float32))
        known_NM = torch.ones_like(expected_NM, dtype=torch.bool)
        for name in ("routed", "best_single"):
            choices = columns[name].choices
            assert choices is not None
            columns[f"{name}_expected"] = Control.of(choices, expected_NM, known_NM)
    return columns


def _column(control: Control) -> int:
    """Return the one column that a control chooses for every row; -1 = none."""
    assert control.choices is not None
    return int(control.choices[0])


# -- one dataset -------------------------------------------------------------------------------------------


def _measure(
    rows: Tensor,
    score_NM: Tensor,
    test: PerformanceRecords,
    columns: dict[str, Control],
    spending: Spending | None,
    calibration: Temperature | None,
) -> DatasetResult:
    """Measure the rows of a dataset; :func:`_finished` adds the rest."""
    cost = {} if spending is None else spending.costs(columns, rows)
    columns = {name: control.at(rows) for name, control in columns.items()}
    accuracy = {
        name: 100 * functional.masked_mean(control.outcomes.double(), control.known).item()
        for name, control in columns.items()
    }
    results = {name: ControlResult(value, cost=cost.get(name)) for name, value in accuracy.items() if name != "routed"}
    routed, score_NM, ids = accuracy["routed"], score_NM[rows], test.model_ids
    choice_N = functional.choose(score_NM)
    outcome_NM, known_NM = cells = matrices(test.rows(rows.numpy()))
    calibrated = None
    if calibration is not None:
        logit_NM = torch.from_numpy(calibration.apply(score_NM.double().numpy(), ids))
        calibrated = forecast.expected_calibration_error(logit_NM, *cells).item()
    share_M = functional.selection_share(choice_N, len(ids))
    judged_N = columns["routed"].known
    single_M = 100 * functional.group_means(outcome_NM, known_NM & judged_N[:, None], torch.zeros_like(rows), 1)[0]
    best, dataset_best = (
        None if column == functional.NONE else ids[column]
        for column in (_column(columns[name]) for name in ("best_single", "dataset_best"))
    )
    return DatasetResult(
        n=len(rows),
        n_unknown=int((~functional.outcomes_of(choice_N, *cells)[1]).sum()),
        n_compared=int(judged_N.sum()),
        routed=routed,
        controls=results,
        gain_random=selection.accuracy_ratio(routed, accuracy["random"]) - 1,
        gain_best_single=selection.accuracy_ratio(routed, accuracy["best_single"]) - 1,
        gap_oracle=1 - selection.accuracy_ratio(routed, accuracy["oracle"]),
        ece=forecast.expected_calibration_error(score_NM, *cells).item(),
        ece_calibrated=calibrated,
        brier=forecast.brier_score(score_NM, *cells).item(),
        forecast_accuracy=forecast.forecast_accuracy(score_NM, *cells).item(),
        auroc=forecast.forecast_auroc(score_NM, *cells).item(),
        log_loss=forecast.forecast_log_loss(score_NM, *cells).item(),
        rare_solver_recall=selection.rare_solver_recall(choice_N, *cells).item(),
        share=dict(zip(ids, share_M.tolist(), strict=True)),
        single=dict(zip(ids, single_M.tolist(), strict=True)),
        best_single_candidate=best,
        dataset_best_candidate=dataset_best,
        cost_routed=cost.get("routed"),
        rci=None if spending is None else selection.routing_collapse(choice_N, *spending.cells(rows)).item(),
    )


def _draws(
    columns: dict[str, Control], parts: Sequence[Tensor], seeds: Sequence[int], resamples: int
) -> dict[str, Tensor]:
    """Resample percentages (P, R): ``routed``, and routed minus each control on the same instructions."""
    routed = columns["routed"]
    values, known = {"routed": routed.outcomes}, {"routed": routed.known}
    for name in COMPARED:
        if name in columns:
            values[name] = routed.outcomes - columns[name].outcomes
            known[name] = routed.known & columns[name].known
    value_KN, known_KN = torch.stack(list(values.values())), torch.stack(list(known.values()))
    draw_PKR = 100 * part_draws(value_KN, known_KN, parts=parts, seeds=seeds, resamples=resamples)
    return dict(zip(values, draw_PKR.unbind(1), strict=True))


# -- datasets and groups -----------------------------------------------------------------------------------


def _macro(entries: list[DatasetResult]) -> GroupResult:
    """Average results over datasets and add their counts; what is NaN in one dataset is NaN in the mean."""
    mean = map_numbers(lambda *values: sum(values) / len(values), *entries)
    values = {field.name: getattr(mean, field.name) for field in fields(GroupResult)}
    counts = {key: sum(getattr(entry, key) for entry in entries) for key in ("n", "n_unknown", "n_compared")}
    return GroupResult(**values | counts)


def _finished(entry: G, draws: dict[str, Tensor], inputs: CurveInputs | None, best: int) -> G:
    """Add intervals, areas and what follows from means; round, and set None for what is not finite."""
    accuracy = {name: _number(control.accuracy) for name, control in entry.controls.items()}
    routed, single = _number(entry.routed), accuracy["best_single"]
    share_M = torch.tensor([_number(share) for share in entry.share.values()], dtype=torch.double)
    controls = {
        name: replace(control, versus=percentile_interval(draws[name])) if name in draws else control
        for name, control in entry.controls.items()
    }
    reachable = None
    if "bayes_optimal" in accuracy:
        low, high = accuracy["best_single_expected"], accuracy["bayes_optimal"]
        reachable = functional.gap_closed(accuracy["routed_expected"], low, high, LEAST_GAP)
    best = functional.NONE if math.isnan(single) else best  # not comparable
    area: dict[str, Any] = {} if inputs is None else areas(inputs, best)
    complete = replace(
        entry,
        interval=percentile_interval(draws["routed"]),
        controls=controls,
        **area,
        gap_closed=functional.gap_closed(routed, single, accuracy["oracle"], LEAST_GAP),
        v_b=selection.accuracy_ratio(routed, single),
        selection_entropy=selection.entropy_of_shares(share_M).item(),
        reachable_gap_closed=reachable,
    )
    return map_numbers(lambda value: round(value, 6) if math.isfinite(value) else None, complete)


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
