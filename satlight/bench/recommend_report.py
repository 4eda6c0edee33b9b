"""A recommendation as sentences, JSON and one HTML page."""

from __future__ import annotations

import json
import math
from pathlib import Path

import satlight
from satlight.bench.figures import Plot
from satlight.bench.recommendation import Recommendation
from satlight.bench.report import svg, template
from satlight.evaluation import plots
from satlight.evaluation.plots import Estimate
from satlight.evaluation.verdict import MARGIN, QUALITY, SAVING, Comparison
from satlight.files import write_text
from satlight.metrics.bootstrap import Difference

_SHOWN = 24
"""Maximum number of kinds of instructions in the plot; the table has all."""

BLIND = " (fixed shares of all requests for single candidates)"
"""Explains the blind mixture to those who have not read the documentation."""

_LABEL = 34
"""Maximum number of characters of a kind's name in the plot."""

Row = tuple[str, ...]


def headline(found: Recommendation) -> str:
    """Return the recommendation in one sentence."""
    if not found.route:
        return f"Do not route; use {found.single}."
    if found.policy == SAVING:
        return f"Route with {found.method}: the quality of {found.single} at a lower cost."
    return f"Route with {found.method}: better answers than {found.single} alone."


def reason(found: Recommendation) -> str:
    """Return why, in one or two sentences with figures on held-out instructions."""
    one, level = found.main, found.facts["level"]
    held = f"on {one.rows} held-out instructions"
    text = f"{found.method} differs by {points(one.gain, level)} from {found.single} {held}"
    if one.cost_change is not None and one.mixture_gain is not None:
        text += f", its cost by {percent(one.cost_change, level)}; against the blind mixture of single candidates at "
        text += f"equal cost, the difference is {points(one.mixture_gain, level)}"
    if found.route:
        return f"{text}."
    if found.validation_gain <= 0:
        return f"No router was better on the validation rows. The best of them, {text}."
    more = _why_not_to_save(found)
    if one.mixture_gain is not None and one.mixture_gain.low > 0:
        more += " Where less quality at less cost will do, it is better than the blind mixture."
    return f"{text}. That does not show that routing pays.{more}"


def _why_not_to_save(found: Recommendation) -> str:
    """Return why a lower cost is no reason to route, if the loss of quality is."""
    for one in found.comparisons:
        cheaper = one.cost_change is not None and one.cost_change.high < 0
        if one.policy == SAVING and cheaper and one.gain.low <= -MARGIN:
            assert one.cost_change is not None
            return (
                f" The saving rule changes the cost by {percent(one.cost_change, found.facts['level'])}, but a loss of "
                f"{-100 * one.gain.low:.2f} points is not excluded; {100 * MARGIN:g} is allowed."
            )
    return ""


def gain_over(found: Recommendation) -> str:
    """Return what the gains on the validation rows refer to."""
    costs = found.comparisons[0].cost is not None
    return f"mean over both rules, against the blind mixture at equal cost{BLIND}" if costs else f"over {found.single}"


def power(found: Recommendation) -> str:
    """Return how many instructions a gain of one point needs."""
    if found.needed is None:
        return f"{found.method} chooses as {found.single} does, so there is no difference to measure."
    have = found.main.rows
    if not found.more:
        return (
            f"The {have} test rows are enough to tell a gain of one point from zero (80 % power: about {found.needed})."
        )
    return (
        f"To tell a gain of one point from zero (80 % power), about {found.needed} test rows are needed; there are "
        f"{have}. With the present shares of the splits, that is about {found.more} more logged instructions."
    )


def points(difference: Difference, level: float) -> str:
    """Return a difference of qualities in points, with its interval."""
    mean, low, high = (100 * value for value in difference[:3])
    return f"{mean:+.2f} points ({100 * level:g} %: {low:+.2f} to {high:+.2f})"


def _short(difference: Difference) -> str:
    mean, low, high = (100 * value for value in difference[:3])
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def percent(difference: Difference, level: float) -> str:
    """Return a relative difference in percent, with its interval; the cost of the other may be 0 in some resamples.

    Example:
        >>> percent(Difference(-0.027, -0.297, float("nan"), 1.0, False), 0.95)
        '-2.7 % (95 %: -29.7 to unbounded)'
    """
    mean, low, high = (f"{100 * value:+.1f}" if math.isfinite(value) else "unbounded" for value in difference[:3])
    return f"{mean} % ({100 * level:g} %: {low} to {high})"


def policy_rows(found: Recommendation) -> list[tuple[str, list[Row]]]:
    """Return a title and lines of name and figure for each policy."""
    level, costs = found.facts["level"], found.comparisons[0].cost is not None
    titles = {
        QUALITY: f"Quality: the best answers{f' at the mean cost of {found.single}' if costs else ''}",
        SAVING: f"Saving: the lowest cost at the quality of {found.single}",
    }
    return [
        (f"{titles[one.policy]} (rule {one.rule})", _policy_rows(one, found.single, level)) for one in found.comparisons
    ]


def _policy_rows(one: Comparison, single: str, level: float) -> list[Row]:
    rows: list[Row] = [
        ("accuracy", f"{100 * one.quality:.2f} %"),
        (f"accuracy of {single}", f"{100 * one.single_quality:.2f} %"),
        (f"difference to {single}", points(one.gain, level)),
    ]
    if one.cost is not None and one.single_cost is not None:
        rows += [
            ("cost of 1,000 instructions", f"{1000 * one.cost:.4g} US dollars"),
            (f"cost of {single}", f"{1000 * one.single_cost:.4g} US dollars"),
        ]
    if one.cost_change is not None:
        rows.append((f"cost against {single}", percent(one.cost_change, level)))
    if one.mixture_gain is not None:
        rows.append(("quality against the blind mixture at equal cost", points(one.mixture_gain, level)))
    if one.mixture_cost_change is not None:
        rows.append(("cost against the blind mixture at equal quality", percent(one.mixture_cost_change, level)))
    if one.share < 1:
        rows.append(("compared on", f"{100 * one.share:.1f} % of the test rows: those with both outcomes"))
    return rows


KIND_HEADINGS = ("kind of instruction", "test rows", "gain in points, 95 %", "chosen most often")
"""Headings of :func:`kind_rows`."""


def kind_rows(found: Recommendation) -> list[Row]:
    """Return name, test rows, gain and most frequent choice of each kind of instructions.

    The largest gain comes first, kinds with too few rows for a figure last.
    """
    ordered = sorted(found.kinds, key=lambda one: -one.gain.mean if one.gain else 2.0)
    return [
        (
            one.name,
            str(one.rows),
            "–" if one.gain is None else _short(one.gain),
            f"{one.chosen} ({100 * one.chosen_share:.0f} %)",
        )
        for one in ordered
    ]


def method_rows(found: Recommendation) -> list[Row]:
    """Return name, gain on validation rows and time to fit of each router."""
    return [
        (
            one.name,
            f"{100 * one.gain:+.2f} points" if one.cell else (one.error or "").splitlines()[0][:80],
            "–" if one.seconds is None else f"{one.seconds:.1f} s",
        )
        for one in found.measured
    ]


def write_recommendation(found: Recommendation, folder: Path) -> None:
    """Write recommendation.json and recommendation.html into ``folder``."""
    text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(folder / "recommendation.json", text + "\n")
    page = template("recommendation.html.jinja").render(
        found=found,
        version=satlight.__version__,
        headline=headline(found),
        reason=reason(found),
        power=power(found),
        policies=policy_rows(found),
        kinds=kind_rows(found),
        kind_headings=KIND_HEADINGS,
        methods=method_rows(found),
        gain_over=gain_over(found),
        plots=[(one, svg(one)) for one in _plots(found)],
    )
    write_text(folder / "recommendation.html", page)


def _plots(found: Recommendation) -> list[Plot]:
    level = 100 * found.facts["level"]
    summary = {}
    for one in found.comparisons:
        summary[f"{one.policy}: against best single"] = _estimate(one.gain)
        if one.mixture_gain is not None:
            summary[f"{one.policy}: against blind mixture"] = _estimate(one.mixture_gain)
    label = "difference in accuracy (points)"
    caption = f"Accuracy of {found.method} on the test rows, paired differences with intervals at {level:g} %."
    made = [Plot("summary", caption, plots.gains(summary, label))]
    costs = {}
    for one in found.comparisons:
        for name, change in (("best single", one.cost_change), ("blind mixture", one.mixture_cost_change)):
            if change is not None:
                costs[f"{one.policy}: against {name}"] = _estimate(change)
    if costs:
        caption = (
            f"Cost of {found.method}: against the best single candidate as it is, against the blind mixture at equal "
            f"quality; intervals at {level:g} %."
        )
        made.append(Plot("costs", caption, plots.gains(costs, "difference in cost (%)")))
    kinds = {_label(one.name): _estimate(one.gain) for one in found.kinds[:_SHOWN] if one.gain is not None}
    if len(kinds) > 1:
        caption = f"Gain over {found.single} by kind of instruction, the largest kinds; 95 % intervals, not adjusted."
        made.append(Plot("kinds", caption, plots.gains(kinds, label)))
    return made


def _label(name: str) -> str:
    """Return a name that fits next to a plot; names of tasks differ at the end more often than at the start.

    Example:
        >>> _label("mmlu_pro/ori_mmlu-high_school_statistics")
        'mmlu_pro/ori…igh_school_statistics'
    """
    return name if len(name) <= _LABEL else f"{name[:12]}…{name[13 - _LABEL :]}"


def _estimate(difference: Difference) -> Estimate:
    return Estimate(100 * difference.mean, 100 * difference.low, 100 * difference.high)
