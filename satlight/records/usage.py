"""Costs and token counts of candidates, measured in a log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from satlight.costs import PER, prompt_tokens
from satlight.records.folder import read_tables
from satlight.records.matrix import PerformanceRecords
from satlight.types import Candidate


def with_log_costs(
    candidates: Sequence[Candidate], records: PerformanceRecords, tokens_out: Mapping[str, float] | None = None
) -> tuple[Candidate, ...]:
    """Fill in what candidates do not say about their costs from the calls in a log.

    ``cost_usd`` becomes the mean cost of the calls. ``tokens_out`` becomes the given mean, or for a candidate with both
    prices what the mean cost leaves after the estimated prompt tokens. Known values stay.

    Args:
        candidates: Candidates, matched by name.
        records: Train (and validation) rows; unknown costs do not count.
        tokens_out: Mean generated tokens per call by name, where the log counts them.

    Returns:
        Candidates in the same order.

    Example:
        >>> rows = pl.DataFrame({"instruction_id": ["1"], "dataset": ["a"], "task": ["a"], "split": ["train"],
        ...     "instruction": ["x" * 40]})
        >>> zoo, one = (Candidate("m", price_in=1.0, price_out=2.0), Candidate("n")), np.ones((1, 2), dtype=np.float32)
        >>> records = PerformanceRecords(rows, zoo, one, one > 0, costs=one * 0.001)
        >>> [(c.tokens_out and round(c.tokens_out), round(c.cost_usd, 6)) for c in with_log_costs(zoo, records)]
        [(495, 0.001), (None, 0.001)]
    """
    place = {name: column for column, name in enumerate(records.model_ids)}
    tokens_N = prompt_tokens(records.texts)
    filled = []
    for one in candidates:
        mean_out, cost_usd = (tokens_out or {}).get(one.model_id), None
        if records.costs is not None and one.model_id in place:
            cost_N = np.asarray(records.costs[:, place[one.model_id]], dtype=np.float64)
            priced_N = np.asarray(records.known[:, place[one.model_id]]) & np.isfinite(cost_N)
            if priced_N.any():
                cost_usd = float(cost_N[priced_N].mean())
                if mean_out is None and one.price_in is not None and one.price_out:
                    rest = cost_usd - one.price_in * float(tokens_N[priced_N].mean()) / PER
                    mean_out = rest * PER / one.price_out if rest > 0 else None
        filled.append(
            replace(
                one,
                tokens_out=mean_out if one.tokens_out is None else one.tokens_out,
                cost_usd=cost_usd if one.cost_usd is None else one.cost_usd,
            )
        )
    return tuple(filled)


def mean_tokens_out(folder: Path | str, instruction_ids: Sequence[str]) -> dict[str, float]:
    """Return the mean of the column ``tokens_out`` of a records folder for each candidate.

    Args:
        folder: A records folder; one without the column gives nothing.
        instruction_ids: Rows to read, e.g. those of train.

    Returns:
        Mean generated tokens per call by name, for candidates with any count.
    """
    records = read_tables(folder).records
    if "tokens_out" not in records.collect_schema():
        return {}
    means = (
        records.filter(pl.col("instruction_id").cast(pl.String).is_in(list(instruction_ids)))
        .group_by(pl.col("model_id").cast(pl.String))
        .agg(pl.col("tokens_out").cast(pl.Float64, strict=False).mean())
        .drop_nulls()
        .collect()
    )
    return dict(means.rows())
