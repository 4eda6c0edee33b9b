"""The part of ``satlight onboard`` that asks: which model, at what cost, and what it answered."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from satlight.errors import SatlightError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from satlight.routers import Router
    from satlight.routing.onboarding.cache import Answer, AnswerCache
    from satlight.routing.onboarding.endpoints import Source
    from satlight.routing.onboarding.items import Item
    from satlight.types import Candidate


def ask_and_grade(
    router: Router, items: list[Item], candidate: Candidate, args: argparse.Namespace
) -> tuple[list[Item], list[float], Candidate]:
    """Ask the model what is not in the cache, and grade all its answers."""
    from satlight.routing.onboarding.cache import AnswerCache
    from satlight.routing.onboarding.graders import grader, needs_reference

    grade = grader(args.grader)
    if needs_reference(args.grader):
        items = _with_answers(items, args)
        for item in items[: shots(args, items)]:
            grade(item, "")  # an unfit reference is an error before anything is paid
    chosen = items[: shots(args, items)]
    source = source_of(args)
    if candidate.price_in is None and candidate.price_out is None and (prices := source.prices()):
        candidate = replace(candidate, price_in=prices[0], price_out=prices[1])
    require_cost(router, candidate if candidate.tokens_out is not None else replace(candidate, tokens_out=0.0))
    folder = args.cache or args.router.resolve().with_name(f"{args.router.resolve().name}-answers")
    cache = AnswerCache(folder)
    if cache.damaged:
        print(f"{cache.path}: {cache.damaged} unreadable line(s) are ignored", file=sys.stderr)
    keys = [source.key(item) for item in chosen]
    todo = [(item, key) for item, key in zip(chosen, keys, strict=True) if key not in cache.answers]
    if todo:
        _confirm(router, candidate, [item for item, _ in todo], len(chosen), args)
        _run(source, todo, cache, args)
    answers = [cache.answers[key] for key in keys]
    _report_unfinished(answers, args)
    tokens = [answer.tokens_out for answer in answers if answer.tokens_out is not None]
    if candidate.tokens_out is None and tokens:
        candidate = replace(candidate, tokens_out=sum(tokens) / len(tokens))
    require_cost(router, candidate)
    return chosen, [grade(item, answer.text) for item, answer in zip(chosen, answers, strict=True)], candidate


def shots(args: argparse.Namespace, items: Sequence[Item]) -> int:
    """Return the number of items to ask."""
    if args.shots is not None and not 1 <= args.shots <= len(items):
        raise SatlightError(f"--shots is {args.shots}; allowed are 1 to {len(items)}, the number of items")
    return args.shots or len(items)


def require_cost(router: Router, candidate: Candidate) -> None:
    """Refuse a candidate without the prices that the rule of the router reads."""
    from satlight.costs import require_costs

    if router.rule.needs_costs:
        require_costs([candidate], f"The rule {router.rule.text} of the router")


def source_of(args: argparse.Namespace) -> Source:
    """Return the model that the arguments name."""
    from satlight.routing.onboarding.endpoints import Endpoint, Sampling

    sampling = Sampling(args.max_tokens, args.temperature, args.suffix)
    if args.hf is not None:
        from satlight.routing.onboarding.local_model import LocalModel

        return LocalModel(args.hf, sampling)
    key = None
    if args.api_key_env is not None and not (key := os.environ.get(args.api_key_env, "").strip()):
        raise SatlightError(
            f"--api-key-env {args.api_key_env}: this variable is not set or empty; export the key in it"
        )
    if args.api_base is not None and not args.api_base.lower().startswith(("http://", "https://")):
        raise SatlightError(f"--api-base is {args.api_base!r:.80}; it must start with http:// or https://")
    return Endpoint(args.litellm_model or f"openai/{args.model}", sampling, args.api_base, key, args.timeout)


def _with_answers(items: list[Item], args: argparse.Namespace) -> list[Item]:
    kept = [item for item in items if item.answer is not None]
    if not kept:
        raise SatlightError(
            f"None of the {len(items)} items has a reference answer: the records behind {args.router} had no column "
            "`answer`. Give items with answers (--items FILE), a command as --grader, or graded results "
            "(--export, then --results with scores)"
        )
    if len(kept) < len(items):
        print(
            f"{len(items) - len(kept)} of {len(items)} items have no reference answer and are left out", file=sys.stderr
        )
    return kept


def _confirm(router: Router, candidate: Candidate, todo: list[Item], total: int, args: argparse.Namespace) -> None:
    """Show what the run will take, and ask."""
    from satlight.costs import PER, prompt_tokens

    known = [one.tokens_out for one in router.candidates if one.tokens_out is not None]
    means = {
        "--tokens-out": candidate.tokens_out,
        "the known candidates' mean": sum(known) / len(known) if known else None,
    }
    basis, expected = next(
        ((name, min(mean, args.max_tokens)) for name, mean in means.items() if mean is not None),
        ("--max-tokens, the most", float(args.max_tokens)),
    )
    tokens_in = float(prompt_tokens([item.prompt(args.suffix) for item in todo]).sum())
    tokens_out = expected * len(todo)
    price = "its price is unknown (--price-in, --price-out)"
    if candidate.price_in is not None and candidate.price_out is not None:
        usd = (tokens_in * candidate.price_in + tokens_out * candidate.price_out) / PER
        price = f"{usd:.2f} US dollars at {candidate.price_in:g} in and {candidate.price_out:g} out per million"
    print(
        f"{total} items, {total - len(todo)} answered before, {len(todo)} to ask: about {tokens_in:.0f} prompt tokens "
        f"and {tokens_out:.0f} generated ({basis}); {price}",
        file=sys.stderr,
    )
    if args.yes or args.hf is not None:
        return
    if not sys.stdin.isatty():
        raise SatlightError("The cost must be confirmed, but standard input is no terminal; add --yes")
    if input("Start? [y/N] ").strip().lower() not in ("y", "yes"):
        raise SatlightError("Not started; nothing was asked")


def _run(source: Source, todo: list[tuple[Item, str]], cache: AnswerCache, args: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import Progress

    from satlight.routing.onboarding.runner import Pace, ask_all

    pace = Pace(1 if args.hf is not None else args.concurrency, args.retries, args.requests_per_minute)
    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("asking", total=len(todo))

        def keep(asked: tuple[Item, str], answer: Answer) -> None:
            cache.put(asked[1], asked[0].item_id, answer)
            progress.advance(bar)

        asyncio.run(ask_all(todo, lambda asked: source.ask(asked[0]), keep, pace))


def _report_unfinished(answers: list[Answer], args: argparse.Namespace) -> None:
    cut = sum(answer.finish == "length" for answer in answers)
    if cut:
        print(
            f"{cut} of {len(answers)} answers were cut off at {args.max_tokens} tokens; if the candidate may write "
            "more in use, raise --max-tokens",
            file=sys.stderr,
        )
    refused = sum(not answer.text.strip() for answer in answers)
    if refused:
        print(f"{refused} of {len(answers)} answers are empty or were refused; they count as wrong", file=sys.stderr)


# -- the new router ----------------------------------------------------------------------------------------
