"""Compare instruction encoders and hidden states on samples of train rows, and open the winner on test.

    python experiments/encoders/compare.py data/routerdc --score_column correct --per_dataset 200 \\
        --datasets mmlu gsm8k cmmlu arc_challenge humaneval
    python experiments/encoders/compare.py data/mmlu_pro --per_dataset 600 --candidates ...

Every encoder is combined with the baselines ``linear``, ``knn``, ``inferred_dataset`` and ``prefill`` (64 components,
decay 1); each chooses its other hyper-parameters on a fifth of its training rows. Five folds of a sample of train rows;
routed accuracy in percent, macro mean over datasets, with the paired bootstrap interval of the difference from MiniLM
with the same router. ``--test N`` also fits the given combinations (``--winners ENCODER:ROUTER``) with seeds 0, 1 and 2
on the sample and judges them on up to N test rows of each dataset: choose them by the first table. ``--skip`` leaves
out combinations, e.g. ``words:prefill``, which decomposes a covariance of 5,000 features for each fit.

Encoders: ``minilm``, ``multilingual-e5-small``; ``table``, the mean of E5's token embeddings without its layers;
``words``, TF-IDF of the 5,000 most frequent tokens; ``states:BACKBONE``, hidden states at the last token (standardized
per layer, averaged, 64 principal components, unit norm). Statistics of an encoder are fitted on the sample's texts.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from satlight.backbones.embedding import Embedder
from satlight.backbones.hidden_states import HiddenStates
from satlight.backbones.text_encoder import TextEncoder
from satlight.baselines import build
from satlight.baselines.features import TOKEN
from satlight.records import PerformanceRecords, open_records, split_records

FOLDS, SEEDS, RESAMPLES, COMPONENTS = 5, 3, 2000, 64
ROUTERS = ("linear", "knn", "inferred_dataset", "prefill")
FIXED = {"prefill": {"components": 64, "decay": 1.0}}
HEADER = "| encoder | router | accuracy | difference from MiniLM (95 %) |\n|---|---|---:|---:|"
Encode = Callable[[Sequence[str]], np.ndarray]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Scale rows to length 1, as embedders do."""
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)).astype(np.float32)


def table_reader() -> Encode:
    """Return the mean of the token embeddings of E5, without its layers."""
    network = TextEncoder("multilingual-e5-small")
    table = network.backbone.get_input_embeddings().weight.detach().numpy()
    tokenizer = network.tokenizer
    return lambda texts: np.stack([table[ids].mean(axis=0) for ids in tokenizer(list(texts))["input_ids"]])


def encoder(name: str, texts: Sequence[str], max_tokens: int) -> tuple[Encode, HiddenStates | None]:
    """Return an encoder of instructions fitted on ``texts``, with its hidden states where it has some."""
    if name == "words":
        tfidf = TfidfVectorizer(token_pattern=TOKEN, sublinear_tf=True, max_features=5000, dtype=np.float32).fit(texts)
        return lambda asked: tfidf.transform(asked).toarray(), None
    if name == "table":
        mean = table_reader()
        center = mean(texts).mean(axis=0)
        return lambda asked: unit(mean(asked) - center), None
    if name.startswith("states:"):
        states = HiddenStates(name.removeprefix("states:"), max_tokens=max_tokens)
        scaler = StandardScaler().fit(states(texts))

        def averaged(asked: Sequence[str]) -> np.ndarray:
            return scaler.transform(states(asked)).reshape(len(asked), states.num_layers, -1).mean(axis=1)

        pca = PCA(COMPONENTS, whiten=True, random_state=0).fit(averaged(texts))
        return lambda asked: unit(pca.transform(averaged(asked))), states
    return Embedder(name), None


def cost(name: str, texts: Sequence[str], max_tokens: int) -> float:
    """Return CPU seconds per 1,000 texts in batches of 8 by one thread, nothing cached."""
    if name == "words":
        read, _ = encoder(name, texts, max_tokens)
    elif name == "table":
        read = table_reader()
    elif name.startswith("states:"):
        read = HiddenStates(name.removeprefix("states:"), max_tokens=max_tokens).read
    else:
        network = TextEncoder(name).eval().requires_grad_(False)

        def read(texts: Sequence[str]) -> np.ndarray:
            return network(texts).numpy()

    ordered = sorted(texts, key=len)
    read(ordered[:2])
    start = time.process_time()
    for at in range(0, len(ordered), 8):
        read(ordered[at : at + 8])
    return 1000 * (time.process_time() - start) / len(ordered)


def sample(records: PerformanceRecords, split: str, datasets: Sequence[str] | None, number: int) -> PerformanceRecords:
    """Return up to ``number`` random rows of a split from each dataset."""
    rng, kept = np.random.default_rng(0), []
    for name in datasets or sorted(set(records.datasets)):
        rows = np.flatnonzero((records.splits == split) & (records.datasets == name))
        kept.append(rng.permutation(rows)[:number])
    return records.rows(np.sort(np.concatenate(kept)))


def fit_predict(
    router: str, train: PerformanceRecords, asked: PerformanceRecords, embed: Encode, states: Encode | None, seed: int
) -> np.ndarray:
    """Return scores of ``asked`` by a router that chose its hyper-parameters on a fifth of ``train``."""
    part = np.random.default_rng(seed).random(len(train.texts)) < 0.2
    marked = train.with_splits(np.where(part, "validation", "train"))
    read = states if router == "prefill" and states is not None else embed
    method = build(router, seed=seed, fixed=FIXED.get(router)).fit(marked, read)
    return method.predict(asked.texts, asked.model_ids)


def routed(records: PerformanceRecords, scores: np.ndarray) -> np.ndarray:
    """Return the outcome of the routed candidate, choosing among those known on each row."""
    choice = np.where(records.known, scores, -np.inf).argmax(axis=1)
    return 100 * np.asarray(records.outcomes, dtype=np.float64)[np.arange(len(choice)), choice]


def macro(values: np.ndarray, datasets: np.ndarray) -> float:
    """Return the mean over datasets."""
    return float(np.mean([values[datasets == name].mean() for name in np.unique(datasets)]))


def interval(difference: np.ndarray, datasets: np.ndarray) -> tuple[float, float, float]:
    """Return a macro mean with its 95 % interval by bootstrap over the rows of each dataset."""
    rng = np.random.default_rng(0)
    parts = [difference[datasets == name] for name in np.unique(datasets)]
    drawn = np.mean([part[rng.integers(0, len(part), (RESAMPLES, len(part)))].mean(axis=1) for part in parts], axis=0)
    return (macro(difference, datasets), *np.quantile(drawn, [0.025, 0.975]))


def cross_validate(
    train: PerformanceRecords, names: Sequence[str], max_tokens: int, skipped: Sequence[str] = ()
) -> dict[tuple[str, str], np.ndarray]:
    """Return the routed outcome (N,) of every encoder and router, each row predicted by the other folds."""
    fold = np.random.default_rng(0).integers(0, FOLDS, len(train.texts))
    found = {}
    for name in names:
        embed, states = encoder(name, train.texts, max_tokens)
        for router in (router for router in ROUTERS if f"{name}:{router}" not in skipped):
            values = np.zeros(len(fold))
            for held in range(FOLDS):
                learn, asked = train.rows(fold != held), train.rows(fold == held)
                values[fold == held] = routed(asked, fit_predict(router, learn, asked, embed, states, seed=0))
            found[name, router] = values
            print(name, router, f"{macro(values, train.datasets):.2f}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records")
    parser.add_argument("--score_column", default="score")
    parser.add_argument("--datasets", nargs="+")
    parser.add_argument("--candidates", nargs="+")
    parser.add_argument("--per_dataset", type=int, default=200, help="train rows of each dataset")
    parser.add_argument("--max_tokens", type=int, default=128, help="of hidden states")
    parser.add_argument(
        "--encoders", nargs="+", default=["minilm", "multilingual-e5-small", "table", "words", "states:smollm2-135m"]
    )
    parser.add_argument("--test", type=int, default=0, help="test rows of each dataset")
    parser.add_argument("--winners", nargs="+", default=[], metavar="ENCODER:ROUTER")
    parser.add_argument("--skip", nargs="+", default=[], metavar="ENCODER:ROUTER", help="combinations to leave out")
    parser.add_argument("--plot", help="PNG file")
    parser.add_argument("--output", help="CSV file of the cross-validated table")
    args = parser.parse_args()
    records = open_records(args.records, score_column=args.score_column, candidates=args.candidates)
    records = records.with_splits(split_records(records, validation_fraction=0.0))  # drops texts of test rows
    train = sample(records, "train", args.datasets, args.per_dataset)
    if args.test:
        test = sample(records, "test", args.datasets, args.test)
        judge(train, test, args.winners, args.max_tokens)
        return
    found = cross_validate(train, args.encoders, args.max_tokens, args.skip)
    rows = []
    for (name, router), values in found.items():
        base = found["minilm", router]
        rows.append([name, router, macro(values, train.datasets), *interval(values - base, train.datasets)])
    print(f"{len(train.texts)} train rows\n{HEADER}")
    for name, router, accuracy, mean, low, high in rows:
        print(f"| {name} | {router} | {accuracy:.2f} | {mean:+.2f} ({low:+.2f} to {high:+.2f}) |")
    if args.output:
        with Path(args.output).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["encoder", "router", "accuracy", "difference", "low", "high"], *rows])
    if args.plot:
        plot(rows, args.plot)
    some = train.texts[:: max(1, len(train.texts) // 32)][:32]
    print("\n| encoder | CPU s per 1,000 instructions |\n|---|---:|")
    for name in args.encoders:
        print(f"| {name} | {cost(name, some, args.max_tokens):.1f} |")


def plot(rows: Sequence[Sequence], path: str) -> None:
    """Draw the difference of each combination from MiniLM with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [row for row in rows if row[0] != "minilm"][::-1]
    mean, low, high = np.array([row[3:] for row in shown]).T
    figure, axes = pyplot.subplots(figsize=(7, 0.3 * len(shown) + 1))
    axes.errorbar(mean, range(len(shown)), xerr=[mean - low, high - mean], fmt="o", capsize=3)
    axes.set_yticks(range(len(shown)), [f"{name}, {router}" for name, router, *_ in shown])
    axes.axvline(0, color="gray", linewidth=1)
    axes.set_xlabel("routed accuracy minus that of MiniLM\nwith the same router, points (95 %)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def judge(train: PerformanceRecords, test: PerformanceRecords, winners: Sequence[str], max_tokens: int) -> None:
    """Print accuracy on test rows of each winner and its difference from MiniLM with the same router, three seeds."""
    built = {
        name: encoder(name, train.texts, max_tokens) for name in {"minilm", *(w.rsplit(":", 1)[0] for w in winners)}
    }
    print(f"{len(test.texts)} test rows, {SEEDS} seeds\n{HEADER}")
    for winner in winners:
        name, router = winner.rsplit(":", 1)
        pairs = []
        for which in (name, "minilm"):
            embed, states = built[which]
            runs = [routed(test, fit_predict(router, train, test, embed, states, seed)) for seed in range(SEEDS)]
            pairs.append(np.mean(runs, axis=0))
        mean, low, high = interval(pairs[0] - pairs[1], test.datasets)
        print(f"| {name} | {router} | {macro(pairs[0], test.datasets):.2f} | {mean:+.2f} ({low:+.2f} to {high:+.2f}) |")


if __name__ == "__main__":
    main()
