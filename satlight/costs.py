"""Expected costs of candidates, known before a request is sent.

Shape legend: B requests and C candidates.

The cost of one call is estimated from what a :class:`~satlight.types.Candidate` says about itself:

1. prices per token and ``tokens_out``: ``price_in`` · prompt tokens of the request + ``price_out`` · ``tokens_out``;
2. otherwise ``cost_usd``, the mean cost of its calls in the log, the same for every request;
3. otherwise unknown (NaN).

A candidate with ``price_out`` 0 needs no ``tokens_out``. Images do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from satlight.errors import SatlightError
from satlight.types import Candidate, Request

BYTES_PER_TOKEN = 4.0
"""UTF-8 bytes of text per prompt token: a rule of thumb for English text and subword tokenizers.

It errs by the same factor for all candidates. Bytes rather than characters, because scripts with long UTF-8 codes also
take more tokens per character.
"""

PER = 1e6
"""Number of tokens that prices refer to."""


def prompt_tokens(texts: Sequence[str]) -> np.ndarray:
    """Estimate the number of prompt tokens of texts, without a tokenizer.

    Args:
        texts: B texts.

    Returns:
        float64 (B,), UTF-8 bytes / :data:`BYTES_PER_TOKEN`.

    Example:
        >>> prompt_tokens(["What is 2 + 2?", "Name three rivers of Europe."]).tolist()
        [3.5, 7.0]
    """
    return np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts], dtype=np.float64) / BYTES_PER_TOKEN


def expected_costs(candidates: Sequence[Candidate], requests: Sequence[Request | str]) -> np.ndarray:
    """Estimate the cost of sending each request to each candidate.

    Args:
        candidates: C candidates.
        requests: B requests or plain texts.

    Returns:
        float64 (B, C), US dollars; NaN where the candidate has neither prices with ``tokens_out`` nor ``cost_usd``.

    Example:
        >>> priced = Candidate("a", price_in=1.0, price_out=2.0, tokens_out=100.0)
        >>> expected_costs([priced, Candidate("b", cost_usd=0.003), Candidate("c")], ["x" * 400]).round(6).tolist()
        [[0.0003, 0.003, nan]]
    """
    texts = [request if isinstance(request, str) else request.text for request in requests]
    tokens_B1 = prompt_tokens(texts)[:, None]
    rates = [_rates(candidate) for candidate in candidates]
    per_token_C, per_call_C = np.array(rates, dtype=np.float64).reshape(-1, 2).T
    return tokens_B1 * per_token_C + per_call_C


def _rates(candidate: Candidate) -> tuple[float, float]:
    """Return US dollars per prompt token and per call."""
    priced = candidate.price_in is not None and candidate.price_out is not None
    if priced and (candidate.price_out == 0 or candidate.tokens_out is not None):
        return candidate.price_in / PER, candidate.price_out * (candidate.tokens_out or 0.0) / PER  # type: ignore[operator]
    return 0.0, float("nan") if candidate.cost_usd is None else candidate.cost_usd


def require_costs(candidates: Sequence[Candidate], needed_by: str) -> None:
    """Raise unless the expected cost of every candidate is known.

    Args:
        candidates: Those to choose from.
        needed_by: What needs the costs, for the message.

    Raises:
        SatlightError: A candidate without prices, with its name and what it lacks.

    Example:
        >>> require_costs([Candidate("a", cost_usd=0.001)], "cheapest@0.9")
    """
    for candidate in candidates:
        if np.isnan(_rates(candidate)[1]):
            what = {
                "price_in": candidate.price_in,
                "price_out": candidate.price_out,
                "tokens_out": candidate.tokens_out,
            }
            lacking = [name for name, value in what.items() if value is None]
            raise SatlightError(
                f"{needed_by} needs the expected cost of every candidate, but that of '{candidate.model_id}' is "
                f"unknown: it has no cost_usd (mean cost of a call) and no {', '.join(lacking)}. Give it prices with "
                "`satlight zoo set-price DIR NAME --price-in USD --price-out USD --tokens-out N`, or --cost-usd USD"
            )
