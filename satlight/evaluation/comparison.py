"""Instructions that all policies of a comparison are judged on.

A policy, that is a router or a control, has no outcome where the candidate of its choice has no record. A mean over
whatever each policy answered may put one candidate above the oracle, because easy instructions count for one and not
for the other. Therefore all accuracies of a table are means over the same instructions: those on which every policy
has an outcome. A policy that would leave fewer than :data:`KEPT` of the instructions is not comparable and has no
accuracy. On complete records these are all instructions and all policies.

Shape legend: N instructions of one dataset, E policies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from satlight.evaluation.outcomes import CANDIDATE, KEY, METHOD, ORACLE

KEPT = 0.5
"""Minimum share of the instructions that a policy leaves in the comparison."""


def judged_rows(known_EN: Tensor, required: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the instructions to compare policies on, and the policies that can be compared.

    Policies join in the order of the number of their outcomes, as long as at least :data:`KEPT` of the instructions of
    the required policies remain. The oracle has an outcome wherever any policy has one, so on these instructions no
    policy is above it.

    Args:
        known_EN: bool (E, N), where the outcome of each policy is known.
        required: Policies that the others must be compared with.

    Returns:
        bool (N,) instructions; bool (E,) policies, False also for those without any outcome.

    Example:
        >>> known = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 1], [0, 0, 0, 1, 1]]).bool()
        >>> rows, policies = judged_rows(known, required=[0])
        >>> rows.tolist(), policies.tolist()
        ([True, True, True, False, False], [True, True, False])
    """
    row_N = known_EN[list(required)].all(0)
    least = KEPT * int(row_N.sum())
    policy_E = torch.zeros(len(known_EN), dtype=torch.bool)
    policy_E[list(required)] = True
    for e in known_EN.sum(1).argsort(descending=True, stable=True).tolist():
        remaining_N = row_N & known_EN[e]
        if not policy_E[e] and known_EN[e].any() and int(remaining_N.sum()) >= least:
            row_N, policy_E[e] = remaining_N, True
    return row_N, policy_E


class Comparable(NamedTuple):
    """Outcome table of policies on the same instructions.

    Args:
        table: The table, with nulls where an outcome does not enter the comparison.
        compared: Dataset → share of its instructions that the comparison is over.
        left_out: Policy that is not comparable → dataset → share of the instructions on which it has an outcome.
    """

    table: pl.DataFrame
    compared: dict[str, float]
    left_out: dict[str, dict[str, float]]


def comparable(table: pl.DataFrame, by: Sequence[str] = ("dataset",)) -> Comparable:
    """Restrict an outcome table to the instructions of each dataset that all its policies can be compared on.

    A policy answers an instruction if it has an outcome there for each of its seeds and folds.

    Args:
        table: Rows under one protocol (:data:`satlight.evaluation.outcomes.SCHEMA`). Those of single candidates are
            restricted to the same instructions, but decide nothing.
        by: Columns of the parts to select instructions in, ``dataset`` first.

    Returns:
        The table and what was left out: nothing if no outcome is missing.
    """
    policies = pl.col("role") != CANDIDATE
    result = Comparable(table, dict.fromkeys(table["dataset"].unique(maintain_order=True).to_list(), 1.0), {})
    if not table.filter(policies)["outcome"].null_count():
        return result
    table = table.with_columns(policy=pl.concat_str(KEY, separator=" "))
    parts = []
    for (dataset, *_), part in table.partition_by(*by, as_dict=True, maintain_order=True).items():
        answered = part.filter(policies).group_by("policy", "row", maintain_order=True)
        wide = answered.agg(known=pl.col("outcome").is_not_null().all()).pivot("policy", index="row", values="known")
        names = wide.columns[1:]
        known_EN = torch.from_numpy(wide.drop("row").fill_null(False).to_numpy().T.copy())
        row_N, policy_E = judged_rows(known_EN, [names.index(ORACLE)] if ORACLE in names else [])
        excluded = [name for name, kept in zip(names, policy_E.tolist(), strict=True) if not kept]
        for name in excluded:
            if share := known_EN[names.index(name)].double().mean().item():
                result.left_out.setdefault(_readable(name), {})[str(dataset)] = share
        result.compared[str(dataset)] = min(result.compared[str(dataset)], row_N.double().mean().item())
        judged = pl.col("row").is_in(wide["row"].filter(pl.Series(row_N.numpy())).to_list())
        keep = judged & ~pl.col("policy").is_in(excluded)
        parts.append(part.with_columns(pl.when(keep).then(column) for column in ("outcome", "cost")))
    return result._replace(table=pl.concat(parts).drop("policy"))


def _readable(policy: str) -> str:
    """Return a policy without the role that most have."""
    return policy.removeprefix(f"{METHOD} ").removeprefix("control ").replace("_", " ")


def left_out(coverage: Mapping[str, Mapping[str, float]], compared: Mapping[str, float]) -> list[str]:
    """Return sentences about what a comparison leaves out; none on complete records.

    Args:
        coverage: Policy that is not comparable → dataset → share of the instructions on which it has an outcome.
        compared: Dataset → share of the instructions that the comparison is over.

    Example:
        >>> left_out({"best single": {"math": 0.4}}, {"math": 0.9, "code": 1.0})
        ['compared on 90 % of the instructions of math: those on which all policies have an outcome', \
'best single answered 40 % of the test instructions of math; not comparable']
    """
    parts = [f"{_percent(share)} of the instructions of {name}" for name, share in compared.items() if share < 1]
    lines = [f"compared on {', '.join(parts)}: those on which all policies have an outcome"] if parts else []
    for policy, shares in coverage.items():
        answered = ", ".join(f"{_percent(share)} of the test instructions of {name}" for name, share in shares.items())
        lines.append(f"{policy} answered {answered}; not comparable")
    return lines


def _percent(share: float) -> str:
    """Return a share below 1 in percent, never rounded up to 100."""
    return f"{min(100 * share, 99.9):.{0 if share < 0.99 else 1}f} %"
