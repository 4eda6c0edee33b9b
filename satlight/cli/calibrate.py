"""``satlight calibrate``: fit the decision rule of a router folder on validation rows."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from satlight.cli.route import check_batch_size, user_path
from satlight.errors import SatlightError

if TYPE_CHECKING:
    import numpy as np

    from satlight.evaluation.rule_fit import FittedRule, RuleRows
    from satlight.records import PerformanceRecords
    from satlight.routers import Router
    from satlight.rules import Rule


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit the decision rule of a router on validation rows",
        description="Fit a decision rule on validation rows, measure it on held-out folds of them, and save it in the "
        "router folder. Test rows are never read.",
    )
    parser.add_argument("router", type=user_path, metavar="DIR", help="router folder, e.g. runs/full/1/router")
    rule = parser.add_mutually_exclusive_group(required=True)
    rule.add_argument("--target", type=float, metavar="Q", help="cheapest choices with a mean outcome of Q, 0 to 1")
    rule.add_argument("--budget", type=float, metavar="USD", help="best choices at this mean cost per request")
    rule.add_argument("--utility", type=float, metavar="W", help="probability - W * cost in US dollars; only measured")
    rule.add_argument("--best", action="store_true", help="the highest probability; only measured")
    parser.add_argument(
        "--records", metavar="DIR", help="records folder, .csv or .jsonl file (default: those of the run around DIR)"
    )
    parser.add_argument("--score-column", default="score", help="column of the outcomes (default: score)")
    parser.add_argument("--datasets", nargs="+", metavar="NAME", help="names or patterns to keep")
    parser.add_argument("--split-column", default="split", metavar="NAME", help="column of the splits (default: split)")
    parser.add_argument("--group-column", help="column of groups that stay in one split and one fold")
    parser.add_argument(
        "--validation-fraction", type=float, default=0.1, metavar="F", help="as in `fit` (default: 0.1)"
    )
    parser.add_argument(
        "--split",
        choices=("validation", "all"),
        default="validation",
        help="all: every row but those of test, for a log that the router has not been trained on",
    )
    parser.add_argument(
        "--temperature", action="store_true", help="also fit the temperature of the probabilities again"
    )
    parser.add_argument("--folds", type=int, default=5, metavar="K", help="folds of the held-out figures (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of validation draw, folds and bootstrap (default: 0)")
    parser.add_argument("--batch-size", type=int, default=32, help="instructions scored at once (default 32)")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module whose classes the router folder may use, besides satlight's own; may be repeated",
    )
    parser.set_defaults(run=run_calibrate)


class _Log(NamedTuple):
    """Records with splits, without test rows, and where they came from."""

    records: PerformanceRecords
    group_column: str | None
    source: str


def run_calibrate(args: argparse.Namespace) -> None:
    """Fit, print and save."""
    from satlight.evaluation.rule_fit import cross_fit
    from satlight.routers import Router
    from satlight.storage.classes import describe
    from satlight.storage.editing import editable, rewrite

    check_batch_size(args.batch_size)
    rule = _rule(args)
    editable(args.router)
    router = Router.from_pretrained(args.router, allow=args.allow)
    log = _log(args)
    fitted_on = _unseen_rows(router, log, args.split)
    router.candidates = _with_costs(router, log)
    names = _common(router, fitted_on)
    rows = _scored(router, fitted_on, names, rule, args)
    groups = _groups(fitted_on, log.group_column)
    found = cross_fit(rule, rows, names, groups, folds=args.folds, seed=args.seed)
    _print(found, rule, log.records.name)

    config = editable(args.router)
    config["rule"] = describe(found.rule, args.router)
    config["calibration"] = asdict(found.calibration)
    config["about"]["rule"] = {**found.facts(), "data": log.records.facts(), "split": args.split, "seed": args.seed}
    rewrite(args.router, config, router.candidates)
    print(f"saved in {args.router}: `satlight route` uses {found.rule.text} from now on")


def _rule(args: argparse.Namespace) -> Rule:
    from satlight.rules import BestQuality, CheapestAtLeast, Utility, WithinBudget

    if args.target is not None:
        return CheapestAtLeast(args.target)
    if args.budget is not None:
        return WithinBudget(args.budget)
    return BestQuality() if args.utility is None else Utility(args.utility)


# -- rows --------------------------------------------------------------------------------------------------


def _log(args: argparse.Namespace) -> _Log:
    """Open the records that were given, without what the run was trained on, or those of the run around the folder."""
    import numpy as np

    from satlight.cli import runs
    from satlight.data.trained_on import TrainedOn
    from satlight.records import open_records, split_records, use_split

    run = args.router.resolve().parent / runs.CONFIG
    if args.records is not None:
        records = use_split(open_records(args.records, args.score_column, datasets=args.datasets), args.split_column)
        split = split_records(
            records, validation_fraction=args.validation_fraction, seed=args.seed, group_column=args.group_column
        )
        known = run.with_name(runs.TRAINED_ON)
        if known.is_file():
            # It lists train and validation rows alike, so a row of either cannot be told to be unseen.
            split = np.where(TrainedOn.load(known).holds(records), "dropped", split)
            if not np.isin(split, ["train", "validation"]).any():
                raise SatlightError(
                    f"The run of {args.router} was trained on all rows of '{records.name}'. Leave out --records to use "
                    "the run's own validation rows, or give a log that it has not seen"
                )
        records, source, group_column = records.with_splits(split), args.records, args.group_column
    elif run.is_file():
        from satlight.cli.export import rebuild
        from satlight.cli.startup import import_torchmetrics_alone

        import_torchmetrics_alone()
        _, data = rebuild(run.parent)
        data.setup("fit")
        records, source, group_column = data.records, data.source, data.group_column
    else:
        raise SatlightError(
            f"{args.router} lies in no run folder, so its records are unknown; give them with --records"
        )
    return _Log(records.filter(splits=["train", "validation"]), group_column, source)


def _unseen_rows(router: Router, log: _Log, split: str) -> PerformanceRecords:
    """Return the rows to fit the rule on, none of which the router may have learned from."""
    from satlight.baselines.base import Baseline

    learned = dict(router.about.get("data", {})).get("fingerprint") == log.records.fingerprint
    if learned and (split == "all" or isinstance(router, Baseline)):
        raise SatlightError(
            f"The router has learned from these very rows of '{log.records.name}', on which its scores look better "
            "than they are. Give a log that it has not seen (--records FILE --split all), or fit a baseline on train "
            "rows only"
        )
    rows = log.records if split == "all" else log.records.filter(splits=["validation"])
    if not rows.shape[0]:
        raise SatlightError(f"'{log.records.name}' has no validation rows; raise --validation-fraction")
    return rows


def _with_costs(router: Router, log: _Log) -> Any:
    """Return the candidates of the router with the costs of the log, measured on its train rows if there are any."""
    from satlight.records.usage import mean_tokens_out, with_log_costs

    train = log.records.filter(splits=["train"])
    rows = train if train.shape[0] else log.records
    ids = [str(one) for one in rows.instructions["instruction_id"].to_list()]
    tokens = mean_tokens_out(log.source, ids) if Path(log.source).expanduser().is_dir() else {}
    return with_log_costs(router.candidates, rows, tokens)


def _common(router: Router, records: PerformanceRecords) -> list[str]:
    from satlight.records.names import listed

    names = [name for name in router.model_ids if name in records.model_ids]
    if missing := [name for name in router.model_ids if name not in names]:
        raise SatlightError(
            f"'{records.name}' has no outcomes of {listed(missing)}, so a rule that may choose them cannot be "
            "measured. Give a log with all candidates, or take them out of the router with `satlight zoo remove`"
        )
    return names


def _groups(records: PerformanceRecords, group_column: str | None) -> np.ndarray:
    """Return what keeps rows in one fold: the group where there is one, else the text."""
    import numpy as np

    texts = records.texts
    if group_column is None:
        return np.array(texts)
    groups = records.instructions[group_column].to_list()
    return np.array([text if group is None else f"group {group}" for group, text in zip(groups, texts, strict=True)])


def _scored(
    router: Router, records: PerformanceRecords, names: list[str], rule: Rule, args: argparse.Namespace
) -> RuleRows:
    """Score the rows and look up what each candidate brought and cost."""
    import sys

    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from satlight.costs import expected_costs, require_costs
    from satlight.evaluation.rule_fit import RuleRows

    if rule.needs_costs:
        require_costs(router.candidates, f"The rule {rule.text}")
    records = records.filter(candidates=names)
    columns = [records.model_ids.index(name) for name in names]
    requests = records.requests()
    starts = range(0, len(requests), args.batch_size)
    if sys.stderr.isatty():
        starts = track(starts, "scoring", console=Console(stderr=True), transient=True)  # type: ignore[assignment]
    score_NM = np.concatenate([router.score(requests[i : i + args.batch_size], names).log_odds_BC for i in starts])
    expected_NM = expected_costs(router.candidates, requests)
    paid_NM = expected_NM
    if records.costs is not None:
        cost_NM = np.asarray(records.costs, dtype=np.float64)[:, columns]
        paid_NM = np.where(np.isfinite(cost_NM), cost_NM, expected_NM)
    outcome_NM, known_NM = (np.asarray(matrix)[:, columns] for matrix in (records.outcomes, records.known))
    temperature = None if args.temperature else router.calibration
    return RuleRows(score_NM, expected_NM, outcome_NM, known_NM, paid_NM, temperature, tuple(names))


# -- printing ----------------------------------------------------------------------------------------------


def _print(found: FittedRule, rule: Rule, name: str) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from satlight.rules import CheapestAtLeast, WithinBudget

    def interval(values: tuple[float, float, float], scale: float = 1) -> str:
        mean, low, high = (scale * value for value in values)
        return "–" if mean != mean else f"{mean:.3f} (95 %: {low:.3f} to {high:.3f})"

    console = Console()
    figures = Table(title=Text(f"{rule.text} on {found.rows} rows of {name}"), title_justify="left", box=SIMPLE)
    for heading in ("", "goal", f"held out, {found.folds} folds"):
        figures.add_column(heading, overflow="fold")
    quality = f"≥ {rule.target:g}" if isinstance(rule, CheapestAtLeast) else "–"
    cost = f"≤ {1000 * rule.usd:g}" if isinstance(rule, WithinBudget) else "–"
    figures.add_row("mean outcome", quality, interval(found.quality))
    figures.add_row("US dollars per 1,000 requests", cost, interval(found.cost, 1000))
    threshold = getattr(found.rule, "threshold", None)
    if threshold is not None:
        figures.add_row("threshold", "–", f"{threshold:.6g} (fitted to all rows)")
    if found.unknown:
        figures.add_row("choices without a record", "–", f"{found.unknown:.1%}, not counted")
    console.print(figures)
    shares = Table(box=SIMPLE)
    shares.add_column("candidate", overflow="fold")
    shares.add_column("share of choices", justify="right", no_wrap=True)
    for model_id, share in sorted(found.shares.items(), key=lambda item: -item[1]):
        if share:
            shares.add_row(Text(model_id), f"{share:.1%}")
    console.print(shares)
