"""Routing metrics on whole matrices: routed accuracy, controls, gap closed.

Shape legend: N instructions and M candidates of a matrix, G groups (datasets or tasks) of instructions.

Conventions:

- ``outcome_NM`` holds outcomes in [0, 1]; ``known_NM`` is False where no record exists. An unknown outcome is
  masked, never counted as 0.
- ``group_N`` holds the group number of each instruction, from 0.
- Ties go to the lowest column. A choice of -1 means "none". The mean of nothing is NaN.
- Accuracies are fractions in [0, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

NONE = -1
"""Choice where no candidate can be chosen."""


def choose(score_NM: Tensor) -> Tensor:
    """Return the routed candidate of every instruction: the one with the highest score.

    Args:
        score_NM: Log-odds (N, M), without NaN.

    Returns:
        int64 (N,), columns.

    Example:
        >>> choose(torch.tensor([[0.0, 2.0, 2.0], [1.0, 0.0, -1.0]])).tolist()
        [1, 0]
    """
    return score_NM.argmax(dim=1)


def outcomes_of(choice_N: Tensor, outcome_NM: Tensor, known_NM: Tensor) -> tuple[Tensor, Tensor]:
    """Look up the outcome of each instruction under a choice of candidates.

    Args:
        choice_N: int64 (N,), columns; -1 = none.
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).

    Returns:
        The outcomes, float (N,), 0 where unknown, and whether each is known, bool (N,).

    Example:
        >>> outcome = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> known = torch.tensor([[True, True], [False, True]])
        >>> [x.tolist() for x in outcomes_of(torch.tensor([0, 0]), outcome, known)]
        [[1.0, 0.0], [True, False]]
    """
    column_N1 = choice_N.clamp_min(0)[:, None]
    known_N = known_NM.gather(1, column_N1)[:, 0] & (choice_N != NONE)
    return torch.where(known_N, outcome_NM.gather(1, column_N1)[:, 0], 0.0), known_N


def masked_mean(value_N: Tensor, known_N: Tensor) -> Tensor:
    """Compute the mean of the known values; NaN when none is known.

    Example:
        >>> masked_mean(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([True, True, False])).item()
        0.5
    """
    return torch.where(known_N, value_N, 0.0).sum() / known_N.sum()


def routed_accuracy(score_NM: Tensor, outcome_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Compute the mean outcome of the candidates with the highest score.

    Instructions whose routed candidate has no record are left out of the mean;
    ``outcomes_of(choose(score_NM), outcome_NM, known_NM)[1]`` marks those that remain.

    Args:
        score_NM: Log-odds (N, M).
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).

    Returns:
        Scalar in [0, 1], or NaN when no routed outcome is known.

    Example:
        >>> score, outcome = torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> routed_accuracy(score, outcome, torch.ones(2, 2, dtype=torch.bool)).item()
        0.5
    """
    return masked_mean(*outcomes_of(choose(score_NM), outcome_NM, known_NM))


def random_outcomes(outcome_NM: Tensor, known_NM: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the expected outcome of a random known candidate, per instruction.

    Returns:
        The means over the known candidates, float (N,), and whether there is one, bool (N,).
    """
    count_N = known_NM.sum(1)
    return torch.where(known_NM, outcome_NM, 0.0).sum(1) / count_N.clamp_min(1), count_N > 0


def group_means(outcome_NM: Tensor, known_NM: Tensor, group_N: Tensor, num_groups: int) -> Tensor:
    """Compute the mean known outcome of each candidate in each group.

    Args:
        outcome_NM: Outcomes (N, M).
        known_NM: bool (N, M).
        group_N: int64 (N,), in [0, num_groups).
        num_groups: G.

    Returns:
        float64 (G, M), NaN where a candidate has no known outcome in the group.

    Example:
        >>> known = torch.tensor([[True, True], [True, False], [True, True]])
        >>> outcome = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
        >>> group_means(outcome, known, torch.tensor([0, 0, 1]), 2).tolist()
        [[0.5, 0.0], [1.0, 1.0]]
    """
    # float32 sums of 0/1 are exact up to 2^24 instructions and need half the memory of float64.
    zero_GM = torch.zeros(num_groups, outcome_NM.shape[1], device=outcome_NM.device)
    sum_GM = zero_GM.index_add(0, group_N, torch.where(known_NM, outcome_NM, 0.0).float())
    count_GM = zero_GM.index_add(0, group_N, known_NM.float())
    return sum_GM.double() / count_GM


def macro_means(value_NM: Tensor, known_NM: Tensor, group_N: Tensor) -> Tensor:
    """Compute the macro mean of each candidate: the mean over groups of its mean within the group.

    Only candidates with known values in the maximum number of groups have one, so that a candidate measured
    on easy groups alone has no advantage.

    Args:
        value_NM: Outcomes or costs (N, M).
        known_NM: bool (N, M).
        group_N: int64 (N,).

    Returns:
        float64 (M,), NaN for all other candidates.

    Example:
        >>> value = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
        >>> macro_means(value, torch.ones(3, 2, dtype=torch.bool), torch.tensor([0, 1, 1])).tolist()
        [0.5, 0.75]
    """
    num_groups = int(group_N.max()) + 1 if len(group_N) else 1
    mean_GM = group_means(value_NM, known_NM, group_N, num_groups)
    covered_M = (~mean_GM.isnan()).sum(0)
    return torch.where(covered_M == covered_M.max(), mean_GM.nanmean(0), float("nan"))


def best_per_group(mean_GM: Tensor) -> Tensor:
    """Return the candidate with the best mean in each group.

    Args:
        mean_GM: Means (G, M), NaN = unknown, see :func:`group_means`.

    Returns:
        int64 (G,), columns; -1 for a group without any known mean.

    Example:
        >>> best_per_group(torch.tensor([[0.2, 0.9], [0.5, 0.5], [float("nan"), float("nan")]])).tolist()
        [1, 0, -1]
    """
    known_GM = ~mean_GM.isnan()
    best_G = torch.where(known_GM, mean_GM, float("-inf")).argmax(1)
    return torch.where(known_GM.any(1), best_G, NONE)


def best_single(outcome_NM: Tensor, known_NM: Tensor, group_N: Tensor | None = None) -> int:
    """Return the candidate with the highest macro mean, see :func:`macro_means`.

    Pass the *train* matrix; chosen on the test matrix, it leaks test outcomes.

    Args:
        outcome_NM: Outcomes (N, M) of the train split.
        known_NM: bool (N, M).
        group_N: int64 (N,); None = a single group.

    Returns:
        Its column; -1 when nothing is known.

    Example:
        >>> outcome = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
        >>> best_single(outcome, torch.ones(5, 2, dtype=torch.bool))
        1
        >>> best_single(outcome, torch.ones(5, 2, dtype=torch.bool), torch.tensor([0, 0, 1, 1, 1]))  # a tie
        0
    """
    if group_N is None:
        group_N = torch.zeros(len(outcome_NM), dtype=torch.long, device=outcome_NM.device)
    return int(best_per_group(macro_means(outcome_NM, known_NM, group_N)[None])[0])


def group_best(train_outcome_NM: Tensor, train_known_NM: Tensor, train_group_N: Tensor, group_N: Tensor) -> Tensor:
    """Return, per instruction, the best candidate on the train split of its group ("dataset best").

    Chosen on the data it is measured on, it is the "dataset oracle": an upper bound for routers that know the dataset.

    Args:
        train_outcome_NM: Outcomes (N', M) of the train split.
        train_known_NM: bool (N', M).
        train_group_N: int64 (N',).
        group_N: int64 (N,), groups of the instructions to route, with the same numbers.

    Returns:
        int64 (N,), columns; -1 where the group has no train data.

    Example:
        >>> outcome, known = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
        >>> group_best(outcome, known, torch.tensor([0]), torch.tensor([0, 0, 1])).tolist()
        [1, 1, -1]
    """
    num_groups = 1 + max(int(g.max()) if len(g) else 0 for g in (train_group_N, group_N))
    return best_per_group(group_means(train_outcome_NM, train_known_NM, train_group_N, num_groups))[group_N]


def oracle(outcome_NM: Tensor, known_NM: Tensor) -> Tensor:
    """Return, per instruction, the known candidate with the best outcome; -1 where none is known.

    Example:
        >>> outcome = torch.tensor([[0.0, 1.0], [1.0, 1.0]])
        >>> oracle(outcome, torch.tensor([[True, True], [False, True]])).tolist()
        [1, 1]
    """
    best_N = torch.where(known_NM, outcome_NM, -1.0).argmax(1)
    return torch.where(known_NM.any(1), best_N, NONE)


def gap_closed(routed: float, best_single: float, oracle: float, least: float = 0.0) -> float:
    """Compute the share of the gap from the best single candidate to the oracle: 0 = best single, 1 = oracle.

    Args:
        routed: Accuracy of the router, in any unit.
        best_single: Accuracy of the best single candidate, in the same unit.
        oracle: Accuracy of the oracle (or of the Bayes-optimal choice), in the same unit.
        least: Smallest gap that has a share, in the same unit, at least 0. The share of a gap of a few tenths of a
            point is chance.

    Returns:
        The share, negative when the router is worse than the best single; NaN when the gap is 0 or below ``least``.

    Example:
        >>> gap_closed(57.0, 54.0, 66.0)
        0.25
        >>> gap_closed(91.0, 90.0, 91.5, least=2.0)
        nan
    """
    gap = oracle - best_single
    return (routed - best_single) / gap if gap and not gap < least else float("nan")


def selection_share(choice_N: Tensor, num_candidates: int) -> Tensor:
    """Compute the share of choices that each candidate receives.

    Args:
        choice_N: int64 (N,), columns; -1 = none, left out.
        num_candidates: M.

    Returns:
        float64 (M,), summing to 1 (NaN when nothing is chosen).

    Example:
        >>> selection_share(torch.tensor([0, 2, 2, -1, 2]), 3).tolist()
        [0.25, 0.0, 0.75]
    """
    count_M = torch.bincount(choice_N[choice_N != NONE], minlength=num_candidates)
    return count_M.double() / count_M.sum()
