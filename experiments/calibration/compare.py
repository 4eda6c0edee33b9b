"""Compare ways to calibrate Pr(correct) on scores that scores.py stored.

Without ``--open_test``: cross-validation within validation rows. With it: fitted on validation rows, judged on test.

    python experiments/calibration/compare.py scores/routerdc-*.npz --in_domain mmlu gsm8k cmmlu arc_challenge humaneval

Shape legend: N instructions, M candidates, K features, G groups.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression

from satlight.metrics.calibration import fit_candidates

Rows = dict[str, np.ndarray]
Calibrator = Callable[[Rows], np.ndarray]
"""Rows to calibrated log-odds (N, M)."""

STRENGTHS = (0.0, 1.0, 4.0, 16.0, 64.0, 256.0, 1024.0)
FOLDS = 5
BINS = 15
DRAWS = 1000


def at(rows: Rows, chosen_N: np.ndarray) -> Rows:
    return {name: value[chosen_N] for name, value in rows.items()}


def folds(rows: Rows, seed: int) -> Iterator[tuple[Rows, np.ndarray]]:
    """Yield the rows outside a fold, and the mask of the fold; rows with the same text stay together."""
    code_N = np.unique(rows["text"], return_inverse=True)[1]
    fold_N = (np.random.default_rng(seed).permutation(code_N.max() + 1) % FOLDS)[code_N]
    for fold in range(FOLDS):
        yield at(rows, fold_N != fold), fold_N == fold


def sigmoid(logit: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(logit / 2))


def log_loss(logit: np.ndarray, outcome: np.ndarray) -> float:
    return float(np.mean(np.logaddexp(0, logit) - outcome * logit))


# -- linear in the log-odds: one calibration for all, or one per group, shrunk toward it -----------------------


def cells(rows: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return scores and outcomes of the known cells, and their column."""
    known = rows["known"]
    column = np.broadcast_to(np.arange(known.shape[1]), known.shape)[known]
    return rows["score"][known].astype(np.float64), rows["outcome"][known].astype(np.float64), column


def shrunken(rows: Rows, code: np.ndarray, count: int, strength: float, slopes: bool) -> np.ndarray:
    """Fit slope and bias (1 + G, 2): those of all, then what each group adds, with a squared penalty.

    Scores are standardized, so that one strength serves both; the slope of every group stays positive.
    """
    score, outcome, _ = cells(rows)
    middle, width = score.mean(), max(score.std(), 1e-9)
    x = (score - middle) / width

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        both = flat.reshape(1 + count, 2)
        total = both[0] + both[1:]
        logit = total[code, 0] * x + total[code, 1]
        error = sigmoid(logit) - outcome
        value = np.sum(np.logaddexp(0, logit) - outcome * logit) + strength / 2 * np.sum(both[1:] ** 2)
        parts = [np.bincount(code, error * one, minlength=count) for one in (x, np.ones_like(x))]
        gradient = np.stack(parts, axis=1)
        inner = gradient + strength * both[1:]
        return float(value), np.concatenate([gradient.sum(axis=0)[None], inner]).ravel()

    free, fixed = (None, None), (0.0, 0.0)
    bounds = [(0.01, None), free] + [((-1.0, None) if slopes else fixed), free if count > 1 else fixed] * count
    if count == 1:
        bounds = [(0.01, None), free, fixed, fixed]
    start = np.zeros((1 + count, 2))
    start[0, 0] = 1.0
    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", bounds=bounds).x.reshape(1 + count, 2)
    total = np.concatenate([found[:1], found[0] + found[1:]])
    total[:, 0] = np.maximum(total[:, 0], 0.01)
    slope = total[:, 0] / width
    return np.stack([slope, total[:, 1] - slope * middle], axis=1)


def codes(rows: Rows, by: str, names: list[str]) -> np.ndarray:
    """Return the group of every cell (N, M): 0 = none of its own."""
    shape = rows["score"].shape
    column_NM = np.broadcast_to(np.arange(shape[1]), shape)
    if by == "all":
        return np.ones(shape, dtype=int)
    if by == "candidate":
        return 1 + column_NM
    place = {name: i for i, name in enumerate(names)}
    dataset_N = np.array([place.get(name, -1) for name in rows["dataset"]])
    dataset_NM = np.broadcast_to(dataset_N[:, None], shape)
    if by == "dataset":
        return 1 + dataset_NM
    return np.where(dataset_NM < 0, 0, 1 + dataset_NM * shape[1] + column_NM)


def linear(by: str, slopes: bool = True) -> Callable[[Rows], Calibrator]:
    """Return a fit of slope and bias per group; the strength of the shrinkage is chosen by cross-validation."""

    def one(rows: Rows, names: list[str], strength: float) -> Calibrator:
        code_NM = codes(rows, by, names)
        count = {"all": 1, "candidate": code_NM.shape[1], "dataset": len(names)}.get(by, code_NM.shape[1] * len(names))
        table = shrunken(rows, code_NM[rows["known"]] - 1, count, strength, slopes)

        def apply(asked: Rows) -> np.ndarray:
            chosen = table[codes(asked, by, names)]
            return chosen[..., 0] * asked["score"] + chosen[..., 1]

        return apply

    def fit(rows: Rows) -> Calibrator:
        names = sorted(set(rows["dataset"].tolist()))
        if by == "all":
            return one(rows, names, 0.0)
        losses = []
        for strength in STRENGTHS:
            parts = []
            for outside, inside_N in folds(rows, seed=1):
                held = at(rows, inside_N)
                logit = one(outside, names, strength)(held)[held["known"]]
                parts.append(log_loss(logit, held["outcome"][held["known"]]) * len(logit))
            losses.append(sum(parts))
        return one(rows, names, STRENGTHS[int(np.argmin(losses))])

    return fit


# -- others ----------------------------------------------------------------------------------------------------


def none(rows: Rows) -> Calibrator:
    return lambda asked: asked["score"].astype(np.float64)


def isotonic(per_candidate: bool) -> Callable[[Rows], Calibrator]:
    """Return a fit of isotonic regression; probabilities keep a distance of 1 / (cells + 2) to 0 and 1."""

    def fit(rows: Rows) -> Calibrator:
        score, outcome, column = cells(rows)
        count = rows["score"].shape[1]
        code, groups = (column, range(count)) if per_candidate else (np.zeros_like(column), range(1))
        maps, least = [], []
        for group in groups:
            inside = code == group
            maps.append(IsotonicRegression(out_of_bounds="clip").fit(score[inside], outcome[inside]))
            least.append(1 / (inside.sum() + 2))

        def apply(asked: Rows) -> np.ndarray:
            parts = []
            for m in range(count):
                group = m if per_candidate else 0
                p = np.clip(maps[group].predict(asked["score"][:, m]), least[group], 1 - least[group])
                parts.append(np.log(p) - np.log1p(-p))
            return np.stack(parts, axis=1)

        return apply

    return fit


def beta(rows: Rows) -> Calibrator:
    """Fit a·ln p − b·ln(1 − p) + c with a, b ≥ 0 [Kull et al. 2017]."""
    score, outcome, _ = cells(rows)

    def features(value: np.ndarray) -> np.ndarray:
        value = value.astype(np.float64)
        return np.stack([-np.logaddexp(0, -value), np.logaddexp(0, value), np.ones_like(value)])

    x = features(score)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logit = parameters @ x
        return log_loss(logit, outcome), x @ (sigmoid(logit) - outcome) / len(outcome)

    found = minimize(loss, [1.0, 1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0, None), (0, None), (None, None)])
    return lambda asked: np.tensordot(found.x, features(asked["score"]), axes=1)


def package(rows: Rows) -> Calibrator:
    """Return the calibration that satlight fits, :func:`satlight.metrics.calibration.fit_candidates`."""
    score, outcome, column = map(torch.from_numpy, cells(rows))
    names = [str(m) for m in range(rows["score"].shape[1])]
    fitted = fit_candidates(score, outcome, column, names)
    return lambda asked: fitted.apply(asked["score"].astype(np.float64), names)


METHODS: dict[str, Callable[[Rows], Calibrator]] = {
    "none": none,
    "temperature and bias": linear("all"),
    "+ bias per candidate, shrunken": linear("candidate", slopes=False),
    "+ slope and bias per candidate, shrunken": linear("candidate"),
    "the same, strength 16 (fit_candidates)": package,
    "+ slope and bias per dataset, shrunken (told)": linear("dataset"),
    "+ per dataset and candidate, shrunken (told)": linear("both"),
    "isotonic": isotonic(per_candidate=False),
    "isotonic per candidate": isotonic(per_candidate=True),
    "beta": beta,
}


# -- figures ---------------------------------------------------------------------------------------------------


def gaps(logit_NM: np.ndarray, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return the summed probability − outcome per row and bin (N, BINS), and the cells per row (N,)."""
    known, p_NM = rows["known"], sigmoid(logit_NM)
    bin_NM = np.minimum((p_NM * BINS).astype(int), BINS - 1)
    code = (np.arange(len(p_NM))[:, None] * BINS + bin_NM)[known]
    gap = (p_NM - rows["outcome"])[known]
    return np.bincount(code, gap, minlength=len(p_NM) * BINS).reshape(-1, BINS), known.sum(axis=1)


def ece(logit_NM: np.ndarray, rows: Rows, weight_RN: np.ndarray | None = None) -> np.ndarray:
    """Return the expected calibration error (R,) under weights of the rows; all 1 by default."""
    gap_NB, count_N = gaps(logit_NM, rows)
    weight_RN = np.ones((1, len(count_N))) if weight_RN is None else weight_RN
    return np.abs(weight_RN @ gap_NB).sum(axis=1) / (weight_RN @ count_N)


def by_dataset(logit_NM: np.ndarray, rows: Rows, value: Callable[[np.ndarray, Rows], float]) -> float:
    """Return the mean of a figure over datasets."""
    datasets = [rows["dataset"] == name for name in sorted(set(rows["dataset"].tolist()))]
    return float(np.mean([value(logit_NM[inside], at(rows, inside)) for inside in datasets]))


def accuracy(logit_NM: np.ndarray, rows: Rows) -> float:
    """Return the mean outcome of the highest log-odds, in percent; ties count equally."""
    best_NM = logit_NM >= logit_NM.max(axis=1, keepdims=True) - 1e-12
    share_NM = best_NM * rows["known"]
    return float(100 * (share_NM * np.where(rows["known"], rows["outcome"], 0)).sum() / share_NM.sum())


def floor(logit_NM: np.ndarray, rows: Rows, value: Callable[[np.ndarray, Rows], float]) -> float:
    """Return the figure of outcomes drawn by the very probabilities: what no calibration can be below, on average."""
    random, p_NM = np.random.default_rng(0), sigmoid(logit_NM)
    return float(
        np.mean([value(logit_NM, rows | {"outcome": (random.random(p_NM.shape) < p_NM) * 1.0}) for _ in range(20)])
    )


def figures(logit_NM: np.ndarray, rows: Rows) -> dict[str, float]:
    known = rows["known"]
    outcome, logit = rows["outcome"][known], logit_NM[known]

    def single(logit_NM: np.ndarray, rows: Rows) -> float:
        return float(ece(logit_NM, rows)[0])

    def macro(logit_NM: np.ndarray, rows: Rows) -> float:
        return by_dataset(logit_NM, rows, single)

    columns = []
    for m in range(known.shape[1]):
        columns.append((logit_NM[:, [m]], rows | {key: rows[key][:, [m]] for key in ("known", "outcome")}))
    return {
        "ECE": single(logit_NM, rows),
        "floor": floor(logit_NM, rows, single),
        "ECE by dataset": macro(logit_NM, rows),
        "floor by dataset": floor(logit_NM, rows, macro),
        "ECE by candidate": float(np.mean([single(*column) for column in columns])),
        "log loss": log_loss(logit, outcome),
        "Brier": float(np.mean((sigmoid(logit) - outcome) ** 2)),
        "accuracy": by_dataset(logit_NM, rows, accuracy),
    }


def held_out(rows: Rows, fit: Callable[[Rows], Calibrator], seed: int) -> np.ndarray:
    """Return log-odds (N, M), those of each fold by the calibration fitted to the others."""
    logit_NM = np.empty(rows["score"].shape)
    for outside, inside_N in folds(rows, seed):
        logit_NM[inside_N] = fit(outside)(at(rows, inside_N))
    return logit_NM


def interval(logit_NM: np.ndarray, base_NM: np.ndarray, rows: Rows) -> tuple[float, float]:
    """Return the 95 % interval of the difference of the ECE to a base, paired bootstrap over instructions."""
    size = len(logit_NM)
    weight_RN = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), DRAWS).astype(np.float64)
    low, high = np.percentile(ece(logit_NM, rows, weight_RN) - ece(base_NM, rows, weight_RN), [2.5, 97.5])
    return float(low), float(high)


def read(path: Path) -> tuple[Rows, Rows]:
    content = np.load(path)
    sides = ({}, {})
    for key in content.files:
        split, name = key.split("_", 1)
        sides[split == "test"][name] = content[key]
    for rows in sides:
        rows["outcome"] = np.where(rows["known"], rows["outcome"], 0).astype(np.float64)
    return sides


def main() -> None:
    """Print a Markdown table per router: means over the files of its seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", nargs="+", type=Path)
    parser.add_argument("--in_domain", nargs="+", help="datasets of the first table; the others get a second one")
    parser.add_argument("--open_test", action="store_true", help="judge on test rows")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    args = parser.parse_args()
    found: dict = defaultdict(lambda: defaultdict(list))
    for path in args.scores:
        data, router, seed = path.stem.rsplit("-", 2)
        validation, test = read(path)
        base = METHODS["temperature and bias"]
        for name in args.methods:
            if not args.open_test:
                logit_NM = held_out(validation, METHODS[name], int(seed))
                found[f"{data}, {router}, validation"][name].append(figures(logit_NM, validation))
                continue
            apply, reference = METHODS[name](validation), base(validation)
            inside_N = np.isin(test["dataset"], args.in_domain or np.unique(test["dataset"]))
            for part, mask_N in (("in domain", inside_N), ("out of domain", ~inside_N)):
                if mask_N.any():
                    rows = at(test, mask_N)
                    logit_NM = apply(rows)
                    low, high = interval(logit_NM, reference(rows), rows)
                    facts = figures(logit_NM, rows) | {"− T low": low, "− T high": high}
                    found[f"{data}, {router}, test {part}"][name].append(facts)
    for title, methods in found.items():
        keys = list(next(iter(methods.values()))[0])
        print(f"\n{title}, {len(next(iter(methods.values())))} seeds\n")
        print("| calibration | " + " | ".join(keys) + " |\n|---|" + "---:|" * len(keys))
        for name, runs in methods.items():
            means = {key: np.mean([run[key] for run in runs]) for key in keys}
            shown = [f"{value:.2f}" if key == "accuracy" else f"{value:.4f}" for key, value in means.items()]
            print(f"| {name} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
