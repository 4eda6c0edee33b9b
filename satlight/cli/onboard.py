"""``satlight onboard``: a new candidate takes the aptitude test of a router and joins its zoo."""

from __future__ import annotations

import argparse
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from satlight.cli.asking import ask_and_grade, require_cost, shots
from satlight.cli.route import user_path
from satlight.errors import SatlightError

if TYPE_CHECKING:
    from satlight.routers import Router
    from satlight.routing.onboarding.items import Item
    from satlight.routing.onboarding.profile import Accuracy, Place
    from satlight.types import Candidate

NEIGHBORS = 3
"""Nearest known candidates that are shown."""


def add_parser(subparsers: Any) -> None:
    """Add the verb to the satlight command."""
    parser = subparsers.add_parser(
        "onboard",
        help="let a new model take the aptitude test and add it to a router folder",
        description="Ask a new model the items of the router's aptitude test, grade its answers, and admit it to the "
        "router without training. Answers are kept, so that a run that was stopped goes on without paying twice.",
    )
    parser.add_argument("--router", required=True, type=user_path, metavar="DIR", help="router folder")
    parser.add_argument("--model", metavar="NAME", help="name of the new candidate in the router")
    parser.add_argument("--to", type=user_path, metavar="DIR", help="write the router there (default: in place)")
    parser.add_argument("--shots", type=int, metavar="N", help="ask N items only, the most informative first")
    parser.add_argument(
        "--items", type=user_path, metavar="FILE", help="items with answers, for a router folder that holds none"
    )
    parser.add_argument("--images", type=user_path, metavar="DIR", help="folder with the images of the items")
    parser.add_argument(
        "--traffic",
        type=user_path,
        metavar="FILE",
        help="JSON lines of instructions to count choices on (default: items)",
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="MODULE", help="a module whose classes the folder may use, too"
    )
    _add_sources(parser)
    _add_asking(parser)
    group = parser.add_argument_group("grading and price")
    group.add_argument(
        "--grader",
        metavar="NAME",
        help="letter, exact, numeric, contains, math, or a command that reads JSON, prints 0 to 1 (default: by item)",
    )
    group.add_argument("--price-in", type=float, metavar="USD", help="US dollars per million prompt tokens")
    group.add_argument("--price-out", type=float, metavar="USD", help="US dollars per million generated tokens")
    group.add_argument("--tokens-out", type=float, metavar="N", help="mean generated tokens (default: as in the test)")
    parser.set_defaults(run=run_onboard)


def _add_sources(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model, or its answers")
    group.add_argument("--api-base", metavar="URL", help="OpenAI-compatible address, e.g. http://localhost:8000/v1")
    group.add_argument("--api-key-env", metavar="VAR", help="variable of the environment that holds the key")
    group.add_argument(
        "--litellm-model", metavar="ID", help="provider and name for litellm (default: openai/NAME of --model)"
    )
    group.add_argument("--hf", metavar="PATH", help="a local transformers model, folder or name on the hub")
    group.add_argument("--export", type=user_path, metavar="FILE", help="write the items, to be answered elsewhere")
    group.add_argument(
        "--results", type=user_path, metavar="FILE", help="JSON lines with id and answer, or id and score from 0 to 1"
    )


def _add_asking(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("asking")
    group.add_argument("--concurrency", type=int, default=8, metavar="N", help="requests at a time (default: 8)")
    group.add_argument("--retries", type=int, default=5, metavar="N", help="further attempts per item (default: 5)")
    group.add_argument("--requests-per-minute", type=float, metavar="N", help="most requests per minute")
    group.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds per answer (default: 120)")
    group.add_argument("--max-tokens", type=int, default=2048, metavar="N", help="most tokens of one (default: 2048)")
    group.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: 0")
    group.add_argument("--suffix", metavar="TEXT", help="last line of every prompt, instead of the form of the answer")
    group.add_argument("--cache", type=user_path, metavar="DIR", help="kept answers (default: ROUTER-answers)")
    group.add_argument("--yes", action="store_true", help="start without asking whether the cost is right")


def run_onboard(args: argparse.Namespace) -> None:
    """Export the items, or ask, grade, admit, save and print."""
    _check_mode(args)
    router = _load(args)
    items = _items(router, args)
    if args.export is not None:
        from satlight.routing.onboarding.items import export_items

        chosen = items[: shots(args, items)]
        export_items(chosen, args.export, args.suffix)
        print(f"wrote {len(chosen)} of {len(items)} items to {args.export}; answer them, then use --results")
        return
    candidate = _candidate(router, args)
    chosen, scores, candidate = (_graded if args.results else ask_and_grade)(router, items, candidate, args)
    _finish(router, chosen, scores, candidate, args)


def _check_mode(args: argparse.Namespace) -> None:
    modes = {
        "--export": args.export is not None,
        "--results": args.results is not None,
        "--hf": args.hf is not None,
        "--api-base or --litellm-model": bool(args.api_base or args.litellm_model),
    }
    given = [name for name, there in modes.items() if there]
    if len(given) != 1:
        raise SatlightError(f"onboard got {' and '.join(given) or 'no model'}; give one of {', '.join(modes)}")
    if args.export is None and not (args.model or "").strip():
        raise SatlightError("onboard needs the name of the new candidate: --model NAME")
    if args.export is not None and (args.model or args.to):
        raise SatlightError("--export writes the items and changes no router; leave out --model and --to")


def _load(args: argparse.Namespace) -> Router:
    import numpy as np

    from satlight.routers import Router
    from satlight.storage.editing import editable
    from satlight.types import AptitudeResults, Candidate

    if args.to is None and args.export is None:
        editable(args.router)
    router = Router.from_pretrained(args.router, allow=args.allow)
    if args.export is None and args.model in router.model_ids:
        raise SatlightError(
            f"The router has a candidate '{args.model}' already; choose another --model, or take it out first with "
            f"`satlight zoo remove {args.router} {args.model}`"
        )
    if args.export is None and type(router).admit is Router.admit:
        router.admit(Candidate(args.model), AptitudeResults(("any",), ("any",), np.zeros(1)))  # raises what it says
    return router


def _items(router: Router, args: argparse.Namespace) -> list[Item]:
    """Return the items of the router in the order in which they are asked."""
    from satlight.routing.onboarding.items import core_items, informative_first, read_items

    test = getattr(router, "test", None)
    known = getattr(router, "row_ids", None) if type(router).__name__ == "AptitudeKNN" else None
    if test is None and args.items is None:
        raise SatlightError(
            f"{args.router} holds a {type(router).__name__}, which keeps no texts of an aptitude test; give items with "
            "answers: --items FILE, as AptitudeTest.export writes them"
        )
    if args.items is None:
        assert test is not None
        return core_items(test, args.images)
    items = read_items(args.items)
    if test is not None:
        known = [
            item.item_id
            for item in core_items(replace(test, tasks=tuple(replace(task, images=()) for task in test.tasks)))
        ]
    if known is None:
        return informative_first(items, {})
    by_id = {item.item_id: item for item in items}
    found = [by_id[name] for name in known if name in by_id]
    if not found:
        raise SatlightError(
            f"{args.items}: none of its {len(items)} items belongs to the aptitude test of {args.router}, whose "
            f"ids are like '{known[0]}'"
        )
    return found if test is not None else informative_first(found, {})


def _candidate(router: Router, args: argparse.Namespace) -> Candidate:
    """Return the new candidate with the prices that were given."""
    from satlight.records.tables import check_candidates
    from satlight.types import Candidate

    prices = {"price_in": args.price_in, "price_out": args.price_out, "tokens_out": args.tokens_out}
    return check_candidates([asdict(Candidate(args.model, **prices))], "--price-in, --price-out, --tokens-out")[0]


# -- answers -----------------------------------------------------------------------------------------------


def _graded(
    router: Router, items: list[Item], candidate: Candidate, args: argparse.Namespace
) -> tuple[list[Item], list[float], Candidate]:
    """Grade the results of a file."""
    from satlight.routing.onboarding.graders import grader
    from satlight.routing.onboarding.items import read_results

    require_cost(router, candidate)
    grade = grader(args.grader)
    count = None if args.shots is None else shots(args, items)
    results = read_results(args.results, items, count)
    scores = [grade(item, value) if isinstance(value, str) else value for item, value in results]
    return [item for item, _ in results], scores, candidate


def _finish(
    router: Router, items: list[Item], scores: list[float], candidate: Candidate, args: argparse.Namespace
) -> None:
    """Admit, save and print."""
    from satlight.routing.onboarding.profile import accuracies, place, results_of

    admitted = router.admit(candidate, results_of(items, scores))
    requests = _traffic(args) or results_of(items, scores).requests()
    found = place(admitted, candidate.model_id, requests)
    admitted.save(args.to or args.router)
    what = f"{len(requests)} instructions of {args.traffic}" if args.traffic else f"the {len(items)} items"
    _print(accuracies(items, scores), found, candidate, what)
    print(
        f"admitted {candidate.model_id}; the router in {args.to or args.router} has {len(admitted.candidates)} "
        "candidates"
    )
    if hasattr(router.rule, "threshold"):
        print(f"Its rule {router.rule.text} was fitted without the candidate; fit it again with `satlight calibrate`")


def _traffic(args: argparse.Namespace) -> list[Any]:
    from satlight.cli.route import Asked, read_row
    from satlight.files import read_text

    requests = []
    text = read_text(args.traffic, "--traffic takes instructions as JSON lines") if args.traffic else ""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            row = read_row(line, args.traffic.parent, f"{args.traffic}, line {number}")
            if not isinstance(row, Asked):
                raise row
            requests.append(row.request)
    if args.traffic and not requests:
        raise SatlightError(f"--traffic {args.traffic} has no instructions")
    return requests


def _print(rows: list[Accuracy], found: Place, candidate: Candidate, what: str) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=SIMPLE, title=Text(f"{candidate.model_id} on the aptitude test"), title_justify="left")
    table.add_column("task", overflow="fold")
    for heading in ("items", "accuracy", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(Text(row.name), str(row.items), f"{row.mean:.3f}", f"{row.low:.3f} to {row.high:.3f}")
    console.print(table)
    near = ", ".join(f"{name} ({distance:.3f})" for name, distance in found.neighbors[:NEIGHBORS])
    console.print(Text(f"nearest known candidates (mean distance of Pr(correct)): {near or 'none'}"))
    console.print(Text(f"share of {what} that the router sends to it: {found.shares[candidate.model_id]:.1%}"))
