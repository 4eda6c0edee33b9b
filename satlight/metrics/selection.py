"""Choices of a router, and its accuracy relative to a reference.

Shape legend: N instructions and M candidates of a matrix. Conventions are those of :mod:`satlight.metrics.functional`:
unknown outcomes are masked, a choice of -1 means "none", the mean of nothing is NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from satlight.metrics.cost import checked_costs
from satlight.metrics.functional import choose, masked_mean, oracle, outcomes_of, random_outcomes, selection_share

SOLVED = 0.5
"""Outcome from which an instruction counts as solved."""


# -- relative accuracy -------------------------------------------------------------------------------------


def accuracy_ratio(routed: float, reference: float) -> float:
    """Compute accuracy as a multiple of a reference: V_R and V_B of RouterEval.

    The reference of V_B is the best single candidate, that of V_R a well-known strong candidate. The relative gain of
    LLMRouterBench on one dataset is the multiple minus 1, its distance to the oracle 1 minus the multiple.

    Args:
        routed: Accuracy of the router, in any unit.
        reference: Accuracy of the reference, in the same unit.

    Returns:
        The multiple, 1 = equal; NaN when the reference is 0.

    Example:
        >>> accuracy_ratio(60.0, 48.0)
        1.25

    Reference:
        [Huang et al. 2025, "RouterEval", arXiv 2503.10657]
    """
    return routed / reference if reference else float("nan")


def gain_at_r(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, group_N: Tensor | None = None) -> Tensor:
    """Compute Gain@R: the mean over datasets of routed accuracy / random accuracy - 1.

    Args:
        score_NM: Log-odds (N, M).
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        group_N: int64 (N,), dataset of each instruction; None = one dataset.

    Returns:
        Scalar; NaN when a dataset has no known routed outcome or a random accuracy of 0.

    Example:
        >>> score, outcome = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> round(gain_at_r(score, outcome, torch.ones(2, 2, dtype=torch.bool)).item(), 4)
        0.3333

    Reference:
        [Li et al. 2026, "LLMRouterBench", arXiv 2601.07206]
    """
    reference = random_outcomes(outcome_NM, known_NM)
    return _mean_ratio(outcomes_of(choose(score_NM), outcome_NM, known_NM), reference, group_N) - 1


def gain_at_b(
    score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, best: int, group_N: Tensor | None = None
) -> Tensor:
    """Compute Gain@B: the mean over datasets of routed accuracy / best single accuracy - 1.

    Args:
        score_NM: Log-odds (N, M).
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        best: Column of the best single candidate, chosen on *train* (:func:`satlight.metrics.functional.best_single`).
        group_N: int64 (N,), dataset of each instruction; None = one dataset.

    Returns:
        Scalar; NaN when a dataset has no known outcome of either, or ``best`` has an accuracy of 0 in it.

    Example:
        >>> score, outcome = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> gain_at_b(score, outcome, torch.ones(2, 2, dtype=torch.bool), best=0).item()
        1.0

    Reference:
        [Li et al. 2026, "LLMRouterBench", arXiv 2601.07206]
    """
    reference = outcomes_of(torch.full_like(choose(score_NM), best), outcome_NM, known_NM)
    return _mean_ratio(outcomes_of(choose(score_NM), outcome_NM, known_NM), reference, group_N) - 1


def gap_at_o(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor, group_N: Tensor | None = None) -> Tensor:
    """Compute Gap@O: the mean over datasets of 1 - routed accuracy / oracle accuracy; 0 = oracle.

    Args:
        score_NM: Log-odds (N, M).
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        group_N: int64 (N,), dataset of each instruction; None = one dataset.

    Returns:
        Scalar; NaN when a dataset has no known routed outcome or an oracle accuracy of 0.

    Example:
        >>> score, outcome = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> gap_at_o(score, outcome, torch.ones(2, 2, dtype=torch.bool)).item()
        0.5

    Reference:
        [Li et al. 2026, "LLMRouterBench", arXiv 2601.07206]
    """
    reference = outcomes_of(oracle(outcome_NM, known_NM), outcome_NM, known_NM)
    return 1 - _mean_ratio(outcomes_of(choose(score_NM), outcome_NM, known_NM), reference, group_N)


def _mean_ratio(routed: tuple[Tensor, Tensor], reference: tuple[Tensor, Tensor], group_N: Tensor | None) -> Tensor:
    """Compute the mean over groups of the ratio of two masked means."""
    group_N = torch.zeros(len(routed[0]), dtype=torch.long) if group_N is None else group_N.cpu()
    ratios = []
    for group in group_N.unique():
        rows = group_N == group
        pair = (masked_mean(value[rows].double(), known[rows]).item() for value, known in (routed, reference))
        ratios.append(accuracy_ratio(*pair))
    return torch.tensor(ratios, dtype=torch.double).mean()


# -- choices -----------------------------------------------------------------------------------------------


def selection_entropy(choice_N: Tensor, num_candidates: int) -> Tensor:
    """Compute the entropy of the choices in bits: E_p of RouterEval.

    Args:
        choice_N: int64 (N,), columns; -1 = none, left out.
        num_candidates: M.

    Returns:
        Scalar in [0, log2 M]: 0 when one candidate is always chosen, log2 M when all are chosen equally
        often; NaN when nothing is chosen.

    Example:
        >>> selection_entropy(torch.tensor([0, 0, 1, 1]), 3).item()
        1.0

    Reference:
        [Huang et al. 2025, "RouterEval", arXiv 2503.10657], which leaves the base of the logarithm open.
    """
    return entropy_of_shares(selection_share(choice_N, num_candidates))


def entropy_of_shares(share_M: Tensor) -> Tensor:
    """Compute the entropy in bits of shares (M,) that sum to 1.

    Example:
        >>> entropy_of_shares(torch.tensor([0.5, 0.25, 0.25, 0.0])).item()
        1.5
    """
    return -torch.special.xlogy(share_M, share_M).sum() / math.log(2)


def routing_collapse(choice_N: Tensor, outcome_NM: Tensor, known_NM: Tensor, cost_NM: Tensor) -> Tensor:
    """Compute the routing collapse index (RCI): the share of choices that are wrong or needlessly expensive.

    A choice is sound when no known candidate has a better outcome on the instruction and, if it is the most
    expensive candidate, no other candidate does equally well. RCI is the share of choices that are not
    sound. The most expensive candidate is the one with the highest mean cost over its records (every
    candidate with that mean), not the most expensive one on the instruction at hand.

    Args:
        choice_N: int64 (N,), columns; -1 = none.
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        cost_NM: US dollars (N, M) of each call; required where a record exists.

    Returns:
        Scalar in [0, 1], lower is better, over the instructions whose chosen candidate has a record; NaN
        when there is none.

    Raises:
        SatlightError: A record has no cost.

    Example:
        >>> outcome = torch.tensor([[1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
        >>> known, cost = torch.ones(4, 2, dtype=torch.bool), torch.tensor([[1.0, 9.0]] * 4)
        >>> routing_collapse(torch.tensor([0, 1, 1, 1]), outcome, known, cost).item()  # the last two are not
        0.5

    Reference:
        [Lai et al. 2026, "ORBIT", Frontiers of Computer Science, doi 10.1007/s11704-026-61310-5], where
        every outcome is known; [Lai & Ye 2026, "When Routing Collapses", arXiv 2602.03478]
    """
    cost_NM = checked_costs(cost_NM, known_NM)
    known_N = outcomes_of(choice_N, outcome_NM, known_NM)[1]
    mean_M = torch.where(known_NM, cost_NM, 0.0).sum(0) / known_NM.sum(0)
    priciest_M = mean_M == mean_M[~mean_M.isnan()].max() if bool(known_NM.any()) else mean_M.isnan()
    masked_NM = torch.where(known_NM, outcome_NM, float("-inf"))
    best_NM = known_NM & (masked_NM == masked_NM.max(1, keepdim=True).values)
    is_best_N = best_NM.gather(1, choice_N.clamp_min(0)[:, None])[:, 0]
    needless_N = priciest_M[choice_N.clamp_min(0)] & (best_NM & ~priciest_M).any(1)
    return masked_mean((~is_best_N | needless_N).double(), known_N)


def rare_solver_recall(choice_N: Tensor, outcome_NM: Tensor, known_NM: Tensor, at_most: int = 3) -> Tensor:
    """Compute how often a solver is chosen on instructions that few candidates solve.

    Those are the instructions with 1 to ``at_most`` candidates whose known outcome is 0.5 or more. In a zoo
    of at most ``at_most`` candidates they are all instructions that any candidate solves.

    Args:
        choice_N: int64 (N,), columns; -1 = none.
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        at_most: Maximum number of solvers of a rare instruction, at least 1.

    Returns:
        Scalar in [0, 1] over the rare instructions whose chosen candidate has a record; NaN when there is none.

    Example:
        >>> outcome = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
        >>> known = torch.ones(4, 2, dtype=torch.bool)
        >>> rare_solver_recall(torch.tensor([0, 0, 0, 0]), outcome, known, at_most=1).item()
        0.5

    Reference:
        Model recall of [Li et al. 2026, "LLMRouterBench", arXiv 2601.07206]
    """
    solver_NM = known_NM & (outcome_NM >= SOLVED)
    count_N = solver_NM.sum(1)
    outcome_N, known_N = outcomes_of(choice_N, outcome_NM, known_NM)
    rare_N = known_N & (count_N >= 1) & (count_N <= at_most)
    return masked_mean((outcome_N >= SOLVED).double(), rare_N)
